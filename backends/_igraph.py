"""igraph's topological order, adjacency and shortest paths; counts follow its order in Python."""

import math
from collections.abc import Iterable, Sequence

import igraph
import numpy as np

from pathlen.backends.protocol import (
    Capabilities,
    FloatArray,
    Scaled,
    Solution,
    float_solution,
    start_chances,
)
from pathlen.graph import Kind, PathGraph


class IgraphBackend:
    """igraph for structure and lengths, Python floats for counts and chances."""

    name = "igraph"
    capabilities = Capabilities(exact=False, summary="igraph's order and shortest paths")

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph; see `Backend.solve`.

        O(nodes + edges) in Python for counts and chances. The longest path is a shortest one
        with negative lengths (Bellman-Ford): O(nodes * edges) at worst, far less on layers.
        """
        network = graph.to_igraph()
        order = network.topological_sorting(mode="out")
        before, after = network.get_adjlist(mode="in"), network.get_adjlist(mode="out")
        chances = start_chances(graph, direction).tolist()
        if direction == "backward":
            walk = _walk(order[::-1], after, network.indegree(), chances)
        else:
            walk = _walk(order, before, network.outdegree(), chances)
        return float_solution(
            graph,
            direction,
            from_inputs=_count(order, before),
            to_outputs=_count(order[::-1], after),
            walk_share=walk,
            longest=-_least(graph, network, -graph.activity),
            shortest=_least(graph, network, graph.activity),
        )


def _count(order: Iterable[int], read: Sequence[Sequence[int]]) -> Scaled:
    """Path counts x(v) = 1 at a terminal, else the sum of x over what v reads: [n].

    Each is a mantissa and a power of two, and the terms of a sum are brought to the largest.
    """
    mantissas, exponents = [0.0] * len(read), [0] * len(read)
    for node in order:
        others = read[node]
        if others:
            top = max(exponents[other] for other in others)
            value = math.fsum(
                math.ldexp(mantissas[other], exponents[other] - top) for other in others
            )
        else:
            value, top = 1.0, 0
        mantissas[node], shift = math.frexp(value)
        exponents[node] = top + shift
    return Scaled(np.array(mantissas), np.array(exponents, dtype=np.int64))


def _walk(
    order: Iterable[int],
    read: Sequence[Sequence[int]],
    degrees: Sequence[int],
    starts: Sequence[float],
) -> FloatArray:
    """W(v) = chance to start at v + the sum of W(u) / degree(u) over what v reads: float64[n]."""
    chances, steps = [0.0] * len(read), [0.0] * len(read)
    for node in order:
        chances[node] = math.fsum([starts[node], *(steps[other] for other in read[node])])
        steps[node] = chances[node] / max(degrees[node], 1)
    return np.array(chances)


def _least(graph: PathGraph, network: igraph.Graph, lengths: FloatArray) -> float:
    """Smallest sum of lengths along a path from an input to an output, ends included."""
    source = graph.num_nodes
    inputs = np.flatnonzero(graph.kind == Kind.INPUT).tolist()
    whole = network.copy()
    whole.add_vertex()
    whole.add_edges([(source, node) for node in inputs])
    # An edge is as long as the node it leads to; one new node leads to all inputs.
    weights = [*lengths[[edge.target for edge in network.es]].tolist(), *lengths[inputs].tolist()]
    outputs = np.flatnonzero(graph.kind == Kind.OUTPUT).tolist()
    distances = whole.distances(source=[source], target=outputs, weights=weights, mode="out")
    return float(min(distances[0]))


BACKEND = IgraphBackend()
