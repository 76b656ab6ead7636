"""Sparse triangular systems: with nodes in topological order, I - A is unit lower triangular.

A is the matrix of edges (rows are nodes, columns predecessors). Path counts F solve
(I - A) F = 1 at the inputs, counts R to the outputs solve the transposed system, and the chances
W of the random walk solve one whose edges are weighted by one over a degree.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve_triangular

from pathlen.backends.protocol import (
    Capabilities,
    FloatArray,
    Scaled,
    Solution,
    float_solution,
    out_degrees,
    start_chances,
)
from pathlen.graph import Kind, PathGraph
from pathlen.graph_parts import BoolArray

# A system is solved in float64 as far as counts fit; what overflows is solved again, divided by
# 2**900. What is left then exceeds 2**123, so what the division rounds away is nothing to it, nor
# is what was solved two rounds before.
_STEP = 900


class ScipyBackend:
    """scipy.sparse.linalg.spsolve_triangular."""

    name = "scipy"
    capabilities = Capabilities(exact=False, summary="sparse triangular systems in float64")

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph; see `Backend.solve`.

        O((nodes + edges) * (1 + log2(paths) / 900)), and a few array operations for each run of
        nodes without edges among themselves.
        """
        edges = graph.to_scipy()
        edges.data[:] = 1.0  # paths count the same whatever their edges weigh
        chances = start_chances(graph, direction)
        if direction == "backward":
            degrees, links, lower = np.diff(graph.indptr), edges.T, False
        else:
            degrees, links, lower = out_degrees(graph), edges, True
        weights = scipy.sparse.diags_array(1.0 / np.maximum(degrees, 1))
        ends = graph.kind == Kind.OUTPUT
        return float_solution(
            graph,
            direction,
            from_inputs=_count(edges, graph.kind == Kind.INPUT, lower=True),
            to_outputs=_count(edges.T, ends, lower=False),
            walk_share=_solve(links @ weights, chances, lower=lower),
            longest=_longest(graph, graph.activity)[ends].max(),
            shortest=-_longest(graph, -graph.activity)[ends].max(),
        )


def _solve(links: scipy.sparse.sparray, right: FloatArray, *, lower: bool) -> FloatArray:
    """X with x = right + links x, for triangular links without a diagonal: float64[n]."""
    identity = scipy.sparse.eye_array(len(right), format="csc")
    system = (identity - links.tocsc()).tocsc()
    solution: FloatArray = spsolve_triangular(system, right, lower=lower, unit_diagonal=True)
    return solution


def _count(links: scipy.sparse.sparray, terminals: BoolArray, *, lower: bool) -> Scaled:
    """Path counts x = [v is a terminal] + links x, however large: [n]."""
    links, right = links.tocsr(), terminals.astype(np.float64)
    mantissa, exponent = np.zeros(len(right)), np.zeros(len(right), dtype=np.int64)
    todo, shift = np.arange(len(right)), 0
    while todo.size:
        values = _solve(links, right, lower=lower)
        done = np.isfinite(values)
        mantissa[todo[done]], exponent[todo[done]] = np.frexp(values[done])
        exponent[todo[done]] += shift
        rest = links[~done]
        right = rest[:, done] @ np.ldexp(values[done], -_STEP)
        links, todo, shift = rest[:, ~done], todo[~done], shift + _STEP
    return Scaled(mantissa, exponent)


def _longest(graph: PathGraph, lengths: FloatArray) -> FloatArray:
    """L(v) = length(v) + the largest L over predecessors (0 at an input): float64[n].

    Sparse products know no maximum, so runs of nodes that have no edges among themselves are
    reduced one after the other.
    """
    indptr, indices = graph.indptr, graph.indices
    inner = np.flatnonzero(np.diff(indptr))
    last_read = np.full(graph.num_nodes, -1, dtype=np.int64)
    last_read[inner] = indices[indptr[inner + 1] - 1]
    last_read = np.maximum.accumulate(last_read)
    longest = lengths.astype(np.longdouble)  # where it has more digits, depth costs none
    first = 0
    while first < graph.num_nodes:
        end = int(np.searchsorted(last_read, first))  # the first node that reads this run
        nodes = inner[np.searchsorted(inner, first) : np.searchsorted(inner, end)]
        if nodes.size:
            read = longest[indices[indptr[first] : indptr[end]]]
            longest[nodes] += np.maximum.reduceat(read, indptr[nodes] - indptr[first])
        first = end
    return longest.astype(np.float64)


BACKEND = ScipyBackend()
