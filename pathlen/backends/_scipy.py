"""Sparse triangular systems: with nodes in topological order, I - A is unit lower triangular.

A is the matrix of edges (rows are nodes, columns predecessors). Path counts F solve
(I - A) F = 1 at the inputs, counts R to the outputs solve the transposed system, and the chances
W of the random walk solve one whose edges are weighted by one over a degree.
"""

import numpy as np

from pathlen.backends._scipy_distribution import distribution
from pathlen.backends._scipy_systems import (
    backward,
    count,
    solve,
    swept,
    with_entries,
)
from pathlen.backends.protocol import (
    Capabilities,
    FloatArray,
    Scaled,
    Solution,
    float_solution,
    out_degrees,
    start_chances,
)
from pathlen.graph.path_graph import Kind, PathGraph


class ScipyBackend:
    """scipy.sparse.linalg.spsolve_triangular."""

    name = "scipy"
    capabilities = Capabilities(
        exact=False,
        summary="sparse triangular systems in float64",
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph; see `Backend.solve`.

        O(nodes + edges), with a few array operations for each run of nodes without edges among
        themselves.
        """
        chances = start_chances(graph, direction)
        weighted = graph.to_scipy()
        edges = with_entries(weighted, np.ones(graph.num_edges))
        reverse = backward(edges)
        if direction == "forward":
            steps = 1.0 / np.maximum(out_degrees(graph), 1)
            walk = solve(with_entries(edges, steps[edges.indices]), chances)
        else:
            steps = 1.0 / np.maximum(np.diff(graph.indptr), 1)[::-1]
            walk = solve(with_entries(reverse, steps[reverse.indices]), chances[::-1])[::-1]
        ends = graph.kind == Kind.OUTPUT
        magnitudes = None
        if graph.weights is not None:
            magnitudes = count(weighted), _flipped(count(backward(weighted)))
        return float_solution(
            graph,
            direction,
            from_inputs=count(edges),
            to_outputs=_flipped(count(reverse)),
            walk_share=walk.copy(),
            longest=swept(edges, graph.activity, np.maximum)[ends].max(),
            shortest=-swept(edges, -graph.activity, np.maximum)[ends].max(),
            magnitudes=magnitudes,
        )

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> FloatArray:
        """Lengths of paths or walks, a system for each; see `HasDistribution`."""
        return distribution(graph, weighting, direction, memory_limit)


def _flipped(counts: Scaled) -> Scaled:
    """Counts of nodes numbered from the last to the first."""
    return Scaled(counts.mantissa[::-1], counts.exponent[::-1])


BACKEND = ScipyBackend()
