"""Order and prune directed graphs held as compressed sparse rows, in linear time.

What works on whole arrays is numpy. What has to follow edges one by one (`generations`,
`_peeled`) is one plain loop without recursion: unlike a sweep by levels it stays linear for a
chain of a million nodes.
"""

import numpy as np
import numpy.typing as npt

from pathlen.graph.check import row_numbers
from pathlen.graph.parts import BoolArray, FloatArray, IntArray


def compressed(
    rows: IntArray, columns: IntArray, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Entries as compressed sparse rows, columns ascending and distinct in each row.

    Args:
        rows: int[e] in [0, size).
        columns: int[e] in [0, size).
        size: Number of rows, below 2**31.

    Returns:
        indptr int64[size + 1] and columns int64[distinct entries].
    """
    keys = np.sort(np.asarray(rows, dtype=np.int64) * size + columns)
    distinct = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=distinct[1:])
    sorted_rows, sorted_columns = np.divmod(keys[distinct], max(size, 1))
    return _row_starts(sorted_rows, size), sorted_columns


def compressed_weights(
    rows: IntArray, columns: IntArray, weights: FloatArray | None, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray | None]:
    """The same for entries with weights (or without): those of equal entries are added up.

    Args:
        rows: int[e] in [0, size).
        columns: int[e] in [0, size).
        weights: float64[e], or None.
        size: Number of rows, below 2**31.

    Returns:
        indptr int64[size + 1], columns int64[distinct entries] and their weights (infinite where
        a sum overflows), or None.
    """
    if weights is None:
        return *compressed(rows, columns, size), None
    keys = np.asarray(rows, dtype=np.int64) * size + columns
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(weights[order], firsts) if len(firsts) else weights[:0]
    sorted_rows, sorted_columns = np.divmod(keys[firsts], max(size, 1))
    return _row_starts(sorted_rows, size), sorted_columns, sums


def restricted(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    keep: BoolArray,
    weights: FloatArray | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray | None]:
    """The rows and columns to keep, numbered anew from 0, and the weights of what they hold."""
    if keep.all():
        return indptr, indices, weights
    number = np.cumsum(keep) - 1
    rows = row_numbers(indptr)
    edges = keep[rows] & keep[indices]
    return (
        _row_starts(number[rows[edges]], int(keep.sum())),
        number[indices[edges]],
        None if weights is None else weights[edges],
    )


def on_path(
    indptr: IntArray, indices: IntArray, is_input: BoolArray, is_output: BoolArray
) -> BoolArray:
    """Which nodes lie on a path from an input to an output: bool[n].

    Nodes with nothing before them that are no input are peeled off until none is left, then
    the same from the outputs. Only what is dropped costs more than counting degrees. Nodes on
    a cycle are never peeled; `generations` finds them.

    Args:
        indptr: int[n + 1], rows of predecessors.
        indices: int[e], predecessors.
        is_input: bool[n], where paths begin.
        is_output: bool[n], where paths end.
    """
    size = len(is_input)
    keep = np.ones(size, dtype=bool)
    # A terminal counts as having one neighbour outside the graph, so it is never peeled.
    before = np.diff(indptr) + is_input
    if not before.all():
        keep[_peeled(before, *compressed(indices, row_numbers(indptr), size))] = False
    after = np.bincount(indices, minlength=size) + is_output
    if not after.all():
        keep[_peeled(after, indptr, indices)] = False
    return keep


def _peeled(degree: IntArray, indptr: IntArray, neighbours: IntArray) -> list[int]:
    """Nodes that lose their last link when all nodes of degree 0 are taken off, repeatedly.

    Args:
        degree: int[n], links of a node in the direction it is peeled from; consumed.
        indptr: int[n + 1], rows of the neighbours that lose a link when a node is taken off.
        neighbours: int[e].
    """
    peeled: list[int] = np.flatnonzero(degree == 0).tolist()
    for node in peeled:  # grows while it is walked
        for neighbour in neighbours[indptr[node] : indptr[node + 1]].tolist():
            degree[neighbour] -= 1
            if degree[neighbour] == 0:
                peeled.append(neighbour)
    return peeled


def generations(indptr: IntArray, indices: IntArray) -> npt.NDArray[np.int64]:
    """Length in edges of the longest way to each node (Kahn 1962), -1 behind a cycle: int64[n].

    g(v) = 0 without predecessors, else 1 + max over predecessors u of g(u). Nodes are released
    in the order of g, so the last predecessor to be passed has the largest.

    Args:
        indptr: int[n + 1], rows of predecessors.
        indices: int[e], predecessors, in any order of the nodes.
    """
    size = len(indptr) - 1
    after_indptr, after = compressed(indices, row_numbers(indptr), size)
    # Plain lists: element access in numpy arrays is several times slower.
    starts, successors = after_indptr.tolist(), after.tolist()
    waiting = np.diff(indptr).tolist()
    released = np.flatnonzero(np.diff(indptr) == 0).tolist()
    generation = [-1] * size
    for node in released:
        generation[node] = 0
    for node in released:  # grows while it is walked
        following = generation[node] + 1
        for successor in successors[starts[node] : starts[node + 1]]:
            waiting[successor] -= 1
            if not waiting[successor]:
                generation[successor] = following
                released.append(successor)
    return np.array(generation, dtype=np.int64)


def circle(indptr: IntArray, indices: IntArray, generation: IntArray) -> list[int]:
    """One cycle among the nodes that `generations` could not reach, in the edges' direction."""
    node = int(np.argmax(generation < 0))
    steps: dict[int, int] = {}
    while node not in steps:
        steps[node] = len(steps)
        before = indices[indptr[node] : indptr[node + 1]]
        node = int(before[generation[before] < 0][0])
    return list(steps)[steps[node] :][::-1]


def _row_starts(rows: IntArray, size: int) -> npt.NDArray[np.int64]:
    """Where each row starts, of ascending row numbers: int64[size + 1]."""
    starts = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=size), out=starts[1:])
    return starts
