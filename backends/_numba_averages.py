"""Both averages and the number of paths in one sweep, for graphs of 10**8 edges."""

import math
from typing import Any

import numpy as np

from pathlen.backends._compensated import BIG, SMALL, plus, split, times, top
from pathlen.backends._compiled import compiled
from pathlen.backends._rows import sum_of_rows
from pathlen.backends.protocol import Averages, FloatArray, starts_of_walks
from pathlen.graph import PathGraph

BLOCK = 64
"""Predecessors whose numbers are added without keeping every rounding error."""


def averages(graph: PathGraph) -> Averages:
    """Averages of a graph, the walk going backward: O(nodes + edges), 64 bytes a node."""
    outputs, one_over_chances = starts_of_walks(graph, "backward")
    paths, power, average, walk = _sweep(
        graph.indptr,
        graph.indices,
        graph.activity,
        outputs,
        1.0 / one_over_chances,
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
    """float64[count, 8] without values, each row a cache line."""
    room = np.empty(8 * count + 8)  # by numpy, which puts large arrays on huge pages
    skipped = -room.ctypes.data % 64 // 8
    return room[skipped : skipped + 8 * count].reshape(count, 8)


# F(v) = 1 at an input, else the sum of F over predecessors
# S(v) = activity(v) F(v) + the sum of S over predecessors
# E(v) = activity(v) + the mean of E over predecessors, the length a walk from v expects
# One pass in topological order that reads every edge once: O(n + e). A row of `state` is
#     F  S  E  power of 2**512 in F and S | low parts of F  S  E  0
# so that an edge costs one cache line. High parts have 20 of the 53 bits of a float: their sum is
# exact unless one of up to 64 terms is 2**33 times smaller than it. Low parts are 2**20 times
# smaller than high ones, and so are their rounding errors: 10**8 nodes in a row cost no digit
# that matters. The whole argument is in docs/algorithms/path-counts.md.
@compiled(error_model="numpy")
def _sweep(indptr, indices, activity, outputs, chances, state):  # type: ignore[no-untyped-def]
    alike, last_power = 0, 0.0  # the nodes from `alike` on have one power
    for node in range(len(activity)):
        first, last = indptr[node], indptr[node + 1]
        count, length, step = (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)
        power = 0.0
        if first < last:
            count, length, step = _sum(indices, first, last, state)
            step = _mean(step, float(last - first))
            power = last_power
            if indices[first] < alike:
                count, length, power = _sum_of_powers(indices, first, last, state)
        own = activity[node]
        count = split(count)
        length = split(plus(length, own * count[0], own * count[1]))
        step = split(plus(step, own, 0.0))
        if count[0] >= BIG:
            count, length = times(count, SMALL), times(length, SMALL)
            power += 1.0
        if power != last_power:
            alike, last_power = node, power
        at = np.uint64(node)
        state[at, 0], state[at, 1], state[at, 2], state[at, 3] = count[0], length[0], step[0], power
        state[at, 4], state[at, 5], state[at, 6], state[at, 7] = count[1], length[1], step[1], 0.0
    walk = (0.0, 0.0)
    for place in range(len(outputs)):
        node, chance = outputs[place], chances[place]
        walk = plus(walk, chance * state[node, 2], chance * state[node, 6])
    count, length, power = _sum_of_powers(outputs, 0, len(outputs), state)
    paths = count[0] + count[1]
    return paths, power, (length[0] + length[1]) / paths, walk[0] + walk[1]


@compiled(inline="always", error_model="numpy")
def _sum(indices, first, last, state):  # type: ignore[no-untyped-def]
    """Sums of F, S and E over predecessors of one power, as pairs of high and low."""
    end = min(first + BLOCK, last)
    sums: Any = sum_of_rows(state, indices, first, end)  # type: ignore[call-arg]
    count, length, step = (sums[0], sums[3]), (sums[1], sums[4]), (sums[2], sums[5])
    while end < last:
        first, end = end, min(end + BLOCK, last)
        sums = sum_of_rows(state, indices, first, end)
        count = plus(count, sums[0], sums[3])
        length = plus(length, sums[1], sums[4])
        step = plus(step, sums[2], sums[5])
    return count, length, step


@compiled(error_model="numpy")
def _mean(total, number):  # type: ignore[no-untyped-def]
    """A sum divided by the number of its terms.

    20 bits times a number below 2**33 are exact, and so is what they leave of the sum, which is
    2**19 times smaller than the sum.
    """
    part = 1.0 / number
    high = top((total[0] + total[1]) * part)
    return high, ((total[0] - high * number) + total[1]) * part


@compiled(error_model="numpy")
def _sum_of_powers(nodes, first, last, state):  # type: ignore[no-untyped-def]
    """Sums of F and S over some nodes, and their power, whatever powers these have."""
    count, length, power = (0.0, 0.0), (0.0, 0.0), 0.0
    for place in range(first, last):
        node = np.uint64(nodes[place])
        before, power = power, max(power, state[node, 3])
        scale, factor = _scale(power - before), _scale(power - state[node, 3])
        count = plus(times(count, scale), state[node, 0] * factor, state[node, 4] * factor)
        length = plus(times(length, scale), state[node, 1] * factor, state[node, 5] * factor)
    return count, length, power


@compiled()
def _scale(powers):  # type: ignore[no-untyped-def]
    """2**(-512 powers); 0 from three powers on, where that is below the smallest float."""
    if powers == 0.0:
        return 1.0
    if powers == 1.0:
        return SMALL
    return SMALL * SMALL if powers == 2.0 else 0.0
