"""Everything `measure` shows of a graph in two sweeps over its edges, one down and one up.

Going down, each node adds up what its predecessors have; going up, each node is added to its
predecessors, which needs no list of successors. What a node has is a row of four floats, half a
cache line, so that an edge costs one access to memory. docs/algorithms/path-counts.md has the
reasons why no digit that matters is lost.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pathlen.backends._compensated import BIG, SMALL, add, part, plus, split, times
from pathlen.backends._compiled import compiled
from pathlen.backends._rows import BEHIND, add_to_row, ask_for_row, sum_and_largest
from pathlen.backends.protocol import FloatArray, starts_of_walks
from pathlen.graph.path_graph import PathGraph

BLOCK = 64
"""Predecessors whose counts are added without keeping every rounding error."""
_UNITS_OF_LENGTH = 2.0**20
"""Sums of 2**31 multiples of one over this that are at most 1 are not rounded."""
_UNIT = 2.0**900
"""What the share of all paths is held as, so that the smallest shares keep their digits."""


class Extent(NamedTuple):
    """What the sweep down tells of a graph as a whole.

    Attributes:
        paths: Number of paths, over 2**(512 power).
        power: See there.
        longest: Largest length of a path.
        shortest: Smallest length.
        exact: Whether these two are not rounded.
    """

    paths: float
    power: int
    longest: float
    shortest: float
    exact: bool

    @property
    def log10_path_count(self) -> float:
        """Decimal logarithm of the number of paths."""
        return math.log10(self.paths) + self.power * 512 * math.log10(2.0)


def swept_down(
    graph: PathGraph, state: FloatArray
) -> tuple[Extent, FloatArray, npt.NDArray[np.int32]]:
    """The extent, and for each node the number of paths from the inputs, over 2**(512 powers).

    Args:
        graph: The path graph, of n nodes.
        state: float64[n, 4], for the work.

    Returns:
        The extent, float64[n] and int32[n].
    """
    counts, powers = np.empty(graph.num_nodes), np.empty(graph.num_nodes, np.int32)
    outputs, _ = starts_of_walks(graph, "backward")
    found = _sweep_down(graph.indptr, graph.indices, graph.activity, outputs, state, counts, powers)
    return Extent(*found), counts, powers


def extent_of(graph: PathGraph) -> Extent:
    """The extent alone."""
    return swept_down(graph, rows_of_four(graph.num_nodes))[0]


def swept_up(
    graph: PathGraph,
    extent: Extent,
    state: FloatArray,
    counts: FloatArray,
    powers: npt.NDArray[np.int32],
) -> tuple[FloatArray, FloatArray]:
    """The chance that a walk from the outputs passes each node, and the sums of the layers.

    Args:
        graph: The path graph, of n nodes.
        extent: Of the graph.
        state: float64[n, 4], for the work.
        counts: From `swept_down`; the share of paths takes its place.
        powers: From `swept_down`.

    Returns:
        float64[n]; float64[2, layers], activity * share summed up for paths and for walks.
    """
    firsts = np.array([layer.first for layer in graph.layers], dtype=np.int64)
    walks, sums = np.empty(graph.num_nodes), np.empty((2, len(firsts)))
    outputs, one_over_chances = starts_of_walks(graph, "backward")
    state[:] = 0.0
    _sweep_up(
        graph.indptr,
        graph.indices,
        graph.activity,
        firsts,
        (outputs, 1.0 / one_over_chances),
        (extent.paths, extent.power),
        state,
        counts,
        powers,
        walks,
        sums,
    )
    return walks, sums


def rows_of_four(count: int) -> FloatArray:
    """float64[count, 4] without values, two rows a cache line."""
    room = np.empty(4 * count + 8)  # by numpy, which puts large arrays on huge pages
    skipped = -room.ctypes.data % 64 // 8
    return room[skipped : skipped + 4 * count].reshape(count, 4)


# F(v) = 1 at an input, else the sum of F over predecessors
# L(v) = activity(v) + the largest L over predecessors; -S, of the shortest, likewise
# One pass in topological order that reads every edge once: O(n + e). A row of `state` is
#     high part of F  low part of F  L  -S
# High parts have 20 of the 53 bits of a float: their sum is exact unless one of up to 64 terms is
# 2**33 times smaller than it. Low parts are 2**20 times smaller than high ones, and so are their
# rounding errors. F is times 2**(512 powers).
@compiled(error_model="numpy", nogil=True)
def _sweep_down(indptr, indices, activity, outputs, state, counts, powers):  # type: ignore[no-untyped-def]
    """The number of paths, its power, the largest L, the least S, and whether these are exact."""
    alike, last_power, exact = 0, 0, True  # the nodes from `alike` on have one power
    for node in range(len(activity)):
        first, last = indptr[node], indptr[node + 1]
        count, longest, shortest, power = (1.0, 0.0), 0.0, 0.0, 0
        if last - first == 1:  # a unit of a layer reads its hub alone
            before = np.uint64(indices[first])
            count, power = (state[before, 0], state[before, 1]), powers[before]
            longest, shortest = state[before, 2], state[before, 3]
        elif first < last:
            count, longest, shortest = _gathered(indices, first, last, state)
            power = last_power
            if indices[first] < alike:
                count, power = _sum_of_powers(indices, first, last, state, powers)
        count = split(count)
        if count[0] >= BIG:
            count = times(count, SMALL)
            power += 1
        if power != last_power:
            alike, last_power = node, power
        at = np.uint64(node)
        state[at, 0], state[at, 1] = count
        state[at, 2], state[at, 3] = longest + activity[node], shortest - activity[node]
        counts[node], powers[node] = count[0] + count[1], power
        units = activity[node] * _UNITS_OF_LENGTH
        exact &= units == np.floor(units)
    total, power = _sum_of_powers(outputs, 0, len(outputs), state, powers)
    longest, shortest = state[outputs[0], 2], -state[outputs[0], 3]
    for node in outputs:
        longest, shortest = max(longest, state[node, 2]), min(shortest, -state[node, 3])
    return total[0] + total[1], power, longest, shortest, exact


@compiled(inline="always", error_model="numpy")
def _gathered(indices, first, last, state):  # type: ignore[no-untyped-def]
    """The sum of F over predecessors of one power, a pair, and the largest L and -S."""
    end = min(first + BLOCK, last)
    found: Any = sum_and_largest(state, indices, first, end)  # type: ignore[call-arg]
    count, longest, shortest = (found[0], found[1]), found[2], found[3]
    while end < last:
        first, end = end, min(end + BLOCK, last)
        found = sum_and_largest(state, indices, first, end)
        count = plus(count, found[0], found[1])
        longest, shortest = max(longest, found[2]), max(shortest, found[3])
    return count, longest, shortest


@compiled(error_model="numpy")
def _sum_of_powers(nodes, first, last, state, powers):  # type: ignore[no-untyped-def]
    """The sum of F over some nodes, and its power, whatever powers these have."""
    count, power = (0.0, 0.0), 0
    for place in range(first, last):
        node = np.uint64(nodes[place])
        before, power = power, max(power, powers[node])
        factor = _scale(power - powers[node])
        count = plus(
            times(count, _scale(power - before)), state[node, 0] * factor, state[node, 1] * factor
        )
    return count, power


@compiled()
def _scale(powers):  # type: ignore[no-untyped-def]
    """2**(-512 powers); 0 from three powers on, where that is below the smallest float."""
    if powers == 0:
        return 1.0
    if powers == 1:
        return SMALL
    return SMALL * SMALL if powers == 2 else 0.0


# Q(u) = 1 / paths at an output, else the sum of Q over successors: the share of u is F(u) Q(u)
# W(u) = chance to start at u + the sum over successors v of W(v) / predecessors(v)
# One pass against the topological order that reads every edge once: O(n + e). A row of `state` is
#     high part of Q  high part of W  low part of Q  low part of W
# Q is times 2**900 / 2**(512 powers), with the powers of F: F grows along every edge, so nothing
# that is added overflows, and what F has gained in range is taken off Q.
@compiled(error_model="numpy", nogil=True)
def _sweep_up(  # type: ignore[no-untyped-def]
    indptr, indices, activity, firsts, starts, total, state, counts, powers, walks, sums
):
    """Turn the counts F into shares of paths, and fill in the walks and the sums of the layers."""
    outputs, chances = starts
    for place in range(len(outputs)):
        node = outputs[place]
        state[node, 0] = _UNIT / total[0] * _scale(total[1] - powers[node])
        state[node, 1] = chances[place]
    layer, run, power = len(firsts) - 1, len(activity), 0  # nodes from `run` on have one power
    by_path, by_walk = (0.0, 0.0), (0.0, 0.0)
    for node in range(len(activity) - 1, -1, -1):
        at = np.uint64(node)
        first, last = indptr[node], indptr[node + 1]
        if node < run:
            run, power = _run_of_power(powers, node), powers[node]
        high, walk = state[at, 0], state[at, 1]
        low, walk_low = state[at, 2], state[at, 3]
        share = min(counts[node] * (high + low) / _UNIT, 1.0)
        chance = min(walk + walk_low, 1.0)
        counts[node], walks[node] = share, chance
        by_path = add(by_path[0], by_path[1], activity[node] * share, 0.0)
        by_walk = add(by_walk[0], by_walk[1], activity[node] * chance, 0.0)
        if node == firsts[layer]:
            sums[0, layer], sums[1, layer] = by_path[0] + by_path[1], by_walk[0] + by_walk[1]
            by_path, by_walk = (0.0, 0.0), (0.0, 0.0)
            layer -= 1
        if last - first > 1:
            walk, walk_low = part((walk, walk_low), float(last - first))
        if first < last and indices[first] < run:
            _add_by_powers(indices, first, last, (high, walk, low, walk_low), power, state, powers)
        elif first >= BEHIND:
            for edge in range(first, last):
                ask_for_row(state, np.uint64(indices[edge - BEHIND]))  # type: ignore[call-arg]
                add_to_row(state, np.uint64(indices[edge]), high, walk, low, walk_low)
        else:
            for edge in range(first, last):
                add_to_row(state, np.uint64(indices[edge]), high, walk, low, walk_low)  # type: ignore[call-arg]


@compiled()
def _run_of_power(powers, node):  # type: ignore[no-untyped-def]
    """The first of the nodes up to one that have its power without a break."""
    first = node
    while first > 0 and powers[first - 1] == powers[node]:
        first -= 1
    return first


@compiled(error_model="numpy")
def _add_by_powers(indices, first, last, row, power, state, powers):  # type: ignore[no-untyped-def]
    """Add a row to those of predecessors that may have smaller powers."""
    for edge in range(first, last):
        ask_for_row(state, np.uint64(indices[max(edge - BEHIND, 0)]))  # type: ignore[call-arg]
        before = np.uint64(indices[edge])
        factor = _scale(power - powers[before])
        add_to_row(state, before, row[0] * factor, row[1], row[2] * factor, row[3])
