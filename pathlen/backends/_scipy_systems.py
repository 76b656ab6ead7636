"""Sparse systems of path graphs, well scaled however many paths there are and whatever they weigh.

A matrix of links has a row for each node and, in it, an entry for each node that is read. Nodes are
in topological order, so links are strictly lower triangular and I - links is unit triangular.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve_triangular

from pathlen.backends.protocol import FloatArray, IntArray, Scaled
from pathlen.graph.check import row_numbers
from pathlen.graph.parts import BoolArray


def with_entries(links: scipy.sparse.csr_array, entries: FloatArray) -> scipy.sparse.csr_array:
    """Links between the same nodes with other entries: float64[e] in the order of the rows."""
    return scipy.sparse.csr_array((entries, links.indices, links.indptr), shape=links.shape)


def backward(links: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Links to the nodes that read instead, both numbered from the last node to the first."""
    flipped = scipy.sparse.csr_array(links.T.tocsr()[::-1, ::-1])
    flipped.sort_indices()
    return flipped


def solve(links: scipy.sparse.csr_array, right: FloatArray) -> FloatArray:
    """X with x = right + links x: float64[n]."""
    identity = scipy.sparse.eye_array(len(right), format="csc")
    system = (identity - links.tocsc()).tocsc()
    solution: FloatArray = spsolve_triangular(system, right, lower=True, unit_diagonal=True)
    return solution


def swept(
    links: scipy.sparse.csr_array,
    own: FloatArray,
    combine: np.ufunc,
    terms: FloatArray | None = None,
) -> FloatArray:
    """Y(v) = own(v) + combine(term + Y of what v reads), own(v) where nothing is read: float64[n].

    Sparse products know no maximum, so runs of nodes that have no edges among themselves are
    reduced one after the other.

    Args:
        links: Which nodes are read; entries do not matter.
        own: float64[n].
        combine: `numpy.maximum` or `numpy.logaddexp2`.
        terms: float64[e]; by default 0.
    """
    indptr, indices, size = links.indptr, links.indices, len(own)
    inner = np.flatnonzero(np.diff(indptr))
    last_read = np.full(size, -1, dtype=np.int64)
    last_read[inner] = indices[indptr[inner + 1] - 1]
    last_read = np.maximum.accumulate(last_read)
    found = own.astype(np.longdouble)  # where it has more digits, depth costs none
    first = 0
    while first < size:
        end = int(np.searchsorted(last_read, first))  # the first node that reads this run
        nodes = inner[np.searchsorted(inner, first) : np.searchsorted(inner, end)]
        if nodes.size:
            edges = slice(indptr[first], indptr[end])
            read = found[indices[edges]]
            if terms is not None:
                read += terms[edges]
            found[nodes] += combine.reduceat(read, indptr[nodes] - indptr[first])
        first = end
    return found.astype(np.float64)


def well_scaled(links: scipy.sparse.csr_array) -> tuple[scipy.sparse.csr_array, IntArray]:
    """Links 2**(power(u) - power(v)) and those powers, which bring counts near 1: int64[n].

    A count x = links x, 1 where nothing is read, is 2**power times the solution of the scaled
    system. Powers are the logarithms of the counts, found in floating point and rounded, so they
    need few right digits; scaling by powers of two rounds nothing. Solutions are near 1, and an
    entry that falls below all floats is nothing beside them.
    """
    logarithms = swept(links, np.zeros(links.shape[0]), np.logaddexp2, np.log2(links.data))
    power = np.rint(logarithms).astype(np.int64)
    shift = power[links.indices] - power[row_numbers(links.indptr)]
    return with_entries(links, shifted(links.data, shift)), power


def shifted(values: FloatArray, power: IntArray) -> FloatArray:
    """Values * 2**power, of which none overflows; what is too small for float64 becomes 0."""
    mantissa, exponent = np.frexp(values)
    result: FloatArray = np.ldexp(mantissa, np.clip(power + exponent, -5000, 5000).astype(np.int32))
    return result


def count(links: scipy.sparse.csr_array) -> Scaled:
    """X(v) = the sum of link * x over what v reads, 1 where nothing is read: [n]."""
    scaled, power = well_scaled(links)
    mantissa, exponent = np.frexp(solve(scaled, reads_nothing(links).astype(np.float64)))
    return Scaled(mantissa, exponent + power)


def reads_nothing(links: scipy.sparse.csr_array) -> BoolArray:
    """Where ways begin: bool[n]."""
    starts: BoolArray = np.diff(links.indptr) == 0
    return starts
