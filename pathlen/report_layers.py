"""What each layer adds to the averages: the rows of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from pathlen.graph_parts import BoolArray, FloatArray, IntArray, Kind

if TYPE_CHECKING:
    from pathlen.backends.protocol import Solution
    from pathlen.graph import PathGraph

Number = float | Fraction
"""An average: a float, or a Fraction where ``exact=True`` was asked for."""


AFFINE = ("conv", "_conv", "linear", "embedding", "addmm", "matmul", "mm", "bmm")
"""Beginnings of the names of linear layers: with one input channel, or one a group, their units
read one unit each, too, and yet no nonlinearity ever was there."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a report.

    Attributes:
        name: Module path of the call site, unique in the graph.
        operation: What the layer does: "relu", "conv2d", "input", ...
        units: Number of its units; hubs are not units.
        active: Number of its units with an activity above 0.
        contribution: The layer's part of the average path length.
        normalized_contribution: The layer's part of the normalized average path length.
        activation: Whether the layer applies functions of one unit each, that is, whether it is
            a place where a nonlinearity is or, once linearized, was.
        magnitude_contribution: The layer's part of the average with paths weighted by magnitude;
            None without weights.
    """

    name: str
    operation: str
    units: int
    active: int
    contribution: Number
    normalized_contribution: Number
    activation: bool
    magnitude_contribution: Number | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LayerTally:
    """What the units of each row of a layers table are: arrays with one entry a row.

    Attributes:
        units: int64, number of units; hubs are not units.
        active: int64, number of units with an activity above 0.
        activation: bool, see `LayerRow`.
    """

    units: IntArray
    active: IntArray
    activation: BoolArray


def layer_tally(graph: PathGraph) -> LayerTally:
    """Count the units of each layer of a graph."""
    count = len(graph.layers)
    units = np.bincount(graph.layer[graph.kind != Kind.HUB], minlength=count)
    active = np.bincount(graph.layer[graph.activity > 0], minlength=count)
    functions = np.bincount(graph.layer[_functions_of_one_unit(graph)], minlength=count)
    affine = [layer.operation.startswith(AFFINE) for layer in graph.layers]
    return LayerTally(units, active, (functions == units) & ~np.array(affine, dtype=np.bool_))


def layer_rows(graph: PathGraph, solution: Solution, exact: bool) -> tuple[LayerRow, ...]:
    """One row for each layer that has a node other than hubs."""
    tally = layer_tally(graph)
    uniform = layer_sums(graph, graph.activity, solution.path_share, exact)
    normalized = layer_sums(graph, graph.activity, solution.walk_share, exact)
    magnitudes: Sequence[Number | None] = [None] * len(graph.layers)
    if solution.magnitude_share is not None:
        magnitudes = layer_sums(graph, graph.activity, solution.magnitude_share, exact)
    return tuple(
        LayerRow(
            name=layer.name,
            operation=layer.operation,
            units=int(tally.units[index]),
            active=int(tally.active[index]),
            contribution=uniform[index],
            normalized_contribution=normalized[index],
            activation=bool(tally.activation[index]),
            magnitude_contribution=magnitudes[index],
        )
        for index, layer in enumerate(graph.layers)
        if tally.units[index]
    )


def layer_sums(
    graph: PathGraph, factor: FloatArray, share: FloatArray | Sequence[Fraction], exact: bool
) -> list[Number]:
    """The sum of factor * share over the nodes of each layer, one for each row of the table.

    Args:
        graph: The path graph, of n nodes.
        factor: float64[n].
        share: [n], shares of the paths that pass each node.
        exact: Whether shares are Fractions, and sums are to be.
    """
    if not exact:
        weights = factor * np.asarray(share, dtype=np.float64)
        sums = np.bincount(graph.layer, weights=weights, minlength=len(graph.layers))
        return [float(value) for value in sums]
    totals: list[Number] = [Fraction(0)] * len(graph.layers)
    # The nodes of a layer have few different shares, and adding fractions of hundreds of digits
    # is what takes time: so equal ones are counted first.
    nodes = np.flatnonzero(factor).tolist()
    alike = Counter((int(graph.layer[u]), float(factor[u]), share[u]) for u in nodes)
    for (layer, value, node_share), times in alike.items():
        totals[layer] += Fraction(value) * node_share * times
    return totals


def effective_width(rows: Sequence[LayerRow], exact: bool) -> Number:
    """Average the active units of the layers with normalized contributions as weights."""
    zero: Number = Fraction(0) if exact else 0.0
    total = sum((row.normalized_contribution for row in rows), zero)
    if not total:
        return zero
    return sum((row.normalized_contribution * row.active for row in rows), zero) / total


def _functions_of_one_unit(graph: PathGraph) -> BoolArray:
    """Mark the units whose only predecessor is a unit or an input: shape [num_nodes].

    A linear layer's unit reads a hub and a merge's unit reads several nodes, so a layer of nothing
    but such units is a place where an activation is applied. A sum with a zero-padded shortcut
    has some of them, not all. Where a graph was cut (`PathGraph.between`), a unit reads an added
    node, which does not tell what it read before.
    """
    alone: BoolArray = (np.diff(graph.indptr) == 1) & (graph.kind == Kind.UNIT)
    before = graph.indices[graph.indptr[:-1][alone]]
    functions = (graph.kind[before] == Kind.UNIT) | (graph.kind[before] == Kind.INPUT)
    if graph.node_ids is not None:
        functions &= graph.node_ids[before] >= 0
    alone[alone] = functions
    return alone
