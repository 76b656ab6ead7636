"""What an activation is: a region, the units that it reads, and how many functions it is of each.

Several functions of one element are several units, one function at many positions is one. So a
constant that varies along an axis along which elements are repeated (Fourier features) splits a
unit, and so do scaled copies side by side, relu(cat([x, -x])).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.equal import equal
from pathlen.lowering.follow import SAME, Follower
from pathlen.lowering.labels import CONSTANT, broadcast, collapse, distinct, distinct_tuples
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places, identity
from pathlen.lowering.regions import Region, scales, states
from pathlen.lowering.rules import kind_of, kind_of_call
from pathlen.lowering.same_functions import function_numbers, places
from pathlen.lowering.values import Call, Value, varying_operands


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The units of an activation: one for each label and function that meet in an element.

    Attributes:
        entries: of each unit, in order, the label that it reads.
        function: and where its function is, among those laid out flat.
        shape: of the functions; it broadcasts to that of the result.
        labels_of: gives the labels of the result, once the units have ids.
    """

    entries: np.ndarray
    function: np.ndarray
    shape: torch.Size
    labels_of: Callable[[np.ndarray], torch.Tensor]

    def of_units(self, functions: torch.Tensor) -> np.ndarray:
        """Something of each function, in a shape that broadcasts to theirs, by unit."""
        found: np.ndarray = functions.expand(self.shape).reshape(-1).numpy()[self.function]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """The scalar functions that an activation is.

    Attributes:
        region: the calls.
        labels: of the entry, where the result has its elements, without weights.
        variants: numbers that tell apart the affine functions of one element that the entry holds,
            in the shape of the result; None where it holds one of each.
    """

    region: Region
    labels: torch.Tensor
    variants: torch.Tensor | None = None

    def split(self, functions: Sequence[int], constants: Constants) -> Split:
        """Find the units.

        Args:
            functions: their shape, as the values of their parameters tell them apart.
            constants: gives the parameters.
        """
        split = self._split(places(functions))
        if self.variants is None and len(np.unique(split.entries)) == len(split.entries):
            return split
        return self._split(function_numbers(self.region, constants, functions))

    def _split(self, index: torch.Tensor) -> Split:
        several = index.numel() > 1
        columns = [self.labels]
        if several:
            columns.append(broadcast(index, self.labels.shape))
        if self.variants is not None:
            columns.append(self.variants)
        tuples, spread = distinct_tuples(columns)
        rows = tuples[:, 0] != CONSTANT
        function = tuples[rows, 1] if several else np.zeros(np.count_nonzero(rows), dtype=np.int64)

        def labels_of(units: np.ndarray) -> torch.Tensor:
            of_row = np.full(len(tuples), CONSTANT, dtype=np.int64)
            of_row[rows] = units
            return spread(of_row)

        return Split(tuples[rows, 0], function, index.shape, labels_of)


def labels_of_entry(region: Region, constants: Constants) -> torch.Tensor:
    """Labels of the entry of a region, where the elements of its result come from."""
    entry, call = region.entry, region.last
    return carried(region, entry.labels, call.shape, constants)


def carried(
    region: Region, numbers: torch.Tensor, shape: torch.Size, constants: Constants
) -> torch.Tensor:
    """Integers of the elements of an entry, carried along to where the result has these elements.

    Args:
        region: the region.
        numbers: of the shape of the entry.
        shape: of the result.
        constants: gives the indices of movements.
    """
    entry = region.entry
    (places,) = region.state.places
    if places == identity(entry.shape).expanded(shape):
        return broadcast(numbers, shape)
    of_values = states(region, constants)
    known = {id(entry): numbers}
    for value in region.between:
        state = of_values[id(value)]
        assert value.call is not None
        if state is not None and state.degree and state.places[0].key is None:
            known[id(value)] = _carried_by(
                value.call, item_of(value) or 0, known, value.shape, constants
            )
    return _carried_by(call := region.last, 0, known, call.shape, constants)


def _carried_by(
    call: Call, item: int, known: dict[int, torch.Tensor], shape: torch.Size, constants: Constants
) -> torch.Tensor:
    operands = [value for value in varying_operands(call) if id(value) in known]
    if kind_of_call(call) == "movement" and call.arguments.get("mask") is None:
        masked = any(v.dtype == torch.bool for v in _indices(call))
        if not masked:
            tensors = {
                id(v): known.get(id(v), torch.full((), CONSTANT).expand(v.shape))
                for v in moved_operands(call)
            }
            moved = run_movement(call, tensors, constants)
            assert moved is not None
            return collapse(moved[item])
    whole = [v for v in operands if known[id(v)].numel() == math.prod(shape)] or operands
    source = known[id(whole[0])]
    if source.shape != shape and source.numel() == math.prod(shape):
        return source.reshape(shape)
    return broadcast(source, shape)


def _indices(call: Call) -> list[Value]:
    return [i for i in call.arguments.get("indices") or () if isinstance(i, Value)]


class Variants:
    """Tells apart the affine functions of one element that a tensor holds.

    Args:
        constants: gives the indices of movements.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[Value, tuple[Places | None, torch.Tensor | None]] = {}

    def of(self, value: Value) -> torch.Tensor | None:
        """Numbers of functions, int64 of the value's shape; None where each element has one.

        They are found from where the elements began: at a layer, input, merge or activation.
        """
        chain: list[Value] = []
        stack = [value]
        while stack:
            current = stack.pop()
            if current in self._known:
                continue
            below = self._below(current)
            missing = [operand for operand in below if operand not in self._known]
            if missing:
                stack += [current, *missing]
            else:
                self._known[current] = self._found(current, below)
            chain.append(current)
        return self._known[value][1]

    def _below(self, value: Value) -> list[Value]:
        """The operands that a value passes on, none where its elements begin."""
        call = value.call
        if call is None or value.merge or value.function is not None:
            return []
        kind, operands = kind_of(value), varying_operands(call)
        if kind == "normalization" and len(operands) == 1:
            return operands
        if kind == "elementwise" and len(operands) == 1 and scales(call, operands[0]):
            return operands
        if kind == "movement" and item_of(value) is not None:
            return [v for v in moved_operands(call) if v.is_path]
        return []

    def _found(self, value: Value, below: list[Value]) -> tuple[Places | None, torch.Tensor | None]:
        """Where the elements come from, None where that is not followed; and the variants."""
        if not below:
            return identity(value.shape), None
        assert value.call is not None
        kind = kind_of(value)
        places, variants = self._known[below[0]]
        if kind == "normalization":
            return places, variants
        if kind == "movement":
            return self._moved(value, below)
        places = None if places is None else places.expanded(value.shape)
        variants = None if variants is None else broadcast(variants, value.shape)
        return places, self._split(value, below[0], places, variants)

    def _split(
        self,
        value: Value,
        operand: Value,
        places: Places | None,
        variants: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Variants after a call with constants that vary along axes that repeat elements."""
        if places is None or places.numbers is not None or places.key is not None:
            return variants
        assert value.call is not None
        axes: set[int] = set()
        for own in value.call.values():
            if not own.varies:
                lead = len(value.shape) - len(own.shape)
                axes |= {lead + axis for axis in _varying_axes(own)}
        axes = {a for a in axes if value.shape[a] > 1 and not places.strides[a]}
        if not axes:
            return variants
        index = torch.zeros((), dtype=torch.int64)
        for axis in sorted(axes):
            along = [-1 if a == axis else 1 for a in range(len(value.shape))]
            index = index * value.shape[axis] + torch.arange(value.shape[axis]).view(along)
        index = index.expand(value.shape)
        if variants is None:
            return index
        _, spread = distinct_tuples([variants, index])
        tuples, _ = distinct_tuples([variants, index])
        return spread(np.arange(len(tuples)))

    def _moved(self, value: Value, below: list[Value]) -> tuple[Places | None, torch.Tensor | None]:
        assert value.call is not None
        item = item_of(value)
        if len(below) == 1:
            follower = Follower(below[0], self._constants)
            places, variants = self._known[below[0]]
            state = follower.state_of_call(value.call, item or 0) if places is not None else None
            moved = None
            if state is not None and places == identity(below[0].shape):
                (moved,) = state.places
            elif state is not None and places is not None:
                moved = follower.moved_places(value.call, below[0], places, item or 0)
            if variants is not None:
                variants = self._run(value.call, {id(below[0]): variants}, item or 0)
            return moved, variants
        numbers = self._numbers(below)
        if numbers is None:
            return None, None
        return None, self._run(value.call, numbers, 0)

    def _run(self, call: Call, given: dict[int, torch.Tensor], item: int) -> torch.Tensor | None:
        tensors = {id(v): torch.full((), 0).expand(v.shape) for v in moved_operands(call)}
        moved = run_movement(call, {**tensors, **given}, self._constants)
        return None if moved is None else collapse(moved[item])

    def _numbers(self, pieces: list[Value]) -> dict[int, torch.Tensor] | None:
        """Variants of tensors that are put side by side; None where no two hold the same unit."""
        units = [distinct(piece.labels) for piece in pieces]
        together = np.concatenate(units)
        if len(np.unique(together)) == len(together):
            own = {id(p): v for p in pieces if (v := self._known[p][1]) is not None}
            return own or None
        number: list[int] = []
        origins = [_origin(piece) for piece in pieces]
        for place, origin in enumerate(origins):
            like = [n for n in range(place) if equal(origins[n], origin)]
            number.append(number[like[0]] if like else place)
        base = 1 + max(
            (int(v.max()) for p in pieces if (v := self._known[p][1]) is not None), default=0
        )
        found = {}
        for piece, own_number in zip(pieces, number, strict=True):
            variants = self._known[piece][1]
            inner = torch.zeros((), dtype=torch.int64) if variants is None else variants
            found[id(piece)] = (inner + own_number * base).expand(piece.shape)
        return found


def _varying_axes(constant: Value) -> list[int]:
    """Axes along which a constant may vary: it is longer than 1 there, and not expanded."""
    val = constant.node.meta["val"]
    strides = val.stride() if val.shape == constant.shape else (1,) * len(constant.shape)
    return [a for a, size in enumerate(constant.shape) if size > 1 and strides[a] != 0]


def _origin(value: Value) -> Value:
    """A value before it was copied, cast or moved."""
    while value.call is not None and value.function is None and not value.merge:
        operands = varying_operands(value.call)
        copied = value.call.name in SAME - frozenset(aten("neg negative"))
        if len(operands) != 1 or not (copied or kind_of(value) == "movement"):
            break
        value = operands[0]
    return value
