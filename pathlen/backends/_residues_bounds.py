"""How large the whole numbers are that residues stand for: bounds proved before the work starts.

docs/algorithms/residues.md has the proofs.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pathlen.backends._compiled import compiled
from pathlen.backends._residues_primes import LANES, LEAST_PRIME
from pathlen.backends._residues_rows import largest_of_rows
from pathlen.backends.protocol import FloatArray, IntArray, walk_starts
from pathlen.errors import BackendError
from pathlen.graph.path_graph import PathGraph

MOST_BITS = 1 << 22
"""The longest number that is computed: 1.2 million digits."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A graph as a sweep reads it: what a node reads comes before the node.

    Attributes:
        indptr: int64[n + 1].
        indices: int[e].
        weights: float64[e] or None.
        activity: float64[n].
        starts: int64[n], one over the chance that a walk starts at the node; 0 where none does.
    """

    indptr: IntArray
    indices: npt.NDArray[np.integer[Any]]
    weights: FloatArray | None
    activity: FloatArray
    starts: IntArray

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.activity)


def reading_of(graph: PathGraph, direction: str, *, weighted: bool = False) -> Reading:
    """Nodes as they stand for walks that go backward; the other way round for "forward".

    Raises:
        BackendError: No such direction, or nodes can have more neighbours than the primes.
    """
    starts = walk_starts(graph, direction)
    size = graph.num_nodes
    if size >= LEAST_PRIME:
        raise BackendError(
            f"backend 'residues' counts modulo primes near 2**31, which must be larger than any"
            f" layer or degree; the graph has {size} nodes, so use the backend 'exact'"
        )
    weights = graph.weights if weighted else None
    reading = Reading(graph.indptr, graph.indices, weights, graph.activity, starts)
    return reading if direction == "backward" else turned(reading)


def turned(reading: Reading) -> Reading:
    """The same graph read from its other end: nodes in the opposite order, edges turned round."""
    weights = np.zeros(0) if reading.weights is None else reading.weights
    indptr, indices, weights = _turned(reading.indptr, reading.indices, weights)
    return Reading(
        indptr,
        indices,
        None if reading.weights is None else weights,
        np.ascontiguousarray(reading.activity[::-1]),
        np.ascontiguousarray(reading.starts[::-1]),
    )


def dyadic(values: FloatArray) -> tuple[IntArray, IntArray]:
    """Floats that are not negative as odd * 2**exponent; 0 has (0, 0): int64[n] twice."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    _, last = np.frexp((whole & -whole).astype(np.float64))
    zeros = np.maximum(last.astype(np.int64) - 1, 0)
    return whole >> zeros, np.where(whole > 0, exponent - 53 + zeros, 0).astype(np.int64)


def bits_of_count(log10: float) -> int:
    """Bits of a whole number whose logarithm comes from a float backend, one to spare."""
    return int(log10 * math.log2(10.0)) + 2


def walk_denominator(reading: Reading, node_bits: IntArray | None = None) -> dict[int, int]:
    """A number that makes the chances of all walks whole: its primes with their exponents.

    The least common multiple, over all walks, of one over the chance of the walk. With bits, each
    walk is also divided by 2**bits for each node it passes.
    """
    degrees, of_node = distinct(np.maximum(np.diff(reading.indptr), 1))
    ends = np.flatnonzero(reading.starts)
    starts, of_end = distinct(reading.starts[ends])
    factors = prime_factors(np.union1d(degrees, starts))
    if node_bits is not None:
        factors = np.union1d(factors, [2])
    found: dict[int, int] = {}
    for first in range(0, len(factors), LANES):
        some = factors[first : first + LANES]
        lanes = np.resize(some, LANES)
        state = np.empty((reading.nodes, LANES), np.uint32)
        _largest_sums(
            reading.indptr,
            reading.indices,
            of_node,
            _valuations(degrees, lanes),
            np.zeros(0, np.int64) if node_bits is None else node_bits,
            lanes == 2,
            state,
        )
        most = (state[ends] + _valuations(starts, lanes)[of_end]).max(axis=0)
        found |= dict(zip(some.tolist(), most[: len(some)].tolist(), strict=True))
    return {factor: times for factor, times in found.items() if times}


def edge_bits(reading: Reading, node_bits: IntArray) -> int:
    """The most binary places that the weight of a path has: on its edges and its nodes."""
    bits = np.zeros(len(reading.indices), np.int64)
    if reading.weights is not None:
        bits = -dyadic(reading.weights)[1]  # below 0 where a weight is a multiple of 2
    return int(_most_bits(reading.indptr, reading.indices, bits, node_bits, reading.starts > 0))


def distinct(values: IntArray) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """Distinct values, ascending, and the position of each value among them.

    O(values) where these are small, as degrees are; else they are sorted.
    """
    if values.size and values.min() >= 0 and values.max() <= 2 * values.size:
        is_there = np.zeros(int(values.max()) + 1, dtype=np.bool_)
        is_there[values] = True
        places = np.cumsum(is_there, dtype=np.int32) - 1
        return np.flatnonzero(is_there).astype(np.int64, copy=False), places[values]
    found, which = np.unique(values, return_inverse=True)
    return found, which.astype(np.int32)


def prime_factors(numbers: IntArray) -> IntArray:
    """Primes that divide at least one of some numbers above 0, ascending."""
    left = np.unique(numbers)
    found = []
    factor = 2
    while left.size and factor * factor <= int(left.max()):
        if np.any(left % factor == 0):
            found.append(factor)
            while np.any(divisible := left % factor == 0):
                left = np.where(divisible, left // factor, left)
            left = np.unique(left)
        factor += 1
    return np.union1d(np.array(found, dtype=np.int64), left[left > 1])


def check_bits(bits: int, what: str, remedy: str) -> None:
    """Raise BackendError where a number is too long to be computed in reasonable time."""
    if bits > MOST_BITS:
        raise BackendError(
            f"{what} is a number of up to {bits} bits, more than the {MOST_BITS} that backend"
            f" 'residues' computes; {remedy}"
        )


def _valuations(numbers: IntArray, factors: IntArray) -> npt.NDArray[np.uint32]:
    """How often each prime divides each number: uint32[numbers, factors]."""
    left = np.repeat(numbers[:, None], len(factors), axis=1)
    times = np.zeros(left.shape, np.uint32)
    while np.any(divisible := left % factors == 0):
        times += divisible
        left = np.where(divisible, left // factors, left)
    return times


@compiled()
def _turned(indptr, indices, weights):  # type: ignore[no-untyped-def]
    """Rows of what reads each node, ascending, all nodes numbered from the last to the first."""
    size = len(indptr) - 1
    starts, weight_of = np.zeros(size + 1, np.int64), np.empty_like(weights)
    for before in indices:
        starts[size - before] += 1
    for node in range(size):
        starts[node + 1] += starts[node]
    next_place, readers = starts[:-1].copy(), np.empty_like(indices)
    for node in range(size - 1, -1, -1):
        for edge in range(indptr[node], indptr[node + 1]):
            before = size - 1 - indices[edge]
            place = next_place[before]
            next_place[before] += 1
            readers[place] = size - 1 - node
            if len(weights):
                weight_of[place] = weights[edge]
    return starts, readers, weight_of


# V(v) = valuation of degree(v) + the largest V over what v reads, for several primes at once.
@compiled(error_model="numpy")
def _largest_sums(  # type: ignore[no-untyped-def]
    indptr, indices, of_node, valuations, node_bits, is_two, state
):
    largest = np.empty(LANES, np.uint32)
    for node in range(len(indptr) - 1):
        first, last = indptr[node], indptr[node + 1]
        largest_of_rows(state, indices, first, last, largest)  # type: ignore[call-arg]
        own = valuations[of_node[node]]
        for lane in range(LANES):
            state[node, lane] = largest[lane] + own[lane]
            if len(node_bits) and is_two[lane]:
                state[node, lane] += np.uint32(node_bits[node])


@compiled()
def _most_bits(indptr, indices, bits, node_bits, ends):  # type: ignore[no-untyped-def]
    most, result = np.empty(len(ends), np.int64), 0
    for node in range(len(ends)):
        largest = 0
        for edge in range(indptr[node], indptr[node + 1]):
            found = most[indices[edge]] + bits[edge]
            if edge == indptr[node] or found > largest:
                largest = found
        most[node] = largest + node_bits[node]
        if ends[node]:
            result = max(result, most[node])
    return result
