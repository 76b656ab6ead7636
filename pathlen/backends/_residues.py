"""Whole numbers and fractions for huge graphs: compiled sweeps modulo many primes.

A sweep carries residues instead of long integers. What comes out is a whole number after
multiplication by a denominator that is known beforehand (`_residues_bounds`), so that enough primes
tell which one it is. docs/algorithms/residues.md has the proof of how many are enough.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, overload

import numpy as np

from pathlen.backends._exact import BACKEND as EXACT
from pathlen.backends._exact import with_exact_magnitudes
from pathlen.backends._exact_classes import integer_activity
from pathlen.backends._numba_magnitude import magnitudes
from pathlen.backends._numba_sweeps import Extent, extent_of
from pathlen.backends._residues_bounds import (
    Reading,
    bits_of_count,
    check_bits,
    edge_bits,
    reading_of,
    turned,
    walk_denominator,
)
from pathlen.backends._residues_distribution import LengthSweep
from pathlen.backends._residues_primes import (
    Remainders,
    Residues,
    largest_primes,
    powers_of,
    primes_for,
)
from pathlen.backends._residues_sweeps import BYTES_PER_NODE, Fractions, Rows, path_sums, walk_sums
from pathlen.backends.protocol import (
    Capabilities,
    Solution,
    check_direction,
    check_memory,
    check_weighting,
    total_of,
)
from pathlen.errors import BackendError
from pathlen.graph.path_graph import Kind, PathGraph
from pathlen.graph.runs import longest_ways

MOST_BITS_OF_LAYERS = 1 << 33
"""The most that is computed for all layers together: a gibibyte."""

_REMEDY = "take floats, right to 12 digits, or a part of the graph (PathGraph.between)"


class ResiduesBackend:
    """Residues modulo primes, put together to integers and fractions."""

    name = "residues"
    capabilities = Capabilities(
        exact=True,
        summary="integers and fractions of huge graphs, modulo many primes",
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph without rounding; see `Backend.solve`.

        O((nodes + edges) * bits) time, where bits are those of the number of paths and of the
        denominator of the normalized average. The share of every node would be as many long
        fractions: they are computed by the backend `exact` when the first of them is read, and so
        is what weights of edges add at once.

        Raises:
            BackendError: The denominator of walks has millions of bits, or layers are so many that
                their fractions would fill memory (said before the work starts).
        """
        check_direction(direction)
        reading = reading_of(graph, direction)
        back = turned(reading)
        rows = graph.layer[:: -1 if direction == "backward" else 1], len(graph.layers)
        floats = extent_of(graph)
        by_walk = _by_walk(reading, back, *rows)
        count, by_path = _by_path(reading, back, *rows, floats.log10_path_count)
        longest, shortest = _extremes(graph, floats)
        later = functools.cache(lambda: EXACT.solve(graph, direction))
        solution = Solution(
            direction=direction,
            average=by_path.total,
            normalized_average=by_walk.total,
            path_count=count,
            log10_path_count=math.log10(count),
            longest_path=longest,
            shortest_path=shortest,
            path_share=_Later(graph.num_nodes, lambda: later().path_share),
            walk_share=_Later(graph.num_nodes, lambda: later().walk_share),
            contribution=by_path.layers,
            normalized_contribution=by_walk.layers,
        )
        return solution if graph.weights is None else with_exact_magnitudes(graph, solution)

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> list[Fraction]:
        """Lengths of paths or walks; see `HasDistribution`.

        O((nodes + edges * lengths) * bits) time.
        """
        check_weighting(graph, weighting)
        check_direction(direction)
        walk, weighted = weighting == "normalized", weighting == "magnitude"
        at_least = 8 * graph.num_nodes
        check_memory(at_least, memory_limit, "the exact distribution")
        reading = reading_of(graph, direction if walk else "backward", weighted=weighted)
        denominator, bits = _size_of_shares(graph, reading, weighting)
        check_bits(bits, f"the exact {weighting} distribution", _REMEDY)
        sweep = LengthSweep(reading, walk)
        count = primes_for(bits)
        needed = at_least + sweep.bytes_needed(count) + sweep.lengths * (bits // 2 + 250)
        needed += _bytes_of_bounds(graph, walk, direction)
        check_memory(needed, memory_limit, f"the exact distribution (modulo {count} primes)")
        primes = largest_primes(count)
        residues = _times(sweep.coefficients(primes), denominator, 0, primes)
        remainders = Remainders(primes)
        values = remainders.numbers(residues)
        # (1 - a + a z) is 1 at z = 1: the coefficients add up to the weight of all paths.
        total = sum(values)
        return [Fraction(value, total) for value in values]


class _Sums(NamedTuple):
    """An average.

    Attributes:
        total: The average itself.
        layers: What each layer adds to it.
    """

    total: Fraction
    layers: list[Fraction]


class _Later(Sequence[Fraction]):
    """Shares of nodes that are computed when the first is read."""

    def __init__(self, size: int, find: Callable[[], Any]) -> None:
        self._size, self._find = size, find

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Fraction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Fraction]: ...
    def __getitem__(self, index: int | slice) -> Fraction | Sequence[Fraction]:
        found: Fraction | Sequence[Fraction] = self._find()[index]
        return found


def _bytes_of_bounds(graph: PathGraph, walk: bool, direction: str) -> int:
    """Bytes of a row a node for bounds on walks; of edges turned round, while they are sorted."""
    turned = 40 * graph.num_edges if walk and direction == "forward" else 8 * graph.num_edges
    return turned + (BYTES_PER_NODE * graph.num_nodes if walk else 0)


def _scale(reading: Reading) -> tuple[int, int]:
    """Binary places of the activities, and a bound on the length of a path."""
    bits = int(Fractions(reading.activity).bits.max())
    return bits, int(np.count_nonzero(reading.activity)) + 1


def _by_path(
    reading: Reading, back: Reading, layer: Rows, layers: int, log10: float
) -> tuple[int, _Sums]:
    """Number of paths, whose logarithm is known in floats, and what each layer adds to the average.

    Raises:
        BackendError: There are too many paths to count.
    """
    scale, longest = _scale(reading)
    bits = bits_of_count(log10) + scale + longest.bit_length()
    check_bits(bits, "the sum of the lengths of all paths", _REMEDY)
    _check_layers(bits, layers)
    primes = largest_primes(primes_for(bits))
    paths, lengths = path_sums(reading, back, layer, layers, primes)
    remainders = Remainders(primes)
    count = remainders.number(paths)
    return count, _sums(lengths, {}, scale, count, remainders)


def _by_walk(reading: Reading, back: Reading, layer: Rows, layers: int) -> _Sums:
    """What each layer adds to the normalized average.

    Raises:
        BackendError: The walks are too varied for a common denominator.
    """
    denominator = walk_denominator(reading)
    scale, longest = _scale(reading)
    bits = _bits(denominator) + scale + longest.bit_length()
    check_bits(bits, "the exact normalized average path length", _REMEDY)
    _check_layers(bits, layers)
    primes = largest_primes(primes_for(bits))
    sums = walk_sums(back, layer, layers, primes)
    whole = math.prod(prime**times for prime, times in denominator.items())
    return _sums(sums, denominator, scale, whole, Remainders(primes))


def _check_layers(bits: int, layers: int) -> None:
    """Raise BackendError where what all layers add, a long fraction each, would fill memory."""
    if bits * layers > MOST_BITS_OF_LAYERS:
        raise BackendError(
            f"what each of {layers} layers adds is a fraction of up to {bits} bits, more than"
            f" {MOST_BITS_OF_LAYERS >> 33} GiB in all; take floats, right to 12 digits, or give the"
            " graph fewer layers (PathGraph.from_edges(..., layers=...))"
        )


def _sums(
    residues: Residues, denominator: dict[int, int], scale: int, whole: int, remainders: Remainders
) -> _Sums:
    """The fractions over `whole` that have these residues, one for each layer.

    Layers that are alike are put together and reduced once.

    Args:
        residues: uint32[layers, primes].
        denominator: Prime factors of what residues are to be multiplied by before they are whole.
        scale: And by 2**scale, the binary places of the activities.
        whole: The number that is then divided by, beside 2**scale.
        remainders: Of these primes.
    """
    rows, which = np.unique(residues, axis=0, return_inverse=True)
    multiplied = _times(rows, denominator, scale, remainders.primes)
    numbers = remainders.numbers(multiplied)
    divisor, times = whole << scale, np.bincount(which).tolist()
    fractions = [Fraction(number, divisor) for number in numbers]
    total = sum(number * often for number, often in zip(numbers, times, strict=True))
    return _Sums(Fraction(total, divisor), [fractions[row] for row in which.tolist()])


def _extremes(graph: PathGraph, floats: Extent) -> tuple[Fraction, Fraction]:
    """The longest and the shortest path, as floats where these are not rounded."""
    if floats.exact:
        return Fraction(floats.longest), Fraction(floats.shortest)
    integers, scale = integer_activity(graph)
    lengths, ends = np.array(integers, dtype=object), graph.kind == Kind.OUTPUT
    longest = longest_ways(graph.indptr, graph.indices, lengths)[ends].max()
    shortest = -longest_ways(graph.indptr, graph.indices, -lengths)[ends].max()
    return Fraction(longest, scale), Fraction(shortest, scale)


def _size_of_shares(
    graph: PathGraph, reading: Reading, weighting: str
) -> tuple[dict[int, int], int]:
    """What makes all coefficients whole, and the bits that none of them then passes."""
    activity = Fractions(reading.activity)
    node_bits = activity.bits[activity.which]
    if weighting == "normalized":
        denominator = walk_denominator(reading, node_bits)
        return denominator, _bits(denominator)
    if weighting == "uniform":
        log10 = extent_of(graph).log10_path_count
    else:
        _, log10 = total_of(magnitudes(graph)[0], graph.kind == Kind.OUTPUT)
    places = max(edge_bits(reading, node_bits), 0)
    return {2: places}, max(bits_of_count(log10) + places, 1)


def _bits(denominator: dict[int, int]) -> int:
    """Bits of a number from its prime factors, one to spare."""
    return int(sum(times * math.log2(prime) for prime, times in denominator.items())) + 2


def _times(
    residues: Residues, denominator: dict[int, int], bits: int, primes: Residues
) -> Residues:
    """Residues times a denominator times 2**bits, modulo each prime: the last axis."""
    factors = np.array([2, *denominator], dtype=np.int64)
    times = np.array([bits, *denominator.values()], dtype=np.int64)
    result = residues.astype(np.uint64)
    for row in powers_of(factors, times, primes):
        result = result * row % primes
    return result.astype(np.uint32)


BACKEND = ResiduesBackend()
