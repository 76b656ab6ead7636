"""Elements that are picked from where several tensors meet: a function of what meets in them.

The diagonal of an outer product of a tensor with itself is its square, though elsewhere in the
product two elements meet.
"""

import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merged
from pathlen.lowering.flat import (
    combined,
    grouped,
    have_common_origin,
    inner_with_parts,
    moved_along,
)
from pathlen.lowering.labels import constant_labels
from pathlen.lowering.moving import moved_operands
from pathlen.lowering.operators import Meeting, inverted
from pathlen.lowering.regions import Region
from pathlen.lowering.rules import kind_of, kind_of_call
from pathlen.lowering.values import Call, Value, varying_operands


def picked_from_product(call: Call, lowering: Lowering) -> Value | None:
    """Some elements of a product, in each of which functions of one element meet.

    None for other calls, and where no such functions meet.
    """
    source = _picked_from(call)
    if source is None or not _is_product(source):
        return None
    found = inner_with_parts(source, "product", lowering.readers, lowering.constants)
    if found is None or not have_common_origin(found[0].parts):
        return None
    inner, between = found
    labels, order = constant_labels(call.shape), source.order + 2.0**-22  # behind the product
    moved = Value(labels, call.output.dtype, True, call.node, call, order)
    parts = [_moved(part, inner, [*between, moved], lowering) for part in inner.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    last = combined(call, "product", [(part, 1.0) for part in known])
    terms = grouped(last, "product", [(part, 1.0) for part in known], lowering.constants)
    if not any(isinstance(part, Region) for part, _ in terms):
        return None
    return merged(last, Meeting("product", known, (last,)), lowering)


def _picked_from(call: Call) -> Value | None:
    """The tensor of which a movement leaves elements out; None for other calls."""
    if kind_of_call(call) != "movement" or not isinstance(call.node.meta["val"], torch.Tensor):
        return None
    operands = [value for value in moved_operands(call) if value.varies]
    if len(operands) != 1 or call.shape.numel() >= operands[0].shape.numel():
        return None
    return operands[0]


def _is_product(value: Value) -> bool:
    """Whether a tensor is a product, moved and scaled since at most, as far as calls tell."""
    while not value.parts:
        below = [] if value.call is None else varying_operands(value.call)
        if len(below) != 1 or kind_of(value) not in ("elementwise", "movement"):
            return False
        value = below[0]
    return value.operator == "product"


def _moved(part: Value, inner: Value, between: list[Value], lowering: Lowering) -> Value | None:
    """A part after what its product went through; of a reciprocal None."""
    if inverted(part) is not None:
        return None
    found = moved_along(part, inner, between, lowering.constants)
    return None if found is None else found.changed(node=between[-1].node)
