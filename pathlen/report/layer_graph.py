"""The graph of a network's layers: what a picture of it is drawn from.

Its nodes are the layers that have units, with what is active in them and what they add to the
averages; its edges say which layers feed which, with hubs left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pathlen.graph.parts import Kind
from pathlen.report.contraction import between_layers
from pathlen.report.layers import layer_tally
from pathlen.report.shares import edge_share, node_share

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.layers import Number
    from pathlen.report.report import Report

# Integers up to this are exact in float64.
_EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class LayerNode:
    """A layer.

    Attributes:
        name: Module path of the call site, unique in the graph.
        operation: What the layer does: "relu", "conv2d", "input", ...
        kind: INPUT, UNIT or OUTPUT: what its nodes are.
        units: Number of its units that are alive; hubs are not units.
        active: Number of its units with an activity above 0.
        dead: Number of units that weights of 0 cut off (`edges="weights"`); not among `units`.
        activation: Whether it is a place where a nonlinearity is or, once linearized, was.
        contributions: What the layer adds to the average, by weighting; empty without a report.
    """

    name: str
    operation: str
    kind: Kind
    units: int
    active: int
    dead: int
    activation: bool
    contributions: Mapping[str, Number]

    @property
    def linear(self) -> int:
        """Number of its units that are alive and not active."""
        return self.units - self.active


@dataclass(frozen=True, slots=True)
class LayerEdge:
    """What one layer feeds to another, straight or through hubs.

    Attributes:
        source: The layer that feeds, as a position among the nodes.
        target: The layer that is fed; it comes later than the source.
        connections: Number of ways from a unit of the one to a unit of the other that meet no
            other unit: channels times channels for a convolution, channels for a skip.
        shares: Share of the paths, or chance of a walk, that goes this way, by weighting; empty
            without a report.
        skip: Whether other layers lead from the source to the target as well.
    """

    source: int
    target: int
    connections: int
    shares: Mapping[str, float]
    skip: bool


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """Layers and what they feed to each other.

    Attributes:
        nodes: The layers that have units, in topological order: inputs first, outputs last.
        edges: Sorted by target, then by source. No edge leads from a layer to itself.
    """

    nodes: tuple[LayerNode, ...]
    edges: tuple[LayerEdge, ...]


def layer_graph(measured: Report | PathGraph) -> LayerGraph:
    """The graph of the layers of a network, hubs left out.

    A layer that is dead as a whole (`edges="weights"`) is no part of it; `Report.dead_units` names
    it. O(e log e) array operations for e edges.

    Args:
        measured: A report, or a path graph, whose layers have no contributions and edges no shares.
    """
    from pathlen.report.report import Report

    report = measured if isinstance(measured, Report) else None
    graph = measured.graph if isinstance(measured, Report) else measured
    rows, nodes = _nodes(graph, report)
    weightings = () if report is None else report.weightings
    carried, passing = [np.ones(graph.num_edges)], [np.ones(graph.num_nodes)]
    if report is not None:
        carried += [edge_share(report, weighting) for weighting in weightings]
        passing += [node_share(report, weighting) for weighting in weightings]
    links = between_layers(graph, np.column_stack(carried), np.column_stack(passing))
    connections = links.values[:, 0]
    if (connections >= _EXACT).any():  # only then are integers of any size worth their time
        ones = np.array([[1]] * graph.num_edges, dtype=object)
        connections = between_layers(graph, ones).values[:, 0]
    position = np.full(len(graph.layers), -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    source, target = position[links.source].tolist(), position[links.target].tolist()
    edges = zip(
        source,
        target,
        map(int, connections.tolist()),
        [dict(zip(weightings, row, strict=True)) for row in links.values[:, 1:].tolist()],
        _skips(len(nodes), source, target),
        strict=True,
    )
    return LayerGraph(nodes, tuple(LayerEdge(*values) for values in edges))


def _nodes(
    graph: PathGraph, report: Report | None
) -> tuple[npt.NDArray[np.int64], tuple[LayerNode, ...]]:
    """Rows of the layers table that have units, and a node for each."""
    tally = layer_tally(graph)
    rows = np.flatnonzero(tally.units)
    dead = {row.layer: len(row.indices) for row in graph.info.dead} if graph.info else {}
    added: list[Mapping[str, Number]] = [{}] * len(rows)
    if report is not None:
        by_weighting = {name: report.contributions(name) for name in report.weightings}
        added = [
            {name: values[row.name] for name, values in by_weighting.items()}
            for row in report.layers
        ]
    return rows, tuple(
        LayerNode(
            name=graph.layers[row].name,
            operation=graph.layers[row].operation,
            kind=_kind(graph, row),
            units=int(tally.units[row]),
            active=int(tally.active[row]),
            dead=dead.get(graph.layers[row].name, 0),
            activation=bool(tally.activation[row]),
            contributions=contributions,
        )
        for row, contributions in zip(rows.tolist(), added, strict=True)
    )


def _kind(graph: PathGraph, row: int) -> Kind:
    """What the nodes of a layer are: inputs and outputs have layers of their own."""
    kind = Kind(graph.kind[graph.layers[row].first])
    return kind if kind in (Kind.INPUT, Kind.OUTPUT) else Kind.UNIT


def _skips(count: int, sources: Sequence[int], targets: Sequence[int]) -> list[bool]:
    """Whether each edge goes around others: a longer way leads from its source to its target.

    An edge can only be a skip if its target is two or more steps below its source, counted along
    the longest ways. For these, what comes before the target is searched back to the source,
    the farthest back first: in a residual network that ends after a block.
    """
    before: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(sources, targets, strict=True):
        before[target].append(source)
    depth = [0] * count
    for node, nodes in enumerate(before):
        depth[node] = 1 + max((depth[other] for other in nodes), default=-1)
    return [
        depth[target] - depth[source] > 1 and _leads_around(before, depth, source, target)
        for source, target in zip(sources, targets, strict=True)
    ]


def _leads_around(
    before: Sequence[Sequence[int]], depth: Sequence[int], source: int, target: int
) -> bool:
    """Whether a way of two edges or more leads from one node to another."""
    waiting = [(depth[node], node) for node in before[target] if node != source]
    heapq.heapify(waiting)
    seen = {node for _, node in waiting}
    while waiting:
        level, node = heapq.heappop(waiting)
        if level <= depth[source]:
            continue
        for other in before[node]:
            if other == source:
                return True
            if other not in seen:
                seen.add(other)
                heapq.heappush(waiting, (depth[other], other))
    return False
