"""Sweeps over a path graph with array operations, a run of nodes at a time.

A run is a range of consecutive nodes without edges among themselves. Nodes are in topological
order, so all that a run reads is known when it is reached. Layers are runs of many nodes; only in a
chain does a run hold a single one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pathlen.graph.parts import BoolArray, IntArray


def runs(indptr: IntArray, indices: IntArray) -> Iterator[tuple[int, int]]:
    """First node and end of each run, in order; O(n + runs * log n).

    Args:
        indptr: int[n + 1], rows of predecessors.
        indices: int[e], predecessors: ascending, each smaller than its node.
    """
    size = len(indptr) - 1
    last_read = np.full(size, -1, dtype=np.int64)
    inner = np.flatnonzero(np.diff(indptr))
    last_read[inner] = indices[indptr[inner + 1] - 1]
    np.maximum.accumulate(last_read, out=last_read)
    first = 0
    while first < size:
        end = int(np.searchsorted(last_read, first))  # the first node that reads this run
        yield first, end
        first = end


def longest_ways(
    indptr: IntArray, indices: IntArray, lengths: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """L(v) = length(v) + the largest L over predecessors (0 without any), in O(n + e): [n].

    Args:
        indptr: int[n + 1], rows of predecessors.
        indices: int[e], predecessors.
        lengths: [n], numbers of any kind that numpy can compare, Python integers among them.
    """
    longest = lengths.copy()
    for first, end in runs(indptr, indices):
        nodes = first + np.flatnonzero(np.diff(indptr[first : end + 1]))
        if nodes.size:
            read = longest[indices[indptr[first] : indptr[end]]]
            longest[nodes] += np.maximum.reduceat(read, indptr[nodes] - indptr[first])
    return longest


def reached_from(indptr: IntArray, indices: IntArray, begins: BoolArray) -> BoolArray:
    """Which nodes a path from one of some nodes reaches, these included: bool[n]."""
    reached = begins.copy()
    for first, end in runs(indptr, indices):
        nodes = first + np.flatnonzero(np.diff(indptr[first : end + 1]))
        if nodes.size:
            read = reached[indices[indptr[first] : indptr[end]]]
            reached[nodes] |= np.logical_or.reduceat(read, indptr[nodes] - indptr[first])
    return reached


def leading_to(indptr: IntArray, indices: IntArray, ends: BoolArray) -> BoolArray:
    """Which nodes have a path to one of some nodes, these included: bool[n]."""
    leading = ends.copy()
    for first, end in reversed(list(runs(indptr, indices))):
        degrees = np.diff(indptr[first : end + 1])
        read = indices[indptr[first] : indptr[end]]
        leading[read[np.repeat(leading[first:end], degrees)]] = True
    return leading
