"""Distributions of path lengths modulo primes: a polynomial a node, 16 residues a coefficient.

The coefficients p(v) of node v count the ways to it by length, in numbers modulo each prime:

    p(v) = (1 - a + a z) * sum over what v reads of weight(u, v) p(u),   a = activity(v)

divided, for the random walk, by how many nodes v reads. A row of coefficients is kept until its
last reader has read it.
"""

import numpy as np

from pathlen.backends._compiled import compiled
from pathlen.backends._numba_distribution import _live_rows, _windows
from pathlen.backends._residues_bounds import Reading, distinct
from pathlen.backends._residues_primes import (
    Residues,
    added,
    batches_of,
    in_montgomery_form,
    montgomery,
)
from pathlen.backends._residues_sweeps import Fractions, inverses
from pathlen.backends.protocol import FloatArray, IntArray

PLACES = 16
"""Primes at once: a coefficient is one cache line."""
_SURE, _NEVER, _MAYBE = 0, 1, 2


class LengthSweep:
    """What is known of a graph before the first prime; `coefficients` is run as often as needed.

    Attributes:
        bytes_needed: What `coefficients` takes for a number of primes.
    """

    def __init__(self, reading: Reading, walk: bool) -> None:
        self._reading, self._walk = reading, walk
        self._windows = _windows(reading.indptr, reading.indices, reading.activity)
        low, high, last_reader = self._windows
        self.lengths = int(high[reading.starts > 0].max()) + 1
        self._width = int((high - low).max()) + 1
        self._rows = int(_live_rows(reading.indptr, reading.indices, last_reader))

    def bytes_needed(self, primes: int) -> int:
        """Bytes: live rows, tables of weights and activities, and the residues of all primes."""
        reading = self._reading
        weights = 0 if reading.weights is None else len(np.unique(reading.weights))
        tables = (weights + 2 * len(np.unique(reading.activity))) * 4 * PLACES * 8
        edges = 0 if reading.weights is None else 20 * len(reading.indices)
        rows = 4 * PLACES * self._width * (self._rows + 4)
        return rows + tables + edges + 60 * reading.nodes + 80 * self.lengths * (primes + PLACES)

    def coefficients(self, primes: Residues) -> Residues:
        """How many ways (or the chance of walks) of each length: uint32[lengths, primes]."""
        reading = self._reading
        activity = Fractions(reading.activity)
        weights = Fractions(np.zeros(0) if reading.weights is None else reading.weights)
        degrees, degree_of = distinct(np.maximum(np.diff(reading.indptr), 1))
        starts, start_of = distinct(np.maximum(reading.starts, 1) if self._walk else reading.starts)
        store = np.empty((self._rows, self._width * PLACES), np.uint32)
        found = []
        for batch in batches_of(primes, PLACES):
            chance = activity.modulo(batch.primes)
            rest = (batch.primes + 1 - chance) % batch.primes
            one = in_montgomery_form(np.ones((1, PLACES), np.uint32), batch.primes)
            none = one[:0]
            final = inverses(starts, batch.primes) if self._walk else one.repeat(len(starts), 0)
            found.append(
                _sweep(
                    reading.indptr,
                    reading.indices,
                    (weights.which, in_montgomery_form(weights.modulo(batch.primes), batch.primes)),
                    (degree_of, inverses(degrees, batch.primes) if self._walk else none),
                    (activity.which, in_montgomery_form(chance, batch.primes)),
                    in_montgomery_form(rest, batch.primes),
                    _manners(activity.values),
                    (start_of, final),
                    reading.starts > 0,
                    self._windows,
                    self.lengths,
                    store,
                    (np.tile(batch.primes, self._width), np.tile(batch.negated, self._width)),
                )
            )
        residues: Residues = np.concatenate(found, axis=1)[:, : len(primes)]
        return residues


def _manners(values: FloatArray) -> IntArray:
    """How units of each activity count: surely, never, or with a chance."""
    return np.where(values == 1.0, _SURE, np.where(values == 0.0, _NEVER, _MAYBE)).astype(np.int64)


@compiled(inline="always")
def _add_row(row, offset, values, count, weight, primes, negated):  # type: ignore[no-untyped-def]
    """Row[offset:] + weight * values, an empty weight being 1."""
    if len(weight) == 0:
        for at in range(count):
            row[offset + at] = added(row[offset + at], values[at], primes[at])
        return
    for start in range(0, count, PLACES):
        for lane in range(PLACES):
            at = start + lane
            product = montgomery(values[at], weight[lane], primes[lane], negated[lane])
            row[offset + at] = added(row[offset + at], product, primes[lane])


@compiled(inline="always")
def _scale_row(row, count, factor, primes, negated):  # type: ignore[no-untyped-def]
    for start in range(0, count, PLACES):
        for lane in range(PLACES):
            row[start + lane] = montgomery(
                row[start + lane], factor[lane], primes[lane], negated[lane]
            )


@compiled(inline="always")
def _counted(row, count, chance, rest, primes, negated):  # type: ignore[no-untyped-def]
    """The polynomial of a row times (1 - a + a z), the last coefficient being 0 before."""
    for start in range(count - PLACES, -1, -PLACES):
        for lane in range(PLACES):
            at = start + lane
            here = montgomery(row[at], rest[lane], primes[lane], negated[lane])
            if start > 0:
                before = montgomery(row[at - PLACES], chance[lane], primes[lane], negated[lane])
                here = added(here, before, primes[lane])
            row[at] = here


@compiled(error_model="numpy")
def _sweep(  # type: ignore[no-untyped-def]
    indptr,
    indices,
    edge_weights,
    degrees,
    activities,
    linear,
    manners,
    finals,
    ends,
    windows,
    lengths,
    store,
    batch,
):
    weight_of, weights = edge_weights
    degree_of, inverse = degrees
    activity_of, active = activities
    final_of, final = finals
    low, high, last_reader = windows
    primes, negated = batch
    row_of = np.empty(len(activity_of), np.int64)
    free = np.arange(len(store) - 1, -1, -1)
    num_free = len(store)
    result = np.zeros((lengths, PLACES), np.uint32)
    no_weight = primes[:0]
    for node in range(len(activity_of)):
        num_free -= 1
        row_of[node] = free[num_free]
        row = store[row_of[node]]
        kind = activity_of[node]
        manner = manners[kind]
        base = low[node] - (1 if manner == _SURE else 0)
        span = (high[node] - low[node] + 1) * PLACES
        row[:span] = 0
        begin, end = indptr[node], indptr[node + 1]
        for edge in range(begin, end):
            before = indices[edge]
            weight = weights[weight_of[edge]] if len(weights) else no_weight
            count = (high[before] - low[before] + 1) * PLACES
            values = store[row_of[before]]
            _add_row(row, (low[before] - base) * PLACES, values, count, weight, primes, negated)
            if last_reader[before] == node:
                free[num_free] = row_of[before]
                num_free += 1
        if begin == end:
            row[:PLACES] = 1
        elif len(inverse) and end - begin > 1:
            _scale_row(row, span, inverse[degree_of[node]], primes, negated)
        if manner == _MAYBE:
            _counted(row, span, active[kind], linear[kind], primes, negated)
        if ends[node]:
            factor = final[final_of[node]]
            for start in range(0, span, PLACES):
                for lane in range(PLACES):
                    at = low[node] + start // PLACES
                    part = montgomery(row[start + lane], factor[lane], primes[lane], negated[lane])
                    result[at, lane] = added(result[at, lane], part, primes[lane])
            free[num_free] = row_of[node]
            num_free += 1
    return result
