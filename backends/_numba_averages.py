"""Both averages and the number of paths in one sweep, for graphs of 10**8 edges."""

import math

import numba
import numpy as np

from pathlen.backends._compensated import BIG, SMALL, add
from pathlen.backends._prefetch import AHEAD, prefetch_row
from pathlen.backends.protocol import Averages, FloatArray, start_chances
from pathlen.graph import PathGraph


def averages(graph: PathGraph) -> Averages:
    """Averages of a graph, the walk going backward: O(nodes + edges), 32 bytes a node."""
    paths, power, average, walk = _sweep(
        graph.indptr,
        graph.indices,
        graph.activity,
        start_chances(graph, "backward"),
        _rows(graph.num_nodes),
    )
    return Averages(
        direction="backward",
        average=average,
        normalized_average=walk,
        path_count=None,
        log10_path_count=math.log10(paths) + power * 512 * math.log10(2.0),
    )


def _rows(count: int) -> FloatArray:
    """float64[count, 4] without values, no row of which lies across two cache lines."""
    room = np.empty(4 * count + 8)  # by numpy, which puts large arrays on huge pages
    skipped = -room.ctypes.data % 64 // 8
    return room[skipped : skipped + 4 * count].reshape(count, 4)


# F(v) = 1 at an input, else the sum of F over predecessors
# S(v) = activity(v) F(v) + the sum of S over predecessors
# E(v) = activity(v) + the mean of E over predecessors, the length a walk from v expects
# One pass in topological order that reads every edge once: O(n + e). The numbers of a node lie
# side by side, so that an edge costs one access to memory. Sums over predecessors keep their
# rounding errors; what is stored is rounded, so d layers cost at most d last digits, and about
# sqrt(d), since roundings do not conspire.
@numba.njit(cache=True, error_model="numpy")
def _sweep(indptr, indices, activity, starts, state):  # type: ignore[no-untyped-def]
    # a row of `state`: F, S, E, power of 2**512 in F and S
    paths, paths_low, lengths, lengths_low, total_power = 0.0, 0.0, 0.0, 0.0, 0.0
    walk, walk_low = 0.0, 0.0
    alike = 0  # the nodes from here on all have one power
    for node in range(len(activity)):
        first, last = indptr[node], indptr[node + 1]
        if first == last:
            count, length, step, power = 1.0, 0.0, 0.0, 0.0
        else:
            count, length, step = _sum(indices, first, last, state)
            power = state[indices[first], 3]
            step /= last - first
            if indices[first] < alike:
                count, length, power = _sum_of_powers(indices, first, last, state)
        length += activity[node] * count
        step += activity[node]
        if count >= BIG:
            count, length, power = count * SMALL, length * SMALL, power + 1.0
        if node > 0 and power != state[node - 1, 3]:
            alike = node
        state[node, 0] = count
        state[node, 1] = length
        state[node, 2] = step
        state[node, 3] = power
        if starts[node] > 0.0:
            factor, scale, total_power = _aligned(total_power, power)
            paths, paths_low = add(paths * scale, paths_low * scale, count * factor, 0.0)
            lengths, lengths_low = add(lengths * scale, lengths_low * scale, length * factor, 0.0)
            walk, walk_low = add(walk, walk_low, starts[node] * step, 0.0)
    paths += paths_low
    return paths, total_power, (lengths + lengths_low) / paths, walk + walk_low


@numba.njit(cache=True, inline="always", error_model="numpy")
def _sum(indices, first, last, state):  # type: ignore[no-untyped-def]
    """Sums of F, S and E over predecessors of one power (`add`, written out for speed)."""
    a, b, c = 0.0, 0.0, 0.0
    a_low, b_low, c_low = 0.0, 0.0, 0.0
    for edge in range(first, last):
        if edge + AHEAD < len(indices):
            prefetch_row(state, indices[edge + AHEAD])  # type: ignore[call-arg]
        before = np.uint64(indices[edge])
        x, y, z = state[before, 0], state[before, 1], state[before, 2]
        p, q, r = a + x, b + y, c + z
        u, v, w = p - a, q - b, r - c
        a_low += (a - (p - u)) + (x - u)
        b_low += (b - (q - v)) + (y - v)
        c_low += (c - (r - w)) + (z - w)
        a, b, c = p, q, r
    return a + a_low, b + b_low, c + c_low


@numba.njit(cache=True, error_model="numpy")
def _sum_of_powers(indices, first, last, state):  # type: ignore[no-untyped-def]
    """Sums of F and S over predecessors, and their power, whatever powers these have."""
    count, count_low, length, length_low, power = 0.0, 0.0, 0.0, 0.0, 0.0
    for edge in range(first, last):
        before = indices[edge]
        factor, scale, power = _aligned(power, state[before, 3])
        count, count_low = add(count * scale, count_low * scale, state[before, 0] * factor, 0.0)
        length, length_low = add(length * scale, length_low * scale, state[before, 1] * factor, 0.0)
    return count + count_low, length + length_low, power


@numba.njit(cache=True, inline="always")
def _aligned(power, term_power):  # type: ignore[no-untyped-def]
    """Factors that bring a term and a sum to the larger of their powers, and that power."""
    if term_power > power:
        return 1.0, (SMALL if term_power == power + 1.0 else 0.0), term_power
    if term_power < power:
        return (SMALL if term_power == power - 1.0 else 0.0), 1.0, power
    return 1.0, 1.0, power
