"""Elements that a constant mask takes from one tensor or another."""

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    constant_labels,
    is_position_axis,
)
from pathlen.lowering.values import Call, Value

CHOICES = {"aten.where": "condition", "aten.masked_fill": "mask"}
"""Operations that choose, and the argument by which."""


def constant_mask(call: Call, constants: Constants) -> torch.Tensor | None:
    """The constant mask by which a call chooses; None where it varies or has no values."""
    condition = call[CHOICES[call.name]]
    if condition.varies:
        return None
    try:
        return constants.of(condition).bool()
    except UnknownConstantError:
        return None


def sides_of(call: Call) -> tuple[str, str]:
    """The arguments that are taken where the mask is true, and where it is not."""
    return ("self", "other") if call.name == "aten.where" else ("value", "self")


def chosen_labels(call: Call, lowering: Lowering) -> torch.Tensor | None:
    """Labels of a `where` whose condition is a constant: element by element one of the two."""
    mask = constant_mask(call, lowering.constants)
    if mask is None:
        if not call[CHOICES[call.name]].varies:
            lowering.remark(f"{lowering.site(call)}: its constant mask has no values here", "bound")
        return None
    labels = [
        broadcast(call[n].labels, call.shape)
        if isinstance(call[n], Value)
        else constant_labels(call.shape)
        for n in sides_of(call)
    ]
    return collapse(torch.where(mask, labels[0], labels[1]))


def left_over(call: Call, value: Value, labels: torch.Tensor, constants: Constants) -> torch.Tensor:
    """Labels of one tensor, without units that a constant mask replaces everywhere.

    Args:
        call: what passes the tensor on.
        value: the tensor.
        labels: of it, in the shape of the result.
        constants: gives the mask.
    """
    mask = constant_mask(call, constants) if call.name in CHOICES else None
    if mask is None:
        return labels
    if call.name == "aten.masked_fill" or call["self"] is not value:
        mask = ~mask
    lead = labels.ndim - mask.ndim
    for axis in range(mask.ndim):  # at some positions is enough: they are one unit
        if mask.shape[axis] > 1 and is_position_axis(labels, lead + axis):
            mask = mask.any(axis, keepdim=True)
    if bool(mask.all()):
        return labels
    small = compact(labels)
    kept = torch.isin(small, small[mask.expand(small.shape)])
    return collapse(torch.where(kept, small, CONSTANT).expand(labels.shape))
