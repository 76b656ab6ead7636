"""A path graph seen from its layers: edges between layers, with the hubs between them left out.

What an edge carries (a number of connections, or a share of the paths) is added up over the edges
between the same two groups of nodes, a group being the units of a layer or a single hub. Then hubs
are left out: a way through a hub carries the product of what its two edges carry. For shares this
is right because paths and walks have no memory: where one goes on from a hub does not depend on how
it came there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pathlen.graph.check import row_numbers
from pathlen.graph.path_graph import Kind, PathGraph
from pathlen.graph.rows import compressed, generations

Numbers = npt.NDArray[Any]
Nodes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Edges between groups of nodes, sorted by target and then by source.

    Attributes:
        source: int64[k], where each begins.
        target: int64[k], where it ends.
        values: [k, columns], what it carries: float64, or Python integers.
    """

    source: Nodes
    target: Nodes
    values: Numbers


def between_layers(graph: PathGraph, values: Numbers, passing: Numbers | None = None) -> Links:
    """What is carried from layer to layer, straight or through hubs; O(e log e).

    What stays inside a layer is left out. The loop below is over generations of hubs that read
    hubs, which are one or two in the graph of a network.

    Args:
        graph: The path graph, with n nodes and e edges.
        values: [e, columns], what each edge carries, in the order of `graph.indices`.
        passing: float64[n, columns], what passes each node: an edge out of a hub stands for the
            part of it that goes there. None for numbers of connections, which multiply.

    Returns:
        Links whose sources and targets are rows of the layers table.
    """
    if passing is not None:
        values = _parts_of_hubs(graph, values, passing)
    count = len(graph.layers)
    group = graph.layer.astype(np.int64)
    hubs = np.flatnonzero(graph.kind == Kind.HUB)
    group[hubs] = count + np.arange(len(hubs))
    edges = _added_up(group[graph.indices], group[row_numbers(graph.indptr)], values)
    generation = _generations(edges, count, len(hubs))
    into_hub, from_hub = edges.target >= count, edges.source >= count
    direct = _part(edges, ~into_hub & ~from_hub)
    reached = _part(edges, into_hub & ~from_hub)
    among = _part(edges, into_hub & from_hub)
    for number in range(1, int(generation.max(initial=0)) + 1):
        now = _part(among, generation[among.target - count] == number)
        reached = _together(reached, _followed(reached, now))
    found = _together(direct, _followed(reached, _part(edges, ~into_hub & from_hub)))
    return _part(found, found.source != found.target)


def _parts_of_hubs(graph: PathGraph, values: Numbers, passing: Numbers) -> Numbers:
    """What each edge carries, out of a hub as a part of what passes that hub."""
    behind_hub = graph.kind[graph.indices] == Kind.HUB
    whole = np.where(behind_hub[:, None], passing[graph.indices], 1.0)
    # A hub that is passed too seldom for float64 passes nothing on.
    return np.divide(values, whole, out=np.zeros_like(whole), where=whole > 0)


def _generations(edges: Links, count: int, hubs: int) -> Nodes:
    """How many hubs in a row lead to each hub: int64[hubs], 0 where it reads none."""
    among = (edges.source >= count) & (edges.target >= count)
    indptr, indices = compressed(edges.target[among] - count, edges.source[among] - count, hubs)
    return generations(indptr, indices).astype(np.int64)


def _added_up(source: Nodes, target: Nodes, values: Numbers) -> Links:
    """Links with equal ends as one that carries the sum."""
    size = int(max(source.max(initial=0), target.max(initial=0))) + 1
    keys = target * size + source
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    sums = np.add.reduceat(values[order], firsts, axis=0) if firsts.size else values[:0]
    return Links(keys[firsts] % size, keys[firsts] // size, sums)


def _part(links: Links, kept: npt.NDArray[np.bool_]) -> Links:
    """Some of the links, in the same order."""
    return Links(links.source[kept], links.target[kept], links.values[kept])


def _together(first: Links, second: Links) -> Links:
    """The links of both."""
    return _added_up(
        np.concatenate([first.source, second.source]),
        np.concatenate([first.target, second.target]),
        np.concatenate([first.values, second.values]),
    )


def _followed(first: Links, second: Links) -> Links:
    """Every link of the first that ends where one of the second begins, joined with that one."""
    # The first is sorted by target, so what ends at a hub is a range.
    start = np.searchsorted(first.target, second.source, side="left")
    number = np.searchsorted(first.target, second.source, side="right") - start
    after = np.repeat(np.arange(len(number)), number)
    before = np.arange(len(after)) + np.repeat(start - (np.cumsum(number) - number), number)
    return Links(
        first.source[before], second.target[after], first.values[before] * second.values[after]
    )
