"""The distribution of path lengths in integers: a polynomial a class of nodes.

The coefficients p(v) of node v say how many of the ways to v have each length:

    p(v) = (1 - a + a z) * sum over what v reads of weight(u, v) p(u),   a = activity(v)

with p = 1 where ways begin and weight 1 if all paths count the same. For the random walk the sum
is divided by the number of nodes read; ways then begin where the walk ends. Coefficients are
integers over one denominator a class, odd * 2**shift, so no common factor is ever searched for.
A polynomial is dropped after the last class that reads it.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pathlen.backends._exact_classes import (
    BYTES_PER_EDGE,
    BYTES_PER_NODE,
    Classes,
    Label,
    Reads,
    classes_of,
    integer_ratios,
)
from pathlen.backends.protocol import check_memory, check_weighting, walk_starts
from pathlen.graph.path_graph import Kind, PathGraph


@dataclass(frozen=True, slots=True)
class _Polynomial:
    """Coefficients / (odd * 2**shift); the constant one first."""

    coefficients: list[int]
    odd: int
    shift: int


_Activation = Callable[[_Polynomial, Label], _Polynomial]


def distribution(
    graph: PathGraph, weighting: str, direction: str, memory_limit: int | None
) -> list[Fraction]:
    """Share of paths, or chance of walks, of each length; see `HasDistribution`.

    One operation on an integer for each length and each class that a class reads, and a dictionary
    operation an edge.
    """
    check_weighting(graph, weighting)
    starts = walk_starts(graph, direction)
    grouping = BYTES_PER_NODE * graph.num_nodes + BYTES_PER_EDGE * graph.num_edges
    check_memory(grouping, memory_limit, "grouping the nodes of the graph")
    walk = weighting == "normalized"
    reverse = walk and direction == "forward"
    activity = integer_ratios(graph.activity)
    classes = classes_of(graph, activity, reverse=reverse, weighted=weighting == "magnitude")
    last = _last_reads(classes, _ends(graph, classes, starts.tolist(), walk, reverse))
    if memory_limit is not None:
        needed = grouping + _needed(classes, last, walk)
        check_memory(needed, memory_limit, "the exact distribution")
    found = _combined(classes, last, _counted, walk).coefficients
    # (1 - a + a z) is 1 at z = 1: the coefficients add up to the weight of all paths.
    total = sum(found)
    return [Fraction(value, total) for value in found]


@dataclass(frozen=True, slots=True)
class _Last:
    """What happens at the end.

    Attributes:
        reads: The classes where ways end, with integers in proportion to their weights.
        reader: For each class, the last class that reads it.
    """

    reads: Reads
    reader: list[int]


def _ends(
    graph: PathGraph, classes: Classes, starts: list[int], walk: bool, reverse: bool
) -> Reads:
    """The classes of the nodes where ways end, and how much each counts."""
    kind = Kind.INPUT if reverse else Kind.OUTPUT
    ends = np.flatnonzero(graph.kind == kind).tolist()
    whole = math.lcm(*(starts[node] for node in ends)) if walk else 1
    times: dict[int, int] = defaultdict(int)
    for node in ends:
        times[classes.of_node[node]] += whole // starts[node] if walk else 1
    return tuple(times.items())


def _last_reads(classes: Classes, ends: Reads) -> _Last:
    """Who reads each class last; a class that is read at the end is kept until then."""
    reader = list(range(len(classes.reads)))
    for number, reads in enumerate(classes.reads):
        for other, _ in reads:
            reader[other] = number
    for other, _ in ends:
        reader[other] = len(classes.reads)
    return _Last(ends, reader)


def _combined(classes: Classes, last: _Last, activation: _Activation, walk: bool) -> _Polynomial:
    """Follow the recurrence to the end, with what an activity does to a polynomial."""
    known: dict[int, _Polynomial] = {}
    for number, (label, reads) in enumerate(zip(classes.labels, classes.reads, strict=True)):
        found = _sum(reads, known, classes.bits, walk) if reads else _Polynomial([1], 1, 0)
        known[number] = activation(found, label)
        for other, _ in reads:
            if last.reader[other] == number:
                del known[other]
    return _sum(last.reads, known, 0, False)


def _sum(reads: Reads, known: dict[int, _Polynomial], bits: int, walk: bool) -> _Polynomial:
    """The sum of times / 2**bits * p over what is read; for a walk, the mean."""
    read = [(known[other], times) for other, times in reads]
    odd = math.lcm(*(polynomial.odd for polynomial, _ in read))
    shift = max(polynomial.shift for polynomial, _ in read)
    total = [0] * max(len(polynomial.coefficients) for polynomial, _ in read)
    for polynomial, times in read:
        factor = times * (odd // polynomial.odd) << (shift - polynomial.shift)
        for length, value in enumerate(polynomial.coefficients):
            if value:
                total[length] += factor * value
    if walk:
        degree = sum(times for _, times in reads)
        twos = (degree & -degree).bit_length() - 1
        odd, shift = odd * (degree >> twos), shift + twos
    return _Polynomial(total, odd, shift + bits)


def _counted(polynomial: _Polynomial, label: Label) -> _Polynomial:
    """(1 - a + a z) p for the activity a = label[0] / 2**label[1]."""
    active, bits = label
    before = polynomial.coefficients
    if not active:
        return polynomial
    linear = (1 << bits) - active
    if not linear:
        return _Polynomial([0, *before], polynomial.odd, polynomial.shift)
    after = [linear * value for value in before] + [0]
    for length, value in enumerate(before):
        after[length + 1] += active * value
    return _Polynomial(after, polynomial.odd, polynomial.shift + bits)


def _not_counted(polynomial: _Polynomial, label: Label) -> _Polynomial:
    """The same at z = 1, where the sum of all coefficients is left."""
    bits = label[1]
    values = [value << bits for value in polynomial.coefficients]
    return _Polynomial(values, polynomial.odd, polynomial.shift + bits)


def _needed(classes: Classes, last: _Last, walk: bool) -> int:
    """Bytes that the polynomials held at once take at most.

    No coefficient is larger than their sum. That sum follows the same recurrence at z = 1, at a
    cost of one operation where a polynomial has as many as lengths.
    """
    lengths: list[int] = []
    held = most = 0
    sizes: list[int] = []

    def sized(polynomial: _Polynomial, label: Label) -> _Polynomial:
        nonlocal held, most
        number = len(lengths)
        reads = classes.reads[number]
        lengths.append(max((lengths[other] for other, _ in reads), default=1) + (label[0] > 0))
        found = _not_counted(polynomial, label)
        # A coefficient, its place in the list, and the product that is being added.
        sizes.append(lengths[-1] * (48 + found.coefficients[0].bit_length() // 7) + 400)
        held += sizes[-1]
        most = max(most, held + 2 * sizes[-1])
        held -= sum(sizes[other] for other, _ in reads if last.reader[other] == number)
        return found

    total = _combined(classes, last, sized, walk).coefficients[0]
    longest = max(lengths[other] for other, _ in last.reads)
    # At the end numerators and denominators of every share.
    return max(most, held + longest * (250 + 3 * total.bit_length() // 7))
