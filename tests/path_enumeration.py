"""Brute force: every path and every walk of a small graph, one by one, in fractions.

Shares no code with the backends. `Measures` of a graph are what its definitions say, word by word.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pathlen.graph.path_graph import Kind, PathGraph

Path = tuple[int, ...]


@dataclass(frozen=True)
class Measures:
    """What a backend must return, as exact numbers."""

    path_count: int
    average: Fraction
    normalized_average: Fraction
    longest_path: Fraction
    shortest_path: Fraction
    path_share: list[Fraction]
    walk_share: list[Fraction]
    magnitude_average: Fraction
    magnitude_share: list[Fraction]
    magnitude: Fraction


def walks(first: int, following: Callable[[int], Sequence[int]]) -> Iterator[Path]:
    """Every maximal walk from a node."""
    stack: list[Path] = [(first,)]
    while stack:
        walk = stack.pop()
        nodes = following(walk[-1])
        if not nodes:
            yield walk
        stack += [(*walk, node) for node in nodes]


def paths_of_edges(
    edges: Iterable[tuple[int, int]], inputs: Iterable[int], outputs: Iterable[int]
) -> list[Path]:
    """Every path from one of the inputs to one of the outputs, a single node included."""
    after: dict[int, set[int]] = {}
    for source, target in edges:
        after.setdefault(source, set()).add(target)
    ends = set(outputs)
    found: list[Path] = []
    stack: list[Path] = [(node,) for node in set(inputs)]
    while stack:
        path = stack.pop()
        if path[-1] in ends:
            found.append(path)
        stack += [(*path, node) for node in after.get(path[-1], ())]
    return found


@dataclass(frozen=True)
class Walk:
    """A path of a graph, in the order in which the random walk takes it.

    Attributes:
        nodes: From where the walk starts to where it ends.
        chance: That the random walk is this one.
        magnitude: Product of the weights of its edges, 1 for each where there are none.
    """

    nodes: Path
    chance: Fraction
    magnitude: Fraction


def enumerate_walks(graph: PathGraph, direction: str = "backward") -> list[Walk]:
    """Every path, with what it counts under each weighting."""
    before = [
        graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
        for node in range(graph.num_nodes)
    ]
    after: list[list[int]] = [[] for _ in before]
    weight: dict[frozenset[int], Fraction] = {}
    edge = 0
    for node, others in enumerate(before):
        for other in others:
            after[other].append(node)
            value = 1.0 if graph.weights is None else float(graph.weights[edge])
            weight[frozenset((node, other))] = Fraction(value)
            edge += 1
    start_kind, following = {
        "backward": (Kind.OUTPUT, before.__getitem__),
        "forward": (Kind.INPUT, after.__getitem__),
    }[direction]
    tensors: dict[int, list[int]] = {}
    for node, kind in enumerate(graph.kind.tolist()):
        if kind == start_kind:
            tensors.setdefault(int(graph.layer[node]), []).append(node)

    found: list[Walk] = []
    for tensor in tensors.values():
        for start in tensor:
            for nodes in walks(start, following):
                chance, magnitude = Fraction(1, len(tensors) * len(tensor)), Fraction(1)
                for node, successor in itertools.pairwise(nodes):
                    chance /= len(following(node))
                    magnitude *= weight[frozenset((node, successor))]
                found.append(Walk(nodes, chance, magnitude))
    assert sum(walk.chance for walk in found) == 1
    return found


def enumerate_measures(graph: PathGraph, direction: str = "backward") -> Measures:
    """All measures of a small path graph."""
    activity = [Fraction(value) for value in graph.activity.tolist()]
    found = enumerate_walks(graph, direction)
    lengths = [sum((activity[node] for node in walk.nodes), Fraction(0)) for walk in found]

    def averaged(shares: list[Fraction]) -> tuple[Fraction, list[Fraction]]:
        passed = [Fraction(0)] * graph.num_nodes
        for walk, share in zip(found, shares, strict=True):
            for node in walk.nodes:
                passed[node] += share / sum(shares)
        total = sum(
            (length * share for length, share in zip(lengths, shares, strict=True)), Fraction(0)
        )
        return total / sum(shares), passed

    average, path_share = averaged([Fraction(1) for _ in found])
    normalized_average, walk_share = averaged([walk.chance for walk in found])
    magnitude_average, magnitude_share = averaged([walk.magnitude for walk in found])
    return Measures(
        path_count=len(lengths),
        average=average,
        normalized_average=normalized_average,
        longest_path=max(lengths),
        shortest_path=min(lengths),
        path_share=path_share,
        walk_share=walk_share,
        magnitude_average=magnitude_average,
        magnitude_share=magnitude_share,
        magnitude=sum((walk.magnitude for walk in found), Fraction(0)),
    )


def enumerate_lengths(
    graph: PathGraph, weighting: str, direction: str = "backward"
) -> list[Fraction]:
    """The share of each length 0, 1, ... longest, units of soft activity counting by chance.

    Every subset of the soft units of a path is one way in which they may count.
    """
    activity = [Fraction(value) for value in graph.activity.tolist()]
    shares: dict[int, Fraction] = {}
    for walk in enumerate_walks(graph, direction):
        share = {
            "uniform": Fraction(1),
            "normalized": walk.chance,
            "magnitude": walk.magnitude,
        }[weighting]
        surely = sum(activity[node] == 1 for node in walk.nodes)
        soft = [activity[node] for node in walk.nodes if 0 < activity[node] < 1]
        for counted in itertools.product((False, True), repeat=len(soft)):
            chance = share
            for counts, active in zip(counted, soft, strict=True):
                chance *= active if counts else 1 - active
            length = surely + sum(counted)
            shares[length] = shares.get(length, Fraction(0)) + chance
    total = sum(shares.values())
    return [shares.get(length, Fraction(0)) / total for length in range(max(shares) + 1)]
