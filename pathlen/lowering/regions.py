"""Regions: calls that together compute a scalar function of one tensor (docs/definitions.md).

Where a call reads tensors that all come from one, by elementwise operations, movements and
statistics alone, and each element of the result is computed from one element of that tensor, the
call is not a merge but the end of a scalar function: x * sigmoid(x), a mask times what it was made
from, a LayerNorm written out. With statistics (means, norms, denominators) held fixed the function
is either affine - then the region is a normalization, a pass - or it is one activation.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pathlen.lowering.constants import Constants
from pathlen.lowering.contracted import adds_up
from pathlen.lowering.follow import Follower, follow, followed_operands
from pathlen.lowering.memory import Assembled
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.stacks import JOINS, SCALINGS
from pathlen.lowering.states import State
from pathlen.lowering.values import Call, Value, varying_operands

_NAMED = frozenset(  # functions that models use as activations; all others are arithmetic
    aten(
        "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish sigmoid special_expit"
        " hardsigmoid tanh hardtanh hardswish softplus log_sigmoid softshrink hardshrink threshold"
        " sin cos"
    )
)
EXPANDABLE = frozenset(
    {"elementwise", "normalization", "reduction", "movement", "softmax", "contraction"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A scalar function of one tensor.

    Attributes:
        entry: the tensor.
        state: of the result as a function of the entry.
        between: the values between the entry and the result, in order.
        states: of these; None where one is no function of single elements.
        last: the call that gives the result.
    """

    entry: Value
    state: State
    between: tuple[Value, ...]
    states: tuple[State | None, ...]
    last: Call

    @property
    def normalization(self) -> bool:
        """Whether it has statistics of the entry in it."""
        return any(s is not None and not s.degree and bool(s.places) for s in self.states)

    @property
    def affine(self) -> bool:
        """Whether its form alone shows that the function is affine, statistics held fixed."""
        return self.state.degree <= 1

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls between the entry and the result, the last one included."""
        inner = {id(v.call): v.call for v in self.between if v.call is not None}
        return (*inner.values(), self.last)

    @property
    def constants(self) -> list[Value]:
        """The constants that the calls read, those among stacked tensors included."""
        read = [value for call in self.calls for value in call.values()]
        for value in read:  # grows: what was put together and reduced again
            joined = value.call is not None and value.call.name in (*JOINS, *SCALINGS)
            if joined and value.call is not None and value not in self.between:
                read += [v for v in value.call.values() if v not in read]
        return list({id(v): v for v in read if not v.varies}.values())


def find_region(
    call: Call,
    operands: list[Value],
    constants: Constants,
    accepts: Callable[[Region], bool] | None = None,
) -> Region | None:
    """The smallest region that ends in an elementwise call, None where there is none.

    Walks back from the operands, latest first; whenever a single value is left, everything has
    passed through it. Where its elements do not meet in one place, the walk goes on to where
    tensors were put together. O(r log r) for a region of r calls; it ends at the first layer, input
    or merge of several tensors.

    Args:
        call: the last call.
        operands: the tensors that it reads and the input decides on.
        constants: gives the indices of movements.
        accepts: whether a region is wanted; by default all are.
    """
    frontier = {id(value): value for value in operands}
    heap = [(-value.order, id(value)) for value in operands]
    heapq.heapify(heap)
    between: list[Value] = []
    tried = False
    while frontier:
        if len(frontier) > 1:
            tried = False
        elif not tried and next(iter(frontier.values())).is_path:
            region = region_of(call, next(iter(frontier.values())), between, constants)
            if region is not None and (accepts is None or accepts(region)):
                return region
            tried = True  # elements of several places meet: before these were put side by side
            # or repeated, they may be one
        value = frontier.pop(heapq.heappop(heap)[1])
        if value.call is None:
            return None
        expandable = value.layer or kind_of(value) in EXPANDABLE
        if not expandable and not adds_up(value.call, constants):
            return None
        between.append(value)
        for operand in followed_operands(value.call):
            tried &= _axes_longer(operand) == _axes_longer(value)
            if id(operand) not in frontier:
                frontier[id(operand)] = operand
                heapq.heappush(heap, (-operand.order, id(operand)))
    return None


def _axes_longer(value: Value) -> tuple[int, int]:
    """How many axes and elements a tensor has."""
    return len(value.shape), value.shape.numel()


def region_of(
    call: Call, entry: Value, between: list[Value], constants: Constants
) -> Region | None:
    """The region from an entry to a call, None where it is no function of single elements.

    Args:
        call: the last call.
        entry: a path tensor.
        between: all values between the two.
        constants: gives the indices of movements.
    """
    ordered = tuple(sorted(between, key=lambda value: value.order))
    follower = Follower(entry, constants)
    for value in ordered:
        follower.add(value)
    state = follower.state_of_call(call, 0)
    if state is None or not state.degree:
        return None  # elements do not meet, or the entry is met again by its statistics only
    if not follower.is_broadcast_back(call, state):
        return None
    inner = tuple(follower.known[id(value)] for value in ordered)
    return Region(entry, state, ordered, inner, call)


def region_to_exponent(region: Region, constants: Constants) -> Region | None:
    """A region from what was exponentiated, where its entry holds the exponentials."""
    between, inner = list(region.between), region.entry
    while inner.function is None:
        below = varying_operands(inner.call) if inner.call is not None else []
        between.append(inner)
        if len(below) != 1:
            return None
        inner = below[0]
    before = inner.function.region
    return region_of(region.last, before.entry, [*between, inner, *before.between], constants)


def first_entry(region: Region, readers: Mapping[int, int], constants: Constants) -> Region:
    """Where the scalar function begins that a region ends, arithmetic after an activation included.

    relu(x) ** 2, sqrt(softplus(x)), 1 / (1 + exp(-x)) and log(1 + exp(x)) are one function each:
    arithmetic on the result of an activation that nothing else reads belongs to it, over affine
    calls and movements in between. A named activation, relu or tanh, always begins a function of
    its own.

    Args:
        region: a region that is not affine.
        readers: how many calls read the result of a node.
        constants: gives the indices of movements.
    """
    inner, calls = region.entry, region.calls
    if region.normalization or any(call.name in _NAMED for call in calls):
        return region
    reads = Counter(id(value) for own in calls for value in varying_operands(own))
    if readers.get(id(inner.node), 0) != reads[id(inner)]:
        return region  # something else reads it
    if any(isinstance(call.func, Assembled) and call.func.view for call in calls):
        return region  # or another view of the memory that it was written to
    for value, state in zip(region.between, region.states, strict=True):
        more = readers.get(id(value.node), 0) > reads[id(value)]
        if state is not None and state.degree and more:
            return region  # or what was made of it
    between = list(region.between)
    while inner.function is None:
        if inner.call is None or kind_of(inner) not in ("elementwise", "movement"):
            return region
        below = varying_operands(inner.call)
        if len(below) != 1:
            return region
        found = follow(below[0], (), inner.call, constants)
        if found is None or found.degree != 1:
            return region
        between.append(inner)
        inner = below[0]
        if readers.get(id(inner.node), 0) != 1:
            return region
    before = inner.function.region
    wider = region_of(region.last, before.entry, [*between, inner, *before.between], constants)
    return region if wider is None or wider.affine else wider
