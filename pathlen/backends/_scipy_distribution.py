"""The distribution of path lengths, a triangular system for each length.

Let p(v, k) be the share of the ways to v that have length k, a(v) the activity, share(u, v) the
share of the ways to v that come from u, and begin(v) 1 where ways begin. A way to v has length k if
it came with k and v does not count, or with k - 1 and v counts:

    p(v, k) = (1 - a(v)) in(v, k) + a(v) in(v, k - 1),
    in(v, k) = begin(v) [k = 0] + sum over u of share(u, v) p(u, k)

So the vector p(., k) solves a triangular system whose right side is made of p(., k - 1):

    (I - (1 - a) share) p(., k) = (1 - a) begin [k = 0] + a (begin [k = 1] + share p(., k - 1))

All terms are positive, so no digits cancel and small shares are as precise as large ones: errors
are a few last digits for each layer and for each length, and shares below 1e-308 are lost. Only two
vectors are held, whatever the lengths; the time is that of (lengths) systems.
"""

import numpy as np
import scipy.sparse

from pathlen.backends._scipy_systems import (
    backward,
    count,
    reads_nothing,
    shifted,
    solve,
    swept,
    with_entries,
)
from pathlen.backends.protocol import (
    FloatArray,
    Scaled,
    check_memory,
    check_weighting,
    start_chances,
    total_of,
)
from pathlen.graph.check import row_numbers
from pathlen.graph.path_graph import Kind, PathGraph

# What the systems take, measured: the links, what is solved and scipy's copies of both.
_BYTES_PER_NODE = 300
_BYTES_PER_EDGE = 150


def distribution(
    graph: PathGraph, weighting: str, direction: str, memory_limit: int | None
) -> FloatArray:
    """Share of paths, or chance of walks, of each length: float64[longest + 1].

    O((nodes + edges) * lengths) time, O(nodes + edges) memory; see `HasDistribution`.
    """
    check_weighting(graph, weighting)
    chances = start_chances(graph, direction)
    needed = _BYTES_PER_NODE * graph.num_nodes + _BYTES_PER_EDGE * graph.num_edges
    check_memory(needed, memory_limit, "the distribution (two systems of equations)")
    links, activity, final = graph.to_scipy(), graph.activity, chances
    if weighting == "normalized":
        if direction == "forward":
            links, activity, final = backward(links), activity[::-1], chances[::-1]
        degrees = np.diff(links.indptr)
        shares = with_entries(links, (1.0 / np.maximum(degrees, 1))[row_numbers(links.indptr)])
    else:
        if weighting == "uniform":
            links = with_entries(links, np.ones(graph.num_edges))
        counts = count(links)
        shares, final = _shares(links, counts), _final(counts, graph.kind == Kind.OUTPUT)
    return _lengths(shares, activity, final)


def _shares(links: scipy.sparse.csr_array, counts: Scaled) -> scipy.sparse.csr_array:
    """Share of the ways to v that come from u: link * count(u) / count(v)."""
    targets, sources = row_numbers(links.indptr), links.indices
    ratio = counts.mantissa[sources] / counts.mantissa[targets]
    shift = counts.exponent[sources] - counts.exponent[targets]
    weight, exponent = np.frexp(links.data)
    return with_entries(links, shifted(weight * ratio, shift + exponent))


def _final(counts: Scaled, ends: np.ndarray) -> FloatArray:
    """Share of all paths that end at each node: float64[n]."""
    total, _ = total_of(counts, ends)
    final = np.zeros(len(ends))
    final[ends] = shifted(
        counts.mantissa[ends] / total.mantissa[0], counts.exponent[ends] - total.exponent[0]
    )
    return final


def _lengths(shares: scipy.sparse.csr_array, activity: FloatArray, final: FloatArray) -> FloatArray:
    """Solve for one length after the other."""
    longest = int(swept(shares, (activity > 0).astype(np.float64), np.maximum).max())
    linear = 1.0 - activity
    begin = reads_nothing(shares).astype(np.float64)
    kept = with_entries(shares, shares.data * linear[row_numbers(shares.indptr)])
    ways = solve(kept, linear * begin)
    result = [float(np.sum(final * ways))]
    arriving = begin + shares @ ways  # with one unit less, ways that begin included
    for _ in range(longest):
        ways = solve(kept, activity * arriving)
        result.append(float(np.sum(final * ways)))
        arriving = shares @ ways
    return np.array(result)
