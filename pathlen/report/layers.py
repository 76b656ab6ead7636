"""What each layer adds to the averages: the rows of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from pathlen.graph.parts import BoolArray, FloatArray, IntArray, Kind

if TYPE_CHECKING:
    from pathlen.backends.protocol import Solution
    from pathlen.graph.path_graph import PathGraph

Number = float | Fraction
"""An average: a float, or a Fraction where ``exact=True`` was asked for."""


AFFINE = ("conv", "_conv", "linear", "embedding", "addmm", "matmul", "mm", "bmm")
"""Beginnings of the names of linear layers: with one input channel, or one a group, their units
read one unit each, too, and yet no nonlinearity ever was there."""

_CHUNK = 1 << 14  # nodes


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
    counts = np.array([layer.count for layer in graph.layers], dtype=np.int64)
    ends = np.cumsum(counts)
    units = counts - _in_layers(np.flatnonzero(graph.kind == int(Kind.HUB)), ends)
    functions = _in_layers(_functions_of_one_unit(graph, _led_by_a_function(graph)), ends)
    is_active = graph.activity > 0
    if graph.num_nodes >= _CHUNK * len(counts):  # large layers: nothing is written for each node
        parts = zip(ends - counts, ends, strict=True)
        active = np.array([np.count_nonzero(is_active[first:end]) for first, end in parts])
    else:
        active = _in_layers(np.flatnonzero(is_active), ends)
    affine = [layer.operation.startswith(AFFINE) for layer in graph.layers]
    return LayerTally(units, active, (functions == units) & ~np.array(affine, dtype=np.bool_))


def _in_layers(nodes: IntArray, ends: IntArray) -> IntArray:
    """How many of some nodes, ascending, each layer has: layers are consecutive: int64[layers]."""
    found: IntArray = np.diff(np.searchsorted(nodes, ends), prepend=0)
    return found


def layer_rows(graph: PathGraph, solution: Solution, exact: bool) -> tuple[LayerRow, ...]:
    """One row for each layer that has a node other than hubs."""
    tally = layer_tally(graph)
    uniform, normalized, magnitudes = (
        _contributions(graph, *found, exact)
        for found in (
            (solution.contribution, solution.path_share),
            (solution.normalized_contribution, solution.walk_share),
            (solution.magnitude_contribution, solution.magnitude_share),
        )
    )
    return tuple(
        LayerRow(
            name=layer.name,
            operation=layer.operation,
            units=int(tally.units[index]),
            active=int(tally.active[index]),
            contribution=cast("Number", uniform[index]),
            normalized_contribution=cast("Number", normalized[index]),
            activation=bool(tally.activation[index]),
            magnitude_contribution=magnitudes[index],
        )
        for index, layer in enumerate(graph.layers)
        if tally.units[index]
    )


def _contributions(
    graph: PathGraph,
    known: FloatArray | Sequence[Fraction] | None,
    share: FloatArray | Sequence[Fraction] | None,
    exact: bool,
) -> Sequence[Number | None]:
    """What each row of the layers table adds to an average: what the backend knew, or from shares.

    None for each where the backend has neither.
    """
    if known is not None:
        return list(known) if exact else np.asarray(known, dtype=np.float64).tolist()
    if share is None:
        return [None] * len(graph.layers)
    return layer_sums(graph, graph.activity, share, exact)


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
    parts = [row.normalized_contribution for row in rows]
    if not any(parts):
        return Fraction(0) if exact else 0.0
    if not exact:
        return sum(row.normalized_contribution * row.active for row in rows) / sum(parts)
    # As whole numbers: each sum of two long fractions would have to be reduced.
    weights = _over_one_denominator([Fraction(part) for part in parts])
    above = sum(weight * row.active for weight, row in zip(weights, rows, strict=True))
    return Fraction(above, sum(weights))


def _over_one_denominator(fractions: Sequence[Fraction]) -> list[int]:
    """Numerators of fractions once they have a common denominator."""
    common = 1
    for fraction in fractions:
        if common % fraction.denominator:
            common = math.lcm(common, fraction.denominator)
    return [fraction.numerator * (common // fraction.denominator) for fraction in fractions]


def _led_by_a_function(graph: PathGraph) -> BoolArray:
    """The layers whose first node may be a function of one unit: most others are seen at once."""
    firsts = np.array([layer.first for layer in graph.layers], dtype=np.int64)
    alone = graph.indptr[firsts + 1] - graph.indptr[firsts] == 1
    before = graph.indices[np.minimum(graph.indptr[firsts], graph.num_edges - 1)]
    of_hub = graph.kind[before] == int(Kind.HUB)
    found: BoolArray = (graph.kind[firsts] == int(Kind.HUB)) | (alone & ~of_hub)
    return found


def _functions_of_one_unit(graph: PathGraph, layers: BoolArray) -> IntArray:
    """The units of some layers whose only predecessor is a unit or an input: int64[functions].

    A linear layer's unit reads a hub and a merge's unit reads several nodes, so a layer of nothing
    but such units is a place where an activation is applied. A sum with a zero-padded shortcut
    has some of them, not all. Where a graph was cut (`PathGraph.between`), a unit reads an added
    node, which does not tell what it read before.
    """
    found = [np.zeros(0, dtype=np.int64)]
    looked_at = np.repeat(layers, [layer.count for layer in graph.layers])
    for first in range(0, graph.num_nodes, _CHUNK):  # what a part needs in between stays in caches
        part = looked_at[first : first + _CHUNK]
        if not part.any():
            continue
        ends = graph.indptr[first : first + _CHUNK + 1]
        is_unit = graph.kind[first : first + _CHUNK] == int(Kind.UNIT)
        alone = np.flatnonzero((ends[1:] - ends[:-1] == 1) & is_unit & part)
        before = graph.indices[ends[alone]]
        read = graph.kind[before]
        functions = (read == int(Kind.UNIT)) | (read == int(Kind.INPUT))
        if graph.node_ids is not None:
            functions &= graph.node_ids[before] >= 0
        found.append(first + alone[functions])
    return np.concatenate(found)
