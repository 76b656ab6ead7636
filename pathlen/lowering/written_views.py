"""Views that the lowering takes itself, for calls that it writes out."""

from typing import Any

import torch

from pathlen.lowering.labels import broadcast, collapse, expands
from pathlen.lowering.operations import operation_name
from pathlen.lowering.values import Call, Value


def in_shape(call: Call, value: Value, shape: torch.Size) -> Value:
    """A value broadcast to a shape, or in a shape of as many elements.

    Args:
        call: the call that needs it.
        value: the value.
        shape: the shape.
    """
    if value.shape == shape:
        return value
    if expands(value.shape, shape):
        arguments = {"size": [*shape], "implicit": False}
        labels = broadcast(value.labels, shape)
        return _viewed(call, torch.ops.aten.expand.default, value, arguments, labels)
    labels = value.labels.reshape(shape)
    return _viewed(call, torch.ops.aten.reshape.default, value, {"shape": [*shape]}, labels)


def first_along(call: Call, value: Value, axis: int) -> Value:
    """The first element along an axis, which stays."""
    arguments = {"dim": axis, "start": 0, "end": 1, "step": 1}
    labels = value.labels.narrow(axis, 0, 1)
    return _viewed(call, torch.ops.aten.slice.Tensor, value, arguments, labels)


def selected(call: Call, value: Value, axis: int, index: int) -> Value:
    """The elements at one index of an axis."""
    labels = value.labels.select(axis, index)
    arguments = {"dim": axis, "index": index}
    return _viewed(call, torch.ops.aten.select.int, value, arguments, labels)


def with_axes(call: Call, value: Value, own: str, wanted: str) -> Value:
    """A value with its axes in another order, those that it does not have of length 1.

    Args:
        call: the call that needs it.
        value: the value.
        own: letters for its axes.
        wanted: the letters of all axes; the axes of others have length 1.
    """
    kept = [letter for letter in wanted if letter in own]
    order = [own.index(letter) for letter in (*kept, *(a for a in own if a not in kept))]
    if order != sorted(order):
        labels, permute = value.labels.permute(order), torch.ops.aten.permute.default
        value, own = (
            _viewed(call, permute, value, {"dims": order}, labels),
            "".join(own[axis] for axis in order),
        )
    sizes = dict(zip(own, value.shape, strict=True))
    return in_shape(call, value, torch.Size(sizes.get(letter, 1) for letter in wanted))


def _viewed(
    call: Call, func: Any, value: Value, arguments: dict[str, Any], labels: torch.Tensor
) -> Value:
    like = torch.empty(labels.shape, dtype=value.dtype, device="meta")
    made = Call(func, operation_name(func), {"self": value, **arguments}, call.node, like)
    order = value.order + 2.0**-20  # behind it, before what comes next in the program
    return Value(collapse(labels), value.dtype, True, call.node, made, order)
