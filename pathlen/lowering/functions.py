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

from pathlen.lowering.along import axes_along, carried_along
from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import CONSTANT, broadcast, collapse, distinct_tuples, expands
from pathlen.lowering.lookups import as_chosen, chooser_of
from pathlen.lowering.masks import mask_of
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.places import identity
from pathlen.lowering.ranks import written_by_rank
from pathlen.lowering.regions import Region
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.same_functions import function_numbers, places
from pathlen.lowering.stacks import stack_of
from pathlen.lowering.values import Call, varying_operands


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
        if math.prod(functions) == 1 and self.variants is None:
            return split  # one function of each unit
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
    if expands(entry.shape, shape) and places == identity(entry.shape).expanded(shape):
        return broadcast(numbers, shape)
    known = {id(entry): numbers}
    for value, state in zip(region.between, region.states, strict=True):
        assert value.call is not None
        if state is not None and state.degree and state.places[0].key is None:
            known[id(value)] = _carried_by(
                value.call, item_of(value) or 0, known, value.shape, constants
            )
    if not any(id(value) in known for value in varying_operands(region.last)):  # stacked, reduced
        return collapse(numbers.reshape(-1)[places.as_numbers()])
    return _carried_by(region.last, 0, known, shape, constants)


def _carried_by(
    call: Call, item: int, known: dict[int, torch.Tensor], shape: torch.Size, constants: Constants
) -> torch.Tensor:
    operands = [value for value in varying_operands(call) if id(value) in known]
    if operands and axes_along(call) is not None:
        moved = carried_along(call, known[id(operands[0])])
        assert moved is not None
        return collapse(moved)
    order = written_by_rank(call)
    if order is not None:
        return broadcast(known[id(order.source)], shape)
    chooser = chooser_of(call)
    if chooser is not None:
        return collapse(broadcast(as_chosen(call, known[id(chooser)]), shape))
    if kind_of_call(call) == "movement" and mask_of(call) is None:
        tensors = {
            id(v): known.get(id(v), torch.full((), CONSTANT).expand(v.shape))
            for v in moved_operands(call)
        }
        results = run_movement(call, tensors, constants)
        assert results is not None
        return collapse(results[item])
    if not operands:  # tensors that were stacked and are reduced again
        stack = stack_of(call, constants)
        operands = [v for v in stack.pieces if id(v) in known] if stack is not None else []
    whole = [v for v in operands if known[id(v)].numel() == math.prod(shape)] or operands
    first, *others = [_shown(known[id(value)], shape) for value in whole]
    for other in others:  # tensors that were padded and are added hold elements side by side
        first = torch.where(first == CONSTANT, other, first)
    return collapse(first) if others else first


def _shown(numbers: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if numbers.shape != shape and numbers.numel() == math.prod(shape):
        return numbers.reshape(shape)
    return broadcast(numbers, shape)
