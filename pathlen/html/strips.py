"""What the channels of each layer look like side by side: active, linear or dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pathlen.graph_parts import Kind

if TYPE_CHECKING:
    from pathlen.graph import PathGraph
    from pathlen.graph_parts import DeadUnits
    from pathlen.report import Report

SEGMENTS = 48
"""A strip of more pieces than this is drawn in this many pieces of equal width."""

_ACTIVE, _LINEAR, _DEAD = range(3)


def strips(report: Report) -> dict[str, list[int]]:
    """The strip of each activation layer, and of each layer that has dead units, by its name.

    A strip is a list of numbers of active, linear and dead channels, three for each of its pieces
    from the first channel to the last: a piece is a run of channels that are alike or, where there
    are too many runs, one of `SEGMENTS` equal parts. Layers without an activation and without dead
    units have no strip: their channels are linear by their nature.
    """
    graph = report.graph
    dead = {row.layer: row for row in report.dead_units}
    rows = {layer.name: index for index, layer in enumerate(graph.layers)}
    return {
        row.name: _pieces(_states(graph, rows[row.name], dead.get(row.name)))
        for row in report.layers
        if row.activation or row.active or row.name in dead
    }


def _states(graph: PathGraph, index: int, dead: DeadUnits | None) -> npt.NDArray[np.int64]:
    """Whether each channel of a layer is active, linear or dead: [channels]."""
    layer = graph.layers[index]
    nodes = slice(layer.first, layer.first + layer.count)
    activity = graph.activity[nodes][graph.kind[nodes] != Kind.HUB]
    alive = np.where(activity > 0, _ACTIVE, _LINEAR)
    if dead is None:
        return alive
    states = np.full(dead.units, _DEAD)
    is_alive = np.ones(dead.units, dtype=bool)
    is_alive[list(dead.indices)] = False
    states[is_alive] = alive
    return states


def _pieces(states: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of active, linear and dead channels of each piece of a strip."""
    starts = np.flatnonzero(np.append(True, np.diff(states) != 0))
    if len(starts) > SEGMENTS:
        starts = np.arange(SEGMENTS) * len(states) // SEGMENTS
    counts = [
        np.add.reduceat((states == state).astype(np.int64), starts)
        for state in (_ACTIVE, _LINEAR, _DEAD)
    ]
    flat: list[int] = np.column_stack(counts).ravel().tolist()
    return flat
