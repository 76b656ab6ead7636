"""Path graphs and the graphs of their layers as GraphML (graphml.graphdrawing.org).

The text comes in pieces: a graph of millions of units never stands in memory as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from pathlen.graph.check import row_numbers
from pathlen.graph.convert import node_attributes
from pathlen.graph.parts import FloatArray, Kind
from pathlen.show.names import weighted_name

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.layer_graph import LayerGraph

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns'
    ' http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">\n'
)
_TAIL = "  </graph>\n</graphml>\n"
_TYPES = {bool: "boolean", int: "long", float: "double", str: "string"}

# XML 1.0 cannot hold these characters, not even escaped.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

Columns = Mapping[str, Sequence[Any]]
"""Values of all nodes, or of all edges, by name: bool, int, float or str, one kind a column."""


def layers_graphml(graph: LayerGraph) -> Iterator[str]:
    """The graph of layers. Names of values are those of `Report.to_dict`."""
    nodes: dict[str, list[Any]] = {
        name: [getattr(node, name) for node in graph.nodes]
        for name in ("name", "operation", "units", "active", "linear", "dead", "activation")
    }
    nodes["kind"] = [_kind_name(node.kind) for node in graph.nodes]
    for weighting in graph.nodes[0].contributions:
        values = [float(node.contributions[weighting]) for node in graph.nodes]
        nodes[weighted_name(weighting, "contribution")] = values
    # A long of GraphML has 64 bits.
    number = float if any(edge.connections >= 2**63 for edge in graph.edges) else int
    edges: dict[str, list[Any]] = {
        "connections": [number(edge.connections) for edge in graph.edges],
        "skip": [edge.skip for edge in graph.edges],
    }
    for weighting in graph.nodes[0].contributions:
        values = [edge.shares[weighting] for edge in graph.edges]
        edges[weighted_name(weighting, "share")] = values
    ends = [(edge.source, edge.target) for edge in graph.edges]
    return _pieces(len(graph.nodes), nodes, ends, edges)


def units_graphml(graph: PathGraph, shares: Mapping[str, FloatArray]) -> Iterator[str]:
    """The path graph itself, hubs among its nodes.

    Args:
        graph: With n nodes.
        shares: float64[n], the shares of paths of the nodes, by weighting.
    """
    nodes = node_attributes(graph)
    for weighting, share in shares.items():
        nodes[weighted_name(weighting, "share")] = share.tolist()
    edges = {} if graph.weights is None else {"weight": graph.weights.tolist()}
    ends = zip(graph.indices.tolist(), row_numbers(graph.indptr).tolist(), strict=True)
    return _pieces(graph.num_nodes, nodes, ends, edges)


def _kind_name(kind: Kind) -> str:
    """What a layer is: "input", "layer" or "output"."""
    return "layer" if kind == Kind.UNIT else kind.name.lower()


def _pieces(
    count: int, nodes: Columns, ends: Iterable[tuple[int, int]], edges: Columns
) -> Iterator[str]:
    """A document with nodes n0, n1, ...; keys d0, d1, ... stand for the names of values."""
    yield _HEAD
    number = 0
    keys: dict[str, dict[str, str]] = {"node": {}, "edge": {}}
    for domain, columns in (("node", nodes), ("edge", edges)):
        for name, values in columns.items():
            key = keys[domain][name] = f"d{number}"
            number += 1
            kind = _TYPES[type(values[0])] if values else "string"
            yield (
                f'  <key id="{key}" for="{domain}" attr.name={quoteattr(name)}'
                f' attr.type="{kind}"/>\n'
            )
    yield '  <graph id="pathlen" edgedefault="directed">\n'
    for node, values in zip(range(count), zip(*nodes.values(), strict=True), strict=True):
        yield f'    <node id="n{node}">{_data(keys["node"].values(), values)}</node>\n'
    rows: Iterable[tuple[Any, ...]] = zip(*edges.values(), strict=True)
    if not edges:
        for source, target in ends:
            yield f'    <edge source="n{source}" target="n{target}"/>\n'
    for (source, target), values in zip(ends, rows, strict=True) if edges else ():
        data = _data(keys["edge"].values(), values)
        yield f'    <edge source="n{source}" target="n{target}">{data}</edge>\n'
    yield _TAIL


def _data(keys: Iterable[str], values: Iterable[Any]) -> str:
    """The values of one node or edge."""
    return "".join(
        f'<data key="{key}">{_text(value)}</data>' for key, value in zip(keys, values, strict=True)
    )


def _text(value: Any) -> str:
    """A value as XML text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(_UNWRITABLE.sub("\ufffd", value)) if isinstance(value, str) else repr(value)
