"""Ways around the layers that a figure shows: skip connections, with or without a projection."""

from __future__ import annotations

from collections.abc import Collection

from pathlen.report.layer_graph import LayerGraph


def bypasses(graph: LayerGraph, shown: Collection[str]) -> list[tuple[int, int]]:
    """Where ways lead around some of the layers that are shown.

    A layer that is fed by several others can be reached in several ways. If the last shown layer
    on one of them, number a, comes before the last one on another, number b, and feeds the latter,
    then what passes from a by the first way goes around the layers a + 1, ... b. (Where it does
    not feed the latter, the two are parallel branches.)

    Args:
        graph: The layers.
        shown: Names of the layers that are shown; they have the numbers 1, 2, ... in order.

    Returns:
        Pairs (a, b), distinct and ascending; a is 0 for a way from the inputs.
    """
    before: list[list[int]] = [[] for _ in graph.nodes]
    for edge in graph.edges:
        before[edge.target].append(edge.source)
    number = 0
    node_of = {0: -1}
    latest: list[int] = []  # the last number on any way to each node, itself included
    for node, layer in enumerate(graph.nodes):
        latest.append(max((latest[other] for other in before[node]), default=0))
        if layer.name in shown:
            number += 1
            latest[node] = number
            node_of[number] = node
    found = set()
    for others in before:
        farthest = max(others, key=lambda other: latest[other], default=-1)
        for other in others:
            first, last = latest[other], latest[farthest]
            if first == last or (first, last) in found:
                continue
            if first == 0 or _leads(before, node_of[first], farthest):
                found.add((first, last))
    return sorted(found)


def _leads(before: list[list[int]], source: int, target: int) -> bool:
    """Whether a way leads from one node to another; nodes are in topological order."""
    waiting, seen = [target], {target}
    while waiting:
        node = waiting.pop()
        if node == source:
            return True
        further = {other for other in before[node] if other >= source} - seen
        seen |= further
        # The nearest to the source is looked at first: a skip leads there in few steps.
        waiting += sorted(further, reverse=True)
    return False
