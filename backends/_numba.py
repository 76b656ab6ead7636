"""The default: compiled sweeps over the edges, linear in time and close to memory speed."""

import dataclasses

import numpy as np

from pathlen.backends._compensated import add, add_count, settle
from pathlen.backends._compiled import compiled
from pathlen.backends._numba_averages import averages
from pathlen.backends._numba_distribution import distribution
from pathlen.backends._numba_magnitude import magnitudes
from pathlen.backends.protocol import (
    Averages,
    Capabilities,
    FloatArray,
    IntArray,
    Scaled,
    Solution,
    check_direction,
    check_weighting,
    float_solution,
    out_degrees,
    start_chances,
)
from pathlen.collection import uncollected
from pathlen.graph import Kind, PathGraph


class NumbaBackend:
    """Compiled sweeps in float64."""

    name = "numba"
    capabilities = Capabilities(
        exact=False,
        summary="compiled sweeps in float64, the default",
        averages=True,
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph in O(nodes + edges); see `Backend.solve`."""
        indptr, indices = graph.indptr, graph.indices
        with uncollected():  # the first call of a process loads what compiled code stands on
            walk_share = _walk(graph, direction)
        ends = graph.kind == Kind.OUTPUT
        # Lengths first: what they need in between is free again when the counts are held.
        longest = _longest(indptr, indices, graph.activity)[ends].max()
        shortest = -_longest(indptr, indices, -graph.activity)[ends].max()
        return float_solution(
            graph,
            direction,
            from_inputs=counts_from_inputs(graph),
            to_outputs=_scaled(*_count_to_outputs(indptr, indices, ends)),
            walk_share=walk_share,
            longest=longest,
            shortest=shortest,
            magnitudes=None if graph.weights is None else magnitudes(graph),
        )

    def averages(self, graph: PathGraph, direction: str = "backward") -> Averages:
        """Both averages in one sweep; see `HasAverages`."""
        with uncollected():
            found = averages(graph)
        if direction == "backward":
            return found
        walk = float(np.sum(graph.activity * _walk(graph, direction)))
        return dataclasses.replace(found, direction=direction, normalized_average=walk)

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


def counts_from_inputs(graph: PathGraph) -> Scaled:
    """F, the number of paths from the inputs to each node: [n]."""
    return _scaled(*_count_from_inputs(graph.indptr, graph.indices))


def _walk(graph: PathGraph, direction: str) -> FloatArray:
    """Chance that the random walk passes each node: float64[n]."""
    chances = start_chances(graph, direction)
    if direction == "backward":
        walk: FloatArray = _walk_backward(graph.indptr, graph.indices, chances)
    else:
        walk = _walk_forward(graph.indptr, graph.indices, chances, out_degrees(graph))
    return walk


def _scaled(value: FloatArray, power: IntArray) -> Scaled:
    """Value * 2**(512 power) with mantissas in [0.5, 1)."""
    mantissa, exponent = np.frexp(value, out=(value, np.empty(len(value), dtype=np.int32)))
    # A count is at most 2**edges. Where that fits, exponents of 32 bits halve what is held.
    largest = 512 * (int(power.max(initial=0)) + 1)
    width = np.dtype(np.int32 if largest < 1 << 30 else np.int64)
    exponent = exponent.astype(width, copy=False)
    return Scaled(mantissa, exponent + 512 * power.astype(width))


# F(v) = 1 at an input, else the sum of F over predecessors. One pass in topological order that
# reads every edge once: O(n + e), 24 bytes read an edge.
@compiled()
def _count_from_inputs(indptr, indices):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    highs, lows, powers = np.empty(size), np.empty(size), np.empty(size, np.int32)
    for node in range(size):
        first, last = indptr[node], indptr[node + 1]
        high, low, power = (1.0 if first == last else 0.0), 0.0, 0
        for edge in range(first, last):
            before = indices[edge]
            high, low, power = add_count(
                high, low, power, highs[before], lows[before], powers[before]
            )
        highs[node], lows[node], powers[node] = settle(high, low, power)
    return highs, powers


# R(u) = 1 at an output, else the sum of R over successors. One pass against the topological
# order; each node, final when it is reached, is added to its predecessors: O(n + e).
@compiled()
def _count_to_outputs(indptr, indices, ends):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    highs, lows, powers = np.zeros(size), np.zeros(size), np.zeros(size, np.int32)
    for node in range(size - 1, -1, -1):
        if ends[node]:
            highs[node] = 1.0
        high, low, power = settle(highs[node], lows[node], powers[node])
        highs[node], lows[node], powers[node] = high, low, power
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            highs[before], lows[before], powers[before] = add_count(
                highs[before], lows[before], powers[before], high, low, power
            )
    return highs, powers


# W(u) = chance to start at u + the sum over successors v of W(v) / predecessors(v). One pass
# against the topological order: O(n + e).
@compiled()
def _walk_backward(indptr, indices, starts):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    highs, lows = starts.copy(), np.zeros(size)
    for node in range(size - 1, -1, -1):
        first, last = indptr[node], indptr[node + 1]
        highs[node] += lows[node]
        if first == last:
            continue
        step = highs[node] / (last - first)
        for edge in range(first, last):
            before = indices[edge]
            highs[before], lows[before] = add(highs[before], lows[before], step, 0.0)
    return highs


# W(v) = chance to start at v + the sum over predecessors u of W(u) / successors(u). One pass in
# topological order: O(n + e).
@compiled()
def _walk_forward(indptr, indices, starts, degrees):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    chances, steps = np.empty(size), np.zeros(size)
    for node in range(size):
        high, low = starts[node], 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            high, low = add(high, low, steps[before], 0.0)
        chances[node] = high + low
        if degrees[node]:
            steps[node] = chances[node] / degrees[node]
    return chances


# L(v) = length(v) + the largest L over predecessors (0 at an input). One pass in topological
# order: O(n + e). Pairs are settled, so comparing high parts first is right.
@compiled()
def _longest(indptr, indices, lengths):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    highs, lows = np.empty(size), np.empty(size)
    for node in range(size):
        high, low = 0.0, 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            if edge == indptr[node] or (highs[before], lows[before]) > (high, low):
                high, low = highs[before], lows[before]
        high, low = add(high, low, lengths[node], 0.0)
        highs[node], lows[node] = add(high, 0.0, low, 0.0)
    return highs


BACKEND = NumbaBackend()
