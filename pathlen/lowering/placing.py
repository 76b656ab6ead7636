"""Places of elements after a movement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.operations import aten, call_by_name, functional
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity, numbered, tabled, viewed
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import SAME
from pathlen.lowering.tables import Numbers, read_at, reshaped, side_by_side
from pathlen.lowering.values import Call, Value, varying_operands

VIEWS = frozenset(aten("view reshape unsqueeze squeeze"))
_RESHAPES = VIEWS | frozenset(aten("flatten unflatten view_copy _unsafe_view view_as reshape_as"))
_OF_MEMORY = frozenset(aten("as_strided as_strided_copy"))
_JOINS = frozenset(aten("cat concat concatenate"))


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
    views = _views(call, value, places)
    if views is not None:
        return views[item]
    if places.key is not None and call.name in VIEWS:
        same = [n for n in places.shape if n > 1] == [n for n in call.shape if n > 1]
        # the one element that a mask picks is written as a scalar
        return (
            replace(places, shape=tuple(call.shape), strides=(0,) * len(call.shape))
            if same
            else None
        )
    told = places.tables()
    if told is not None and 0 not in places.shape:
        moved = _moved_tables(call, value, told, item, constants)
        if moved is not None:
            return tabled(moved, places.reduced)
    return joined_places(call, {id(value): places}, item, constants)


def joined_places(
    call: Call, places: Mapping[int, Places], item: int, constants: Constants
) -> Places | None:
    """Places after a movement of tensors, which hold elements of one; None where not known.

    Args:
        call: the movement.
        places: by the ids of the tensors; all others that it moves are constants.
        item: which of the results.
        constants: gives indices.
    """
    if not places or any(one.key is not None for one in places.values()):
        return None
    reduced = next(iter(places.values())).reduced
    joined = _side_by_side(call, places)
    if joined is not None:
        return tabled(joined, reduced)
    if any(one.is_large() for one in places.values()):
        return None
    tensors = {id(v): torch.full((), -1).expand(v.shape) for v in moved_operands(call)}
    tensors |= {key: one.as_numbers() for key, one in places.items()}
    moved = run_movement(call, tensors, constants)
    return None if moved is None else numbered(moved[item], reduced)


def _view_of(call: Call, value: Value) -> tuple[Any, dict[str, Any], str] | None:
    """The function, other arguments and name of the tensor of a movement of one tensor alone.

    None where the call has other tensors too, or looks at memory and not at elements.
    """
    if call.name in _OF_MEMORY:
        return None
    names = [name for name, argument in call.arguments.items() if argument is value]
    if len(names) != 1 or len(moved_operands(call)) != 1:
        return None
    arguments = {n: a for n, a in call.arguments.items() if n != names[0]}
    if any(isinstance(leaf, Value) for leaf in pytree.tree_leaves(arguments)):
        return None
    function = functional(call.func)
    return lambda a: call_by_name(function, a), arguments, names[0]


def _views(call: Call, value: Value, places: Places) -> list[Places] | None:
    """Places of all results of a view, found once: a tensor is taken apart into many."""
    known = call.known
    if (viewed, places) not in known:
        view = _view_of(call, value)
        found = None if view is None else viewed(places, *view)
        known[viewed, places] = [found] if isinstance(found, Places) else found
    return known[viewed, places]  # type: ignore[no-any-return]


def _moved_tables(
    call: Call, value: Value, numbers: Numbers, item: int, constants: Constants
) -> Numbers | None:
    """Numbers after a movement of one tensor, by the tables of its axes."""
    if call.name in _RESHAPES:
        same = call.shape.numel() == math.prod(map(len, numbers[1]))
        return reshaped(numbers, call.shape, MOST_ELEMENTS) if same else None
    offset, arrays = numbers
    read = _indices(call, [len(array) for array in arrays], constants)
    if read is not None:
        return offset, [a if i is None else a[i] for a, i in zip(arrays, read, strict=True)]
    view = _view_of(call, value)
    return None if view is None else _viewed(numbers, view, item)


def _viewed(numbers: Numbers, view: tuple[Any, dict[str, Any], str], item: int) -> Numbers | None:
    """Numbers in a view, which may walk along any axis by itself."""
    offset, arrays = numbers
    sizes = tuple(map(len, arrays))
    total: list[np.ndarray] | None = None
    for axis in [axis for axis, array in enumerate(arrays) if array.any()]:
        one_step = tuple(int(a == axis) for a in range(len(arrays)))
        found = viewed(Places(sizes, one_step), *view)
        if found is None:
            return None
        walk = found[item] if isinstance(found, list) else found
        if not math.prod(walk.shape):
            return None
        read = read_at(arrays[axis], walk.offset, walk.strides, walk.shape)
        if read is None:
            return None
        offset += read[0]
        own = total or [np.zeros_like(array) for array in read[1]]
        total = [one + other for one, other in zip(own, read[1], strict=True)]
    return None if total is None else (offset, total)


def _indices(
    call: Call, sizes: Sequence[int], constants: Constants
) -> list[np.ndarray | None] | None:
    """What a call reads along each axis, None where that is the whole; None for other calls."""
    read: list[np.ndarray | None] = [None] * len(sizes)
    if not sizes:
        return None
    if call.name == "aten.flip":
        for axis in call["dims"]:
            read[axis] = np.arange(sizes[axis])[::-1]
        return read
    if call.name == "aten.roll" and call["dims"]:
        for axis, shift in zip(call["dims"], call["shifts"], strict=True):
            own = np.arange(sizes[axis]) if read[axis] is None else read[axis]
            read[axis] = np.roll(own, int(shift))
        return read
    if call.name == "aten.index_select" and not call["index"].varies:
        try:
            read[call["dim"]] = constants.of(call["index"]).numpy().reshape(-1)
        except UnknownConstantError:
            return None
        return read
    return None


def _side_by_side(call: Call, places: Mapping[int, Places]) -> Numbers | None:
    """Numbers of tensors that are put side by side along one axis, by the tables of their axes."""
    if call.name not in (*_JOINS, "aten.stack") or not call.shape.numel():
        return None
    axis = call["dim"] % len(call.shape)
    pieces: list[Numbers | None] = []
    for piece in call["tensors"]:
        told = places[id(piece)].tables() if id(piece) in places else None
        if (told is None and id(piece) in places) or not piece.shape.numel():
            return None
        if told is not None and call.name == "aten.stack":
            told = told[0], [*told[1][:axis], np.zeros(1, dtype=np.int64), *told[1][axis:]]
        pieces.append(told)
    stacked = call.name == "aten.stack"
    sizes = [1 if stacked else piece.shape[axis] for piece in call["tensors"]]
    return side_by_side(pieces, sizes, axis)


def before_views(value: Value, constants: Constants) -> Value | None:
    """What a tensor was before it was copied, or viewed without a change of the order."""
    first, moves = value, list[Value]()
    while first.call is not None and (kind_of(first) == "movement" or first.call.name in SAME):
        operands = varying_operands(first.call)
        if len(operands) != 1:
            return None
        moves.append(first)
        first = operands[0]
    places, before = identity(first.shape), first
    for moved in reversed(moves):
        assert moved.call is not None
        if kind_of(moved) == "movement":
            found = moved_places(moved.call, before, places, item_of(moved) or 0, constants)
            if found is None:
                return None
            places = found
        before = moved
    whole = first.shape.numel() == value.shape.numel()
    return first if whole and places == identity(value.shape) else None
