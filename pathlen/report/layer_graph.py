"""The graph of a network's layers: what a picture of it is drawn from.

Its nodes are the layers that have units, with what is active in them and what they add to the
averages; its edges say which layers feed which, with hubs left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from pathlen.errors import PathlenError
from pathlen.graph.parts import Kind
from pathlen.graph.path_graph import PathGraph
from pathlen.report.contraction import between_layers
from pathlen.report.layers import layer_tally
from pathlen.report.shares import edge_share, node_share
from pathlen.show.files import text_or_file, write_text
from pathlen.show.graphml import layers_graphml, units_graphml
from pathlen.show.layer_text import dot_text, mermaid_text

if TYPE_CHECKING:
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

    @overload
    def to_dot(self, path: None = None) -> str: ...

    @overload
    def to_dot(self, path: str | PathLike[str]) -> None: ...

    def to_dot(self, path: str | PathLike[str] | None = None) -> str | None:
        """Return the graph in the language of Graphviz, or write it to a file.

        An activation layer is filled in the proportion of its active and linear units; dashed
        edges are skip connections.

        Raises:
            ReportError: The file cannot be written.
        """
        return text_or_file(dot_text(self), path)

    @overload
    def to_mermaid(self, path: None = None) -> str: ...

    @overload
    def to_mermaid(self, path: str | PathLike[str]) -> None: ...

    def to_mermaid(self, path: str | PathLike[str] | None = None) -> str | None:
        """Return the graph as a Mermaid flowchart, or write it to a file.

        Dotted edges are skip connections. Programs that draw Mermaid refuse more than 500 edges or
        50,000 characters unless they are set up otherwise (`maxEdges`, `maxTextSize`).

        Raises:
            ReportError: The file cannot be written.
        """
        return text_or_file(mermaid_text(self), path)

    def to_graphml(self, path: str | PathLike[str]) -> None:
        """Write a GraphML file, which networkx, igraph, Gephi, yEd and Cytoscape read.

        `pathlen.write_graphml` writes the path graph itself.

        Args:
            path: The file. One that is there is replaced, all of it or nothing.

        Raises:
            ReportError: The file cannot be written.
        """
        write_text(path, layers_graphml(self))


def write_graphml(measured: Report | PathGraph, path: str | PathLike[str]) -> None:
    """Write a path graph as a GraphML file: its units, hubs and terminals.

    Nodes carry what `PathGraph.to_networkx` gives them and, from a report, their shares of the
    paths. `LayerGraph.to_graphml` writes the graph of the layers, which is much smaller.

    Args:
        measured: A report, or a path graph, whose nodes have no shares.
        path: The file. One that is there is replaced, all of it or nothing.

    Raises:
        ReportError: The file cannot be written.
    """
    write_text(path, graphml_of_units(measured))


def graphml_of_units(measured: Report | PathGraph) -> Iterator[str]:
    """The text that `write_graphml` writes, in pieces."""
    if isinstance(measured, PathGraph):
        return units_graphml(measured, {})
    shares = {weighting: node_share(measured, weighting) for weighting in measured.weightings}
    return units_graphml(measured.graph, shares)


def layer_graph(measured: Report | PathGraph) -> LayerGraph:
    """The graph of the layers of a network, hubs left out.

    A layer that is dead as a whole (`edges="weights"`) is no part of it; `Report.dead_units` names
    it. O(e log e) array operations for e edges.

    Args:
        measured: A report, or a path graph, whose layers have no contributions and edges no shares.

    Raises:
        PathlenError: It is neither.
    """
    report = None if isinstance(measured, PathGraph) else measured
    graph = measured if isinstance(measured, PathGraph) else getattr(measured, "graph", None)
    if not isinstance(graph, PathGraph):
        raise PathlenError(
            f"layer_graph takes a report or a path graph, not {type(measured).__name__}; measure"
            " the model first (pathlen.measure)"
        )
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
