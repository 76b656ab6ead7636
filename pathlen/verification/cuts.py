"""Where the dependencies of a call begin: at its operands, or at the entry of a region.

A canonical form makes one unit, or none, of several calls: x * sigmoid(x), a LayerNorm written
out, a sum of three. Its last call must then be checked from where the graph says that it begins.
What lies between is found here from the graph and the program, not from the rules of the lowering.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.labels import CONSTANT, distinct
from pathlen.lowering.operations import aten
from pathlen.lowering.ranks import Order, picked_by, read_by_rank, written_by_rank
from pathlen.lowering.rules import kind_of, kind_of_call
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Call, Value
from pathlen.policy import Policy
from pathlen.verification.replay import Tensors, call_differentiably
from pathlen.verification.statistics import holds_statistics, with_held_statistics

_STATISTICS = ("reduction", "softmax")
_EXPANDABLE = ("elementwise", "normalization", "movement", *_STATISTICS)
_ADDS = frozenset(aten("scatter_add scatter_reduce index_add index_reduce index_put"))
_TIMES = aten("mul multiply")
_OVER = aten("div divide true_divide")
SCALINGS = (*_TIMES, *_OVER)
_STEPS = aten("sign sgn heaviside")
_COUNTS = aten("histc bincount")
_PLACES = aten("nonzero nonzero_numpy argwhere where")  # of one tensor
_LINEAR = ("layer", "contraction")
_COMPLEX_PARTS = aten("real imag view_as_real")
_MASKED = (*_TIMES, "aten.lerp")
_SHIFTS = aten("sub subtract")
SUMS = aten("add sub subtract rsub addcmul addcdiv lerp sum mean")
_CHOOSE = aten("where masked_fill masked_scatter index index_put _index_put_impl index_fill")
_READS = aten("gather index_select index _unsafe_index")
_LOOK_UPS = (*_READS, *aten("take_along_dim embedding"))
_WRITES = _ADDS | frozenset(aten("scatter index_copy index_fill _index_put_impl _unsafe_index_put"))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A call as a function of some earlier values, everything else held fixed.

    Attributes:
        step: the call.
        values: what it is a function of: path values, with distinct identities.
        inside: values between those and the call, in order; they are computed anew.
        flat: where it lets a flat sum, product, maximum or minimum of a function of each value
            begin: which of these it is, or "unknown"; else "".
        generic: whether factors that a program writes as 0 are others: a connection is one for
            generic weights, and a 0 in the code is such a weight.
    """

    step: Step
    values: tuple[Value, ...]
    inside: tuple[Value, ...] = ()
    flat: str = ""
    generic: bool = False

    def __call__(self, moved: Mapping[int, torch.Tensor], base: Tensors) -> list[torch.Tensor]:
        """Results of the call, one a result value.

        Args:
            moved: tensors to use instead of those of the base, by identity of the value.
            base: tensors behind all other values; statistics are taken from these.
        """
        known = dict(moved)
        cut = {id(value) for value in self.values}

        def tensor_of(value: Value) -> torch.Tensor:
            if id(value) in known:
                return known[id(value)]
            tensor = base[value]
            return tensor if id(value) in cut else tensor.detach()

        for value in self.inside:
            assert value.call is not None
            known[id(value)] = _item(value, _apply(value.call, tensor_of, base, self.generic))
        result = _apply(self.step.call, tensor_of, base, self.generic)
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    @property
    def calls(self) -> list[Call]:
        """The calls between its values and the call."""
        return [value.call for value in self.inside if value.call is not None]

    def constants(self) -> list[Value]:
        """The values that the function reads beside those it is a function of, each once."""
        computed = {id(value) for value in (*self.values, *self.inside)}
        read = {id(v): v for call in (*self.calls, self.step.call) for v in leaves(call)}
        return [value for key, value in read.items() if key not in computed]

    def choices(self, tensors: Tensors) -> set[int]:
        """The masks, by identity, by which a call takes elements from one tensor or another.

        A product with numbers of the program that are 0 or another one leaves elements out.

        Args:
            tensors: behind all values.
        """
        calls = (*self.calls, self.step.call)
        by_masks = [call for call in calls if call.name in _CHOOSE]
        found = {id(v) for call in by_masks for v in leaves(call) if v.dtype == torch.bool}
        factors = [v for call in calls if call.name in _MASKED for v in leaves(call)]
        return found | {id(v) for v in factors if not v.varies and _is_mask(v.node, tensors[v])}


def _is_mask(node: fx.Node, tensor: torch.Tensor) -> bool:
    """Whether a tensor of zeros and one other number holds none of the model's but its masks."""
    if len(tensor.unique()) != 2 or bool((tensor != 0).all()):
        return False
    stack, seen = [node], set[fx.Node]()
    while stack:
        current = stack.pop()
        val = current.meta.get("val")
        if current in seen or (isinstance(val, torch.Tensor) and val.dtype == torch.bool):
            continue
        if current.op != "call_function":
            return False
        seen.add(current)
        stack += current.all_input_nodes
    return True


def leaves(call: Call) -> list[Value]:
    """All tensor arguments of a call."""
    return [v for v in pytree.tree_leaves(dict(call.arguments)) if isinstance(v, Value)]


def results(step: Step) -> list[Value]:
    """The results of a step."""
    return [v for v in pytree.tree_leaves(step.result) if isinstance(v, Value)]


def operands(call: Call) -> list[Value]:
    """The operands that inputs reach, each once; of what is written by rank, what is ranked."""
    order = written_by_rank(call)
    if order is not None:
        return read_by_rank(call, order)
    return list({id(v): v for v in call.values() if v.varies}.values())


def followed_operands(call: Call, outside: np.ndarray, policy: Policy) -> list[Value]:
    """The operands that paths lead through.

    `Policy(attention="value")` drops attention scores. Integers beside floating-point operands
    (indices into them) cut, and so do integers that say where to write (what is counted), unless
    the graph has paths from them.
    """
    path = [value for value in operands(call) if value.is_path]
    if written_by_rank(call) and not any(value.is_path for value in call.values()):
        return []  # a mask
    if policy.attention == "value":
        if call.name == "aten.scaled_dot_product_attention":
            return [value for value in path if value is call["value"]]
        if kind_of_call(call) == "contraction" and len(path) > 1:
            return [value for value in path if value.softmax != "whole"]
    floating = [v for v in operands(call) if v.dtype.is_floating_point or v.dtype.is_complex]
    beside = [v for v in floating if not only_chooses(v)]
    if call.name in (*SCALINGS, *_READS) or kind_of_call(call) in ("contraction", "layer"):
        floating = beside or floating
    if call.name in _COUNTS:
        floating = []
    cut = floating or call.name in (*_WRITES, *_COUNTS)
    return [v for v in path if not cut or v in floating or np.isin(units_of([v]), outside).any()]


def only_chooses(value: Value) -> bool:
    """Whether a tensor was made from comparisons and signs alone."""
    if value.dtype == torch.bool:
        return True
    if value.call is None or kind_of(value) not in ("elementwise", "movement", "reduction"):
        return False
    made_from = operands(value.call)
    return value.call.name in _STEPS or (bool(made_from) and all(map(only_chooses, made_from)))


def find_region(step: Step, read: np.ndarray, outside: np.ndarray) -> tuple[Cut | None, Cut | None]:
    """The regions at whose single entry the graph lets an elementwise call begin.

    Args:
        step: the call.
        read: what the call reads.
        outside: the same, and what is behind hubs.

    Returns:
        The smallest one with all that is read in its entry, None where there is none; and the
        smallest with any that is outside.
    """
    if not len(outside) or not _is_by_element(step.call, read):
        return None, None
    regions = [
        Cut(step, (entry,), inside) for entry, inside in entries(step.call, _meets_neighbours(step))
    ]
    units = [units_of(region.values) for region in regions]
    whole = (r for r, own in zip(regions, units, strict=True) if np.isin(read, own).all())
    some = (r for r, own in zip(regions, units, strict=True) if np.isin(own, outside).any())
    return next(whole, None), next(some, None)


def _is_by_element(call: Call, read: np.ndarray) -> bool:
    """Whether a call may end a scalar function: as it is, or as the graph has it."""
    if kind_of_call(call) == "elementwise" or call.name in _CHOOSE or written_by_rank(call):
        return True
    path = [value for value in operands(call) if value.is_path]
    if kind_of_call(call) in ("reduction", "contraction"):
        return not np.isin(read, units_of(path)).any()
    by = [v for v in operands(call) if v not in path and not v.dtype.is_floating_point]
    return bool(by) and call.name in _LOOK_UPS


def _meets_neighbours(step: Step) -> bool:
    """Whether a call may end a softmax over neighbours, or a shift by what is added up over them.

    The lowering says of a softmax that it is one.
    """
    return step.call.name in _SHIFTS or any(value.softmax == "whole" for value in results(step))


def entries(call: Call, over_neighbours: bool = False) -> Iterator[tuple[Value, tuple[Value, ...]]]:
    """The path values that a call is a scalar function of, statistics held fixed, nearest first.

    Walks back from the operands, latest first; whenever a single path value is left, everything
    has passed through it. Ends at layers and inputs. Elements may change places on the way; whether
    those that meet come from one place is seen by running the calls.

    Args:
        call: the call.
        over_neighbours: whether what is added up at indices, and then read at indices, counts as a
            statistic, as in a softmax over the neighbours in a graph.

    Yields:
        Such a value, and the values between it and the call that are no statistics, in order.
    """
    frontier = {id(value): value for value in operands(call)}
    between: list[Value] = []
    held: set[int] = set()
    is_read = 0
    while frontier:
        if len(frontier) == 1 and next(iter(frontier.values())).is_path:
            entry = next(iter(frontier.values()))
            inside = _moving(call, [entry], between, held)
            if inside is None:
                return
            yield entry, inside
        value = frontier.pop(max(frontier, key=lambda key: frontier[key].order))
        if value.call is None:
            return
        if kind_of(value) not in _EXPANDABLE and value.call.name not in (*_PLACES, *_LOOK_UPS):
            return
        between.append(value)
        is_read += value.call.name in _READS
        is_added = over_neighbours and is_read and value.call.name in _ADDS
        is_held = kind_of(value) in _STATISTICS and value.function is None
        # a statistic in pieces; but what is added up further is flat
        is_held |= value.merge and value.call.name != call.name
        if is_held or is_added or value.softmax == "whole":
            held.add(id(value))
        for operand in operands(value.call):
            reads_at = over_neighbours and value.call.name in (*_READS, *_ADDS)
            if operand.dtype.is_floating_point or not reads_at:
                frontier.setdefault(id(operand), operand)


def complex_part(step: Step) -> Cut | None:
    """A part of a complex tensor as a function of the real tensors that it was built from."""
    if step.call.name not in _COMPLEX_PARTS:
        return None
    frontier = {id(value): value for value in operands(step.call)}
    between: list[Value] = []
    while any(value.dtype.is_complex for value in frontier.values()):
        value = frontier.pop(max(frontier, key=lambda key: frontier[key].order))
        if value.call is None or not value.dtype.is_complex:
            return None
        between.append(value)
        frontier.update({id(operand): operand for operand in operands(value.call)})
    return Cut(step, tuple(v for v in frontier.values() if v.is_path), tuple(between[::-1]))


def taken_apart(step: Step) -> Cut | None:
    """A movement as the layer that the graph has on the part that it takes; None for others."""
    if (
        any(value.call is not None for value in results(step))
        or kind_of_call(step.call) != "movement"
    ):
        return None
    inside: list[Value] = []
    below = operands(step.call)
    while len(below) == 1 and below[0].call is not None:
        inside.append(below[0])
        below = operands(below[0].call)
        if kind_of(inside[-1]) in ("layer", "contraction"):
            return Cut(step, tuple(v for v in below if v.is_path), tuple(inside[::-1]))
    return None


def before_weights(step: Step, outside: np.ndarray) -> Cut | None:
    """A product of tensors as a function of what the weights of a bilinear layer were met by.

    Args:
        step: the call.
        outside: the units that the graph has before it.
    """
    frontier = {id(value): value for value in operands(step.call)}
    between: list[Value] = []
    while later := [v for v in frontier.values() if not np.isin(units_of([v]), outside).all()]:
        value = frontier.pop(id(later[0]))
        if value.call is None or kind_of(value) not in ("movement", "elementwise", *_LINEAR):
            return None
        between.append(value)
        frontier.update({id(operand): operand for operand in operands(value.call)})
    between.sort(key=lambda value: value.order)
    return Cut(step, tuple(v for v in frontier.values() if v.is_path), tuple(between))


def behind_statistics(step: Step, outside: Callable[[Sequence[Call]], np.ndarray]) -> Cut | None:
    """A call as a function of the nearest values that hold the units that the graph has before it.

    A product of matrices that is divided by a statistic of one of them begins where it would begin
    if that were divided before, and a sum of products that have factors in common where these are
    drawn out. None where no values hold these units.

    Args:
        step: the call.
        outside: gives the units before it, where those of some earlier calls count as its own.
    """
    frontier = {id(value): value for value in operands(step.call)}
    between: list[Value] = []
    held: set[int] = set()
    while frontier:
        path = [value for value in frontier.values() if value.is_path]
        calls = [value.call for value in between if value.call is not None]
        if np.array_equal(units_of(path), outside(calls)):
            inside = _moving(step.call, path, between, held)
            return None if inside is None else Cut(step, tuple(path), inside)
        value = frontier.pop(max(frontier, key=lambda key: frontier[key].order))
        kind = kind_of(value)
        if value.call is None or kind not in (*_EXPANDABLE, "contraction", "layer"):
            return None
        between.append(value)
        if kind in _STATISTICS and not value.layer:
            held.add(id(value))
        frontier.update({id(operand): operand for operand in operands(value.call)})
    return None


def _moving(
    call: Call, entries: Sequence[Value], between: list[Value], held: set[int]
) -> tuple[Value, ...] | None:
    """Values between some entries and a call that move with them, statistics held fixed.

    Args:
        call: the call.
        entries: where it begins.
        between: all values between them.
        held: the statistics among these, by identity.

    Returns:
        Them in order, or None if there is no way but through statistics.
    """
    known = {id(value) for value in between}
    needed: dict[int, Value] = {}
    stack = operands(call)
    while stack:
        value = stack.pop()
        if id(value) in known and id(value) not in needed and id(value) not in held:
            needed[id(value)] = value
            assert value.call is not None
            stack += operands(value.call)
    moving = {id(entry) for entry in entries}
    inside: list[Value] = []
    for value in sorted(needed.values(), key=lambda value: value.order):
        assert value.call is not None
        if any(id(operand) in moving for operand in operands(value.call)):
            moving.add(id(value))
            inside.append(value)
    if not any(id(operand) in moving for operand in operands(call)):
        return None  # two statistics that meet are no function of single elements
    return tuple(inside)


def scalar_function(step: Step, read: np.ndarray) -> Cut | None:
    """A call as a function of the one value that the graph has before it, None for a merge."""
    if not _is_by_element(step.call, read):
        return None
    for entry, inside in entries(step.call, _meets_neighbours(step)):
        if np.isin(read, units_of([entry])).all():
            return Cut(step, (entry,), inside)
    path = [value for value in operands(step.call) if value.is_path]
    return Cut(step, (path[0],)) if len(path) == 1 else None


def _apply(call: Call, tensor_of: Any, base: Tensors, generic: bool) -> Any:
    order = written_by_rank(call)
    if order is not None:
        return _above_threshold(call, order, tensor_of, base)
    arguments = call.replace_values(tensor_of)
    if generic and isinstance(factor := arguments.get("other"), (int, float)):
        arguments["other"] = _generic(call.name, factor)
    if holds_statistics(call.name):
        fixed = call.replace_values(lambda v: base[v] if v in base else tensor_of(v))
        return with_held_statistics(call.name, arguments, fixed)
    result = call_differentiably(call.func, arguments)
    if lacks_held_form(call):  # taken at its word: each element depends on its own
        (source,) = [tensor_of(value) for value in operands(call)][:1]
        return result.detach() + (source - source.detach())
    return result


def _above_threshold(call: Call, order: Order, tensor_of: Any, base: Tensors) -> torch.Tensor:
    """What is written at the places of the largest or smallest elements, by the last of them.

    That is a statistic, held fixed as others are.
    """
    source, fixed, axis = tensor_of(order.source), base[order.source].detach(), order.axis
    one_hot = call.name == "aten.one_hot"
    index = base[call["self" if one_hot else "index"]]
    chosen = fixed.gather(axis, index.unsqueeze(axis) if one_hot else index)
    if bool((chosen.mean(axis) >= fixed.mean(axis)).all()):
        there = source >= chosen.amin(axis, keepdim=True)
    else:
        there = source <= chosen.amax(axis, keepdim=True)
    if one_hot:
        return there.long()  # type: ignore[no-any-return]
    written, beside = (
        tensor_of(one) if isinstance(one, Value) else torch.as_tensor(one)
        for one in (picked_by(call, order), call["self"])
    )
    if index.shape == fixed.shape:
        there = torch.ones_like(there)
    result: torch.Tensor = torch.where(there, written, beside)
    return result


def _generic(name: str, factor: float) -> float:
    """A factor that connects in place of one that does not."""
    if name in _TIMES and factor == 0:
        return 0.5 if isinstance(factor, float) else 1
    return 2.0 if name in _OVER and factor in (float("inf"), -float("inf")) else factor


def lacks_held_form(call: Call) -> bool:
    """Whether a call is a normalization or softmax of which no form with fixed statistics is known.

    Operators of the user's own that were registered as normalizations are such.
    """
    return kind_of_call(call) in ("normalization", "softmax") and not holds_statistics(call.name)


def _item(value: Value, result: Any) -> torch.Tensor:
    """The one of several results that a value stands for."""
    if isinstance(result, torch.Tensor):
        return result
    node: fx.Node = value.node
    position = node.args[1] if node.op == "call_function" and len(node.args) == 2 else 0
    chosen: torch.Tensor = result[position if isinstance(position, int) else 0]
    return chosen


def units_of(values: tuple[Value, ...] | list[Value]) -> np.ndarray:
    """All units that occur in values, ascending."""
    found = [distinct(value.labels) for value in values]
    units = np.unique(np.concatenate([*found, np.empty(0, dtype=np.int64)]))
    chosen: np.ndarray = units[units != CONSTANT]
    return chosen


def with_units_in_common(values: Sequence[Value]) -> list[list[Value]]:
    """Values in groups, so that no unit occurs in two of them."""
    groups: list[list[Value]] = []
    for value in values:
        near = [g for g in groups if np.isin(units_of(g), units_of([value])).any()]
        groups = [group for group in groups if group not in near]
        groups.append([*itertools.chain(*near), value])
    return groups
