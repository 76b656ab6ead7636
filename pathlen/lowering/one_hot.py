"""One-hot vectors of integers, as `one_hot` makes them or a comparison with all of the numbers."""

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.labels import collapse, compact
from pathlen.lowering.moving import item_of, run_movement
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import SAME
from pathlen.lowering.values import Call, Value, varying_operands


def numbers_of_one_hot(value: Value, axis: int, constants: Constants) -> Value | None:
    """The integers that a tensor holds as one-hot vectors along an axis; None for others."""
    moves = list[Value]()
    while value.call is not None and value.call.name not in ("aten.one_hot", "aten.eq"):
        operands = varying_operands(value.call)
        copies = kind_of(value) == "movement" or value.call.name in SAME
        if not copies or len(operands) != 1:
            return None
        moves.append(value)
        value = operands[0]
    found = None if value.call is None else _marked(value.call, constants)
    if found is None:
        return None
    numbers, along = found
    place = torch.arange(value.shape[along]).view([-1, *[1] * (len(value.shape) - 1 - along)])
    for moved in reversed(moves):
        assert moved.call is not None
        if kind_of(moved) == "movement":
            results = run_movement(moved.call, {id(value): place.expand(value.shape)}, constants)
            if results is None:
                return None
            place = results[item_of(moved) or 0]
        value = moved
    place = compact(collapse(place.expand(value.shape)))
    return numbers if place.numel() == place.shape[axis] == value.shape[axis] else None


def _marked(call: Call, constants: Constants) -> tuple[Value, int] | None:
    """The integers whose places a call marks, and along which axis of its result."""
    if call.name == "aten.one_hot":
        return call["self"], len(call.shape) - 1
    pair = [call["self"], call["other"]]
    varying = [one for one in pair if isinstance(one, Value) and one.varies]
    constant = [one for one in pair if isinstance(one, Value) and not one.varies]
    if len(varying) != 1 or not constant or varying[0].dtype.is_floating_point:
        return None
    axes = [a for a in range(-len(constant[0].shape), 0) if constant[0].shape[a] > 1]
    numbers, (axis,) = varying[0], axes if len(axes) == 1 else [0]
    is_new = axis and (-axis > len(numbers.shape) or numbers.shape[axis] == 1)
    try:
        known = constants.of(constant[0]).reshape(-1)
    except UnknownConstantError:
        return None
    distinct = is_new and len(known.unique()) == len(known)
    return (numbers, len(call.shape) + axis) if distinct else None
