"""igraph's topological order, adjacency and shortest paths; counts follow its order in Python."""

import math
from collections.abc import Sequence

import igraph
import numpy as np

from pathlen.backends._igraph_distribution import distribution
from pathlen.backends._igraph_order import Counts, Order
from pathlen.backends.protocol import (
    Capabilities,
    FloatArray,
    Solution,
    float_solution,
    start_chances,
)
from pathlen.graph.path_graph import Kind, PathGraph


class IgraphBackend:
    """igraph for structure and lengths, Python floats for counts and chances."""

    name = "igraph"
    capabilities = Capabilities(
        exact=False,
        summary="igraph's order and shortest paths",
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph; see `Backend.solve`.

        O(nodes + edges) in Python for counts, chances and the longest path (igraph would find it
        as a shortest one with negative lengths, by Bellman-Ford: O(nodes * edges) where paths
        of many lengths meet), Dijkstra's O(edges log nodes) for the shortest.
        """
        chances = start_chances(graph, direction).tolist()
        network = graph.to_igraph()
        forth, back = Order.of(network), Order.of(network, reverse=True)
        if direction == "backward":
            walk = _walk(back, network.indegree(), chances)
        else:
            walk = _walk(forth, network.outdegree(), chances)
        magnitudes = None
        if graph.weights is not None:
            magnitudes = (
                Counts.of(Order.of(network, weighted=True)).scaled(),
                Counts.of(Order.of(network, reverse=True, weighted=True)).scaled(),
            )
        return float_solution(
            graph,
            direction,
            from_inputs=Counts.of(forth).scaled(),
            to_outputs=Counts.of(back).scaled(),
            walk_share=walk,
            longest=_longest(forth, graph.activity.tolist()),
            shortest=_shortest(graph, network),
            magnitudes=magnitudes,
        )

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> FloatArray:
        """Lengths of paths or walks, a list a node; see `HasDistribution`."""
        return distribution(graph, weighting, direction, memory_limit)


def _walk(order: Order, degrees: Sequence[int], starts: Sequence[float]) -> FloatArray:
    """W(v) = chance to start at v + the sum of W(u) / degree(u) over what v reads: float64[n]."""
    chances, steps = [0.0] * len(order.read), [0.0] * len(order.read)
    for node in order.nodes:
        chances[node] = math.fsum([starts[node], *(steps[other] for other in order.read[node])])
        steps[node] = chances[node] / max(degrees[node], 1)
    return np.array(chances)


def _longest(order: Order, lengths: Sequence[float]) -> float:
    """Largest L(v) = length(v) + the largest L over what v reads (0 where nothing is read)."""
    longest = [0.0] * len(order.read)
    for node in order.nodes:
        before = max((longest[other] for other in order.read[node]), default=0.0)
        longest[node] = lengths[node] + before
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
