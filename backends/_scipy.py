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
    reads_nothing,
    shifted,
    solve,
    swept,
    well_scaled,
    with_entries,
)
from pathlen.backends.protocol import (
    Averages,
    Capabilities,
    FloatArray,
    Scaled,
    Solution,
    float_solution,
    out_degrees,
    start_chances,
    total_of,
)
from pathlen.graph import Kind, PathGraph
from pathlen.graph_check import row_numbers


class ScipyBackend:
    """scipy.sparse.linalg.spsolve_triangular."""

    name = "scipy"
    capabilities = Capabilities(
        exact=False,
        summary="sparse triangular systems in float64",
        averages=True,
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

    def averages(self, graph: PathGraph, direction: str = "backward") -> Averages:
        """Both averages from three systems; see `HasAverages`.

        Counts F, sums S of lengths and the length E that a walk expects, from where it ends:
        (I - A) S = activity F, and E = activity + the mean of E over what is read.
        """
        chances, activity = start_chances(graph, direction), graph.activity
        edges = with_entries(graph.to_scipy(), np.ones(graph.num_edges))
        if direction == "forward":
            edges, activity, chances = backward(edges), activity[::-1], chances[::-1]
        scaled, power = well_scaled(edges)
        counts = solve(scaled, reads_nothing(edges).astype(np.float64))
        lengths = solve(scaled, activity * counts)
        degrees = np.maximum(np.diff(edges.indptr), 1)[row_numbers(edges.indptr)]
        expected = solve(with_entries(edges, 1.0 / degrees), activity)
        starts = chances > 0
        mantissa, exponent = np.frexp(counts)
        total, log10_paths = total_of(Scaled(mantissa, exponent + power), starts)
        sums = shifted(lengths[starts] / total.mantissa[0], power[starts] - total.exponent[0])
        return Averages(
            direction=direction,
            average=float(np.sum(sums)),
            normalized_average=float(np.sum(chances * expected)),
            path_count=None,
            log10_path_count=log10_paths,
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
