"""Brute force: every path of a small graph with its weight under each weighting, in fractions.

Shares no code with the backends or with the statistics of a report.
"""

import itertools
from collections.abc import Iterable
from fractions import Fraction

from pathlen.graph.path_graph import Kind, PathGraph
from tests.path_enumeration import Path, walks

WEIGHTINGS = ("uniform", "normalized", "magnitude")


def predecessors(graph: PathGraph) -> list[list[int]]:
    """Of each node."""
    return [
        graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
        for node in range(graph.num_nodes)
    ]


def edges_of(graph: PathGraph) -> list[tuple[int, int]]:
    """Every edge as (from, to)."""
    return [(u, v) for v, before in enumerate(predecessors(graph)) for u in before]


def edge_weights(graph: PathGraph) -> dict[tuple[int, int], Fraction]:
    """The weight of every edge (from, to); 1 where the graph has none."""
    if graph.weights is None:
        return dict.fromkeys(edges_of(graph), Fraction(1))
    values = map(Fraction, graph.weights.tolist())
    return dict(zip(edges_of(graph), values, strict=True))


def weighted_paths(graph: PathGraph, weighting: str = "uniform") -> list[tuple[Path, Fraction]]:
    """Every path, from its input to its output, with its share; shares add up to 1.

    The random walk goes backward.
    """
    before, weights = predecessors(graph), edge_weights(graph)
    tensors: dict[int, list[int]] = {}
    for node, kind in enumerate(graph.kind.tolist()):
        if kind == Kind.OUTPUT:
            tensors.setdefault(int(graph.layer[node]), []).append(node)
    found = []
    for tensor in tensors.values():
        for end in tensor:
            for walk in walks(end, before.__getitem__):
                share = Fraction(1)
                if weighting == "normalized":
                    share = Fraction(1, len(tensors) * len(tensor))
                    for node in walk[:-1]:
                        share /= len(before[node])
                elif weighting == "magnitude":
                    for v, u in itertools.pairwise(walk):
                        share *= weights[u, v]
                found.append((walk[::-1], share))
    total = sum(share for _, share in found)
    return [(path, share / total) for path, share in found]


def length_of(activity: list[Fraction], path: Path) -> Fraction:
    """The sum of the activities on a path."""
    return sum((activity[node] for node in path), Fraction(0))


def length_distribution(
    graph: PathGraph, paths: Iterable[tuple[Path, Fraction]]
) -> dict[int, Fraction]:
    """The share of each length that occurs; a soft unit counts with the chance it has."""
    activity = [Fraction(value) for value in graph.activity.tolist()]
    found: dict[int, Fraction] = {}
    for path, share in paths:
        chances = {0: share}
        for node in path:
            longer: dict[int, Fraction] = {}
            for length, chance in chances.items():
                for step, factor in ((0, 1 - activity[node]), (1, activity[node])):
                    if factor:
                        longer[length + step] = longer.get(length + step, 0) + factor * chance
            chances = longer
        for length, chance in chances.items():
            found[length] = found.get(length, Fraction(0)) + chance
    return found
