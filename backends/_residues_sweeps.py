"""Averages modulo primes: the recurrences of the float sweep on rows of 32 residues."""

import numpy as np

from pathlen.backends._compiled import compiled
from pathlen.backends._residues_bounds import Reading, distinct, dyadic
from pathlen.backends._residues_primes import (
    LANES,
    Batch,
    Residues,
    added,
    batches_of,
    in_montgomery_form,
    montgomery,
    powers_of,
)
from pathlen.backends._residues_rows import sum_modulo
from pathlen.backends.protocol import FloatArray, IntArray

BYTES_PER_NODE = 4 * LANES + 48
"""The row of a node, and the numbers of its degree and activity."""
_HALF = LANES // 2


class Fractions:
    """Distinct floats, taken for the fractions they are, modulo any primes.

    Attributes:
        values: 0, 1 and the others; nothing if there are no floats: float64[distinct].
        which: int32[n], position of each float among the distinct ones.
    """

    def __init__(self, values: FloatArray) -> None:
        # Most activities are 0 or 1: those are not sorted.
        others = np.flatnonzero((values != 0.0) & (values != 1.0))
        distinct_others, which = np.unique(values[others], return_inverse=True)
        self.values = np.concatenate([[0.0, 1.0] if values.size else [], distinct_others])
        self.which = (values == 1.0).astype(np.int32)
        self.which[others] = which + 2
        self._odd, exponents = dyadic(self.values)
        self._exponents, self._of_value = distinct(exponents)

    @property
    def bits(self) -> IntArray:
        """Binary places of each distinct float: int64[distinct]."""
        return np.maximum(-self._exponents, 0)[self._of_value]

    def modulo(self, primes: Residues) -> Residues:
        """Residues of the distinct floats: uint32[distinct, primes]."""
        twos = np.full(len(self._exponents), 2, dtype=np.int64)
        scale = powers_of(twos, self._exponents, primes)[self._of_value]
        odd = self._odd.astype(np.uint64)[:, None] % primes
        found: Residues = (odd * scale % primes).astype(np.uint32)
        return found


def inverses(numbers: IntArray, primes: Residues) -> Residues:
    """One over each number, in the form that `montgomery` takes: uint32[numbers, primes]."""
    least = powers_of(numbers, np.full(len(numbers), -1, dtype=np.int64), primes)
    return in_montgomery_form(least, primes)


def path_counts(reading: Reading, primes: Residues) -> tuple[Residues, Residues]:
    """Number of paths and sum of their lengths modulo each prime; O(primes * edges)."""
    activity = Fractions(reading.activity)
    state = rows_of_residues(reading.nodes)
    found = []
    for half in batches_of(primes, _HALF):
        # F and S of a node are one row, each with the same primes.
        batch = Batch(np.tile(half.primes, 2), np.tile(half.negated, 2))
        table = in_montgomery_form(activity.modulo(half.primes), half.primes)
        ends = reading.starts > 0
        found.append(
            _counts(reading.indptr, reading.indices, activity.which, table, ends, batch, state)
        )
    sums = np.array(found).reshape(-1, 2, _HALF)
    paths, lengths = (sums[:, row].ravel()[: len(primes)] for row in (0, 1))
    return paths, lengths


def walk_lengths(reading: Reading, primes: Residues) -> Residues:
    """Expected length of the random walk modulo each prime; O(primes * edges)."""
    activity = Fractions(reading.activity)
    degrees, of_node = distinct(np.maximum(np.diff(reading.indptr), 1))
    starts, start_of_node = distinct(np.maximum(reading.starts, 1))
    state = rows_of_residues(reading.nodes)
    found = [
        _walks(
            reading.indptr,
            reading.indices,
            (activity.which, activity.modulo(batch.primes)),
            (of_node, inverses(degrees, batch.primes)),
            (start_of_node, inverses(starts, batch.primes)),
            reading.starts > 0,
            batch,
            state,
        )
        for batch in batches_of(primes, LANES)
    ]
    residues: Residues = np.concatenate(found)[: len(primes)]
    return residues


def rows_of_residues(count: int) -> Residues:
    """uint32[count, 32] without values, each row in two cache lines."""
    room = np.empty(LANES * count + 16, np.uint32)
    skipped = -room.ctypes.data % 64 // 4
    return room[skipped : skipped + LANES * count].reshape(count, LANES)


# F(v) = 1 at a terminal, else the sum of F over what v reads (first half of a row)
# S(v) = activity(v) F(v) + the sum of S over what v reads (second half)
@compiled(error_model="numpy")
def _counts(indptr, indices, which, activity, ends, batch, state):  # type: ignore[no-untyped-def]
    primes, negated = batch
    total, result = np.empty(LANES, np.uint32), np.zeros(LANES, np.uint32)
    for node in range(len(which)):
        first, last = indptr[node], indptr[node + 1]
        sum_modulo(state, indices, first, last, primes, total)  # type: ignore[call-arg]
        own = activity[which[node]]
        for lane in range(_HALF):
            count = total[lane] if first < last else np.uint32(1)
            length = montgomery(count, own[lane], primes[lane], negated[lane])
            state[node, lane] = count
            state[node, _HALF + lane] = added(total[_HALF + lane], length, primes[lane])
        if ends[node]:
            for lane in range(LANES):
                result[lane] = added(result[lane], state[node, lane], primes[lane])
    return result


# E(v) = activity(v) + the mean of E over what v reads
@compiled(error_model="numpy")
def _walks(  # type: ignore[no-untyped-def]
    indptr, indices, activities, degrees, starts, ends, batch, state
):
    primes, negated = batch
    which, activity = activities
    degree_of_node, inverse = degrees
    start_of_node, chance = starts
    total, result = np.empty(LANES, np.uint32), np.zeros(LANES, np.uint32)
    for node in range(len(which)):
        first, last = indptr[node], indptr[node + 1]
        sum_modulo(state, indices, first, last, primes, total)  # type: ignore[call-arg]
        own, step = activity[which[node]], inverse[degree_of_node[node]]
        for lane in range(LANES):
            mean = montgomery(total[lane], step[lane], primes[lane], negated[lane])
            state[node, lane] = added(mean, own[lane], primes[lane])
        if ends[node]:
            begun = chance[start_of_node[node]]
            for lane in range(LANES):
                part = montgomery(state[node, lane], begun[lane], primes[lane], negated[lane])
                result[lane] = added(result[lane], part, primes[lane])
    return result
