"""The path graph in the making where edges carry weights (`edges="weights"`).

The nodes are those that a graph of connections gets, in the same order; a layer's units read their
predecessors themselves instead of a hub. What is cut by weights of 0 is found at the end, by one
sweep forth and one back over all blocks, O(nodes + edges): so the units that drop out are known by
the numbers that they have in the graph of connections.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from pathlen.errors import GraphError, TraceError
from pathlen.graph.parts import DeadUnits
from pathlen.graph.path_graph import Kind, PathGraph, TraceInfo
from pathlen.lowering.builder import Block, GraphBuilder, NodeArrays
from pathlen.lowering.labels import LabelSets
from pathlen.lowering.scales import Scales, product

BYTES_AN_EDGE = 28  # twice an index and a weight, while blocks become arrays, and masks
_ONE = np.float64(1.0)


class WeightedArrays(NodeArrays):
    """The same, with the weights of the edges."""

    weights: np.ndarray


@dataclass(frozen=True, slots=True)
class _WeightedBlock(Block):
    """Nodes added together; predecessors are nodes, ascending and distinct.

    Attributes:
        weights: of the edges, at least 0.
        reads: the nodes that each group of a layer reads, whatever the weights are; None where
            these are the predecessors.
        groups: the group of each unit of a layer.
    """

    weights: np.ndarray
    reads: LabelSets | None = None
    groups: np.ndarray | None = None

    def read_by(self, own: np.ndarray) -> np.ndarray:
        """What the block's nodes in a mask read, connections of weight 0 included."""
        if self.reads is None or self.groups is None:
            return self.predecessors_of(own)
        chosen = np.zeros(len(self.reads.sizes), dtype=np.bool_)
        chosen[self.groups[own]] = True
        members: np.ndarray = self.reads.members[np.repeat(chosen, self.reads.sizes)]
        return members


class WeightedBuilder(GraphBuilder):
    """Takes labels of scaled units too: their factors are multiplied into the edges.

    Args:
        memory_limit: bytes that explicit edges may take while the graph is built.

    Attributes:
        scales: what the labels of scaled units stand for.
    """

    def __init__(self, memory_limit: int) -> None:
        super().__init__()
        self.scales = Scales()
        self._memory_limit = memory_limit
        self._edges = 0
        self._alive: np.ndarray | None = None

    def require(self, site: str, edges: int, scratch: int = 0) -> None:
        """Refuse edges that would take more memory than the limit allows.

        Args:
            site: what needs them, for the message.
            edges: their number.
            scratch: bytes needed for a while to find them.

        Raises:
            TraceError: they would.
        """
        needed = (self._edges + edges) * BYTES_AN_EDGE + scratch
        if needed > self._memory_limit:
            raise TraceError(
                f"{site}: the explicit edges of edges='weights' would need"
                f" {needed / 2**20:,.1f} MiB up to here, more than the memory limit of"
                f" {self._memory_limit / 2**20:,.1f} MiB; raise memory_limit, or leave edges at"
                " 'connections', where a layer is a hub"
            )

    def hubs(self, sets: LabelSets, weights: np.ndarray | None = None) -> np.ndarray:
        """One hub over each set; a factor that all members share is left to the hub's label.

        So two sets whose members differ in such a factor only have one hub, as without weights.

        Args:
            sets: labels.
            weights: one a member, 1 by default.
        """
        degrees, roots, edge_weights = self._resolved(sets.sizes, sets.members, weights)
        starts = np.cumsum(degrees) - degrees
        largest = np.maximum.reduceat(edge_weights, starts) if len(starts) else np.empty(0)
        unit = np.repeat(np.where(largest > 0, largest, 1), degrees)
        profile = np.where(np.repeat(largest > 0, degrees), edge_weights / unit, 1)
        nodes = roots[starts]
        known: dict[bytes, int] = {}
        number = np.full(len(degrees), -1)
        for position in np.flatnonzero(degrees > 1).tolist():
            own = slice(starts[position], starts[position] + degrees[position])
            key = roots[own].tobytes() + profile[own].tobytes()
            number[position] = known.setdefault(key, len(known))
        several, first = np.unique(number, return_index=True)
        first = first[several >= 0]
        members = np.repeat(np.isin(np.arange(len(degrees)), first), degrees)
        # hubs are numbered in order of appearance, and so are the first sets that have them
        first = np.sort(first)
        hubs = self._append(Kind.HUB, degrees[first], roots[members], profile[members], 0.0)
        nodes[number >= 0] = hubs[number[number >= 0]]
        return self.scales.times(nodes, largest)

    def units(
        self,
        predecessors: np.ndarray,
        activity: np.ndarray | float = 0.0,
        weights: np.ndarray | float | None = None,
    ) -> np.ndarray:
        """One unit behind each of the given labels; `weights` are those of the edges."""
        one_each = np.ones(len(predecessors), dtype=np.int64)
        return self._weighted(Kind.UNIT, one_each, predecessors, activity, weights)

    def merges(
        self,
        sets: LabelSets,
        activity: np.ndarray | float = 0.0,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """One unit for each set of predecessors; `weights` has one a member."""
        return self._weighted(Kind.UNIT, sets.sizes, sets.members, activity, weights)

    def layer_units(
        self,
        degrees: np.ndarray,
        predecessors: np.ndarray,
        weights: np.ndarray,
        reads: LabelSets,
        groups: np.ndarray,
    ) -> np.ndarray:
        """The units of a layer, each with the edges that are not 0; returns their ids.

        Args:
            degrees: edges of each unit, 0 for a dead one.
            predecessors: nodes, ascending and distinct for each unit.
            weights: one an edge.
            reads: the nodes that each group of the layer reads.
            groups: the group of each unit.
        """
        return self._append(Kind.UNIT, degrees, predecessors, weights, 0.0, reads, groups)

    def build(self, info: TraceInfo, *, keep: bool = False) -> PathGraph:
        """See `GraphBuilder.build`; what drops out because of weights of 0 is listed in the info.

        Raises:
            GraphError: no path leads from an input to an output, or all are cut by weights of 0.
        """
        connected, alive = self._connected(), self._read_by_outputs()
        if connected.any() and not alive.any():
            raise GraphError(
                "every path from an input to an output leads over a weight of 0; see which layers"
                " are pruned away, or measure connections (edges='connections')"
            )
        info = dataclasses.replace(info, dead=self._dead(connected, alive))
        graph = super().build(info, keep=keep)
        return graph

    def _connected(self) -> np.ndarray:
        """Which nodes lead to an output by connections of any weight."""
        found = np.zeros(self._next, dtype=np.bool_)
        for block in reversed(self._blocks):
            assert isinstance(block, _WeightedBlock)
            own = found[block.first : block.first + len(block.degrees)]
            own |= block.kind == Kind.OUTPUT
            found[block.read_by(own)] = True
        return found

    def _read_by_outputs(self) -> np.ndarray:
        """Which nodes lie on a path all of whose edges weigh more than 0."""
        if self._alive is None:
            reached = np.zeros(self._next, dtype=np.bool_)
            for block in self._blocks:
                assert isinstance(block, _WeightedBlock)
                own = reached[block.first : block.first + len(block.degrees)]
                own[:] = block.kind == Kind.INPUT
                usable = (block.weights > 0) & reached[block.predecessors]
                some = block.degrees > 0
                starts = np.cumsum(block.degrees) - block.degrees
                if some.any():
                    own[some] = np.logical_or.reduceat(usable, starts[some])
            alive = np.zeros(self._next, dtype=np.bool_)
            for block in reversed(self._blocks):
                assert isinstance(block, _WeightedBlock)
                nodes = slice(block.first, block.first + len(block.degrees))
                own = alive[nodes]
                own |= block.kind == Kind.OUTPUT
                own &= reached[nodes]
                usable = np.repeat(own, block.degrees) & (block.weights > 0)
                alive[block.predecessors[usable]] = True
            self._alive = alive & reached
        return self._alive

    def _dead(self, connected: np.ndarray, alive: np.ndarray) -> tuple[DeadUnits, ...]:
        """The units that lie on paths, but on none whose edges all weigh more than 0."""
        for block in self._blocks:
            if block.kind == Kind.HUB:
                connected[block.first : block.first + len(block.degrees)] = False
        dead = connected & ~alive
        ends = [first for _, _, first in self._layers[1:]] + [self._next]
        rows = []
        for (name, operation, first), end in zip(self._layers, ends, strict=True):
            own = connected[first:end]
            if dead[first:end].any():
                indices = np.flatnonzero(dead[first:end][own]).tolist()
                rows.append(DeadUnits(name, operation, tuple(indices), int(own.sum())))
        return tuple(rows)

    def _arrays(self, alive: np.ndarray) -> WeightedArrays:
        """The nodes of a mask, numbered anew, with the edges between them that are not 0."""
        number = (np.cumsum(alive) - 1).astype(np.int32 if self._next < 1 << 31 else np.int64)
        size, taken = int(np.count_nonzero(alive)), []
        degrees = np.zeros(size + 1, dtype=np.int64)
        activity, kind = np.empty(size), np.empty(size, dtype=np.uint8)
        last = 0
        for block in self._blocks:
            assert isinstance(block, _WeightedBlock)
            own = alive[block.first : block.first + len(block.degrees)]
            used = np.repeat(own, block.degrees) & (block.weights > 0) & alive[block.predecessors]
            counts = np.zeros(len(own), dtype=np.int64)
            some = block.degrees > 0
            if some.any():
                starts = np.cumsum(block.degrees) - block.degrees
                counts[some] = np.add.reduceat(used, starts[some], dtype=np.int64)
            nodes = slice(last, last := last + int(np.count_nonzero(own)))
            degrees[1:][nodes] = counts[own]
            activity[nodes] = np.broadcast_to(block.activity, own.shape)[own]
            kind[nodes] = block.kind
            taken.append(used)
        indptr = np.cumsum(degrees)
        indices, weights = np.empty(indptr[-1], dtype=number.dtype), np.empty(indptr[-1])
        last = 0
        for block, used in zip(self._blocks, taken, strict=True):
            assert isinstance(block, _WeightedBlock)
            edges = slice(last, last := last + int(np.count_nonzero(used)))
            indices[edges] = number[block.predecessors[used]]
            weights[edges] = block.weights[used]
        arrays: WeightedArrays = {
            "indptr": indptr,
            "indices": indices,
            "activity": activity,
            "kind": kind,
            "weights": weights,
        }
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
        return self._weighted(kind, degrees, predecessors, activity, None)

    def _weighted(
        self,
        kind: Kind,
        degrees: np.ndarray,
        predecessors: np.ndarray,
        activity: np.ndarray | float,
        weights: np.ndarray | float | None,
    ) -> np.ndarray:
        """Nodes behind labels, whose factors are multiplied into the weights."""
        degrees, roots, weights = self._resolved(np.asarray(degrees), predecessors, weights)
        return self._append(kind, degrees, roots, weights, activity)

    def _resolved(
        self, degrees: np.ndarray, labels: np.ndarray, weights: np.ndarray | float | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predecessors as nodes, ascending and distinct; the weights of equal ones are added."""
        roots, factors = self.scales.split(np.asarray(labels))
        if weights is not None:
            factors = product(factors, np.broadcast_to(weights, factors.shape))
        of = np.repeat(np.arange(len(degrees)), degrees)
        rising = (roots[1:] > roots[:-1]) | (of[1:] != of[:-1])
        if not rising.all():
            order = np.lexsort((roots, of))
            roots, of, factors = roots[order], of[order], factors[order]
            new = np.append(True, (roots[1:] != roots[:-1]) | (of[1:] != of[:-1]))
            factors = np.add.reduceat(factors, np.flatnonzero(new))
            roots, of = roots[new], of[new]
            degrees = np.bincount(of, minlength=len(degrees))
        return degrees, roots, factors

    def _append(
        self,
        kind: Kind,
        degrees: np.ndarray,
        predecessors: np.ndarray,
        weights: np.ndarray,
        activity: np.ndarray | float,
        reads: LabelSets | None = None,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        if self._next < 1 << 31:
            predecessors = predecessors.astype(np.int32, copy=False)
        if len(weights) and (weights == 1).all():
            weights = np.broadcast_to(_ONE, len(weights))  # takes no memory
        values = np.asarray(activity, np.float64)
        block = _WeightedBlock(
            kind, self._next, degrees, predecessors, values, weights, reads, groups
        )
        self._blocks.append(block)
        self._edges += len(predecessors)
        self._next += len(degrees)
        return np.arange(block.first, self._next)
