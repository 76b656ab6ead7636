"""Nodes that behave alike are computed once: what the exact backend stands on.

Two nodes have equal counts from the inputs if their labels are equal and their predecessors can be
paired so that each pair is alike; so every node gets the number of its class, found by hashing
(label, {class read: how often}), and likewise from the outputs over successors. A whole layer
behind one hub is one class. Classing costs a dictionary operation an edge; big numbers cost as
many operations as classes are read.

Floats are taken for the fractions they are, an integer over a power of two. Where edges have
weights, "how often" a class is read is the sum of these.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pathlen.backends.protocol import FloatArray, IntArray
from pathlen.graph.check import row_numbers
from pathlen.graph.path_graph import PathGraph
from pathlen.graph.rows import compressed_weights

Label = tuple[int, ...]
Reads = tuple[tuple[int, int], ...]

# What classing a graph takes at most, measured where no two nodes are alike.
BYTES_PER_NODE = 700
BYTES_PER_EDGE = 260


@dataclass(frozen=True, slots=True)
class Classes:
    """Nodes grouped by what they compute; a class has a larger number than those it reads.

    Attributes:
        of_node: Class of each node.
        labels: Label of each class.
        reads: For each class, the classes it reads and how often, in units of 2**-bits.
        bits: 0 without weights.
    """

    of_node: list[int]
    labels: list[Label]
    reads: list[Reads]
    bits: int = 0


def classes_of(
    graph: PathGraph, labels: Iterable[Label], *, reverse: bool = False, weighted: bool = False
) -> Classes:
    """Group the nodes of a graph by label and by the classes they read; O(nodes + edges).

    Args:
        graph: The path graph.
        labels: One a node.
        reverse: Whether nodes read their successors instead of their predecessors.
        weighted: Whether edges count by their weights.
    """
    size = graph.num_nodes
    indptr: IntArray = graph.indptr
    neighbours, weights = graph.indices, graph.weights if weighted else None
    if reverse:
        indptr, neighbours, weights = compressed_weights(
            graph.indices, row_numbers(graph.indptr), weights, size
        )
    times, bits = (None, 0) if weights is None else _common_integers(weights)
    order = reversed(range(size)) if reverse else range(size)
    return _classify(order, indptr.tolist(), neighbours.tolist(), list(labels), times, bits)


def _classify(
    order: Iterable[int],
    starts: list[int],
    read: list[int],
    label: list[Label],
    times_of_edge: list[int] | None,
    bits: int,
) -> Classes:
    """See `classes_of`; `order` is such that neighbours come before the nodes that read them."""
    numbers: dict[tuple[Label, Reads], int] = {}
    of_node = [0] * len(label)
    for node in order:
        times: dict[int, int] = {}
        for edge in range(starts[node], starts[node + 1]):
            number = of_node[read[edge]]
            once = 1 if times_of_edge is None else times_of_edge[edge]
            times[number] = times.get(number, 0) + once
        key = (label[node], tuple(sorted(times.items())))
        of_node[node] = numbers.setdefault(key, len(numbers))
    return Classes(of_node, [key[0] for key in numbers], [key[1] for key in numbers], bits)


def integer_ratios(values: FloatArray) -> list[tuple[int, int]]:
    """Each float as (integer, bits) with value = integer / 2**bits, the integer odd or bits 0."""
    distinct, which = np.unique(values, return_inverse=True)
    ratios = [value.as_integer_ratio() for value in distinct.tolist()]
    pairs = [(numerator, denominator.bit_length() - 1) for numerator, denominator in ratios]
    return [pairs[position] for position in which.tolist()]


def _common_integers(values: FloatArray) -> tuple[list[int], int]:
    """Integers and bits such that each value is its integer / 2**bits."""
    ratios = integer_ratios(values)
    bits = max((own for _, own in ratios), default=0)
    shared: dict[tuple[int, int], int] = {}  # equal values share one integer
    for numerator, own in ratios:
        shared.setdefault((numerator, own), numerator << (bits - own))
    return [shared[ratio] for ratio in ratios], bits


def integer_activity(graph: PathGraph) -> tuple[list[int], int]:
    """Activities times a common denominator, and that denominator."""
    integers, bits = _common_integers(graph.activity)
    return integers, 1 << bits


def fraction_sum(terms: Iterable[tuple[Fraction, int]]) -> Fraction:
    """Sum of fraction * integer; numerators over one denominator are added as integers."""
    numerators: dict[int, int] = defaultdict(int)
    for fraction, times in terms:
        numerators[fraction.denominator] += times * fraction.numerator
    return sum((Fraction(top, bottom) for bottom, top in numerators.items()), Fraction(0))
