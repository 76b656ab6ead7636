"""The part of a path graph between some nodes and others (docs/algorithms/between.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphError
from pathlen.graph.check import row_numbers
from pathlen.graph.grouping import table
from pathlen.graph.parts import BoolArray, FloatArray, Kind, Layer
from pathlen.graph.runs import leading_to, reached_from
from pathlen.graph.select import Nodes, is_module, positions_of, rows_of, units_of_rows

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph

Places = str | Layer | int | np.integer[Any] | npt.NDArray[np.integer[Any]] | Iterable[Any] | None
"""Where paths begin or end: names, patterns, module paths, layers, node ids; None for all."""


def parts_between(graph: PathGraph, sources: Places, sinks: Places) -> dict[str, Any]:
    """What the graph of `PathGraph.between` is built from."""
    begins = _begins(graph, sources)
    ends = _ends(graph, sinks)
    keep = _on_path(graph, begins, ends)
    if not keep.any():
        raise GraphError(_no_path(graph, sources, sinks))
    front = _Terminals.for_nodes(graph, Kind.INPUT, np.flatnonzero(begins.nodes & keep))
    front = front.with_entries(graph, begins.edges & keep[row_numbers(graph.indptr)])
    back = _Terminals.for_nodes(graph, Kind.OUTPUT, np.flatnonzero(ends & keep))
    return _assembled(graph, keep, front, back)


@dataclass(frozen=True, slots=True)
class _Begins:
    """Where paths begin.

    Attributes:
        nodes: bool[n], nodes that are the first of a path, activity included.
        edges: bool[e], edges by which paths enter a module; what they come from does not count.
    """

    nodes: BoolArray
    edges: BoolArray


def _parts(places: Places) -> tuple[list[str | Layer], npt.NDArray[Any] | None]:
    """The names among some places, and the ids if there are any."""
    several = isinstance(places, Iterable) and not isinstance(places, str)
    given: list[Any] = list(places) if several else [places]  # type: ignore[arg-type]
    if not given:
        raise GraphError("no place is given; name at least one layer or node")
    ids = [np.atleast_1d(part) for part in given if not isinstance(part, str | Layer)]
    names = [part for part in given if isinstance(part, str | Layer)]
    return names, np.concatenate(ids) if ids else None


def _split(graph: PathGraph, places: Places) -> tuple[BoolArray, list[list[int]]]:
    """Mark the nodes of layers and ids: bool[n]; and give the rows of each module."""
    names, ids = _parts(places)
    modules = [name for name in names if isinstance(name, str) and is_module(graph, name)]
    layers = [name for name in names if name not in modules]
    marked = np.zeros(graph.num_nodes, dtype=bool)
    if layers:
        marked[units_of_rows(graph, rows_of(graph, layers))] = True
    if ids is not None:
        marked[positions_of(graph, ids)] = True
    return marked, [rows_of(graph, name) for name in modules]


def _begins(graph: PathGraph, sources: Places) -> _Begins:
    """Where paths begin: at nodes, or where a module reads what lies outside of it."""
    edges = np.zeros(graph.num_edges, dtype=bool)
    if sources is None:
        return _Begins(graph.kind == Kind.INPUT, edges)
    nodes, modules = _split(graph, sources)
    for rows in modules:
        inside = np.isin(graph.layer, rows)
        edges |= inside[row_numbers(graph.indptr)] & ~inside[graph.indices]
        nodes |= inside & (graph.kind == Kind.INPUT)
    return _Begins(nodes, edges)


def _ends(graph: PathGraph, sinks: Places) -> BoolArray:
    """Where paths end, bool[n]: nodes, or those of a module that are read outside of it."""
    if sinks is None:
        outputs: BoolArray = graph.kind == Kind.OUTPUT
        return outputs
    nodes, modules = _split(graph, sinks)
    for rows in modules:
        inside = np.isin(graph.layer, rows)
        nodes[graph.indices[~inside[row_numbers(graph.indptr)] & inside[graph.indices]]] = True
        nodes |= inside & (graph.kind == Kind.OUTPUT)
    return nodes


def _on_path(graph: PathGraph, begins: _Begins, ends: BoolArray) -> BoolArray:
    """Which nodes lie on a path that begins and ends there: bool[n]."""
    first = begins.nodes.copy()
    first[row_numbers(graph.indptr)[begins.edges]] = True
    on_path = reached_from(graph.indptr, graph.indices, first)
    on_path &= leading_to(graph.indptr, graph.indices, ends)
    return on_path


def _no_path(graph: PathGraph, sources: Places, sinks: Places) -> str:
    """Say that no path leads from one place to the other, and whether one leads back."""
    text = f"no path leads from {_text(sources, 'inputs')} to {_text(sinks, 'outputs')}"
    if _on_path(graph, _begins(graph, sinks), _ends(graph, sources)).any():
        return f"{text}, but paths lead the other way: swap sources and sinks"
    return f"{text}, nor the other way; check which layers feed which (`PathGraph.layers`)"


def _text(places: Places, all_of_them: str) -> str:
    """Name some places shortly."""
    if places is None:
        return f"the {all_of_them}"
    names, ids = _parts(places)
    texts = [repr(name.name if isinstance(name, Layer) else name) for name in names]
    if ids is not None:
        texts.append(f"node {ids[0]}" if len(ids) == 1 else f"{len(ids)} nodes")
    return ", ".join([*texts[:3], *(["..."] if len(texts) > 3 else [])])


@dataclass(frozen=True, slots=True)
class _Terminals:
    """Nodes of activity 0 to be added in front of nodes, or behind them; t of them, with k edges.

    Attributes:
        kind: What they are.
        names: Names of the layers that they make.
        counts: Number of terminals in each layer.
        terminal: int64[k], which of the t terminals each edge belongs to, ascending.
        node: int64[k], the node at the other end of the edge.
        weight: float64[k], of the edges.
        stands_for: int64[t], the node that a terminal is in place of, -1 for none.
    """

    kind: Kind
    names: list[str]
    counts: list[int]
    stands_for: Nodes
    terminal: Nodes
    node: Nodes
    weight: FloatArray

    @classmethod
    def for_nodes(cls, graph: PathGraph, kind: Kind, nodes: Nodes) -> _Terminals:
        """One for each node that is not such a terminal itself; a tensor for each layer."""
        nodes = nodes[graph.kind[nodes] != kind]
        rows, counts = np.unique(graph.layer[nodes], return_counts=True)
        suffix = kind.name.lower()
        return cls(
            kind=kind,
            names=[f"{graph.layers[row].name}.{suffix}" for row in rows.tolist()],
            counts=counts.tolist(),
            stands_for=np.full(len(nodes), -1),
            terminal=np.arange(len(nodes)),
            node=nodes,
            weight=np.ones(len(nodes)),
        )

    def with_entries(self, graph: PathGraph, edges: BoolArray) -> _Terminals:
        """These and one in place of each node from which some edges come, read as that was."""
        entered, place = np.unique(graph.indices[edges], return_inverse=True)
        rows, counts = np.unique(graph.layer[entered], return_counts=True)
        order = np.argsort(place, kind="stable")
        weights = np.ones(len(place)) if graph.weights is None else graph.weights[edges]
        return _Terminals(
            kind=self.kind,
            names=self.names + [f"{graph.layers[row].name}.input" for row in rows.tolist()],
            counts=self.counts + counts.tolist(),
            stands_for=np.concatenate([self.stands_for, entered]),
            terminal=np.concatenate([self.terminal, place[order] + sum(self.counts)]),
            node=np.concatenate([self.node, row_numbers(graph.indptr)[edges][order]]),
            weight=np.concatenate([self.weight, weights[order]]),
        )


def _assembled(
    graph: PathGraph, keep: BoolArray, front: _Terminals, back: _Terminals
) -> dict[str, Any]:
    """What the graph of what is kept is built from, with terminals in front and behind."""
    in_front, behind = sum(front.counts), sum(back.counts)
    position = np.cumsum(keep) - 1 + in_front  # of each kept node in the new graph
    size = in_front + int(keep.sum()) + behind
    rows = row_numbers(graph.indptr)
    edges = keep[rows] & keep[graph.indices]
    # In each row the terminals come first, and their numbers are the smallest.
    targets = [position[front.node], position[rows[edges]], size - behind + back.terminal]
    reads = [front.terminal, position[graph.indices[edges]], position[back.node]]
    target = np.concatenate(targets)
    order = np.argsort(target, kind="stable")
    indptr = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(target, minlength=size), out=indptr[1:])
    weights = None
    if graph.weights is not None:
        weights = np.concatenate([front.weight, graph.weights[edges], back.weight])[order]
    ids = np.arange(graph.num_nodes) if graph.node_ids is None else graph.node_ids
    # What a terminal is in place of may itself be a part of the graph; then it has the id.
    named = (front.stands_for >= 0) & ~keep[front.stands_for]
    ids_in_front = np.where(named, ids[front.stands_for], -1)
    counts = np.bincount(graph.layer[keep], minlength=len(graph.layers))
    kept = [layer for layer, count in zip(graph.layers, counts.tolist(), strict=True) if count]
    names = _distinct([layer.name for layer in kept], front.names, back.names)
    operations = [
        *["input"] * len(front.names),
        *(layer.operation for layer in kept),
        *["output"] * len(back.names),
    ]
    sizes = np.array([*front.counts, *counts[counts > 0].tolist(), *back.counts])
    return {
        "indptr": indptr,
        "indices": np.concatenate(reads)[order],
        "activity": _padded(graph.activity[keep], in_front, behind, 0.0, 0.0),
        "kind": _padded(graph.kind[keep], in_front, behind, front.kind, back.kind),
        "layer": np.repeat(np.arange(len(sizes)), sizes),
        "layers": table(names, operations, sizes),
        "node_ids": np.concatenate([ids_in_front, ids[keep], np.full(behind, -1)]),
        "info": graph.info,
        "weights": weights,
    }


def _padded(
    values: npt.NDArray[Any], in_front: int, behind: int, first: float, last: float
) -> npt.NDArray[Any]:
    """Values with others in front of them and behind."""
    return np.pad(values, (in_front, behind), constant_values=(first, last))


def _distinct(kept: Sequence[str], in_front: Sequence[str], behind: Sequence[str]) -> list[str]:
    """The names of all layers in order; names of terminals that are taken get a "#2"."""
    taken, ends = set(kept), []
    for label in (*in_front, *behind):
        while label in taken:
            label += "#2"
        taken.add(label)
        ends.append(label)
    return [*ends[: len(in_front)], *kept, *ends[len(in_front) :]]
