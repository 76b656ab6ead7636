"""Statistics: reductions of whole axes, which may be broadcast back over what they reduced."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import is_position_axis
from pathlen.lowering.moving import run_movement
from pathlen.lowering.operations import aten
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity, numbered
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.states import CONSTANT, SUMS, TOTALS, Of, State
from pathlen.lowering.values import Call, Value, varying_operands

REDUCTIONS = frozenset(
    aten(
        "mean sum nansum amax amin max min norm linalg_vector_norm logsumexp var std prod var_mean"
        " std_mean median nanmedian mode kthvalue quantile nanquantile"
    )
)
_ADD = aten("add")
_EXTREMES = frozenset(aten("maximum minimum fmax fmin"))
_JOIN_PARTS = frozenset((*_ADD, *_EXTREMES))
_CUMULATED = {  # what their last elements are
    "aten.cumsum": (torch.ops.aten.sum.dim_IntList, "aten.sum"),
    "aten.logcumsumexp": (torch.ops.aten.logsumexp.default, "aten.logsumexp"),
    "aten.cummax": (torch.ops.aten.amax.default, "aten.amax"),
    "aten.cummin": (torch.ops.aten.amin.default, "aten.amin"),
}
_ORDERINGS = frozenset(aten("sort topk msort"))


def reduced(call: Call, of: Of, entry: Value) -> State | None:
    """A statistic of an entry, if whole axes are reduced."""
    source = next(value for value in call.values() if value.varies)
    state, axes = of(source), reduced_axes(call)
    if state is None:
        return None
    if call.name in _ORDERINGS:
        return _ordered(call, state)
    if axes is None:
        return _around(call, source, state)
    if len(axes) == 1 and state.degree > 1 and any(one.numbers for one in state.places):
        return _over_windows(call, axes[0], state, entry)
    places = [_without(one, axes, keeps_axes(call)) for one in state.places]
    if any(one is None or _of_blocks(one, entry) for one in places):
        return None
    part = ""
    adds = call.name in TOTALS or 1 in (call.arguments.get("p"), call.arguments.get("ord"))
    if adds and state.part == "exp":
        part = "sum"
    elif call.name == "aten.logsumexp" and state.degree == 1 and not state.part:
        part = "log"
    return State(0, tuple(one for one in places if one is not None), part, state.scale)


def in_pieces(call: Call, states: Mapping[str, State], entry: Value) -> State | None:
    """A statistic of features that are added up, or compared, one after the other.

    None where they do not lie side by side. It is asked where elements of several places meet.
    """
    known = [state for state in states.values() if state.places]
    if call.name not in _JOIN_PARTS or not any(state.degree for state in known):
        return None
    if any(len(state.places) != 1 or state.part == "ordered" for state in known):
        return None
    first, *others = dict.fromkeys(state.places[0].expanded(call.shape) for state in known)
    in_windows = all(state.degree != 1 for state in known)
    for other in others:
        joined = first.and_beside(other)
        if joined is None and in_windows:
            joined = _together(first, other, entry)
        if joined is None:
            return None
        first = joined
    if first.numbers is None and _of_blocks(first, entry):
        return None
    parts = [state for state in known if state.part in ("exp", "sum")]
    adds = parts and call.name in _ADD and len({state.scale for state in parts}) == 1
    return State(0, (first,), "sum" if adds else "", parts[0].scale if adds else CONSTANT.scale)


def joins_as(call: Call, value: Any) -> bool:
    """Whether a value is a sum of several, scaled or moved since at most, and a call a sum too.

    Or maxima, or minima.
    """
    kinds = [kind for kind in (SUMS, _EXTREMES) if call.name in kind]
    while kinds and isinstance(value, Value) and value.call is not None:
        if kind_of_call(value.call) not in ("elementwise", "movement"):
            return False
        operands = varying_operands(value.call)
        if len(operands) != 1:
            return value.call.name in kinds[0]
        value = operands[0]
    return False


def is_broadcast_back(places: Places, moving: Places, entry: Value) -> bool:
    """Whether a statistic is of all positions along axes of an entry, and all of them meet it.

    Args:
        places: of the statistic.
        moving: of the elements that meet it.
        entry: what they are elements of.
    """
    strides = identity(entry.shape).strides
    axes = zip(entry.shape, strides, range(len(strides)), strict=True)
    whole = {stride: size for size, stride, axis in axes if is_position_axis(entry.labels, axis)}
    return all(
        size == whole[stride] and stride in moving.strides
        for size, stride in places.reduced
        if stride in whole
    )


def of_one(elements: torch.Tensor, places: Places) -> bool:
    """Whether each of several statistics is one of a single element, repeated, and of constants.

    Args:
        elements: which one each number of the places stands for, -1 for constants.  # (numbers,)
        places: of the statistics.
    """
    inside = torch.zeros(1, dtype=torch.int64)
    for size, stride in places.reduced:
        inside = (inside[:, None] + torch.arange(size) * stride).reshape(-1)
    unknown = places.key is not None or places.numbers is not None
    if len(inside) == 1 or unknown or math.prod(places.shape) * len(inside) > MOST_ELEMENTS:
        return False
    first = places.as_numbers().unique()
    read = elements[first[:, None] + inside]
    one = read.amax(1, keepdim=True)
    return bool(((read == one) | (read < 0)).all())


def last_of_cumulated(call: Call, item: int, of: Of, constants: Constants) -> Call | None:
    """The reduction that a movement of cumulated elements is, where it takes the last ones alone.

    Args:
        call: the movement.
        item: which of its results.
        of: gives the states of its operands.
        constants: gives its indices.
    """
    operands = varying_operands(call) if kind_of_call(call) == "movement" else []
    source = operands[0] if len(operands) == 1 else None
    made = None if source is None else source.call
    if source is None or made is None or made.name not in _CUMULATED or of(made["self"]) is None:
        return None
    axis = made["dim"] % max(len(source.shape), 1)
    size = source.shape[axis] if source.shape else 1
    number = torch.arange(size).view([-1 if a == axis else 1 for a in range(len(source.shape))])
    moved = run_movement(call, {id(source): number.expand(source.shape)}, constants)
    if moved is None or not bool((moved[item] == size - 1).all()):
        return None
    func, name = _CUMULATED[made.name]
    arguments = {"self": made["self"], "dim": [axis], "keepdim": True}
    sizes = [1 if a == axis else n for a, n in enumerate(source.shape)]
    like = torch.empty(sizes, dtype=made.output.dtype, device="meta")
    return Call(func, name, arguments, made.node, like)


def _of_blocks(places: Places, entry: Value) -> bool:
    """Whether places are of several statistics along one axis of positions of an entry.

    These are the means of the windows of a pooling. Blocks of features are groups.
    """
    step = 1
    for axis in reversed(range(len(entry.shape))):
        size, along = entry.shape[axis], range(step, step * entry.shape[axis])
        if size > 1 and is_position_axis(entry.labels, axis):
            own = [
                n
                for n, stride in zip(places.shape, places.strides, strict=True)
                if n > 1 and stride in along
            ]
            if own and any(stride in along for _, stride in places.reduced):
                return True
        step *= size
    return False


def _ordered(call: Call, state: State) -> State | None:
    """Elements in the order of their sizes: one of them is a statistic, as the largest is."""
    axis = call.arguments.get("dim", 0) % max(len(call.shape), 1)
    found = [_without(one, [axis], True) for one in state.places]
    if any(one is None for one in found):
        return None
    places = tuple(one.expanded(call.shape) for one in found if one is not None)
    return State(0, places, "" if call.shape[axis] == 1 else "ordered")


def _around(call: Call, source: Value, state: State) -> State | None:
    """A statistic of the features around each one, as in a local response normalization.

    A moving average of the features themselves is none, but linear functions of them.
    """
    axis = _window_over_features(call, source)
    if axis is None or state.degree <= 1 or any(one.key is not None for one in state.places):
        return None
    if math.prod(source.shape) > MOST_ELEMENTS:
        return None
    middle = (source.shape[axis] - call.shape[axis] + 1) // 2
    if middle < 0 or middle + call.shape[axis] > source.shape[axis]:
        return None
    found = [
        numbered(one.as_numbers().narrow(axis, middle, call.shape[axis]), one.reduced)
        for one in state.places
    ]
    return State(0, tuple(found))


def _over_windows(call: Call, axis: int, state: State, entry: Value) -> State | None:
    """A statistic of the features around each one, which lie along an axis of a tensor."""
    if len(state.places) != 1 or math.prod(state.places[0].shape) > MOST_ELEMENTS:
        return None
    places = _around_each(state.places[0].as_numbers().movedim(axis, 0), entry)
    if places is None or state.places[0].reduced:
        return None
    if keeps_axes(call):
        places = numbered(places.as_numbers().unsqueeze(axis), places.reduced)
    return State(0, (places,))


def _together(one: Places, other: Places, entry: Value) -> Places | None:
    """Places of a statistic of the features that went into either of two."""
    if one.key is not None or other.key is not None or math.prod(one.shape) > MOST_ELEMENTS:
        return None
    ends = []
    for places in (one, other):
        first = places.as_numbers()
        last = first + sum((size - 1) * step for size, step in places.reduced)
        ends += [first, torch.where(first < 0, first, last)]
    found = _around_each(torch.stack(ends), entry)
    steps = {step for places in (one, other) for _, step in places.reduced}
    return found if found is None or steps <= {found.reduced[0][1]} else None


def _around_each(numbers: torch.Tensor, entry: Value) -> Places | None:
    """Places of a statistic of features of an entry that lie along one of its axes.

    Args:
        numbers: of the elements that went into it, -1 for constants.  # (elements, ...)
        entry: that they are elements of.
    """
    there = numbers >= 0
    last = numbers.amax(0)
    first = torch.where(there, numbers, last).amin(0)
    steps = torch.where(there, numbers - first, 0)
    strides = identity(entry.shape).strides
    for axis, (size, stride) in enumerate(zip(entry.shape, strides, strict=True)):
        if size < 2 or is_position_axis(entry.labels, axis):
            continue
        line = stride * size
        if bool((steps % stride == 0).all() and (first // line == last // line).all()):
            return numbered(first, ((int(steps.max()) // stride + 1, stride),))
    return None


def reduced_axes(call: Call) -> list[int] | None:
    """The axes that a reduction reduces as a whole; None where it has windows."""
    source = next(value for value in call.values() if value.varies)
    dimensions = len(source.shape)
    if call.name in REDUCTIONS:
        dim = call.arguments.get("dim")
        if dim is None or (not isinstance(dim, int) and len(dim) == 0):
            return list(range(dimensions))
        chosen = [dim] if isinstance(dim, int) else list(dim)
        return sorted({axis % dimensions for axis in chosen}) if dimensions else []
    if "pool" in call.name and call.name.startswith("aten."):
        axes = list(range(dimensions - int(call.name.partition("pool")[2][0]), dimensions))
        kernel = call.arguments.get("kernel_size")
        sizes = [source.shape[axis] for axis in axes]
        whole = not kernel or list(kernel) == sizes or (len(kernel) == 1 and {*kernel} == {*sizes})
        return axes if whole and all(call.shape[axis] == 1 for axis in axes) else None
    return None


def _window_over_features(call: Call, source: Value) -> int | None:
    """The one axis, of features, along which a pooling has windows that move step by step."""
    if not call.name.startswith("aten.avg_pool"):
        return None
    dimensions = len(call["kernel_size"])
    moved = call["stride"] or call["kernel_size"]
    wide = [axis for axis, size in enumerate(call["kernel_size"], -dimensions) if size > 1]
    if len(wide) != 1 or any(step != 1 for step in moved):
        return None
    axis = wide[0] + len(source.shape)
    return None if is_position_axis(source.labels, axis) else axis


def keeps_axes(call: Call) -> bool:
    """Whether reduced axes stay, with length 1."""
    if call.name not in REDUCTIONS:
        return True
    return bool(call.arguments.get("keepdim", call.arguments.get("keepdims", False)))


def _without(places: Places, axes: list[int], keep: bool) -> Places | None:
    """Places of a statistic over some axes."""
    if places.key is not None:
        return None
    if places.numbers is not None:
        return None
    shape, strides, reduced = [], [], list(places.reduced)
    for axis, (size, stride) in enumerate(zip(places.shape, places.strides, strict=True)):
        if axis not in axes:
            shape.append(size)
            strides.append(stride)
            continue
        if size > 1 and stride:
            reduced.append((size, stride))
        if keep:
            shape.append(1)
            strides.append(0)
    return Places(tuple(shape), tuple(strides), places.offset, tuple(sorted(reduced)))
