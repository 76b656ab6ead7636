"""The oracle: pure Python integers and fractions, no rounding anywhere.

Nodes that behave alike are computed once (`_exact_classes`). How lengths are distributed stands in
`_exact_distribution`, paths weighted by magnitudes in `_exact_magnitude`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import overload

import numpy as np

from pathlen.backends._exact_classes import Classes, classes_of, fraction_sum, integer_activity
from pathlen.backends._exact_distribution import distribution
from pathlen.backends._exact_magnitude import weighted_counts, weighted_sum
from pathlen.backends.protocol import (
    Capabilities,
    Solution,
    out_degrees,
    walk_starts,
)
from pathlen.graph.path_graph import Kind, PathGraph


class ExactBackend:
    """Python integers and fractions."""

    name = "exact"
    capabilities = Capabilities(
        exact=True,
        summary="Python integers and fractions, the oracle",
        distribution=True,
    )

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph without rounding; see `Backend.solve`.

        Float activities and weights are taken for the fractions they are.
        """
        starts = walk_starts(graph, direction)
        activity, scale = integer_activity(graph)
        forward = direction == "forward"
        nothing = [0] * graph.num_nodes
        degrees = out_degrees(graph) if forward else np.diff(graph.indptr)
        walked = (starts.tolist(), degrees.tolist())
        at_start, at_end = (walked, (nothing, nothing)) if forward else ((nothing, nothing), walked)
        before = classes_of(graph, zip(activity, *at_start, strict=True))
        behind = classes_of(graph, zip(nothing, *at_end, strict=True), reverse=True)
        from_inputs, to_outputs = _path_counts(before), _path_counts(behind)
        ends = _ends(graph, before)
        total = sum(times * from_inputs[end] for end, times in ends.items())
        lengths = _length_sums(before, from_inputs)
        longest, shortest = _extremes(before, max), _extremes(before, min)
        walk = before if forward else behind
        chances = _walk_chances(walk)
        met = Counter(zip(walk.of_node, activity, strict=True))
        walk_length = fraction_sum((chances[at], n * value) for (at, value), n in met.items())
        solution = Solution(
            direction=direction,
            average=Fraction(sum(n * lengths[end] for end, n in ends.items()), total * scale),
            normalized_average=walk_length / scale,
            path_count=total,
            log10_path_count=math.log10(total),
            longest_path=Fraction(max(longest[end] for end in ends), scale),
            shortest_path=Fraction(min(shortest[end] for end in ends), scale),
            path_share=_Shares(
                before,
                behind,
                lambda at, back: Fraction(from_inputs[at] * to_outputs[back], total),
            ),
            walk_share=[chances[node] for node in walk.of_node],
        )
        return solution if graph.weights is None else with_exact_magnitudes(graph, solution)

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> list[Fraction]:
        """Lengths of paths or walks; see `HasDistribution`."""
        return distribution(graph, weighting, direction, memory_limit)


class _Shares(Sequence[Fraction]):
    """F(v) R(v) / T for each node, reduced when read: with huge counts that is what takes time."""

    def __init__(
        self, before: Classes, behind: Classes, ratio: Callable[[int, int], Fraction]
    ) -> None:
        self._classes = list(zip(before.of_node, behind.of_node, strict=True))
        self._ratio = ratio
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
            self._known[key] = self._ratio(*key)
        return self._known[key]


def with_exact_magnitudes(graph: PathGraph, solution: Solution) -> Solution:
    """The same solution with the measures of paths weighted by their edges."""
    activity, scale = integer_activity(graph)
    before = classes_of(graph, zip(activity, strict=True), weighted=True)
    behind = classes_of(graph, [(0,)] * graph.num_nodes, reverse=True, weighted=True)
    from_inputs, to_outputs = weighted_counts(before), weighted_counts(behind)
    total = weighted_sum((from_inputs[end], times) for end, times in _ends(graph, before).items())
    return dataclasses.replace(
        solution,
        magnitude_average=Fraction(total.lengths, total.paths * scale),
        magnitude_share=_Shares(
            before, behind, lambda at, back: total.ratio(from_inputs[at], to_outputs[back])
        ),
        log10_magnitude=total.log10,
    )


def _ends(graph: PathGraph, classes: Classes) -> Counter[int]:
    """How many outputs each class has."""
    outputs = np.flatnonzero(graph.kind == Kind.OUTPUT).tolist()
    return Counter(classes.of_node[node] for node in outputs)


def _path_counts(classes: Classes) -> list[int]:
    """F(v) = 1 at a terminal, else the sum of F over what v reads."""
    counts: list[int] = []
    for reads in classes.reads:
        counts.append(sum(times * counts[other] for other, times in reads) if reads else 1)
    return counts


def _length_sums(classes: Classes, counts: list[int]) -> list[int]:
    """S(v) = activity(v) F(v) + the sum of S over what v reads; in units of the activities."""
    sums: list[int] = []
    for (activity, *_), count, reads in zip(classes.labels, counts, classes.reads, strict=True):
        sums.append(activity * count + sum(times * sums[other] for other, times in reads))
    return sums


def _extremes(classes: Classes, best: Callable[..., int]) -> list[int]:
    """L(v) = activity(v) + the largest (or smallest) L over what v reads."""
    lengths: list[int] = []
    for (activity, *_), reads in zip(classes.labels, classes.reads, strict=True):
        lengths.append(activity + best((lengths[other] for other, _ in reads), default=0))
    return lengths


def _walk_chances(classes: Classes) -> list[Fraction]:
    """W(v) = chance to start at v + the sum of W(u) / degree(u) over what v reads."""
    chances: list[Fraction] = []
    steps: list[Fraction] = []
    for (_, start, degree), reads in zip(classes.labels, classes.reads, strict=True):
        arriving = fraction_sum((steps[other], times) for other, times in reads)
        chances.append(arriving + Fraction(1, start) if start else arriving)
        steps.append(chances[-1] / degree if degree else Fraction(0))
    return chances


BACKEND = ExactBackend()
