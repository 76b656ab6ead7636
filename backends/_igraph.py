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

        O(nodes + edges) in Python for counts, chances and the longest path (igraph would find it
        as a shortest one with negative lengths, by Bellman-Ford: O(nodes * edges) where paths
        of many lengths meet), Dijkstra's O(edges log nodes) for the shortest.
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
            longest=_longest(order, before, graph.activity.tolist()),
            shortest=_shortest(graph, network),
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


def _longest(
    order: Iterable[int], before: Sequence[Sequence[int]], lengths: Sequence[float]
) -> float:
    """Largest L(v) = length(v) + the largest L over predecessors (0 at an input)."""
    longest = [0.0] * len(before)
    for node in order:
        longest[node] = lengths[node] + max((longest[other] for other in before[node]), default=0.0)
    return max(longest)  # no length is negative, so the largest is that of an output


def _shortest(graph: PathGraph, network: igraph.Graph) -> float:
    """Smallest length of a path; an edge is as long as the node it leads to."""
    inputs = np.flatnonzero(graph.kind == Kind.INPUT)
    outputs = np.flatnonzero(graph.kind == Kind.OUTPUT).tolist()
    whole, source = network.copy(), graph.num_nodes
    whole.add_vertex()  # one new node leads to all inputs
    whole.add_edges([(source, node) for node in inputs.tolist()])
    targets = np.array([edge[1] for edge in whole.get_edgelist()])
    distances = whole.distances(source, outputs, weights=graph.activity[targets], mode="out")
    return float(min(distances[0]))


BACKEND = IgraphBackend()
