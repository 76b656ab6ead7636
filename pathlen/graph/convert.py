"""Path graphs as graphs of other libraries, each imported when it is asked for."""

from typing import TYPE_CHECKING

import numpy as np

from pathlen.graph.check import row_numbers
from pathlen.graph.parts import Kind

if TYPE_CHECKING:
    import igraph
    import networkx
    import scipy.sparse

    from pathlen.graph.path_graph import PathGraph


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


def node_attributes(graph: "PathGraph") -> dict[str, list[object]]:
    """What nodes carry, a column each: activity, kind, name of the layer, id if there are any."""
    names = [kind.name.lower() for kind in Kind]
    columns: dict[str, list[object]] = {
        "activity": graph.activity.tolist(),
        "kind": [names[kind] for kind in graph.kind.tolist()],
        "layer": [graph.layers[row].name for row in graph.layer.tolist()],
    }
    if graph.node_ids is not None:
        columns["node_id"] = graph.node_ids.tolist()
    return columns
