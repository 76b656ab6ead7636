"""Find layers and nodes of a path graph by what a user calls them (docs/choices.md).

A text is the name of a layer, else a pattern over the names of layers ("layer1.*", as in file
names), else the path of a module, which stands for the layers inside it. An integer is the id of a
node: the caller's own for a graph that has `node_ids`, else its position.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphError
from pathlen.graph.parts import Layer

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph

Names = str | Layer | Iterable[str | Layer]
"""Layers: by name, pattern, module path or row of the table, or several of these."""

Nodes = npt.NDArray[np.int64]


def is_module(graph: PathGraph, name: str) -> bool:
    """Whether a text is the path of a module rather than the name of a layer or a pattern."""
    if any(row.name == name for row in graph.layers):
        return False
    return not _matching(graph, name) and bool(_inside(graph, name))


def rows_of(graph: PathGraph, which: Names) -> list[int]:
    """The rows of the layers table that are meant, ascending.

    Raises:
        GraphError: There is no such layer (the nearest names are given), or none is named.
    """
    parts = [which] if isinstance(which, str | Layer) else list(which)
    if not parts:
        raise GraphError("no layer is named; give at least one name, pattern or module path")
    return sorted({row for part in parts for row in _rows_of_one(graph, part)})


def _rows_of_one(graph: PathGraph, which: str | Layer) -> list[int]:
    """The rows that one text or layer stands for."""
    if isinstance(which, Layer):
        if which not in graph.layers:
            raise GraphError(f"{which} is no layer of this graph, but perhaps of another one")
        return [graph.layers.index(which)]
    if not isinstance(which, str):
        raise GraphError(f"a layer is named by a text or a Layer, not {which!r}")
    named = [row for row, layer in enumerate(graph.layers) if layer.name == which]
    found = named or _matching(graph, which) or _inside(graph, which)
    if not found:
        raise GraphError(
            f"no layer or module is named {which!r}; nearest are"
            f" {', '.join(map(repr, _nearest(graph, which)))}. Modules that only pass units on"
            " (batch norm, dropout, pooling) have no layer"
        )
    return found


def _matching(graph: PathGraph, pattern: str) -> list[int]:
    """Rows whose names match a pattern."""
    return [row for row, layer in enumerate(graph.layers) if fnmatchcase(layer.name, pattern)]


def _inside(graph: PathGraph, path: str) -> list[int]:
    """Rows of the layers of a module; with a dot at the end also where a layer has its name.

    The layers that a module calls itself are named as it is, the second one with "#2" and so on.
    """
    path = path.removesuffix(".")
    return [
        row
        for row, layer in enumerate(graph.layers)
        if path and (layer.name == path or layer.name.startswith((f"{path}.", f"{path}#")))
    ]


def _nearest(graph: PathGraph, name: str) -> list[str]:
    """The names of layers and paths of modules that are spelt most alike."""
    known: dict[str, None] = {}
    for layer in graph.layers:
        parts = layer.name.partition("#")[0].split(".")
        known |= {".".join(parts[:length]): None for length in range(1, len(parts))}
        known[layer.name] = None
    return difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:3]


def units_of_rows(graph: PathGraph, rows: Iterable[int]) -> Nodes:
    """The nodes of some layers that are no hubs, ascending; of a layer of hubs alone, these."""
    found = []
    for row in rows:
        layer = graph.layers[row]
        units = graph.units_of(layer)
        found.append(units if units.size else np.arange(layer.first, layer.first + layer.count))
    return np.concatenate(found)


def positions_of(graph: PathGraph, ids: object) -> Nodes:
    """The positions of nodes with these ids, in the order given: int64[k].

    Raises:
        GraphError: They are no integers, or ids of no node of the graph.
    """
    given = np.atleast_1d(np.asarray(ids))
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise GraphError("nodes are named by their ids, integers in a list or an array")
    if graph.node_ids is None:
        positions = np.where((given >= 0) & (given < graph.num_nodes), given, -1)
    else:
        order = np.argsort(graph.node_ids, kind="stable")
        place = np.searchsorted(graph.node_ids, given, sorter=order)
        positions = order[np.minimum(place, graph.num_nodes - 1)]
        positions = np.where((graph.node_ids[positions] == given) & (given >= 0), positions, -1)
    if (positions < 0).any():
        unknown = given[positions < 0]
        raise GraphError(
            f"the graph has no node with id {unknown[0]} ({len(unknown)} such in all); nodes that"
            " lie on no path from an input to an output were dropped"
        )
    return positions.astype(np.int64)
