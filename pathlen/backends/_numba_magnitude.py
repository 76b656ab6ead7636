"""Path counts with every path weighted by the product of the weights of its edges."""

import math

import numpy as np

from pathlen.backends._compensated import add
from pathlen.backends._compiled import compiled
from pathlen.backends.protocol import Scaled
from pathlen.graph.path_graph import Kind, PathGraph


def magnitudes(graph: PathGraph) -> tuple[Scaled, Scaled]:
    """The weighted numbers of paths from the inputs to each node, and from it to the outputs."""
    ends = graph.kind == Kind.OUTPUT
    return (
        Scaled(*_from_inputs(graph.indptr, graph.indices, graph.weights)),
        Scaled(*_to_outputs(graph.indptr, graph.indices, graph.weights, ends)),
    )


@compiled(inline="always")
def _add_scaled(high, low, exponent, term, term_exponent):  # type: ignore[no-untyped-def]
    """(high, low) * 2**exponent + term * 2**term_exponent, at the larger exponent."""
    if high == 0.0:
        return term, 0.0, term_exponent
    if term_exponent > exponent:
        shift = max(exponent - term_exponent, -2000)
        high, low, exponent = math.ldexp(high, shift), math.ldexp(low, shift), term_exponent
    elif term_exponent < exponent:
        term = math.ldexp(term, max(term_exponent - exponent, -2000))
    high, low = add(high, low, term, 0.0)
    return high, low, exponent


# M(v) = 1 at an input, else the sum of weight(u, v) M(u) over predecessors u; mantissas lie in
# [0.5, 1), so products of any number of weights neither overflow nor vanish. O(n + e).
@compiled()
def _from_inputs(indptr, indices, weights):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    mantissas, exponents = np.empty(size), np.empty(size, np.int64)
    for node in range(size):
        high, low, exponent = 0.0, 0.0, 0
        if indptr[node] == indptr[node + 1]:
            high = 1.0
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            weight, shift = math.frexp(weights[edge])
            high, low, exponent = _add_scaled(
                high, low, exponent, mantissas[before] * weight, exponents[before] + shift
            )
        mantissas[node], shift = math.frexp(high + low)
        exponents[node] = exponent + shift
    return mantissas, exponents


# The same from the outputs: a node, final when it is reached, is added to its predecessors.
@compiled()
def _to_outputs(indptr, indices, weights, ends):  # type: ignore[no-untyped-def]
    size = len(indptr) - 1
    highs, lows, exponents = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
    for node in range(size - 1, -1, -1):
        if ends[node]:
            highs[node] = 1.0
        mantissa, shift = math.frexp(highs[node] + lows[node])
        highs[node] = mantissa
        exponents[node] += shift
        for edge in range(indptr[node], indptr[node + 1]):
            before = indices[edge]
            weight, shift = math.frexp(weights[edge])
            highs[before], lows[before], exponents[before] = _add_scaled(
                highs[before],
                lows[before],
                exponents[before],
                mantissa * weight,
                exponents[node] + shift,
            )
    return highs, exponents
