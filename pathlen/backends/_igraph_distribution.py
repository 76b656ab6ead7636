"""The distribution of path lengths, a list of Python floats a node in igraph's order.

The entries p(v) of node v are the shares of the ways to v that have each length:

    p(v) = (1 - a + a z) * sum over what v reads of share(u, v) p(u),   a = activity(v)

A list is dropped after its last reader. Sums are those of `math.fsum`, rounded once, and all terms
are positive, so errors are a few last digits a layer, for small shares too (below 1e-308 they are
lost).
"""

import math
from collections.abc import Iterable

import numpy as np

from pathlen.backends._igraph_order import Counts, Order
from pathlen.backends.protocol import (
    FloatArray,
    check_memory,
    check_weighting,
    start_chances,
)
from pathlen.graph.path_graph import Kind, PathGraph

# What igraph's graph, its lists of neighbours and the columns beside them take, measured.
_BYTES_PER_NODE = 700
_BYTES_PER_EDGE = 200
_BYTES_PER_SHARE = 40  # a Python float and its place in a list


def distribution(
    graph: PathGraph, weighting: str, direction: str, memory_limit: int | None
) -> FloatArray:
    """Share of paths, or chance of walks, of each length: float64[longest + 1].

    O(nodes + edges * lengths) in Python; see `HasDistribution`.
    """
    check_weighting(graph, weighting)
    final = start_chances(graph, direction)
    structure = _BYTES_PER_NODE * graph.num_nodes + _BYTES_PER_EDGE * graph.num_edges
    check_memory(structure, memory_limit, "the graph as lists of neighbours")
    walk = weighting == "normalized"
    order = Order.of(
        graph.to_igraph(),
        reverse=walk and direction == "forward",
        weighted=weighting == "magnitude",
    )
    last_reader = _last_readers(order)
    activity = graph.activity.tolist()
    if memory_limit is not None:
        needed = structure + _BYTES_PER_SHARE * _most_held(order, last_reader, activity)
        check_memory(needed, memory_limit, "the distribution")
    counts = None
    if not walk:
        counts = Counts.of(order)
        final, _ = counts.shares_of(graph.kind == Kind.OUTPUT)
    return _swept(order, last_reader, activity, counts, final.tolist())


def _swept(
    order: Order,
    last_reader: list[int],
    activity: list[float],
    counts: Counts | None,
    final: list[float],
) -> FloatArray:
    """Follow the recurrence to the end; `final` is what each node's list counts there."""
    known: dict[int, list[float]] = {}
    result: list[float] = []
    for node in order.nodes:
        others = order.read[node]
        if not others:
            found = [1.0]
        elif counts is None:
            found = _sum((1.0 / len(others) for _ in others), [known[other] for other in others])
        else:
            found = _sum(counts.shares(order, node), [known[other] for other in others])
        known[node] = _counted(found, activity[node])
        for other in others:
            if last_reader[other] == node:
                del known[other]
        if last_reader[node] < 0:
            found = known.pop(node)
            result += [0.0] * (len(found) - len(result))
            for length, share in enumerate(found):
                result[length] += final[node] * share
    return np.array(result)


def _sum(shares: Iterable[float], lists: list[list[float]]) -> list[float]:
    """The sum of share * list, lists of different lengths being filled up with zeros."""
    terms: list[list[float]] = [[] for _ in range(max(map(len, lists)))]
    for share, values in zip(shares, lists, strict=True):
        for length, value in enumerate(values):
            if value:
                terms[length].append(share * value)
    return [math.fsum(column) for column in terms]


def _counted(values: list[float], active: float) -> list[float]:
    """(1 - a + a z) p: the unit counts with chance a."""
    if not active:
        return values
    linear = 1.0 - active
    moved = zip([*values, 0.0], [0.0, *values], strict=True)
    return [linear * here + active * before for here, before in moved]


def _last_readers(order: Order) -> list[int]:
    """The node that reads each node last, -1 if none does."""
    last_reader = [-1] * len(order.read)
    for node in order.nodes:
        for other in order.read[node]:
            last_reader[other] = node
    return last_reader


def _most_held(order: Order, last_reader: list[int], activity: list[float]) -> int:
    """The most shares that are held at once, terms of the sum that is being made included."""
    lengths = [1] * len(order.read)
    held = most = 0
    for node in order.nodes:
        others = order.read[node]
        lengths[node] = max((lengths[other] for other in others), default=1) + (activity[node] > 0)
        held += lengths[node]
        most = max(most, held + 2 * lengths[node] + sum(lengths[other] for other in others))
        held -= sum(lengths[other] for other in others if last_reader[other] == node)
        if last_reader[node] < 0:
            held -= lengths[node]
    return most + max(lengths)
