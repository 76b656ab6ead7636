"""Places of elements after a movement."""

import math
from dataclasses import replace

import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.constants import Constants
from pathlen.lowering.moving import moved_operands, run_movement
from pathlen.lowering.operations import aten, call_by_name, functional
from pathlen.lowering.places import MOST_ELEMENTS, Places, numbered, viewed
from pathlen.lowering.values import Call, Value

VIEWS = frozenset(aten("view reshape unsqueeze squeeze"))


def moved_places(
    call: Call, value: Value, places: Places, item: int, constants: Constants
) -> Places | None:
    """Places after a movement of one tensor; None where they cannot be told.

    Args:
        call: the movement.
        value: the tensor.
        places: of its elements.
        item: which of the results.
        constants: gives indices.
    """
    names = [name for name, argument in call.arguments.items() if argument is value]
    if len(names) == 1 and len(moved_operands(call)) == 1:
        arguments = {n: a for n, a in call.arguments.items() if n != names[0]}
        plain = not any(isinstance(leaf, Value) for leaf in pytree.tree_leaves(arguments))
        if plain:
            function = functional(call.func)
            found = viewed(places, lambda a: call_by_name(function, a), arguments, names[0])
            if found is not None:
                one: Places = found[item] if isinstance(found, list) else found
                return one
    if places.key is not None and call.name in VIEWS:
        same = [n for n in places.shape if n > 1] == [n for n in call.shape if n > 1]
        # the one element that a mask picks is written as a scalar
        return (
            replace(places, shape=tuple(call.shape), strides=(0,) * len(call.shape))
            if same
            else None
        )
    if places.key is not None or math.prod(places.shape) > MOST_ELEMENTS:
        return None
    tensors = {id(v): torch.full((), -1).expand(v.shape) for v in moved_operands(call)}
    tensors[id(value)] = places.as_numbers()
    moved = run_movement(call, tensors, constants)
    return None if moved is None else numbered(moved[item], places.reduced)
