"""Path graphs as graphs of other libraries, each imported when it is asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.errors import GraphError
from pathlen.graph.build import Parts, parts_from_edges
from pathlen.graph.check import row_numbers
from pathlen.graph.parts import Kind

if TYPE_CHECKING:
    import igraph
    import networkx
    import scipy.sparse

    from pathlen.graph.path_graph import PathGraph

KINDS = [kind.name.lower() for kind in Kind]
"""Names of the kinds of nodes, as attributes have them."""


def to_networkx(graph: "PathGraph") -> "networkx.DiGraph[int]":
    """See `PathGraph.to_networkx`."""
    import networkx

    network: networkx.DiGraph[int] = networkx.DiGraph()
    columns = node_attributes(graph)
    for node, values in enumerate(zip(*columns.values(), strict=True)):
        network.add_node(node, **dict(zip(columns, values, strict=True)))
    rows = row_numbers(graph.indptr)
    edges = (graph.indices.tolist(), rows.tolist())
    if graph.weights is None:
        network.add_edges_from(zip(*edges, strict=True))
    else:
        network.add_weighted_edges_from(zip(*edges, graph.weights.tolist(), strict=True))
    return network


def to_igraph(graph: "PathGraph") -> "igraph.Graph":
    """See `PathGraph.to_igraph`."""
    import igraph

    edges = np.column_stack([graph.indices, row_numbers(graph.indptr)])
    return igraph.Graph(
        n=graph.num_nodes,
        edges=edges,
        directed=True,
        vertex_attrs=node_attributes(graph),
        edge_attrs={} if graph.weights is None else {"weight": graph.weights.tolist()},
    )


def to_scipy(graph: "PathGraph") -> "scipy.sparse.csr_array":
    """See `PathGraph.to_scipy`."""
    import scipy.sparse

    # Copies: scipy may sort a matrix in place, and these arrays are read-only.
    entries = np.ones(graph.num_edges) if graph.weights is None else graph.weights.copy()
    return scipy.sparse.csr_array(
        (entries, graph.indices.copy(), graph.indptr.copy()),
        shape=(graph.num_nodes, graph.num_nodes),
    )


def parts_from_networkx(graph: "networkx.DiGraph[Any]", weight: str | None) -> Parts:
    """See `PathGraph.from_networkx`."""
    import networkx

    if not isinstance(graph, networkx.DiGraph) or graph.is_multigraph():
        raise GraphError(
            f"a path graph is made from a networkx.DiGraph, not from a {type(graph).__name__}"
        )
    nodes = list(graph.nodes)
    are_numbers = all(type(node) is int and node >= 0 for node in nodes)
    number = {node: node if are_numbers else place for place, node in enumerate(nodes)}
    edges = [(number[source], number[target]) for source, target in graph.edges]
    columns = {name: [graph.nodes[node].get(name) for node in nodes] for name in _READ}
    weights = None if weight is None else [given for *_, given in graph.edges.data(weight)]
    return _parts(edges, weights, columns, list(number.values()), weight)


def parts_from_igraph(graph: "igraph.Graph", weight: str | None) -> Parts:
    """See `PathGraph.from_igraph`."""
    import igraph

    if not isinstance(graph, igraph.Graph) or not graph.is_directed():
        kind = "an undirected one" if isinstance(graph, igraph.Graph) else type(graph).__name__
        raise GraphError(f"a path graph is made from a directed igraph.Graph, not from {kind}")
    columns = {
        name: graph.vs[name] if name in graph.vs.attributes() else [None] * graph.vcount()
        for name in _READ
    }
    weights = graph.es[weight] if weight in graph.es.attributes() else None
    return _parts(graph.get_edgelist(), weights, columns, list(range(graph.vcount())), weight)


_READ = ("activity", "kind", "layer")


def _parts(
    edges: Sequence[tuple[int, int]],
    weights: Sequence[Any] | None,
    columns: dict[str, list[Any]],
    ids: list[int],
    weight: str | None,
) -> Parts:
    """The parts of a graph whose nodes have attributes, or none of them has."""
    for name, values in columns.items():
        _require_all(values, f"nodes have {name!r}")
    _require_all(weights or [], f"edges have {weight!r}")
    of = {
        name: dict(zip(ids, values, strict=True))
        for name, values in columns.items()
        if values and values[0] is not None
    }
    kinds = of.get("kind", {})
    if unknown := sorted({str(kind) for kind in kinds.values()} - set(KINDS)):
        raise GraphError(f"unknown kinds of nodes: {', '.join(unknown[:3])}; choose from {KINDS}")
    if kinds and "activity" not in of:
        of["activity"] = {node: float(kind == "unit") for node, kind in kinds.items()}
    ends = {
        name: [node for node, kind in kinds.items() if kind == name] or None
        for name in ("input", "output")
    }
    parts = parts_from_edges(
        np.array(edges, dtype=np.int64).reshape(-1, 2),
        max(ids, default=-1) + 1,
        of.get("activity"),
        ends["input"],
        ends["output"],
        of.get("layer"),
        weights if weights and weights[0] is not None else None,
    )
    hubs = [node for node, kind in kinds.items() if kind == "hub"]
    assert parts["node_ids"] is not None
    is_hub = np.isin(parts["node_ids"], hubs) & (parts["kind"] == Kind.UNIT)
    parts["kind"][is_hub] = Kind.HUB
    return parts


def _require_all(values: Sequence[Any], what: str) -> None:
    missing = sum(value is None for value in values)
    if 0 < missing < len(values):
        raise GraphError(f"{len(values) - missing} of {len(values)} {what}; give it to all or none")


def node_attributes(graph: "PathGraph") -> dict[str, list[object]]:
    """What nodes carry, a column each: activity, kind, name of the layer, id if there are any."""
    columns: dict[str, list[object]] = {
        "activity": graph.activity.tolist(),
        "kind": [KINDS[kind] for kind in graph.kind.tolist()],
        "layer": [graph.layers[row].name for row in graph.layer.tolist()],
    }
    if graph.node_ids is not None:
        columns["node_id"] = graph.node_ids.tolist()
    return columns
