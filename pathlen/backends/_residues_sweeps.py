"""Averages modulo primes, layer by layer: sweeps from both ends on rows of 32 residues."""

import numpy as np
import numpy.typing as npt

from pathlen.backends._compiled import compiled
from pathlen.backends._residues_bounds import Reading, distinct, dyadic
from pathlen.backends._residues_primes import (
    LANES,
    Residues,
    added,
    batches_of,
    in_montgomery_form,
    montgomery,
    powers_of,
)
from pathlen.backends._residues_rows import sum_modulo
from pathlen.backends.protocol import FloatArray, IntArray

BYTES_PER_NODE = 8 * LANES + 48
"""Two rows of a node, and the numbers of its degree, activity and start."""


Rows = npt.NDArray[np.int32]
"""Row of the layers table of each node."""


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


def path_sums(
    reading: Reading, back: Reading, layer: Rows, layers: int, primes: Residues
) -> tuple[Residues, Residues]:
    """Modulo each prime, the number of paths, and the lengths of all paths summed up by layer.

    O(primes * (nodes + edges)).

    Args:
        reading: Of a graph of n nodes.
        back: The same turned round.
        layer: int[n], row of the layers table of each node, in the order of `back`.
        layers: Number of its rows.
        primes: uint32[p].

    Returns:
        uint32[p] and uint32[layers, p].
    """
    activity, ends = Fractions(back.activity), reading.starts > 0
    nowhere, starts = np.zeros(back.nodes, np.int32), (back.starts > 0).astype(np.int32)
    counts, state = rows_of_residues(back.nodes), rows_of_residues(back.nodes)
    one, paths, sums = np.ones((1, LANES), np.uint32), [], []
    for batch in batches_of(primes, LANES):
        paths.append(_counts(reading.indptr, reading.indices, ends, batch, counts))
        found = np.zeros((layers, LANES), np.uint32)
        _sums_of_layers(
            back.indptr,
            back.indices,
            layer,
            (activity.which, in_montgomery_form(activity.modulo(batch.primes), batch.primes)),
            (nowhere, in_montgomery_form(one, batch.primes)),
            (starts, np.concatenate([one - one, one])),
            counts,
            batch,
            state,
            found,
        )
        # A share is a product of two residues neither of which was in that form.
        sums.append(in_montgomery_form(found, batch.primes))
    return np.concatenate(paths)[: len(primes)], np.hstack(sums)[:, : len(primes)]


def walk_sums(back: Reading, layer: Rows, layers: int, primes: Residues) -> Residues:
    """Modulo each prime, what the random walk expects to pass of each layer: uint32[layers, p].

    O(primes * (nodes + edges)); arguments are those of `path_sums`.
    """
    activity = Fractions(back.activity)
    degrees, degree_of = distinct(np.maximum(np.bincount(back.indices, minlength=back.nodes), 1))
    starts, start_of = distinct(back.starts)
    state = rows_of_residues(back.nodes)
    sums = []
    for batch in batches_of(primes, LANES):
        found = np.zeros((layers, LANES), np.uint32)
        _sums_of_layers(
            back.indptr,
            back.indices,
            layer,
            (activity.which, in_montgomery_form(activity.modulo(batch.primes), batch.primes)),
            (degree_of, inverses(degrees, batch.primes)),
            (start_of, powers_of(starts, np.full(len(starts), -1, dtype=np.int64), batch.primes)),
            state[:0],
            batch,
            state,
            found,
        )
        sums.append(found)
    return np.hstack(sums)[:, : len(primes)]


def rows_of_residues(count: int) -> Residues:
    """uint32[count, 32] without values, each row in two cache lines."""
    room = np.empty(LANES * count + 16, np.uint32)
    skipped = -room.ctypes.data % 64 // 4
    return room[skipped : skipped + LANES * count].reshape(count, LANES)


# F(v) = 1 at a terminal, else the sum of F over what v reads
@compiled(error_model="numpy", nogil=True)
def _counts(indptr, indices, ends, batch, counts):  # type: ignore[no-untyped-def]
    primes, _ = batch
    total, result = np.empty(LANES, np.uint32), np.zeros(LANES, np.uint32)
    for node in range(len(ends)):
        first, last = indptr[node], indptr[node + 1]
        total[:] = 1
        if first < last:
            sum_modulo(counts, indices, first, last, primes, total)  # type: ignore[call-arg]
        counts[node] = total
        if ends[node]:
            for lane in range(LANES):
                result[lane] = added(result[lane], counts[node, lane], primes[lane])
    return result


# X(u) = start(u) at a terminal, else the sum of step(v) X(v) over the nodes v that u reads; what is
# summed up by layer is activity(u) X(u) F(u). Factors of nodes are positions in tables of residues,
# with nothing at position 0 of activities and starts; activities and steps are in the form that
# `montgomery` takes. F, of nodes in the opposite order, is 1 where `counts` has no rows.
@compiled(error_model="numpy", nogil=True)
def _sums_of_layers(  # type: ignore[no-untyped-def]
    indptr, indices, layer, activities, steps, starts, counts, batch, state, sums
):
    primes, negated = batch
    own = np.empty(LANES, np.uint32)
    for node in range(len(layer)):
        first, last = indptr[node], indptr[node + 1]
        if first < last:
            sum_modulo(state, indices, first, last, primes, own)  # type: ignore[call-arg]
        else:
            own[:] = starts[1][starts[0][node]]
        if activities[0][node]:
            activity, total = activities[1][activities[0][node]], sums[layer[node]]
            if len(counts):
                count = counts[len(layer) - 1 - node]
                for lane in range(LANES):
                    part = montgomery(own[lane], activity[lane], primes[lane], negated[lane])
                    part = montgomery(part, count[lane], primes[lane], negated[lane])
                    total[lane] = added(total[lane], part, primes[lane])
            else:
                for lane in range(LANES):
                    part = montgomery(own[lane], activity[lane], primes[lane], negated[lane])
                    total[lane] = added(total[lane], part, primes[lane])
        step, passed = steps[1][steps[0][node]], state[node]
        for lane in range(LANES):
            passed[lane] = montgomery(own[lane], step[lane], primes[lane], negated[lane])
