"""Canonical forms: regions with one entry that part and meet again (docs/definitions.md).

Where an elementwise call reads two tensors that both come from one, by elementwise operations and
statistics alone, the call is not a merge but the end of a scalar function of that one tensor:
x * sigmoid(x), a GELU written out, a LayerNorm written out. With the statistics (means, norms,
denominators) held fixed, the function is either affine - then the region is a normalization, a
pass - or it is one activation.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value

NONLINEAR = math.inf
SUMS = frozenset(aten("add sub rsub subtract"))
SAME = frozenset(
    aten(
        "neg negative positive clone alias detach contiguous to _to_copy type_as dropout"
        " feature_dropout alpha_dropout feature_alpha_dropout nan_to_num lift_fresh_copy"
    )
)
_NAMED = frozenset(  # functions that models use as activations; all others are arithmetic
    aten(
        "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish sigmoid special_expit"
        " hardsigmoid tanh hardtanh hardswish softplus log_sigmoid softshrink hardshrink threshold"
        " sin cos"
    )
)
_EXPANDABLE = frozenset({"elementwise", "normalization", "reduction", "movement", "softmax"})


@dataclass(frozen=True, slots=True)
class Region:
    """A scalar function of one tensor.

    Attributes:
        entry: the tensor.
        affine: whether its form alone shows that the function is affine, statistics held fixed.
        normalization: whether it has statistics of the entry in it.
        calls: the calls between the entry and the last one.
    """

    entry: Value
    affine: bool
    normalization: bool
    calls: tuple[Call, ...] = ()


def varying_operands(call: Call) -> list[Value]:
    """The operands that are not constant, each once."""
    return list({id(v): v for v in call.values() if v.varies}.values())


def calls_between(call: Call, entry: Value) -> list[Call]:
    """A call, and those between a value that it is a function of and it."""
    calls, seen = [call], {id(call)}
    for at in calls:  # grows while it is walked
        for operand in varying_operands(at):
            before = operand.call
            if before is not None and operand.order > entry.order and id(before) not in seen:
                seen.add(id(before))
                calls.append(before)
    return calls


def find_region(call: Call) -> Region | None:
    """The smallest region that ends in an elementwise call, None where there is none.

    Walks back from the operands, latest first; the first moment when a single value is left,
    everything has passed through it. O(r log r) for a region of r calls; the walk ends at the
    first layer, input or contraction.
    """
    operands = varying_operands(call)
    frontier = {id(value): value for value in operands}
    heap = [(-value.order, id(value)) for value in operands]
    heapq.heapify(heap)
    has_statistics = False
    calls: list[Call] = []
    while len(frontier) > 1 or not next(iter(frontier.values())).is_path:
        value = frontier.pop(heapq.heappop(heap)[1])
        if value.call is None or kind_of(value) not in _EXPANDABLE:
            return None
        has_statistics |= kind_of(value) == "reduction"
        calls.append(value.call)
        for operand in varying_operands(value.call):
            if id(operand) not in frontier:
                frontier[id(operand)] = operand
                heapq.heappush(heap, (-operand.order, id(operand)))
    entry = next(iter(frontier.values()))
    found = degree_of_call(call, entry, {})
    if not found:  # elements change places, or the entry is met again by its statistics only
        return None
    return Region(entry, found <= 1, has_statistics, tuple(calls))


def first_entry(call: Call, region: Region, readers: Mapping[int, int]) -> Value:
    """Where the scalar function begins that a region ends, arithmetic after an activation included.

    relu(x) ** 2, sqrt(softplus(x)), 1 / (1 + exp(-x)) and log(1 + exp(x)) are one function each:
    arithmetic on the result of an activation that nothing else reads belongs to it, over affine
    calls in between. A named activation, relu or tanh, always begins a function of its own.

    Args:
        call: the last call of the region.
        region: it ends in the call; its entry is the only operand where the call is a single one.
        readers: how many calls read the result of a node.
    """
    calls = (*region.calls, call)
    inner = region.entry
    if region.normalization or any(c.name in _NAMED for c in calls):
        return region.entry
    if readers.get(id(inner.node), 0) != sum(inner in varying_operands(c) for c in calls):
        return region.entry  # something else reads it
    while inner.function_of is None:
        if inner.call is None or kind_of(inner) != "elementwise":
            return region.entry
        below = varying_operands(inner.call)
        if len(below) != 1 or degree_of_call(inner.call, below[0], {}) != 1:
            return region.entry
        inner = below[0]
        if readers.get(id(inner.node), 0) != 1:
            return region.entry
    return inner.function_of


def degree(value: Value, entry: Value, known: dict[int, float | None]) -> float | None:
    """Degree of a value as a function of `entry`, statistics held fixed.

    Returns:
        0 for a constant or statistic, 1 for an affine function, `NONLINEAR` otherwise, None where
        elements have changed places, so that the value is no function of single elements.
    """
    if value is entry:
        return 1
    if not value.varies:
        return 0
    if id(value) not in known:
        known[id(value)] = None if value.call is None else _degree(value, entry, known)
    return known[id(value)]


def degree_of_call(call: Call, entry: Value, known: dict[int, float | None]) -> float | None:
    """`degree` of the result of an elementwise call."""
    of = {
        name: degree(argument, entry, known) if isinstance(argument, Value) else 0
        for name, argument in call.arguments.items()
    }
    degrees = list(of.values())
    if any(d is None for d in degrees):
        return None
    highest: float = max(d for d in degrees if d is not None)
    if highest == 0 or call.name in SAME | SUMS:
        return NONLINEAR if highest and _rounds(call) else highest
    if call.name in ("aten.mul", "aten.multiply"):
        return highest if sum(d != 0 for d in degrees) == 1 else NONLINEAR
    if call.name in ("aten.div", "aten.divide", "aten.true_divide"):
        rounds = call.arguments.get("rounding_mode") is not None
        return NONLINEAR if of["other"] or rounds else highest
    if call.name in ("aten.where", "aten.masked_fill", "aten.lerp"):
        control = {"aten.where": "condition", "aten.masked_fill": "mask", "aten.lerp": "weight"}
        return NONLINEAR if of[control[call.name]] else highest
    if call.name == "aten.addcmul":
        return NONLINEAR if of["tensor1"] and of["tensor2"] else highest
    if call.name == "aten.addcdiv":
        return NONLINEAR if of["tensor2"] else highest
    return NONLINEAR


def _rounds(call: Call) -> bool:
    """Whether real numbers become integers; integers that stay integers lose nothing."""
    output = call.output
    return not (output.is_floating_point() or output.is_complex()) and any(
        value.dtype.is_floating_point for value in call.values()
    )


def _degree(value: Value, entry: Value, known: dict[int, float | None]) -> float | None:
    assert value.call is not None
    kind = kind_of(value)
    if kind in ("reduction", "softmax"):
        return 0  # a statistic, held fixed
    operands = [degree(operand, entry, known) for operand in varying_operands(value.call)]
    if any(operand is None for operand in operands):
        return None
    highest: float = max((operand for operand in operands if operand is not None), default=0)
    if kind == "normalization":
        return highest
    if kind == "movement":
        return 0 if highest == 0 else None
    return degree_of_call(value.call, entry, known)


def flattened_summands(operands: list[Value], readers: Mapping[int, int]) -> list[Value]:
    """Operands of a sum, those that are sums read by nobody else replaced by theirs.

    (a + b) + c with no other reader of a + b is one merge of three; a scaling, cast or dropout
    (inactive in eval mode) in between does not change that.
    """
    flat: list[Value] = []
    for operand in operands:
        inner = operand
        while readers.get(id(inner.node), 0) == 1 and not inner.summands:
            if inner.call is None or kind_of(inner) != "elementwise":
                break
            below = varying_operands(inner.call)
            if len(below) != 1 or degree_of_call(inner.call, below[0], {}) != 1:
                break
            inner = below[0]
        if inner.summands and readers.get(id(inner.node), 0) == 1:
            flat += inner.summands
        else:
            flat.append(operand)
    return flat
