"""Softmax written out: exp(x) over the sum of exp(x), along an axis or over a neighbourhood."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.regions import SAME, SUMS, degree_of_call, find_region, varying_operands
from pathlen.lowering.rules import Kind, kind_of
from pathlen.lowering.values import Call, Value, bind_call

_DIVISIONS = frozenset(aten("div divide true_divide"))
_DIFFERENCES = frozenset(aten("sub subtract"))
_LEVELS = ("amax", "amin", "mean")
_PUTS = frozenset(aten("index_put _index_put_impl _unsafe_index_put"))
_SCATTERS = frozenset(aten("scatter_add scatter_reduce index_add index_reduce")) | _PUTS
_GATHERS = frozenset(aten("gather index_select index _unsafe_index"))
_RESHAPES = frozenset(aten("view reshape unsqueeze squeeze expand expand_as _unsafe_view alias"))


@dataclass(frozen=True, slots=True, eq=False)
class _Statistic:
    """Something added up (or the largest of it), each element over its own neighbourhood.

    Attributes:
        of: what.
        how: "sum", "mean", "amax" or the like.
        dense: whether it runs along axes; else over elements that have the same index.
    """

    of: Value
    how: str
    dense: bool


def softmax_entry(call: Call) -> Value | None:
    """The tensor whose softmax `exp(x) / sum(exp(x))` a call computes, None if it computes none.

    A shift, a mask or a factor may stand between exp and sum, and the two may be computed apart.
    The sum is one along axes, or one over neighbourhoods: added up at indices, and read there.
    """
    if call.name not in _DIVISIONS or not isinstance(call["other"], Value):
        return None
    if not call["other"].varies or not isinstance(call["self"], Value):
        return None
    total = _statistic(call["other"])
    if total is None or total.how not in ("sum", "mean"):
        return None
    exponents = _exponent(call["self"]), _exponent(total.of)
    if exponents[0] is None or exponents[1] is None:
        return None
    above, below = (_without_shift(exponent, total) for exponent in exponents if exponent)
    return above if _same(above, below) else None


def shift_entry(call: Call) -> Value | None:
    """The x of `x - max(x)`, the maximum (or mean) over neighbourhoods; None for other calls.

    The statistic is held fixed, as in a normalization.
    """
    if call.name not in _DIFFERENCES:
        return None
    x, shift = call["self"], call["other"]
    if not isinstance(x, Value) or not isinstance(shift, Value) or not shift.varies:
        return None
    found = _statistic(shift)
    if found is None or found.dense or found.how not in _LEVELS:
        return None
    return x if _same(_unwrapped(found.of), _unwrapped(x)) else None


def _statistic(value: Value) -> _Statistic | None:
    """What a value is a statistic of, seen through what is elementwise or a movement."""
    gathered: tuple[Value, int] | None = None
    current: Value | None = value
    while current is not None and current.call is not None:
        call = current.call
        if kind_of(current) == "reduction":
            is_one = gathered is None and isinstance(call.arguments.get("self"), Value)
            return _Statistic(call["self"], call.operation, True) if is_one else None
        if call.name in _SCATTERS:
            return _scattered(call, gathered) if gathered is not None else None
        if call.name in _GATHERS:
            place = _place(call)
            if gathered is not None or place is None:
                return None
            gathered, current = place, call["self"]
        else:
            current = _only_operand(current, ("elementwise", "movement"))
    return None


def _scattered(call: Call, gathered: tuple[Value, int]) -> _Statistic | None:
    """What is added up at the indices at which the result is read; None for other indices."""
    place = _place(call)
    written = call.arguments.get("src", call.arguments.get("source"))
    how = call.arguments.get("reduce", "sum")
    if call.name in _PUTS:
        written = call["values"]
        how = "sum" if call["accumulate"] else "last"
    if place is None or not isinstance(written, Value) or call["self"].varies:
        return None
    index, axis = place
    if axis != gathered[1] or not _same(_unshaped(index), _unshaped(gathered[0])):
        return None
    return _Statistic(written, how, False)


def _place(call: Call) -> tuple[Value, int] | None:
    """The one index of a call that reads or writes at indices, and the axis that it indexes."""
    if "indices" in call.arguments:
        found = [(i, axis) for axis, i in enumerate(call["indices"]) if i is not None]
        return found[0] if len(found) == 1 else None
    return call["index"], call["dim"] % max(call["self"].labels.ndim, 1)


def _without_shift(exponent: Value, total: _Statistic) -> Value:
    """The x of exp(x - max(x)), where the maximum is over what the sum is over."""
    call = exponent.call
    if call is None or call.name not in SUMS:
        return exponent
    if total.dense:
        region = find_region(call)
        is_shift = region is not None and region.affine and region.normalization
        return region.entry if region is not None and is_shift else exponent
    x = shift_entry(call)
    return exponent if x is None else x


def _exponent(value: Value) -> Value | None:
    """The x of a value that is exp(x), scaled, shifted or masked since."""
    current: Value | None = value
    while current is not None and current.call is not None:
        if current.call.name == "aten.exp":
            operands = varying_operands(current.call)
            return operands[0] if operands else None
        below = _only_operand(current, ("elementwise",))
        if below is not None and degree_of_call(current.call, below, {}) != 1:
            return None
        current = below
    return None


def _only_operand(value: Value, kinds: tuple[Kind, ...]) -> Value | None:
    """The one varying operand of the call that made a value, if the call is of these kinds."""
    if value.call is None or kind_of(value) not in kinds:
        return None
    operands = varying_operands(value.call)
    return operands[0] if len(operands) == 1 else None


def _unwrapped(value: Value) -> Value:
    """A value before it was detached, copied or cast."""
    while value.call is not None and value.call.name in SAME:
        below = _only_operand(value, ("elementwise",))
        if below is None:
            break
        value = below
    return value


def _unshaped(value: Value) -> Value | fx.Node:
    """An index before it was expanded to the shape of what is written there."""
    while value.call is not None and value.call.name in _RESHAPES:
        value = value.call["self"]
    if value.varies:
        return value
    node = value.node  # constants keep no calls
    while isinstance(node.target, torch._ops.OpOverload):
        if operation_name(node.target) not in _RESHAPES:
            break
        node = node.all_input_nodes[0]
    return node


def _same(one: Value | fx.Node, other: Value | fx.Node) -> bool:
    """Whether two values are known to be equal: one value, or equal calls on equal operands."""
    compared: set[tuple[int, int]] = set()
    pairs: list[tuple[Any, Any]] = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if left is right or (id(left), id(right)) in compared:
            continue
        compared.add((id(left), id(right)))
        if not any(isinstance(v, Value) and (v.varies or v.call) for v in (left, right)):
            left, right = (v.node if isinstance(v, Value) else v for v in (left, right))
        parts = list(_parts(left)), list(_parts(right))
        if not parts[0] or len(parts[0]) != len(parts[1]):
            return False
        for a, b in zip(*parts, strict=True):
            if isinstance(a, (Value, fx.Node)) and isinstance(b, (Value, fx.Node)):
                pairs.append((a, b))
            elif type(a) is not type(b) or a != b:
                return False
    return True


def _parts(value: Value | fx.Node) -> Iterator[Any]:
    """The operator that made a tensor and all that it was given; nothing where that is random."""
    node = value.node if isinstance(value, Value) else value
    if isinstance(value, fx.Node) and node.op == "get_attr":
        yield node.target
        return
    call = value.call if isinstance(value, Value) else None
    if call is None and isinstance(value, fx.Node) and hasattr(node.target, "_schema"):
        call = bind_call(node.target, node.args, node.kwargs, node)
    if call is None or torch.Tag.nondeterministic_seeded in call.func.tags:
        return
    yield call.func
    yield node.args[1] if node.target is operator.getitem else None  # which part of a split
    yield from pytree.tree_leaves(dict(call.arguments))
