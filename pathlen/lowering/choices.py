"""Elements that a constant mask takes from one tensor or another, or leaves out.

`torch.where(mask, h, 0)`, `h.masked_fill(~mask, 0)` and `mask * h` are one function.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import fx

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
from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.places import Places
from pathlen.lowering.states import PRODUCTS, SAME
from pathlen.lowering.values import Call, Value

CHOICES = {"aten.where": "condition", "aten.masked_fill": "mask"}
"""Operations that choose, and the argument by which."""
LEAVES_OUT = PRODUCTS | CHOICES.keys()
"""Operations that may leave elements of a tensor out, by a constant."""
_ZEROS = frozenset(aten("zeros new_zeros zeros_like"))


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


def left_over(
    call: Call,
    value: Value,
    labels: torch.Tensor,
    places: Callable[[Value], Places],
    constants: Constants,
) -> torch.Tensor:
    """Labels of one tensor, without units that a constant mask leaves out everywhere.

    At some positions is enough: they are one unit. Where elements are repeated, and the mask leaves
    those of each unit elsewhere (a diagonal), they are left where the mask says so.

    Args:
        call: what passes the tensor on.
        value: the tensor.
        labels: of it, in the shape of the result.
        places: gives where its elements are among those that began, see `Variants`.
        constants: gives the mask.
    """
    mask = _kept(call, value, constants)
    if mask is None:
        return labels
    mask = broadcast(compact(mask), [1] * (labels.ndim - mask.ndim) + [*compact(mask).shape])
    along = [a for a in range(mask.ndim) if mask.shape[a] > 1 and is_position_axis(labels, a)]
    kept = mask.any(along, keepdim=True) if along else mask
    if bool(kept.all()):
        varies = along and kept.numel() > 1  # along axes of units too
        mask = _repeated(mask, along, places(value).expanded(call.shape)) if varies else kept
        return labels if bool(mask.all()) else collapse(torch.where(mask, labels, CONSTANT))
    small = compact(labels)
    left = torch.isin(small, small[kept.expand(small.shape)])
    return collapse(torch.where(left, small, CONSTANT).expand(labels.shape))


def _repeated(mask: torch.Tensor, along: list[int], places: Places) -> torch.Tensor:
    """A mask along axes on which elements are repeated, of which it leaves others of each unit."""
    others = [axis for axis in along if places.repeats_along(axis) is None]
    mask = mask.any(others, keepdim=True) if others else mask
    units = [axis for axis in range(mask.ndim) if axis not in along]
    alike = mask == mask.amax(units, keepdim=True)
    return torch.ones((), dtype=torch.bool) if bool(alike.all()) else mask


def chosen_by_weights(call: Call, constants: Constants) -> Call | None:
    """A `lerp` by a constant mask of zeros and ones as the choice that it is; None for others."""
    weight = call["weight"]
    zeros = None
    if isinstance(weight, Value) and not weight.varies:
        zeros = zeros_in_constant(weight, constants)
    if zeros is None or not bool(((constants.of(weight) == 1) | zeros).all()):
        return None
    arguments = {"condition": weight, "self": call["end"], "other": call["self"]}
    return replace(call, func=torch.ops.aten.where.self, name="aten.where", arguments=arguments)


def _kept(call: Call, value: Value, constants: Constants) -> torch.Tensor | None:
    """Where a call passes on the elements of one tensor; None for everywhere."""
    if call.name in CHOICES:
        mask = constant_mask(call, constants)
        of_other = call.name == "aten.masked_fill" or call["self"] is not value
        return ~mask if mask is not None and of_other else mask
    if call.name not in PRODUCTS:
        return None
    found = [_as_mask(factor, constants) for factor in call.values() if not factor.varies]
    masks = [mask for mask in found if mask is not None]
    return torch.stack(torch.broadcast_tensors(*masks)).all(0) if masks else None


def leaves_out(call: Call, constants: Constants) -> bool:
    """Whether a call may leave elements out, or give others in their place."""
    if call.name not in PRODUCTS:
        return call.name in CHOICES
    factors = [factor for factor in call.values() if not factor.varies]
    return any(_as_mask(factor, constants) is not None for factor in factors)


def _as_mask(factor: Value, constants: Constants) -> torch.Tensor | None:
    """Where a constant of zeros and one other number is no zero; None for other constants.

    Zeros alone are none: a first state that a loop begins with is a weight, whatever its value.
    """
    zeros = zeros_in_constant(factor, constants)
    if zeros is None:
        return None
    mask, numbers = ~compact(zeros), constants.of(factor)
    others = numbers[mask.expand(numbers.shape)]
    return mask if others.numel() and bool((others == others[:1]).all()) else None


def zeros_in_constant(value: Value, constants: Constants) -> torch.Tensor | None:
    """The zeros in a constant made of numbers in the code and of masks; None where it has none.

    Parameters that happen to be 0 are weights like others, and so are other tensors of the model.
    """
    node = value.node
    while _operation(node) in SAME:
        node = node.all_input_nodes[0]
    if _operation(node) in _ZEROS:
        return torch.ones((), dtype=torch.bool).expand(value.shape)  # whatever was written since
    if value.shape.numel() == 1 or constants.reads_numbers(value):
        return None
    try:
        mask = constants.of(value) == 0
    except UnknownConstantError:
        return None
    return collapse(mask) if bool(mask.any()) else None


def _operation(node: fx.Node) -> str:
    return operation_name(node.target) if hasattr(node.target, "_schema") else ""
