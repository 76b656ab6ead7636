"""What the channels of each layer look like side by side: active, linear or dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pathlen.report.channels import ACTIVE, DEAD, LINEAR, channel_states

if TYPE_CHECKING:
    from pathlen.report.report import Report

SEGMENTS = 48
"""A strip of more pieces than this is drawn in this many pieces of equal width."""


def strips(report: Report) -> dict[str, list[int]]:
    """The strip of each activation layer, and of each layer that has dead units, by its name.

    A strip is a list of numbers of active, linear and dead channels, three for each of its pieces
    from the first channel to the last: a piece is a run of channels that are alike or, where there
    are too many runs, one of `SEGMENTS` equal parts. Layers without an activation and without dead
    units have no strip: their channels are linear by their nature.
    """
    graph = report.graph
    dead = {row.layer: row for row in report.dead_units}
    layers = {layer.name: layer for layer in graph.layers}
    return {
        row.name: _pieces(channel_states(graph, layers[row.name], dead.get(row.name)))
        for row in report.layers
        if row.activation or row.active or row.name in dead
    }


def _pieces(states: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of active, linear and dead channels of each piece of a strip."""
    starts = np.flatnonzero(np.append(True, np.diff(states) != 0))
    if len(starts) > SEGMENTS:
        starts = np.arange(SEGMENTS) * len(states) // SEGMENTS
    counts = [
        np.add.reduceat((states == state).astype(np.int64), starts)
        for state in (ACTIVE, LINEAR, DEAD)
    ]
    flat: list[int] = np.column_stack(counts).ravel().tolist()
    return flat
