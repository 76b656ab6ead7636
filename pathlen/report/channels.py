"""What the channels of a layer are, in their order: active, linear or dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pathlen.graph.parts import Kind

if TYPE_CHECKING:
    from pathlen.graph.parts import DeadUnits, Layer
    from pathlen.graph.path_graph import PathGraph

ACTIVE, LINEAR, DEAD = range(3)
STATES = ("active", "linear", "dead")


def channel_states(
    graph: PathGraph, layer: Layer, dead: DeadUnits | None = None
) -> npt.NDArray[np.int64]:
    """ACTIVE, LINEAR or DEAD for each channel of a layer: int64[channels].

    Args:
        graph: The path graph.
        layer: A row of its layers table.
        dead: Which of the layer's units weights of 0 cut off; they stand where they would be.
    """
    nodes = slice(layer.first, layer.first + layer.count)
    activity = graph.activity[nodes][graph.kind[nodes] != Kind.HUB]
    alive = np.where(activity > 0, ACTIVE, LINEAR)
    if dead is None:
        return alive
    if len(alive) + len(dead.indices) != dead.units:
        # What weights of 0 part has more units than without weights: nobody knows their order.
        return np.append(alive, np.full(len(dead.indices), DEAD))
    states = np.full(dead.units, DEAD)
    is_alive = np.ones(dead.units, dtype=bool)
    is_alive[list(dead.indices)] = False
    states[is_alive] = alive
    return states
