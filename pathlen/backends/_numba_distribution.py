"""The distribution of path lengths: a polynomial a node, kept while somebody may still read it.

The coefficients p(v) of node v are the shares of the ways to v that have each length, so they add
up to 1 and do not overflow however many paths there are:

    p(v) = (1 - a + a z) * sum over predecessors u of share(u, v) p(u),   a = activity(v)

where share(u, v) is F(u) / F(v) if all paths count the same, one over the number of predecessors
for the random walk, and weight(u, v) M(u) / M(v) for magnitudes.
"""

import math

import numpy as np

from pathlen.backends._compiled import compiled
from pathlen.backends.protocol import (
    FloatArray,
    Scaled,
    check_memory,
    out_degrees,
    start_chances,
    total_of,
)
from pathlen.graph.path_graph import Kind, PathGraph

_BLOCK = 64  # rows added before their sum is added: keeps rounding errors from piling up


def distribution(
    graph: PathGraph,
    counts: Scaled | None,
    direction: str,
    weights: FloatArray | None,
    memory_limit: int | None,
) -> FloatArray:
    """Share of paths, or chance of walks, of each length: float64[longest + 1].

    O(nodes + edges * lengths) time; memory for as many rows as nodes are live at once, a row
    being as wide as the most lengths that the ways to one node have.

    Args:
        graph: The path graph.
        counts: F or M of each node; None for the random walk.
        direction: Of the walk.
        weights: Of the edges, where `counts` are magnitudes.
        memory_limit: Bytes.
    """
    low, high, last_reader = _windows(graph.indptr, graph.indices, graph.activity)
    width = int((high - low).max()) + 1
    rows = _live_rows(graph.indptr, graph.indices, last_reader)
    kept = 8 * rows * width + 40 * graph.num_nodes
    check_memory(kept, memory_limit, f"the distribution ({rows} rows of {width} lengths)")
    ends = graph.kind == Kind.OUTPUT
    source, target, first, final = _scales(graph, counts, direction)
    result: FloatArray = _sweep(
        graph.indptr,
        graph.indices,
        weights,
        graph.activity,
        source.mantissa,
        source.exponent,
        target.mantissa,
        target.exponent,
        first,
        np.where(ends, final, 0.0),
        (low, high, last_reader),
        (rows, width),
    )
    return result


def _scales(
    graph: PathGraph, counts: Scaled | None, direction: str
) -> tuple[Scaled, Scaled, FloatArray, FloatArray]:
    """What makes shares of edges: source(u) / target(v); a source's and an output's factor."""
    size = graph.num_nodes
    is_input = (graph.kind == Kind.INPUT).astype(np.float64)
    if counts is not None:
        ends = graph.kind == Kind.OUTPUT  # other nodes may have more than all outputs together
        total, _ = total_of(counts, ends)
        shift = np.maximum(counts.exponent[ends].astype(np.int64) - total.exponent[0], -5000)
        share = np.zeros(size)
        share[ends] = np.ldexp(counts.mantissa[ends] / total.mantissa[0], shift.astype(np.int32))
        return counts, counts, is_input, share
    chances = start_chances(graph, direction)
    none, ones = np.zeros(size, dtype=np.int64), Scaled(np.ones(size), np.zeros(size, np.int64))
    if direction == "backward":
        degrees = np.maximum(np.diff(graph.indptr), 1).astype(np.float64)
        return ones, Scaled(degrees, none), is_input, chances
    steps = 1.0 / np.maximum(out_degrees(graph), 1)
    return Scaled(steps, none), ones, chances, np.ones(size)


# Fewest and most units of the ways to a node that count (surely; possibly), and who reads it last.
@compiled()
def _windows(indptr, indices, activity):  # type: ignore[no-untyped-def]
    size = len(activity)
    low, high = np.zeros(size, np.int32), np.zeros(size, np.int32)
    last_reader = np.full(size, -1, np.int64)
    for node in range(size):
        least, most = (1 << 30) if indptr[node] < indptr[node + 1] else 0, 0
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            least, most = min(least, low[before]), max(most, high[before])
            last_reader[before] = node
        low[node] = least + (1 if activity[node] == 1.0 else 0)
        high[node] = most + (1 if activity[node] > 0.0 else 0)
    return low, high, last_reader


@compiled()
def _live_rows(indptr, indices, last_reader):  # type: ignore[no-untyped-def]
    """The most nodes whose rows are held at once."""
    live, most = 0, 0
    for node in range(len(last_reader)):
        live += 1
        most = max(most, live)
        for edge in range(indptr[node], indptr[node + 1]):
            if last_reader[indices[edge]] == node:
                live -= 1
        if last_reader[node] < 0:
            live -= 1
    return most


@compiled()
def _sweep(  # type: ignore[no-untyped-def]
    indptr,
    indices,
    weights,
    activity,
    source,
    source_power,
    target,
    target_power,
    first,
    final,
    windows,
    sizes,
):
    low, high, last_reader = windows
    rows, width = sizes
    store, row_of = np.zeros((rows, width)), np.empty(len(activity), np.int32)
    free = np.arange(rows - 1, -1, -1)
    num_free = rows
    block = np.zeros(width)
    lengths = 0
    for node in range(len(activity)):
        lengths = max(lengths, high[node] + 1)
    result, result_low = np.zeros(lengths), np.zeros(lengths)
    for node in range(len(activity)):
        num_free -= 1
        row = store[free[num_free]]
        row_of[node] = free[num_free]
        begin, end = indptr[node], indptr[node + 1]
        chance = activity[node]
        base = low[node] - (1 if chance == 1.0 else 0)
        span = high[node] - low[node] + 1
        row[:span] = 0.0
        for start in range(begin, end, _BLOCK):
            block[:span] = 0.0
            for edge in range(start, min(start + _BLOCK, end)):
                before = indices[edge]
                share = source[before] / target[node]
                shift = source_power[before] - target_power[node]
                if weights is not None:  # of any size: the product alone is at most 1
                    weight, exponent = math.frexp(weights[edge])
                    share *= weight
                    shift += exponent
                if shift != 0:
                    share = math.ldexp(share, max(shift, -2000))
                offset, values = low[before] - base, store[row_of[before]]
                for length in range(high[before] - low[before] + 1):
                    block[offset + length] += share * values[length]
            for length in range(span):
                row[length] += block[length]
        if begin == end:
            row[0] = first[node]
        if 0.0 < chance < 1.0:
            for length in range(span - 1, 0, -1):
                row[length] = (1.0 - chance) * row[length] + chance * row[length - 1]
            row[0] *= 1.0 - chance
        for edge in range(begin, end):
            before = indices[edge]
            if last_reader[before] == node:
                free[num_free] = row_of[before]
                num_free += 1
        if last_reader[node] < 0:
            for length in range(span):
                term, at = final[node] * row[length], low[node] + length
                total = result[at] + term
                part = total - result[at]
                result_low[at] += (result[at] - (total - part)) + (term - part)
                result[at] = total
            free[num_free] = row_of[node]
            num_free += 1
    return result + result_low
