"""The oracle: pure Python integers and fractions, no rounding anywhere.

Nodes that behave alike are computed once. Two nodes have equal counts from the inputs if their
activities are equal and their predecessors can be paired so that each pair is alike; so every
node gets the number of its class, found by hashing (label, {class read: how often}), and likewise
from the outputs over successors. A whole layer behind one hub is one class. Classing costs a
dictionary operation an edge; big numbers cost as many operations as classes are read.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import overload

import numpy as np
import numpy.typing as npt

from pathlen.backends.protocol import Capabilities, IntArray, Solution, out_degrees, walk_starts
from pathlen.graph import Kind, PathGraph
from pathlen.graph_check import row_numbers
from pathlen.graph_sort import compressed


@dataclass(frozen=True, slots=True)
class _Classes:
    """Nodes grouped by what they compute; a class has a larger number than those it reads.

    Attributes:
        of_node: Class of each node.
        labels: Label (activity, start, degree) of each class.
        reads: For each class, the classes it reads and how often.
    """

    of_node: list[int]
    labels: list[tuple[int, int, int]]
    reads: list[tuple[tuple[int, int], ...]]


class ExactBackend:
    """Python integers and fractions."""

    name = "exact"
    capabilities = Capabilities(exact=True, summary="Python integers and fractions, the oracle")

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph without rounding; see `Backend.solve`.

        Float activities are taken for the fractions they are.
        """
        starts = walk_starts(graph, direction)
        activity, scale = _integer_activity(graph)
        forward = direction == "forward"
        nothing = [0] * graph.num_nodes
        degrees = out_degrees(graph) if forward else np.diff(graph.indptr)
        walked = (starts.tolist(), degrees.tolist())
        before = _classify(
            range(graph.num_nodes),
            graph.indptr,
            graph.indices,
            zip(activity, *(walked if forward else (nothing, nothing)), strict=True),
        )
        behind = _classify(
            reversed(range(graph.num_nodes)),
            *compressed(graph.indices, row_numbers(graph.indptr), graph.num_nodes),
            zip(nothing, *((nothing, nothing) if forward else walked), strict=True),
        )
        from_inputs, to_outputs = _path_counts(before), _path_counts(behind)
        ends = Counter(before.of_node[node] for node in np.flatnonzero(graph.kind == Kind.OUTPUT))
        total = sum(times * from_inputs[end] for end, times in ends.items())
        lengths = _length_sums(before, from_inputs)
        longest, shortest = _extremes(before, max), _extremes(before, min)
        walk = before if forward else behind
        chances = _walk_chances(walk)
        met = Counter(zip(walk.of_node, activity, strict=True))
        walk_length = _fraction_sum((chances[at], n * value) for (at, value), n in met.items())
        return Solution(
            direction=direction,
            average=Fraction(sum(n * lengths[end] for end, n in ends.items()), total * scale),
            normalized_average=walk_length / scale,
            path_count=total,
            log10_path_count=math.log10(total),
            longest_path=Fraction(max(longest[end] for end in ends), scale),
            shortest_path=Fraction(min(shortest[end] for end in ends), scale),
            path_share=_PathShares(before.of_node, behind.of_node, from_inputs, to_outputs, total),
            walk_share=[chances[node] for node in walk.of_node],
        )


class _PathShares(Sequence[Fraction]):
    """F(v) R(v) / T for each node, reduced when read: with huge counts that is what takes time."""

    def __init__(
        self,
        before: list[int],
        behind: list[int],
        from_inputs: list[int],
        to_outputs: list[int],
        total: int,
    ) -> None:
        self._classes = list(zip(before, behind, strict=True))
        self._from_inputs = from_inputs
        self._to_outputs = to_outputs
        self._total = total
        self._known: dict[tuple[int, int], Fraction] = {}

    def __len__(self) -> int:
        return len(self._classes)

    @overload
    def __getitem__(self, index: int) -> Fraction: ...
    @overload
    def __getitem__(self, index: slice) -> list[Fraction]: ...
    def __getitem__(self, index: int | slice) -> Fraction | list[Fraction]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        key = self._classes[index]
        if key not in self._known:
            product = self._from_inputs[key[0]] * self._to_outputs[key[1]]
            self._known[key] = Fraction(product, self._total)
        return self._known[key]


def _integer_activity(graph: PathGraph) -> tuple[list[int], int]:
    """Activities times a common denominator, and that denominator."""
    values, which = np.unique(graph.activity, return_inverse=True)
    ratios = [value.as_integer_ratio() for value in values.tolist()]
    # Denominators of floats are powers of two, so the largest is a multiple of all.
    scale = max(denominator for _, denominator in ratios)
    numerators = [numerator * (scale // denominator) for numerator, denominator in ratios]
    return [numerators[position] for position in which.tolist()], scale


def _classify(
    order: Iterable[int],
    indptr: IntArray,
    neighbours: npt.NDArray[np.integer],
    labels: Iterable[tuple[int, int, int]],
) -> _Classes:
    """Group nodes by label and by the classes of their neighbours; O(n + e).

    Args:
        order: Node ids such that neighbours come before the nodes that read them.
        indptr: int64[n + 1], rows of the neighbours that a node reads.
        neighbours: int[e].
        labels: One a node.
    """
    starts, read, label = indptr.tolist(), neighbours.tolist(), list(labels)
    numbers: dict[tuple[tuple[int, int, int], tuple[tuple[int, int], ...]], int] = {}
    of_node = [0] * len(label)
    for node in order:
        times: dict[int, int] = {}
        for neighbour in read[starts[node] : starts[node + 1]]:
            number = of_node[neighbour]
            times[number] = times.get(number, 0) + 1
        key = (label[node], tuple(sorted(times.items())))
        of_node[node] = numbers.setdefault(key, len(numbers))
    return _Classes(of_node, [key[0] for key in numbers], [key[1] for key in numbers])


def _path_counts(classes: _Classes) -> list[int]:
    """F(v) = 1 at a terminal, else the sum of F over what v reads."""
    counts: list[int] = []
    for reads in classes.reads:
        counts.append(sum(times * counts[other] for other, times in reads) if reads else 1)
    return counts


def _length_sums(classes: _Classes, counts: list[int]) -> list[int]:
    """S(v) = activity(v) F(v) + the sum of S over what v reads; in units of the activities."""
    sums: list[int] = []
    for (activity, _, _), count, reads in zip(classes.labels, counts, classes.reads, strict=True):
        sums.append(activity * count + sum(times * sums[other] for other, times in reads))
    return sums


def _extremes(classes: _Classes, best: Callable[..., int]) -> list[int]:
    """L(v) = activity(v) + the largest (or smallest) L over what v reads."""
    lengths: list[int] = []
    for (activity, _, _), reads in zip(classes.labels, classes.reads, strict=True):
        lengths.append(activity + best((lengths[other] for other, _ in reads), default=0))
    return lengths


def _walk_chances(classes: _Classes) -> list[Fraction]:
    """W(v) = chance to start at v + the sum of W(u) / degree(u) over what v reads."""
    chances: list[Fraction] = []
    steps: list[Fraction] = []
    for (_, start, degree), reads in zip(classes.labels, classes.reads, strict=True):
        arriving = _fraction_sum((steps[other], times) for other, times in reads)
        chances.append(arriving + Fraction(1, start) if start else arriving)
        steps.append(chances[-1] / degree if degree else Fraction(0))
    return chances


def _fraction_sum(terms: Iterable[tuple[Fraction, int]]) -> Fraction:
    """Sum of fraction * integer; numerators over one denominator are added as integers."""
    numerators: dict[int, int] = defaultdict(int)
    for fraction, times in terms:
        numerators[fraction.denominator] += times * fraction.numerator
    return sum((Fraction(top, bottom) for bottom, top in numerators.items()), Fraction(0))


BACKEND = ExactBackend()
