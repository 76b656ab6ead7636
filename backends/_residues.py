"""Whole numbers and fractions for huge graphs: compiled sweeps modulo many primes.

A sweep carries residues instead of long integers. What comes out is a whole number after
multiplication by a denominator that is known beforehand (`_residues_bounds`), so that enough primes
tell which one it is. docs/algorithms/residues.md has the proof of how many are enough.
"""

import math
from fractions import Fraction
from typing import NoReturn

import numpy as np

from pathlen.backends._numba_averages import averages as float_averages
from pathlen.backends._numba_magnitude import magnitudes
from pathlen.backends._residues_bounds import (
    Reading,
    bits_of_count,
    check_bits,
    edge_bits,
    reading_of,
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
from pathlen.backends._residues_sweeps import (
    BYTES_PER_NODE,
    Fractions,
    path_counts,
    walk_lengths,
)
from pathlen.backends.protocol import (
    Averages,
    Capabilities,
    check_direction,
    check_memory,
    check_weighting,
    total_of,
)
from pathlen.errors import BackendError
from pathlen.graph import Kind, PathGraph

_WALK_REMEDY = (
    "the walks of this graph are too varied for a common denominator: take the average path length"
    " alone, exactly, from `path_count_and_average` of this backend, and the normalized one from a"
    " backend of floats, right to 12 digits"
)
_COUNT_REMEDY = "take floats, right to 12 digits, or a part of the graph (PathGraph.between)"


class ResiduesBackend:
    """Residues modulo primes, put together to integers and fractions."""

    name = "residues"
    capabilities = Capabilities(
        exact=True,
        summary="integers and fractions of huge graphs, modulo many primes",
        solution=False,
        averages=True,
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> NoReturn:
        """Not there: the share of every node would be as many long fractions.

        Raises:
            BackendError: Always; it says what to use.
        """
        raise BackendError(
            "backend 'residues' gives averages and distributions, no solution with the share of"
            " every node; use the backend 'exact' for those"
        )

    def averages(
        self, graph: PathGraph, direction: str = "backward", memory_limit: int | None = None
    ) -> Averages:
        """Both averages and the number of paths without rounding; see `HasAverages`.

        O((nodes + edges) * bits) time, where bits are those of the number of paths and of the
        denominator of the normalized average.

        Args:
            graph: The path graph.
            direction: Of the random walk.
            memory_limit: Bytes that may be used beside the graph; by default, no limit.

        Raises:
            BackendError: More memory is needed, or the denominator of walks has millions of bits
                (said before the work starts).
        """
        check_direction(direction)
        _check_sweep(graph, direction, memory_limit)
        reading = reading_of(graph, direction)
        denominator = walk_denominator(reading)
        scale, longest = _scale(reading)
        bits = _bits(denominator) + scale + longest.bit_length()
        check_bits(bits, "the exact normalized average path length", _WALK_REMEDY)
        log10 = float_averages(graph).log10_path_count
        count, average = _uniform(reading, log10)
        primes = largest_primes(primes_for(bits))
        # E has `scale` binary places more than its denominator, for the activities.
        multiplied = _times(walk_lengths(reading, primes), denominator, scale, primes)
        whole = math.prod(prime**times for prime, times in denominator.items()) << scale
        return Averages(
            direction=direction,
            average=average,
            normalized_average=Fraction(Remainders(primes).number(multiplied), whole),
            path_count=count,
            log10_path_count=math.log10(count),
        )

    def path_count_and_average(
        self, graph: PathGraph, memory_limit: int | None = None
    ) -> tuple[int, Fraction]:
        """The number of paths and the average path length, where walks are too varied to count.

        Args:
            graph: The path graph.
            memory_limit: Bytes that may be used beside the graph; by default, no limit.

        Raises:
            BackendError: More memory is needed, or there are too many paths to count.
        """
        _check_sweep(graph, "backward", memory_limit)
        reading = reading_of(graph, "backward")
        return _uniform(reading, float_averages(graph).log10_path_count)

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
        check_bits(bits, f"the exact {weighting} distribution", _COUNT_REMEDY)
        sweep = LengthSweep(reading, walk)
        count = primes_for(bits)
        needed = at_least + sweep.bytes_needed(count) + sweep.lengths * (bits // 2 + 250)
        needed += _bytes_of_bounds(graph, walk, direction)
        check_memory(needed, memory_limit, f"the exact distribution (modulo {count} primes)")
        primes = largest_primes(count)
        residues = _times(sweep.coefficients(primes), denominator, 0, primes)
        remainders = Remainders(primes)
        values = [remainders.number(row) for row in residues]
        # (1 - a + a z) is 1 at z = 1: the coefficients add up to the weight of all paths.
        total = sum(values)
        return [Fraction(value, total) for value in values]


def _check_sweep(graph: PathGraph, direction: str, memory_limit: int | None) -> None:
    """Refuse where the rows of all nodes take more memory than there may be."""
    needed = BYTES_PER_NODE * graph.num_nodes + _bytes_of_bounds(graph, True, direction)
    check_memory(needed, memory_limit, "the exact averages")


def _bytes_of_bounds(graph: PathGraph, walk: bool, direction: str) -> int:
    """Bytes of a row a node for bounds on walks; of edges turned round, while they are sorted."""
    turned = 40 * graph.num_edges if walk and direction == "forward" else 8 * graph.num_edges
    return turned + (BYTES_PER_NODE * graph.num_nodes if walk else 0)


def _scale(reading: Reading) -> tuple[int, int]:
    """Binary places of the activities, and a bound on the length of a path."""
    bits = int(Fractions(reading.activity).bits.max())
    return bits, int(np.count_nonzero(reading.activity)) + 1


def _uniform(reading: Reading, log10: float) -> tuple[int, Fraction]:
    """Number of paths and average length; `log10` of the number of paths is known in floats."""
    scale, longest = _scale(reading)
    bits = bits_of_count(log10) + scale + longest.bit_length()
    check_bits(bits, "the sum of the lengths of all paths", _COUNT_REMEDY)
    primes = largest_primes(primes_for(bits))
    paths, lengths = path_counts(reading, primes)
    remainders = Remainders(primes)
    count = remainders.number(paths)
    total = remainders.number(_times(lengths, {}, scale, primes))
    return count, Fraction(total, count << scale)


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
        log10 = float_averages(graph).log10_path_count
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
