"""Tells apart the affine functions of one element that a tensor holds.

They are found from where the elements began: at a layer, an input, a merge or an activation. Scaled
copies of a tensor side by side are several functions of each element, and so are its products with
constants that differ along an axis along which it is repeated.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.equal import equal
from pathlen.lowering.functions import carried
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    distinct,
    distinct_tuples,
)
from pathlen.lowering.moving import INDICES, before_moves, item_of, moved_operands, run_movement
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity, numbered
from pathlen.lowering.placing import joined_places, moved_places
from pathlen.lowering.rules import kind_of
from pathlen.lowering.scales import Scales
from pathlen.lowering.states import COPIES, SUMS, degree_by_name
from pathlen.lowering.values import Call, Value, varying_operands


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """What a tensor holds.

    Attributes:
        root: where its elements began.
        places: of its elements there.
        variants: numbers of functions, int64 of its shape; None where each element has one.
    """

    root: Value
    places: Places
    variants: torch.Tensor | None = None


class Variants:
    """Finds the variants of tensors, each once.

    Args:
        constants: gives the indices of movements.
        scales: what labels stand for, where edges carry weights.
    """

    def __init__(self, constants: Constants, scales: Scales | None = None) -> None:
        self._constants = constants
        self._scales = scales
        self._known: dict[Value, _Held] = {}
        self._elements: dict[Value, torch.Tensor | None] = {}
        self._may_repeat: dict[Value, tuple[bool, bool]] = {}

    def may_repeat(self, value: Value) -> bool:
        """Whether elements may be several functions of one, or the same: seen without following.

        A tensor that was expanded or read at indices since its elements began, or was put
        together from several of which one was scaled.
        """
        stack = [value]
        while stack:
            current = stack.pop()
            below = passed_on(current)
            entries = [current.function.region.entry] if current.function and not below else below
            missing = [one for one in entries if one not in self._may_repeat]
            if missing:
                stack += [current, *missing]
            elif current not in self._may_repeat:
                self._may_repeat[current] = self._seen(current, below)
        return self._may_repeat[value][0]

    def _seen(self, value: Value, below: list[Value]) -> tuple[bool, bool]:
        """Whether a tensor may repeat elements, and whether it was scaled."""
        if not below:
            function = value.function
            repeats = value.begun is not None
            if function is not None:
                (own,) = function.region.state.places
                entry = function.region.entry
                repeats |= own.repeats() or self._may_repeat[entry][0]
                repeats |= entry.shape.numel() < value.shape.numel()
            return repeats, False
        call, flags = value.call, [self._may_repeat[operand] for operand in below]
        repeats, scaled = (any(flag) for flag in zip(*flags, strict=True))
        repeats |= value.shape.numel() > sum(operand.shape.numel() for operand in below)
        repeats |= len(below) > 1 and scaled
        if call is not None and value.passes is None:
            is_movement = kind_of(value) == "movement"
            repeats |= is_movement and any(name in call.arguments for name in INDICES)
            scaled |= kind_of(value) == "elementwise" and call.name not in COPIES
        return repeats, scaled

    def of(self, value: Value) -> torch.Tensor | None:
        """Numbers of functions, int64 of the value's shape; None where each element has one."""
        return self._held(value).variants

    def places(self, value: Value) -> Places:
        """Where its elements are among those that they are affine functions of."""
        return self._held(value).places

    def repeats(self, value: Value, axis: int) -> torch.Tensor | None:
        """How many elements before each one along an axis are the same, see `Places`."""
        return self._held(value).places.repeats_along(axis)

    def elements(self, value: Value) -> torch.Tensor | None:
        """Which element each one of a tensor is a function of, before activations too.

        Returns:
            int64 of its shape, -1 for constants; None where it is another one for each.
        """
        stack = [value]
        while stack[-1] not in self._elements:
            function = self._held(stack[-1]).root.function
            if function is None or function.region.entry in self._elements:
                break
            stack.append(function.region.entry)
        for current in reversed(stack):
            if current not in self._elements:
                self._elements[current] = self._elements_of(self._held(current))
        return self._elements[value]

    def _elements_of(self, held: _Held) -> torch.Tensor | None:
        function, root, places = held.root.function, held.root, held.places
        numbers = None
        if places.key is not None or root.shape.numel() > MOST_ELEMENTS:
            return None
        if places.numbers is not None and places.is_large():
            return None
        if function is not None:
            region = function.region
            below, (own,) = self._elements[region.entry], region.state.places
            if own.key is None and (below is not None or own.repeats()):
                if below is None:
                    below = identity(region.entry.shape).as_numbers()
                numbers = carried(region, below, root.shape, self._constants)
        if numbers is None and not places.repeats():
            return None
        if numbers is None:
            return places.as_numbers()
        begin, here = self._held(root).places.as_numbers(), places.as_numbers()
        table = torch.full((int(begin.max()) + 1,), CONSTANT)
        table[begin.reshape(-1)] = numbers.reshape(-1)  # the places of a function may repeat
        return torch.where(here < 0, CONSTANT, table[here])

    def _held(self, value: Value) -> _Held:
        for current in operands_first(value, self._known):
            self._known[current] = self._found(current, passed_on(current))
        return self._known[value]

    def _found(self, value: Value, below: list[Value]) -> _Held:
        if not below:
            begun = value.begun
            if begun is not None and begun.places.shape == value.shape:
                return _Held(value, begun.places, begun.variants)
            return _Held(value, self._places_of_function(value))
        assert value.call is not None
        held, kind = self._known[below[0]], kind_of(value)
        if kind == "normalization" or value.passes is not None:
            return held
        if kind == "movement":
            return self._moved(value, below)
        if len(below) > 1:
            return self._side_by_side(value, below)
        places = held.places.expanded(value.shape)
        variants = None if held.variants is None else broadcast(held.variants, value.shape)
        return _Held(held.root, places, _split(value, below[0], places, variants))

    def _places_of_function(self, value: Value) -> Places:
        """Places where elements begin: an activation of repeated elements repeats its own."""
        whole, function = identity(value.shape), value.function
        if function is None or value.shape.numel() > MOST_ELEMENTS:
            return whole
        region = function.region
        held, (own,) = self._held(region.entry).places, region.state.places
        if held.key is not None or own.key is not None or not (held.repeats() or own.repeats()):
            return whole
        numbers = carried(region, held.as_numbers(), value.shape, self._constants)
        tuples, spread = distinct_tuples([numbers, value.labels])
        return numbered(spread(np.arange(len(tuples))))

    def _moved(self, value: Value, below: list[Value]) -> _Held:
        assert value.call is not None
        item = item_of(value) or 0
        if len(below) > 1:
            numbers = self._numbers(below)
            joined = None if numbers is None else self._run(value.call, numbers, item)
            return self._joined(value, below, item, joined)
        held = self._known[below[0]]
        variants = held.variants
        if variants is not None:
            variants = self._run(value.call, {id(below[0]): variants}, item)
        places = moved_places(value.call, below[0], held.places, item, self._constants)
        if places is None:
            return _Held(value, identity(value.shape), variants)
        return _Held(held.root, places, variants)

    def _joined(
        self, value: Value, below: list[Value], item: int, variants: torch.Tensor | None
    ) -> _Held:
        """Several tensors put together, which may hold elements of one."""
        assert value.call is not None
        held = [self._known[piece] for piece in below]
        root, places = held[0].root, None
        if all(h.root is root for h in held):
            own = {id(p): h.places for p, h in zip(below, held, strict=True)}
            places = joined_places(value.call, own, item, self._constants)
        if places is None:
            return _Held(value, identity(value.shape), variants)
        return _Held(root, places, variants)

    def _side_by_side(self, value: Value, below: list[Value]) -> _Held:
        """A sum of tensors at each of whose elements one of them is no constant."""
        numbers = self._numbers(below)
        if numbers is None:
            return _Held(value, identity(value.shape))
        joined = torch.zeros((), dtype=torch.int64)
        for piece in below:
            there = broadcast(piece.labels, value.shape) != CONSTANT
            own = numbers.get(id(piece), torch.zeros((), dtype=torch.int64))
            joined = torch.where(there, own, joined)
        return _Held(value, identity(value.shape), collapse(joined))

    def _run(
        self, call: Call, given: dict[int, torch.Tensor], item: int, other: int = 0
    ) -> torch.Tensor | None:
        tensors = {id(v): torch.full((), other).expand(v.shape) for v in moved_operands(call)}
        moved = run_movement(call, {**tensors, **given}, self._constants)
        return None if moved is None else collapse(moved[item])

    def _numbers(self, pieces: list[Value]) -> dict[int, torch.Tensor] | None:
        """Variants of tensors that are put side by side; None where each element has one."""
        held = [self._known[piece] for piece in pieces]
        if not _share_units([self._units(piece) for piece in pieces]):
            own = {id(p): h.variants for p, h in zip(pieces, held, strict=True)}
            return {key: v for key, v in own.items() if v is not None} or None
        origins = [before_moves(piece) for piece in pieces]
        number: list[int] = []
        for place, one in enumerate(held):
            number.append(0)
            for n in range(place):
                same_elements = held[n].root is one.root and held[n].places.meets(one.places)
                if same_elements and not equal(origins[n], origins[place]):
                    number[place] = max(number[place], number[n] + 1)
        base = 1 + max((int(h.variants.max()) for h in held if h.variants is not None), default=0)
        found = {}
        for piece, one, own_number in zip(pieces, held, number, strict=True):
            inner = torch.zeros((), dtype=torch.int64) if one.variants is None else one.variants
            found[id(piece)] = (inner + own_number * base).expand(piece.shape)
        return found

    def _units(self, piece: Value) -> np.ndarray:
        """The units of a tensor, whatever factors it holds them with."""
        return distinct(piece.labels if self._scales is None else self._scales.roots(piece.labels))


def operands_first(value: Value, known: Mapping[Value, object]) -> Iterator[Value]:
    """A value and all that it passes on and that is not known, each after what it passes on.

    Args:
        value: the value.
        known: what is known; it must hold each value that was given before the next is asked for.
    """
    stack = [value]
    while stack:
        current = stack.pop()
        if current in known:
            continue
        missing = [operand for operand in passed_on(current) if operand not in known]
        if missing:
            stack += [current, *missing]
        else:
            yield current


def passed_on(value: Value) -> list[Value]:
    """The operands that a value passes on, none where its elements begin."""
    call = value.call
    if value.passes is not None:
        return [value.passes]
    if call is None or value.merge or value.function is not None:
        return []
    kind, operands = kind_of(value), varying_operands(call)
    path = [operand for operand in operands if operand.is_path]
    if kind == "normalization" and len(operands) == 1:
        return operands
    if kind == "elementwise" and len(path) == 1 and _scales(call, path[0]):
        return path
    if call.name in SUMS and len(path) == len(operands) > 1 and _in_own_places(path, value.shape):
        return path
    if kind == "movement" and item_of(value) is not None:
        return [v for v in moved_operands(call) if v.is_path]
    return []


def _in_own_places(path: list[Value], shape: torch.Size) -> bool:
    """Whether each element of a sum comes from one of its operands: they were padded before."""
    if any(bool((compact(value.labels) != CONSTANT).all()) for value in path):
        return False
    held = [(broadcast(value.labels, shape) != CONSTANT).long() for value in path]
    return bool((torch.stack(held).sum(0) <= 1).all())


def _scales(call: Call, operand: Value) -> bool:
    of = {name: float(argument is operand) for name, argument in call.arguments.items()}
    return degree_by_name(call, of) == 1


def _split(
    value: Value, operand: Value, places: Places, variants: torch.Tensor | None
) -> torch.Tensor | None:
    """Variants after a call with constants that vary along axes that repeat elements."""
    assert value.call is not None
    axes: set[int] = set()
    for own in value.call.values():
        if own is not operand:
            lead = len(value.shape) - len(own.shape)
            axes |= {lead + axis for axis in varying_axes(own)}
    index: torch.Tensor | None = None
    for axis in sorted(axes):
        repeats = places.repeats_along(axis) if value.shape[axis] > 1 else None
        if repeats is not None:
            index = repeats if index is None else index * value.shape[axis] + repeats
    if index is None:
        return variants
    index = index.expand(value.shape)
    if variants is None:
        return index
    tuples, spread = distinct_tuples([variants, index])
    return spread(np.arange(len(tuples)))


def varying_axes(constant: Value) -> list[int]:
    """Axes along which a constant may vary: it is longer than 1 there, and not expanded."""
    val = constant.node.meta["val"]
    whole = isinstance(val, torch.Tensor) and val.shape == constant.shape
    strides = val.stride() if whole else (1,) * len(constant.shape)
    return [a for a, size in enumerate(constant.shape) if size > 1 and strides[a] != 0]


def _share_units(pieces: list[np.ndarray]) -> bool:
    """Whether a unit is among those of two tensors."""
    ranges = sorted((int(units[0]), int(units[-1])) for units in pieces if units.size)
    if all(one[1] < other[0] for one, other in itertools.pairwise(ranges)):
        return False  # each has units of layers of its own
    together = np.concatenate(pieces)
    return len(np.unique(together)) < len(together)
