"""The default: compiled sweeps over the edges, linear in time and close to memory speed."""

import math

import numpy as np

from pathlen.backends._compensated import add, part
from pathlen.backends._compiled import compiled
from pathlen.backends._numba_distribution import distribution
from pathlen.backends._numba_lengths import sweep_lengths
from pathlen.backends._numba_magnitude import magnitudes
from pathlen.backends._numba_sweeps import rows_of_four, swept_down, swept_up
from pathlen.backends.protocol import (
    Capabilities,
    FloatArray,
    Scaled,
    Solution,
    check_direction,
    check_weighting,
    out_degrees,
    start_chances,
    with_magnitudes,
)
from pathlen.collection import uncollected
from pathlen.graph.path_graph import Kind, PathGraph


class NumbaBackend:
    """Compiled sweeps in float64."""

    name = "numba"
    capabilities = Capabilities(
        exact=False,
        summary="compiled sweeps in float64, the default",
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph in O(nodes + edges); see `Backend.solve`."""
        check_direction(direction)
        with uncollected():  # the first call of a process loads what compiled code stands on
            solution = _swept(graph, direction)
        return (
            solution
            if graph.weights is None
            else with_magnitudes(solution, graph, *magnitudes(graph))
        )

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> FloatArray:
        """Lengths of paths or walks; see `HasDistribution`."""
        check_weighting(graph, weighting)
        check_direction(direction)
        counts, weights = None, None
        if weighting == "uniform":
            counts = counts_from_inputs(graph)
        elif weighting == "magnitude":
            counts, weights = magnitudes(graph)[0], graph.weights
        return distribution(graph, counts, direction, weights, memory_limit)


def _swept(graph: PathGraph, direction: str) -> Solution:
    """All but the magnitudes: one sweep down and one up, and one more where lengths are rounded."""
    state = rows_of_four(graph.num_nodes)
    extent, counts, powers = swept_down(graph, state)
    longest, shortest = extent.longest, extent.shortest
    structure = graph.indptr, graph.indices
    if not extent.exact:
        longest, shortest = sweep_lengths(
            *structure, graph.activity, np.flatnonzero(graph.kind == int(Kind.OUTPUT)), state
        )
    walks, sums = swept_up(graph, extent, state, counts, powers)
    if direction == "forward":
        walks = _walk_forward(*structure, start_chances(graph, direction), out_degrees(graph))
        np.minimum(walks, 1.0, out=walks)  # rounding may lift one above by the last digit
        sums[1] = np.add.reduceat(graph.activity * walks, [row.first for row in graph.layers])
    for array in (counts, walks, sums):
        array.setflags(write=False)
    return Solution(
        direction=direction,
        average=math.fsum(sums[0]),
        normalized_average=math.fsum(sums[1]),
        path_count=None,
        log10_path_count=extent.log10_path_count,
        longest_path=longest,
        shortest_path=shortest + 0.0,  # turns -0.0 into 0.0
        path_share=counts,
        walk_share=walks,
        contribution=sums[0],
        normalized_contribution=sums[1],
    )


def counts_from_inputs(graph: PathGraph) -> Scaled:
    """F, the number of paths from the inputs to each node: [n]."""
    _, counts, powers = swept_down(graph, rows_of_four(graph.num_nodes))
    mantissa, exponent = np.frexp(counts, out=(counts, np.empty(len(counts), dtype=np.int32)))
    # A count is at most 2**edges. Where that fits, exponents of 32 bits halve what is held.
    largest = 512 * (int(powers.max(initial=0)) + 1)
    width = np.dtype(np.int32 if largest < 1 << 30 else np.int64)
    return Scaled(mantissa, exponent.astype(width, copy=False) + 512 * powers.astype(width))


# W(v) = chance to start at v + the sum over predecessors u of W(u) / successors(u). One pass in
# topological order: O(n + e).
@compiled(error_model="numpy")
def _walk_forward(indptr, indices, starts, degrees):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    chances, steps, steps_low = np.empty(size), np.zeros(size), np.zeros(size)
    for node in range(size):
        high, low = starts[node], 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            high, low = add(high, low, steps[before], steps_low[before])
        chances[node] = high + low
        if degrees[node]:
            steps[node], steps_low[node] = part((high, low), float(degrees[node]))
    return chances


BACKEND = NumbaBackend()
