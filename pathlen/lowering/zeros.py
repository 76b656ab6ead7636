"""Zeros that a program puts beside its tensors: padding, masks, memory that is filled in parts.

A product with them is no connection, where a product with another constant is one: a sequence that
is padded to whole chunks has the paths of its own positions. Parameters that happen to be 0 are
weights like others.
"""

from typing import Any

import torch

from pathlen.lowering.choices import CHOICES, constant_mask, sides_of, zeros_in_constant
from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import CONSTANT, collapse, compact
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import PRODUCTS, QUOTIENTS, SAME
from pathlen.lowering.values import Call, Value

_PADDINGS = frozenset(aten("pad constant_pad_nd im2col"))


def zeros_of(value: Value, constants: Constants) -> torch.Tensor | None:
    """Which elements of a tensor are zeros of the program: bool of its shape, None for none.

    Args:
        value: a path tensor.
        constants: gives the constants among what was put together.
    """
    if bool((compact(value.labels) != CONSTANT).all()):
        return None  # every element is of a unit
    known: dict[int, torch.Tensor | None] = {}
    stack = [value]
    while stack:
        current = stack.pop()
        if id(current) in known:
            continue
        missing = [operand for operand in _read(current) if id(operand) not in known]
        if missing:
            stack += [current, *missing]
        else:
            known[id(current)] = _found(current, known, constants)
    return known[id(value)]


def _read(value: Value) -> list[Value]:
    """The tensors whose zeros make those of a value."""
    if value.call is None or not value.varies:
        return []
    if kind_of(value) == "movement":
        return list(moved_operands(value.call))
    if value.call.name in SAME | PRODUCTS or value.call.name in CHOICES:
        return list(value.call.values())
    above = value.call.arguments.get("self")
    return [above] if value.call.name in QUOTIENTS and isinstance(above, Value) else []


def _found(
    value: Value, known: dict[int, torch.Tensor | None], constants: Constants
) -> torch.Tensor | None:
    if not value.varies:
        return zeros_in_constant(value, constants)
    read = _read(value)
    if value.call is None or not read:
        return value.zeros
    if kind_of(value) == "movement":
        return _moved(value, value.call, known, constants)
    if value.call.name in CHOICES:
        return _chosen(value.call, known, constants)
    found = [mask.expand(value.shape) for v in read if (mask := known[id(v)]) is not None]
    return collapse(torch.stack(found).any(0)) if found else None


def _chosen(
    call: Call, known: dict[int, torch.Tensor | None], constants: Constants
) -> torch.Tensor | None:
    """Zeros after a choice by a constant mask: those of either side, and the number 0 itself."""
    mask = constant_mask(call, constants)
    if mask is None:
        return None

    def of_side(side: Any) -> torch.Tensor:
        found = known[id(side)] if isinstance(side, Value) else torch.tensor(side == 0)
        return torch.tensor(False) if found is None else compact(found)

    sides = [of_side(call[name]) for name in sides_of(call)]
    if not any(bool(side.any()) for side in sides):
        return None
    return collapse(torch.where(mask, sides[0], sides[1]).expand(call.shape))


def _moved(
    value: Value, call: Call, known: dict[int, torch.Tensor | None], constants: Constants
) -> torch.Tensor | None:
    """Zeros after a movement, and those that a padding puts around."""
    pads = call.name in _PADDINGS and call.arguments.get("value") in (None, 0)
    item, operands = item_of(value), moved_operands(call)
    if item is None or not (pads or any(known[id(v)] is not None for v in operands)):
        return None
    numbers = {}
    for operand in operands:
        mask = known[id(operand)]
        mask = torch.zeros((), dtype=torch.bool) if mask is None else compact(mask)
        numbers[id(operand)] = mask.long().expand(operand.shape)
    moved = run_movement(call, numbers, constants)
    if moved is None:
        return None
    small = compact(moved[item])
    return ((small == 1) | (pads & (small == CONSTANT))).expand(value.shape)
