"""Elements that integers choose among results which were computed alike, each from own weights.

`einsum("bi,eio->beo", x, w)[rows, places]` is `einsum("bi,bio->bo", x, w[places])`: whether the
result is chosen or the weights, it is one layer. A choice of elements passes back through all that
is computed from each in the same way, up to where something else is chosen from.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import fx

from pathlen.graph.path_graph import Kind
from pathlen.lowering.builder import Alike, GraphBuilder
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    label_sets,
    sets_of_rows,
)
from pathlen.lowering.reduced import over_rows, union_over
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value, varying_operands


def chosen_over(
    call: Call,
    source: Value,
    labels: torch.Tensor,
    axes: Iterable[int],
    places: list[Value],
    lowering: Lowering,
) -> torch.Tensor:
    """Labels with the given axes cut to length 1, along which integers choose one element.

    Args:
        call: the call site.
        source: the tensor.
        labels: of it.
        axes: to be cut.
        places: the integers.
        lowering: the lowering at work.
    """
    axes = [*axes]
    if lowering.weights is not None or not _are_given(places, source):
        return union_over(call, labels, axes, lowering)
    return over_rows(labels, axes, lambda rows: _Alike(call, lowering).united(rows))


def _are_given(places: list[Value], source: Value) -> bool:
    """Whether places come from elsewhere than the elements: those of the largest are a maximum."""
    paths = list[Value]()
    stack, seen = [*places], set[int]()
    while stack:
        value = stack.pop()
        if value.is_path:
            paths.append(value)
        elif id(value) not in seen and value.call is not None:
            seen.add(id(value))
            stack += varying_operands(value.call)
    if any(not value.dtype.is_floating_point for value in paths):
        return False  # a table that an input is looked up in
    return _origins(paths).isdisjoint(_origins([source]))


def _origins(values: list[Value]) -> set[fx.Node]:
    """The layers, contractions and inputs that values are computed from by anything else."""
    found, seen, stack = set[fx.Node](), set[int](), [*values]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.call is None or kind_of(value) in ("layer", "contraction"):
            found.add(value.node)
        else:
            stack += [operand for operand in varying_operands(value.call) if operand.is_path]
    return found


class _Alike:
    """Makes one node for several that were made in one call from nodes that are alike in turn."""

    def __init__(self, call: Call, lowering: Lowering) -> None:
        self._call, self._lowering = call, lowering
        self._builder: GraphBuilder = lowering.builder

    def united(self, rows: np.ndarray) -> np.ndarray:
        """A node for each row of nodes, of which one is chosen.

        Args:
            rows: # (rows, choices)
        """
        united = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], CONSTANT)
        left = np.flatnonzero((rows != rows[:, :1]).any(axis=1))
        if not len(left):
            return united
        several, number = np.unique(rows[left], axis=0, return_inverse=True)
        found = np.full(len(several), CONSTANT)
        for own, alike in self._builder.made_alike(several):
            found[own] = self._again(several[own], alike)
        rest = found == CONSTANT
        if rest.any():
            sets, of_row = label_sets(several[rest])
            self._lowering.layer(self._call)
            found[rest] = np.append(self._builder.hubs(sets), CONSTANT)[of_row]
        united[left] = found[number.reshape(-1)]
        return united

    def _again(self, rows: np.ndarray, alike: Alike) -> np.ndarray:
        """A node like those of each row, behind nodes that are like their predecessors."""
        count, choices, degree = alike.predecessors.shape
        before = self.united(np.moveaxis(alike.predecessors, 1, 2).reshape(-1, choices))
        sets = sets_of_rows(before.reshape(count, degree))
        self._lowering.layer(self._call, self._builder.operation_of(int(rows[0, 0])))
        if alike.kind == Kind.HUB:
            return self._hubs(sets)
        return self._builder.merges(sets, alike.activity)

    def _hubs(self, sets: LabelSets) -> np.ndarray:
        """A hub over each set, one over those that are equal."""
        rows = np.full((len(sets.sizes), int(sets.sizes.max())), CONSTANT)
        rows[np.arange(rows.shape[1]) < sets.sizes[:, None]] = sets.members
        distinct_sets, of_row = label_sets(rows)
        hubs: np.ndarray = self._builder.hubs(distinct_sets)[of_row]
        return hubs
