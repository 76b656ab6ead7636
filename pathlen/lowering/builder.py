"""Collects the nodes and edges of a path graph, one call site after another."""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np

from pathlen.errors import GraphError
from pathlen.graph.path_graph import Kind, Layer, PathGraph, TraceInfo
from pathlen.lowering.labels import LabelSets


class NodeArrays(TypedDict):
    """Nodes of a path graph in the making; see `PathGraph.from_arrays`."""

    indptr: np.ndarray
    indices: np.ndarray
    activity: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes added together: ids from `first`, predecessors one node after another."""

    kind: Kind
    first: int
    degrees: np.ndarray
    predecessors: np.ndarray
    activity: np.ndarray  # one for each node, or one for all
    shift: int = field(default=0, kw_only=True)  # to be added to the predecessors

    def all_predecessors(self) -> np.ndarray:
        """The predecessors of all nodes of the block."""
        if not self.shift:
            return self.predecessors
        wide = np.int64 if self.first >= 1 << 31 else self.predecessors.dtype
        shifted: np.ndarray = self.predecessors + np.asarray(self.shift, wide)
        return shifted

    def predecessors_of(self, own: np.ndarray) -> np.ndarray:
        """The predecessors of the block's nodes in a mask."""
        chosen = self.all_predecessors()
        return chosen if own.all() else chosen[np.repeat(own, self.degrees)]

    def part(self, own: np.ndarray) -> "Block":
        """The block's nodes in a mask."""
        if own.all():
            return self
        activity = np.broadcast_to(self.activity, own.shape)[own]
        return replace(
            self,
            degrees=self.degrees[own],
            predecessors=self.predecessors_of(own),
            activity=activity,
            shift=0,
        )


@dataclass(frozen=True, slots=True)
class Alike:
    """Rows of nodes that were added together.

    Attributes:
        kind: of the nodes.
        predecessors: of each node, in order.  # (rows, nodes, predecessors)
        activity: of each row.  # (rows,)
    """

    kind: Kind
    predecessors: np.ndarray
    activity: np.ndarray


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a builder is.

    Attributes:
        node: the next node of the finished graph.
        block: the next block.
        row: the next row of the layers.
    """

    node: int
    block: int
    row: int


class GraphBuilder:
    """Nodes get ascending ids as they are added; predecessors must exist already.

    Adding costs a few array operations for a whole layer, whatever its width. Nodes that were
    added again (`repeat`) have no ids: whoever goes on behind them has the ids that they are
    copies of, and these stand for the last copy from then on.
    """

    def __init__(self) -> None:
        self._next = 0
        self._copied = 0  # nodes without ids
        self._blocks: list[Block] = []
        self._taken: set[str] = set()
        self._layers: list[tuple[str, str, int]] = []  # name, operation, first node

    @property
    def num_nodes(self) -> int:
        """Nodes so far that have ids."""
        return self._next - self._copied

    def mark(self) -> Mark:
        """How far it is now."""
        return Mark(self._next, len(self._blocks), len(self._layers))

    def placed(self, nodes: range) -> range:
        """Where nodes that were added since anything was copied are among all nodes."""
        return range(nodes.start + self._copied, nodes.stop + self._copied)

    def repeat(self, since: Mark, names: list[list[tuple[str, str]]]) -> None:
        """Add what was added since a mark again, once for each list of names.

        Args:
            since: the mark.
            names: of the rows of the layers, with their operations.
        """
        blocks, rows = self._blocks[since.block :], self._layers[since.row :]
        size = self._next - since.node
        for number, of_copy in enumerate(names, start=1):
            shift = number * size
            for (_, _, first), (name, operation) in zip(rows, of_copy, strict=True):
                self._row(name, operation, first + shift)
            self._blocks += [
                replace(block, first=block.first + shift, shift=block.shift + shift)
                for block in blocks
            ]
        self._next += len(names) * size
        self._copied += len(names) * size

    def layer(self, name: str, operation: str) -> None:
        """Nodes added from now on belong to this call site; a name that is taken says more."""
        self._row(name, operation, self._next)

    def _row(self, name: str, operation: str, first: int) -> None:
        if name in self._taken:
            name = f"{name}.{operation}"
        number, own = 1, name
        while name in self._taken:
            number += 1
            name = f"{own}#{number}"
        self._taken.add(name)
        self._layers.append((name, operation, first))

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
        self._add(Kind.OUTPUT, np.broadcast_to(np.int64(1), len(units)), units, 0.0)

    def units(self, predecessors: np.ndarray, activity: np.ndarray | float = 0.0) -> np.ndarray:
        """One unit behind each of the given nodes, of the given activity; returns their ids."""
        one_each = np.broadcast_to(np.int64(1), len(predecessors))
        return self._add(Kind.UNIT, one_each, predecessors, activity)

    def merges(self, sets: LabelSets, activity: np.ndarray | float = 0.0) -> np.ndarray:
        """One unit for each set of predecessors; returns their ids."""
        return self._add(Kind.UNIT, sets.sizes, sets.members, activity)

    def only_predecessors(self, nodes: np.ndarray) -> np.ndarray:
        """The predecessor of each of some nodes, -1 where there are none or several."""
        found = np.full(len(nodes), -1, dtype=np.int64)
        of_block, places = self._in_blocks(nodes)
        for number in np.unique(of_block).tolist():
            block, own = self._blocks[number], of_block == number
            starts = np.cumsum(block.degrees) - block.degrees
            alone = block.degrees[places[own]] == 1
            feeding = block.predecessors[starts[places[own][alone]]] + block.shift
            found[np.flatnonzero(own)[alone]] = feeding - self._copied
        return found

    def made_alike(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Alike]]:
        """The rows of nodes that were added together, with as many predecessors and as active.

        Args:
            rows: nodes, or -1.  # (rows, nodes)

        Yields:
            Where some of them are, and what they have in common.
        """
        of_block, places = self._in_blocks(rows)
        together = (of_block == of_block[:, :1]).all(axis=1) & (rows >= 0).all(axis=1)
        for number in np.unique(of_block[together, 0]).tolist():
            block, own = self._blocks[number], np.flatnonzero(together & (of_block[:, 0] == number))
            degrees = block.degrees[places[own]]
            active = np.broadcast_to(block.activity, len(block.degrees))[places[own]]
            same = ((degrees == degrees[:, :1]) & (active == active[:, :1])).all(axis=1)
            starts = np.cumsum(block.degrees) - block.degrees
            for degree in np.unique(degrees[same, 0]).tolist():
                chosen = same & (degrees[:, 0] == degree)
                first = starts[places[own[chosen]]][:, :, None]
                feeding = block.predecessors[first + np.arange(degree)] + block.shift - self._copied
                if degree and feeding.min() >= 0:  # others are from before what was copied
                    yield own[chosen], Alike(block.kind, feeding, active[chosen, 0])

    def operation_of(self, node: int) -> str:
        """The operation of the call that added a node."""
        firsts = [first for _, _, first in self._layers]
        return self._layers[bisect.bisect_right(firsts, node + self._copied) - 1][1]

    def _in_blocks(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the block of each of some nodes, and which of its nodes it is."""
        firsts = np.array([block.first for block in self._blocks])
        placed = np.asarray(nodes) + self._copied
        of_block = np.searchsorted(firsts, placed, side="right") - 1
        return of_block, placed - firsts[of_block]

    def arrays(self) -> NodeArrays:
        """All nodes so far, also those on no path from input to output."""
        return self._arrays(np.ones(self._next, dtype=np.bool_))

    def numbers(self) -> np.ndarray:
        """Number in the finished graph of each node added, -1 for those that it leaves out."""
        alive = self._read_by_outputs()
        return np.where(alive, np.cumsum(alive) - 1, -1)

    def build(self, info: TraceInfo, *, keep: bool = False) -> PathGraph:
        """The finished graph, without what lies on no path from input to output.

        Args:
            info: where the graph comes from.
            keep: whether `arrays` or `numbers` is to be called afterwards; else the nodes are let
                go, so that a large graph is not held twice.

        Raises:
            GraphError: no path leads from an input to an output.
        """
        alive = self._read_by_outputs()
        if not alive.any():
            raise GraphError(
                "no path leads from an input to an output: no floating-point output depends on an"
                " input other than through comparisons, places, counts or constants"
            )
        firsts = [first for _, _, first in self._layers] + [self._next]
        counts = np.array([np.count_nonzero(alive[a:b]) for a, b in itertools.pairwise(firsts)])
        ends = np.cumsum(counts)
        layers = tuple(
            Layer(name, operation, int(end - count), int(count))
            for (name, operation, _), count, end in zip(self._layers, counts, ends, strict=True)
            if count
        )
        arrays = self._arrays(alive)
        if not keep:
            self._blocks.clear()
        layer = np.repeat(np.arange(len(layers), dtype=np.int32), counts[counts > 0])
        layer.setflags(write=False)  # so that it is not copied
        return PathGraph(
            **arrays,
            layer=layer,
            layers=layers,
            info=info,
        )

    def _read_by_outputs(self) -> np.ndarray:
        """Which nodes lead to an output.

        One sweep back over the blocks, O(nodes + edges): the nodes of a block do not feed each
        other. That inputs lead to every node holds by construction: labels come from nowhere else.
        """
        alive = np.zeros(self._next, dtype=np.bool_)
        for block in reversed(self._blocks):
            own = alive[block.first : block.first + len(block.degrees)]
            own |= block.kind == Kind.OUTPUT
            alive[block.predecessors_of(own)] = True
        return alive

    def _arrays(self, alive: np.ndarray) -> NodeArrays:
        """The nodes of a mask, numbered anew."""
        small = np.int32 if self._next < 1 << 31 else np.int64
        number = None  # where all are alive, each node keeps its own
        if not alive.all():
            number = np.cumsum(alive, dtype=small)
            np.subtract(number, 1, out=number)
        blocks = [
            block.part(alive[block.first : block.first + len(block.degrees)])
            for block in self._blocks
        ]
        nodes = sum(len(block.degrees) for block in blocks)
        edges = sum(len(block.predecessors) for block in blocks)
        arrays: NodeArrays = {
            "indptr": np.zeros(nodes + 1, dtype=np.int64),
            "indices": np.empty(edges, dtype=small),
            "activity": np.empty(nodes),
            "kind": np.empty(nodes, dtype=np.uint8),
        }
        node = edge = 0
        for block in blocks:  # written where they belong: of large graphs a copy is felt
            end, last = node + len(block.degrees), edge + len(block.predecessors)
            own = block.all_predecessors()
            arrays["indptr"][node + 1 : end + 1] = block.degrees
            arrays["indices"][edge:last] = own if number is None else number[own]
            arrays["activity"][node:end] = block.activity
            arrays["kind"][node:end] = block.kind
            node, edge = end, last
        np.cumsum(arrays["indptr"], out=arrays["indptr"])
        for array in arrays.values():
            array.setflags(write=False)  # type: ignore[attr-defined]
        return arrays

    def _add(
        self,
        kind: Kind,
        degrees: np.ndarray,
        predecessors: np.ndarray,
        activity: np.ndarray | float,
    ) -> np.ndarray:
        predecessors = np.asarray(predecessors)
        if self._next < 1 << 31 and len(predecessors) > 1 and predecessors.strides[0]:
            predecessors = predecessors.astype(np.int32)
        block = Block(
            kind,
            self._next,
            degrees,
            predecessors,
            np.asarray(activity, np.float64),
            shift=self._copied,
        )
        self._blocks.append(block)
        self._next += len(degrees)
        return np.arange(block.first, self._next) - self._copied
