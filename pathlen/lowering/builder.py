"""Collects the nodes and edges of a path graph, one call site after another."""

from typing import TypedDict

import numpy as np

from pathlen.graph import Kind, Layer, PathGraph, TraceInfo
from pathlen.lowering.labels import LabelSets


class NodeArrays(TypedDict):
    """Nodes of a path graph in the making; see `PathGraph.from_arrays`."""

    indptr: np.ndarray
    indices: np.ndarray
    activity: np.ndarray
    kind: np.ndarray


class GraphBuilder:
    """Nodes get ascending ids as they are added; predecessors must exist already.

    Adding costs a few array operations for a whole layer, whatever its width.
    """

    def __init__(self) -> None:
        self._next = 0
        self._degrees: list[np.ndarray] = []
        self._predecessors: list[np.ndarray] = []
        self._activity: list[np.ndarray] = []
        self._kinds: list[tuple[Kind, int]] = []
        self._layers: list[tuple[str, str, int]] = []  # name, operation, first node

    @property
    def num_nodes(self) -> int:
        """Nodes so far."""
        return self._next

    def layer(self, name: str, operation: str) -> None:
        """Nodes added from now on belong to this call site."""
        self._layers.append((name, operation, self._next))

    def inputs(self, count: int) -> np.ndarray:
        """Input units, which have no predecessors; returns their ids."""
        empty = np.empty(0, dtype=np.int64)
        return self._add(Kind.INPUT, np.zeros(count, dtype=np.int64), empty, 0.0)

    def hubs(self, sets: LabelSets) -> np.ndarray:
        """One hub over each set of nodes; a single node is its own hub. Returns a node a set."""
        several = sets.sizes > 1
        nodes = np.empty(len(sets.sizes), dtype=np.int64)
        wide = np.repeat(several, sets.sizes)
        nodes[~several] = sets.members[~wide]
        nodes[several] = self._add(Kind.HUB, sets.sizes[several], sets.members[wide], 0.0)
        return nodes

    def hub(self, nodes: np.ndarray) -> int:
        """One hub over distinct nodes in ascending order; a single node is its own hub."""
        return int(self.hubs(LabelSets(nodes, np.array([len(nodes)])))[0])

    def outputs(self, units: np.ndarray) -> None:
        """One output node for each unit of an output tensor."""
        self._add(Kind.OUTPUT, np.ones(len(units), dtype=np.int64), units, 0.0)

    def units(self, predecessors: np.ndarray, activity: np.ndarray | float = 0.0) -> np.ndarray:
        """One unit behind each of the given nodes, of the given activity; returns their ids."""
        return self._add(Kind.UNIT, np.ones(len(predecessors), np.int64), predecessors, activity)

    def merges(self, sets: LabelSets, activity: np.ndarray | float = 0.0) -> np.ndarray:
        """One unit for each set of predecessors; returns their ids."""
        return self._add(Kind.UNIT, sets.sizes, sets.members, activity)

    def arrays(self) -> NodeArrays:
        """All nodes so far, also those on no path from input to output."""
        degrees = np.concatenate([*self._degrees, np.empty(0, dtype=np.int64)])
        kinds = [np.full(count, kind, dtype=np.uint8) for kind, count in self._kinds]
        return {
            "indptr": np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64),
            "indices": np.concatenate([*self._predecessors, np.empty(0, dtype=np.int64)]),
            "activity": np.concatenate([*self._activity, np.empty(0)]),
            "kind": np.concatenate([*kinds, np.empty(0, dtype=np.uint8)]),
        }

    def build(self, info: TraceInfo) -> PathGraph:
        """The finished graph, without what lies on no path from input to output.

        Raises:
            GraphError: no path leads from an input to an output.
        """
        firsts = [first for _, _, first in self._layers] + [self._next]
        counts = np.diff(firsts)
        layers = tuple(
            Layer(name, operation, first, int(count))
            for (name, operation, first), count in zip(self._layers, counts, strict=True)
        )
        return PathGraph.from_arrays(
            **self.arrays(),
            layer_of_node=np.repeat(np.arange(len(layers)), counts),
            layers=layers,
            info=info,
        )

    def _add(
        self,
        kind: Kind,
        degrees: np.ndarray,
        predecessors: np.ndarray,
        activity: np.ndarray | float,
    ) -> np.ndarray:
        count = len(degrees)
        self._degrees.append(degrees)
        self._predecessors.append(predecessors)
        self._activity.append(np.broadcast_to(np.asarray(activity, dtype=np.float64), (count,)))
        self._kinds.append((kind, count))
        self._next += count
        return np.arange(self._next - count, self._next)
