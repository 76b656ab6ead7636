"""Brute force: every path and every walk of a small graph, one by one, in fractions.

Shares no code with the backends. `Measures` of a graph are what its definitions say, word by word.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pathlen.graph import Kind, PathGraph

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


def enumerate_measures(graph: PathGraph, direction: str = "backward") -> Measures:
    """All measures of a small path graph."""
    before = [
        graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
        for node in range(graph.num_nodes)
    ]
    after: list[list[int]] = [[] for _ in before]
    for node, others in enumerate(before):
        for other in others:
            after[other].append(node)
    start_kind, following = {
        "backward": (Kind.OUTPUT, before.__getitem__),
        "forward": (Kind.INPUT, after.__getitem__),
    }[direction]
    activity = [Fraction(value) for value in graph.activity.tolist()]
    tensors: dict[int, list[int]] = {}
    for node, kind in enumerate(graph.kind.tolist()):
        if kind == start_kind:
            tensors.setdefault(int(graph.layer[node]), []).append(node)

    lengths: list[Fraction] = []
    chances: list[Fraction] = []
    passed = [0] * graph.num_nodes
    walked = [Fraction(0)] * graph.num_nodes
    for tensor in tensors.values():
        for start in tensor:
            for walk in walks(start, following):
                chance = Fraction(1, len(tensors) * len(tensor))
                for node in walk[:-1]:
                    chance /= len(following(node))
                lengths.append(sum((activity[node] for node in walk), Fraction(0)))
                chances.append(chance)
                for node in walk:
                    passed[node] += 1
                    walked[node] += chance
    assert sum(chances) == 1
    return Measures(
        path_count=len(lengths),
        average=sum(lengths, Fraction(0)) / len(lengths),
        normalized_average=sum(
            (length * chance for length, chance in zip(lengths, chances, strict=True)), Fraction(0)
        ),
        longest_path=max(lengths),
        shortest_path=min(lengths),
        path_share=[Fraction(times, len(lengths)) for times in passed],
        walk_share=walked,
    )
