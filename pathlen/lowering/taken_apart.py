"""Layers whose result is taken apart again: each part is the layer on what that part reads.

A layer that reads rows with different units (the steps of a recurrent layer below, side by side)
has one unit per output feature for all of them. Where the program reads a row alone afterwards,
though, `linear(x)[t]` is `linear(x[t])`: a layer that reads this row, with units of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.constants import Constants
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    collapse,
    compact,
    constant_labels,
    distinct,
    distinct_rows,
    is_position_axis,
    rename,
)
from pathlen.lowering.moving import run_movement
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, Rows, Value

Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class RowsOfLayer(Rows):
    """The rows of a layer's result.

    Attributes:
        source: labels of what the layer reads, features last.
        units: of the result.  # (features out,)
        shape: of the result, features last.
        order: of these axes in the result.
        layer: adds the layer on labels of rows, features last; gives the labels of the result.
        known: the units of the layer on some rows, by the numbers of the rows, and all nodes.
        moved: the calls that the result went through, each with the tensor that it moves, and
            which of its results it is.
    """

    source: torch.Tensor
    units: np.ndarray
    shape: tuple[int, ...]
    order: tuple[int, ...]
    layer: Layer
    known: dict[tuple[int, ...], tuple[np.ndarray, range]] = field(default_factory=dict)
    moved: tuple[tuple[Call, Value, int], ...] = ()

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(np.prod(self.shape[:-1]))

    def numbers(self) -> tuple[torch.Tensor, np.ndarray]:
        """The number of the row of each element; rows that read the same have the same.

        Returns:
            The numbers, `CONSTANT` for rows without units, and the rows.
            # int64 of the result's shape; (numbers, features in)
        """
        rows = self.source.reshape(-1, self.source.shape[-1]).numpy()
        rows, number = distinct_rows(rows)
        number = np.where((rows == CONSTANT).all(axis=1), CONSTANT, np.arange(len(rows)))[number]
        shown = torch.from_numpy(number).view(self.source.shape[:-1]).unsqueeze(-1)
        return shown.expand(self.shape).permute(self.order), rows

    def moved_numbers(self, constants: Constants) -> tuple[torch.Tensor, np.ndarray] | None:
        """The numbers after all calls, and the rows; None where these are not known."""
        numbers, rows = self.numbers()
        for call, operand, item in self.moved:
            found = run_movement(call, {id(operand): numbers}, constants)
            if found is None:
                return None
            numbers = found[item]
        return numbers, rows

    def on(self, numbers: tuple[int, ...], rows: np.ndarray, lowering: Lowering) -> np.ndarray:
        """The units of the layer on some rows."""
        known = self.known.get(numbers)
        if known is None:
            first = lowering.builder.num_nodes
            labels = self.layer(torch.from_numpy(rows[[*numbers]]))
            units = compact(labels, [0]).reshape(-1).numpy()
            known = self.known[numbers] = units, range(first, lowering.builder.num_nodes)
        if lowering.steps is not None:
            lowering.shares.append(known[1])
        return known[0]


def rows_of(
    source: torch.Tensor,
    labels: torch.Tensor,
    layer: Layer,
    lowering: Lowering,
    order: Sequence[int] | None = None,
) -> Rows | None:
    """The rows of a layer that reads different units at different places; None for other layers.

    Args:
        source: labels of what it reads, features last.
        labels: of the result, features last.
        layer: adds the layer on labels of rows, features last.
        lowering: the lowering at work.
        order: of these axes in the result, where it is another.
    """
    if all(is_position_axis(source, axis) for axis in range(source.ndim - 1)):
        return None
    if is_position_axis(lowering.unified(source), source.ndim - 1):
        return None  # it mixes positions
    units = compact(labels).reshape(-1).numpy()
    order = tuple(range(labels.ndim) if order is None else order)
    return RowsOfLayer(compact(source), units, tuple(labels.shape), order, layer)


def take_apart(call: Call, result: Any, lowering: Lowering) -> None:
    """Give what a movement takes from the result of a layer the units of the rows that it takes.

    Args:
        call: any call.
        result: of it; a part that lacks rows becomes the layer on those that it has.
        lowering: the lowering at work.
    """
    rows = next((value.rows for value in call.values() if value.rows is not None), None)
    if not isinstance(rows, RowsOfLayer):
        return
    operands = [value for value in call.values() if value.varies]
    if len(operands) != 1:
        return
    (source,) = operands
    results = [value for value in pytree.tree_leaves(result) if isinstance(value, Value)]
    if kind_of_call(call) == "elementwise":
        for value in results:
            value.rows = rows if _is_passed(value, source) else None
        return
    if kind_of_call(call) != "movement":
        return
    for item, value in enumerate(results):
        value.rows = own = replace(rows, moved=(*rows.moved, (call, source, item)))
        if value.shape.numel() < source.shape.numel() and _lacks_rows(value, own):
            _narrow(value, own, lowering)


def _is_passed(value: Value, source: Value) -> bool:
    one, other = compact(value.labels), compact(source.labels)
    return value.shape == source.shape and one.shape == other.shape and torch.equal(one, other)


def _lacks_rows(value: Value, rows: RowsOfLayer) -> bool:
    """Whether a tensor has too few elements to hold something of every row."""
    if not value.is_path or value.shape.numel() >= rows.count * len(rows.units):
        return False
    return value.shape.numel() < rows.count * len(distinct(value.labels))


def _narrow(value: Value, rows: RowsOfLayer, lowering: Lowering) -> None:
    """Make a part of a layer's result the layer on the rows that it has something of."""
    found = rows.moved_numbers(lowering.constants)
    if found is None:
        return
    numbers = compact(found[0]).numpy()
    held = tuple(np.unique(numbers[numbers != CONSTANT]).tolist())
    if not held:
        value.begin(constant_labels(value.shape))
    elif len(held) < int((found[1] != CONSTANT).any(axis=1).sum()):  # padding is no row
        units, order = rows.on(held, found[1], lowering), np.argsort(rows.units)
        value.begin(collapse(rename(value.labels, rows.units[order], units[order])))
        value.rows = replace(rows, units=units)
