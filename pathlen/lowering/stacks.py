"""Tensors that are put side by side along an axis, which is reduced again: they meet."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.memory import ASSEMBLED, Assembled
from pathlen.lowering.moving import item_of
from pathlen.lowering.operations import aten
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity
from pathlen.lowering.placing import moved_places
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.states import (
    COPIES,
    NEGATIONS,
    NONLINEAR,
    PRODUCTS,
    SAME,
    TOTALS,
    Of,
    State,
    meeting,
)
from pathlen.lowering.statistics import REDUCTIONS, reduced_axes
from pathlen.lowering.values import Call, Value, varying_operands

JOINS = (*aten("stack cat concat concatenate"), ASSEMBLED)
SCALINGS = frozenset(aten("mul multiply div divide true_divide"))
_Place = tuple[int, list[tuple[int, int]]]  # offset; sizes and strides of axes longer than 1


def over_pieces(call: Call, pieces: list[Value], of: Of) -> State | None:
    """Tensors that are stacked and reduced again: an elementwise function of them."""
    states = []
    for piece in pieces:
        state = of(piece)
        if state is None or not all(_fits(one, call.shape) for one in state.places):
            return None
        places = tuple(_with_ones(one, call.shape) for one in state.places)
        states.append(replace(state, places=places))
    met = meeting(states, call.shape)
    if met is None:
        return None
    highest = max(state.degree for state in states)
    degree = highest if call.name in TOTALS or not highest else NONLINEAR
    return State(degree, met)


def _fits(places: Places, shape: torch.Size) -> bool:
    """Whether places are of a shape that differs from another in axes of length 1 only."""
    followed = places.key is None and places.numbers is None
    return followed and [n for n in places.shape if n > 1] == [n for n in shape if n > 1]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Tensors side by side along an axis that a call reduces.

    Attributes:
        pieces: the tensors.
        scalings: products with constants, and quotients, that the whole went through since.
        axis: the axis.
    """

    pieces: list[Value]
    scalings: tuple[Call, ...]
    axis: int

    def factor_of(self, number: int, constant: Callable[[Value], torch.Tensor]) -> torch.Tensor:
        """What a tensor is multiplied by where it is in the stack; the axis of the stack is gone.

        Args:
            number: of the tensor.
            constant: gives the values of a constant.

        Returns:
            float64, of a shape that broadcasts to the tensor's.
        """
        total = torch.ones((), dtype=torch.float64)
        for call in self.scalings:
            other = call["other"]
            factor = torch.as_tensor(constant(other) if isinstance(other, Value) else other)
            own = self.axis - len(call.shape) + factor.ndim
            if own >= 0 and factor.ndim:
                factor = factor.select(own, number if factor.shape[own] > 1 else 0)
            factor = factor.double()
            total = total * (factor if call.name in PRODUCTS else 1 / factor)
        return total


def stack_of(call: Call, constants: Constants) -> Stack | None:
    """The tensors that were put side by side along the one axis that a call reduces, or None."""
    source = call.arguments.get("self")
    if call.name not in REDUCTIONS or not isinstance(source, Value):
        return None
    axes, scalings = reduced_axes(call), list[Call]()
    if axes is None or len(axes) != 1:
        return None
    while source.call is not None and source.call.name in SCALINGS:
        operands = [value for value in source.call.values() if value.varies]
        by_constant = len(operands) == 1 and source.call["self"] is operands[0]
        if not by_constant or operands[0].shape != source.shape:
            return None
        scalings.append(source.call)
        source = operands[0]
    pieces = pieces_along(source, axes[0], constants)
    return None if pieces is None else Stack(pieces, tuple(scalings), axes[0])


def scaled_pieces_along(
    source: Value, axis: int, constants: Constants
) -> tuple[list[Value], float] | None:
    """The tensors that were put side by side along an axis, and by what they were multiplied since.

    None where they were not, or where something else was done to them than to be moved and scaled
    by numbers.
    """
    scalings = list[Value]()
    joined = source
    while joined.call is not None and joined.call.name not in JOINS:
        operands = varying_operands(joined.call)
        if len(operands) != 1:
            return None
        if _number_of(joined) is not None:
            scalings.append(joined)
        elif kind_of_call(joined.call) != "movement":
            return None
        (joined,) = operands
    factor = math.prod(number for number in map(_number_of, scalings) if number is not None)
    pieces = pieces_along(source, axis, constants, frozenset(scalings))
    return None if pieces is None else (pieces, factor)


def _number_of(value: Value) -> float | None:
    """The number that a tensor is another one times; None where it is something else."""
    call = value.call
    if call is None or call.name not in SCALINGS | SAME:
        return None
    if call.name in SAME:
        return -1.0 if call.name in NEGATIONS else 1.0
    number, whole = call["other"], call["self"]
    plain = isinstance(number, int | float) and call.arguments.get("rounding_mode") is None
    if not plain or not isinstance(whole, Value) or whole.dtype != value.dtype or not number:
        return None
    return float(number) if call.name in PRODUCTS else 1 / number


def pieces_along(
    source: Value, axis: int, constants: Constants, scalings: Collection[Value] = ()
) -> list[Value] | None:
    """The tensors that were put side by side along an axis of a tensor, or None.

    They were stacked along it, put together along another axis and viewed, or written to memory.
    None, too, where they are the slices of one tensor: put together again, they are that tensor.

    Args:
        source: the tensor.
        axis: of it.
        constants: gives the indices of movements.
        scalings: what it was on the way and may be looked through, as if it had been moved nowhere.
    """
    joined, places = _before_moves(source, constants, scalings)
    if joined.call is None or joined.call.name not in JOINS or places is None:
        return None
    pieces = _pieces(joined)
    wanted = [_slice(places, axis, number) for number in range(places.shape[axis])]
    found = {str(place): piece for place, piece in pieces}
    if not wanted or not {*map(str, wanted)} <= found.keys():
        return None
    if len(wanted) < len(pieces) and not _are_apart([place for place, _ in pieces]):
        return None
    ordered = [found[str(place)] for place in wanted]
    return None if _are_slices(ordered, constants) else ordered


def are_at_different_places(tensors: list[Value], constants: Constants) -> bool:
    """Whether no two of several views of one tensor share an element."""
    found = [_before_moves(tensor, constants)[1] for tensor in tensors]
    known = [_slice(places, None, 0) for places in found if places is not None]
    return len(known) == len(found) and _are_apart(known)


def _before_moves(
    value: Value, constants: Constants, scalings: Collection[Value] = ()
) -> tuple[Value, Places | None]:
    """The tensor of which a value is a view, up to where tensors were put together.

    Returns:
        It, and the places of the value's elements there; None where strides do not tell them.
    """
    moves, first = list[Value](), value
    while first.call is not None and first.call.name not in JOINS:
        operands = varying_operands(first.call)
        copies = first.call.name in COPIES or first in scalings
        if len(operands) != 1 or not (copies or kind_of_call(first.call) == "movement"):
            break
        moves.insert(0, first)
        first = operands[0]
    before, places = first, _in_memory(first)
    for moved in moves:
        item = item_of(moved)
        if moved.call is None or item is None:
            return first, None
        if moved.call.name in COPIES or moved in scalings:
            before = moved
            continue
        found = moved_places(moved.call, before, places, item, constants)
        if found is None or found.key is not None or found.numbers is not None:
            return first, None
        before, places = moved, found
    return first, places


def _in_memory(value: Value) -> Places:
    """Places of elements in the memory of which they are a view, which was written to in parts."""
    if value.call is None or not isinstance(value.call.func, Assembled):
        return identity(value.shape)
    whole = identity(value.call["tensors"][0].shape)
    view = torch.empty_strided(whole.shape, whole.strides, device="meta")
    for step in value.call.func.view:
        view = step(view)
    strides = tuple(s if n > 1 else 0 for n, s in zip(view.shape, view.stride(), strict=True))
    return Places(tuple(view.shape), strides, int(view.storage_offset()))


def _are_apart(places: list[_Place]) -> bool:
    """Whether no two of several slices share an element."""
    if sum(math.prod(size for size, _ in runs) for _, runs in places) > MOST_ELEMENTS:
        return False
    elements = []
    for offset, runs in places:
        numbers = torch.full((), offset)
        for size, stride in runs:
            numbers = numbers[..., None] + torch.arange(size) * stride
        elements.append(numbers.reshape(-1))
    numbers = torch.cat(elements)
    return bool(numbers.unique().numel() == numbers.numel())


def _are_slices(pieces: list[Value], constants: Constants) -> bool:
    """Whether tensors are all slices of one along one of its axes, in order."""
    followed = [_before_moves(piece, constants) for piece in pieces]
    whole = followed[0][0]
    if any(first is not whole or places is None for first, places in followed):
        return False
    own = [_slice(places, None, 0) for _, places in followed if places is not None]
    return any(
        size == len(pieces)
        and own == [_slice(identity(whole.shape), axis, number) for number in range(size)]
        for axis, size in enumerate(whole.shape)
    )


def _slice(places: Places, axis: int | None, number: int) -> _Place:
    """Offset, and sizes and strides of the axes longer than 1, of one slice along an axis.

    Of all there is where there is no axis.
    """
    axes = [
        (n, s)
        for a, (n, s) in enumerate(zip(places.shape, places.strides, strict=True))
        if a != axis and n > 1
    ]
    along = 0 if axis is None else places.strides[axis]
    return places.offset + number * along, _run_together(axes)


def _pieces(joined: Value) -> list[tuple[_Place, Value]]:
    """The tensors that were put together, each with where it is."""
    assert joined.call is not None
    if isinstance(joined.call.func, Assembled):
        return _written(joined.call.func, joined.call["tensors"])
    whole = identity(joined.shape)
    axis = joined.call["dim"] % len(joined.shape)
    start, found = 0, []
    for piece in joined.call["tensors"]:
        strides = list(whole.strides)
        step, length = strides[axis], 1
        if joined.call.name == "aten.stack":
            strides.pop(axis)
        else:
            length = piece.shape[axis]
        axes = [(n, s) for n, s in zip(piece.shape, strides, strict=True) if n > 1]
        found.append(((start * step, _run_together(axes)), piece))
        start += length
    return found


def _written(func: Assembled, tensors: list[Value]) -> list[tuple[_Place, Value]]:
    """Tensors that were written to memory."""
    found, whole = list[tuple[_Place, Value]](), identity(tensors[0].shape)
    memory = torch.empty_strided(whole.shape, whole.strides, device="meta")
    for steps, tensor in zip(func.writes, tensors[1:], strict=True):
        view = memory
        for step in steps:
            view = step(view)
        axes = [(n, s) for n, s in zip(view.shape, view.stride(), strict=True) if n > 1]
        found.append(((int(view.storage_offset()), _run_together(axes)), tensor))
    return found


def _run_together(axes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes and strides of axes, those that run on into each other as one."""
    found: list[tuple[int, int]] = []
    for size, stride in axes:
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return found


def _with_ones(places: Places, shape: torch.Size) -> Places:
    """The same places in a shape that differs in axes of length 1 only."""
    strides = iter([s for n, s in zip(places.shape, places.strides, strict=True) if n > 1])
    along = tuple(next(strides) if size > 1 else 0 for size in shape)
    return replace(places, shape=tuple(shape), strides=along)
