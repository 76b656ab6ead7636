"""Operations along axes on which a tensor repeats one element: functions of that element.

A softmax of [h, 0] along an axis of its own is a sigmoid of h, the largest of the two a ReLU, and
a norm over an axis of length 1 the absolute value. Where the elements along an axis are several,
the same operations are reductions or mix positions.
"""

from dataclasses import replace

import torch

from pathlen.lowering.labels import one_along
from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places, numbered
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import NONLINEAR, TOTALS, Of, State
from pathlen.lowering.statistics import REDUCTIONS, keeps_axes, reduced_axes
from pathlen.lowering.values import Call, Value, varying_operands

_KEEP_AXES = frozenset(
    aten(
        "sort topk msort cumsum cumprod cummax cummin logcumsumexp softmax log_softmax _softmax"
        " _log_softmax"
    )
)
_SUMS = TOTALS | frozenset(aten("cumsum"))
_OF_ONE = frozenset(  # of a single element these are the element itself
    aten(
        "sort topk msort cumsum cumprod cummax cummin logcumsumexp mean sum nansum amax amin max"
        " min prod median nanmedian mode kthvalue logsumexp"
    )
)


def axes_along(call: Call) -> list[int] | None:
    """The axes of its one varying operand along which a call works; None for other calls."""
    keeps, reduces = call.name in _KEEP_AXES, call.name in REDUCTIONS or "pool" in call.name
    if not keeps and not reduces:
        return None
    operands = varying_operands(call)
    if len(operands) != 1 or not operands[0].shape:
        return None
    if keeps:
        return [call.arguments.get("dim", 0) % len(operands[0].shape)]
    return reduced_axes(call) or None


def is_identity(call: Call) -> bool:
    """Whether a call along axes of length 1 gives what it reads."""
    (source,) = varying_operands(call)
    axes = axes_along(call) or []
    return call.name in _OF_ONE and all(source.shape[axis] == 1 for axis in axes)


def has_new_axes(value: Value) -> bool:
    """Whether axes of length 1 were added to a tensor since its elements began."""
    root = value
    while root.call is not None and kind_of(root) in ("movement", "elementwise"):
        operands = varying_operands(root.call)
        if len(operands) != 1:
            break
        root = operands[0]
    return _new_axes(value, root) > 0


def along(call: Call, of: Of, entry: Value) -> State | None:
    """The state of a call along axes on which one element of an entry is repeated.

    Constants may stand beside it. An axis of length 1 must be new: one that the entry has is an
    axis of positions of which this example has a single one.
    """
    axes = axes_along(call)
    if axes is None:
        return None
    (source,) = varying_operands(call)
    state = of(source)
    if state is None or len(state.places) != 1:
        return None
    if not state.degree and state.places[0].numbers is None:
        return None  # a statistic, which may be reduced further
    short = [axis for axis in axes if source.shape[axis] == 1]
    if len(short) > max(_new_axes(source, entry), 0):
        return None
    places = _carried_places(call, state.places[0], axes)
    if places is None:
        return None
    keeps = is_identity(call) or call.name in _SUMS or not state.degree
    return State(state.degree if keeps else NONLINEAR, (places,))


def _carried_places(call: Call, places: Places, axes: list[int]) -> Places | None:
    """Places of the result, None where elements of several places meet."""
    if places.key is not None or (places.numbers is not None and places.is_large()):
        return None
    if places.numbers is not None:
        number = carried_along(call, places.as_numbers())
        return None if number is None else numbered(number, places.reduced)
    if any(places.strides[axis] for axis in axes):
        return None
    gone = [] if call.name in _KEEP_AXES or keeps_axes(call) else axes
    strides = [stride for axis, stride in enumerate(places.strides) if axis not in gone]
    return replace(places, shape=tuple(call.shape), strides=tuple(strides))


def carried_along(call: Call, numbers: torch.Tensor) -> torch.Tensor | None:
    """Integers of the elements of the operand, carried to where the result has these elements.

    Args:
        call: a call along axes.
        numbers: int64 of the shape of its operand, -1 for constants.

    Returns:
        The same for the result; None where several meet.
    """
    axes = axes_along(call)
    assert axes is not None
    one = one_along(numbers, axes)
    if one is None:
        return None
    if call.name in _KEEP_AXES:
        return one.expand([n if a in axes else -1 for a, n in enumerate(call.shape)])
    return one if keeps_axes(call) else one.squeeze(axes)


def _new_axes(value: Value, root: Value) -> int:
    """How many axes of length 1 a tensor has beside those of an earlier one.

    0 where elements were left out, since an axis of features may have been cut to one of them.
    """
    if value.shape.numel() < root.shape.numel():
        return 0
    return list(value.shape).count(1) - list(root.shape).count(1)
