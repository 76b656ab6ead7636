"""What the unpruned path graph says: which units a call's results have paths from."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathlen.graph.path_graph import Kind
from pathlen.lowering.builder import NodeArrays
from pathlen.lowering.labels import CONSTANT
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Call
from pathlen.verification.cuts import results, units_of


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """Paths that a graph has within one call.

    Attributes:
        reaches: whether a path leads from a unit to a row's unit.  # bool[rows, units]
        bent: whether one of those paths leads through an active unit of the call.
            # bool[rows, units]
        foreign: whether a row's unit has a predecessor that is no unit of the call's operands.
            # bool[rows]
    """

    reaches: np.ndarray
    bent: np.ndarray
    foreign: np.ndarray


class Edges:
    """All nodes of a lowering, those on no input-output path included.

    Args:
        arrays: what the builder collected.
        steps: the lowered calls.
    """

    def __init__(self, arrays: NodeArrays, steps: Sequence[Step]) -> None:
        self.activity = arrays["activity"]
        self.kind = arrays["kind"]
        self._indptr = arrays["indptr"]
        self._indices = arrays["indices"]
        self._nodes = {id(step.call): step.nodes for step in steps}

    def predecessors(self, node: int) -> np.ndarray:
        """Predecessors of a node."""
        return self._indices[self._indptr[node] : self._indptr[node + 1]]

    def outside(self, step: Step, calls: Sequence[Call] = ()) -> np.ndarray:
        """Units that a call reads, and those behind hubs among them, which earlier calls made.

        Args:
            step: the call.
            calls: earlier ones, whose nodes count as those of the call.
        """
        found = self.read(step, calls)
        hubs = found[self.kind[found] == Kind.HUB]
        behind = [self.predecessors(hub) for hub in hubs.tolist()]
        united: np.ndarray = np.unique(np.concatenate([found, *behind]))
        return united

    def read(self, step: Step, calls: Sequence[Call] = ()) -> np.ndarray:
        """Nodes that are none of a call, but predecessors of these or labels of its results.

        Args:
            step: the call.
            calls: earlier ones, whose nodes count as those of the call.
        """
        first, end = step.nodes.start, step.nodes.stop
        read = self._indices[self._indptr[first] : self._indptr[end]]
        found = np.unique(np.concatenate([read, units_of(results(step))]))
        inner = [*step.shares, *self._nodes_of(calls)]
        while (hidden := _within(found, inner)).any():
            behind = [self.predecessors(node) for node in found[hidden].tolist()]
            found = np.unique(np.concatenate([found[~hidden], *behind]))
        outside: np.ndarray = found[~_within(found, [step.nodes])]
        return outside

    def claim(
        self, step: Step, rows: Sequence[int], units: np.ndarray, calls: Sequence[Call] = ()
    ) -> Claim:
        """Which paths lead to the units of a result, through nodes of the call alone.

        Walks back from all rows at once, latest node first. O(edges of the call * rows / 64).

        Args:
            step: the call.
            rows: units of its results, or `CONSTANT` for what no input reaches.
            units: of its operands, ascending, where paths begin.
            calls: earlier ones, whose nodes count as those of the call.
        """
        begin = {int(unit): column for column, unit in enumerate(units)}
        own = [step.nodes, *step.shares, *self._nodes_of(calls)]
        reaches = np.zeros((len(rows), len(units)), dtype=np.bool_)
        bent = reaches.copy()
        foreign = np.zeros(len(rows), dtype=np.bool_)
        masks: dict[int, tuple[int, int]] = {}  # the rows that a node reaches, and reaches bent
        for row, unit in enumerate(rows):
            if unit != CONSTANT:
                masks[unit] = (masks.get(unit, (0, 0))[0] | 1 << row, 0)
        heap = [-unit for unit in masks]
        heapq.heapify(heap)
        while heap:
            node = -heapq.heappop(heap)
            mask, active = masks[node]
            if node in begin:
                reaches[_rows(mask), begin[node]] = True
                bent[_rows(active), begin[node]] = True
            elif self.kind[node] == Kind.HUB or any(node in nodes for nodes in own):
                active = mask if self.activity[node] else active
                for before in self.predecessors(node).tolist():
                    if before not in masks:
                        heapq.heappush(heap, -before)
                    known = masks.get(before, (0, 0))
                    masks[before] = (known[0] | mask, known[1] | active)
            else:
                foreign[_rows(mask)] = True
        return Claim(reaches, bent, foreign)

    def is_nested(self, step: Step) -> bool:
        """Whether units that a call added to the graph are predecessors of others of them."""
        first, end = step.nodes.start, step.nodes.stop
        read = self._indices[self._indptr[first] : self._indptr[end]]
        inner = read[_within(read, [step.nodes])]
        return bool((self.kind[inner] == Kind.UNIT).any())

    def made_by(self, call: Call) -> range:
        """The nodes that a call added to the graph."""
        return self._nodes.get(id(call), range(0))

    def _nodes_of(self, calls: Sequence[Call]) -> list[range]:
        return [nodes for call in calls if (nodes := self.made_by(call))]

    def reach(self, ends: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Which of the starting nodes have a path to any node of each set of ends.

        Returns:
            Whether they have.  # bool[sets, starts]
        """
        masks: dict[int, int] = {}
        for row, nodes in enumerate(ends):
            for node in nodes.tolist():
                masks[node] = masks.get(node, 0) | 1 << row
        for node in range(max(masks, default=-1), -1, -1):
            mask = masks.get(node, 0)
            if mask:
                for before in self.predecessors(node).tolist():
                    masks[before] = masks.get(before, 0) | mask
        reached = np.zeros((len(ends), len(starts)), dtype=np.bool_)
        for column, start in enumerate(starts.tolist()):
            reached[_rows(masks.get(start, 0)), column] = True
        return reached


def _rows(mask: int) -> list[int]:
    return [row for row in range(mask.bit_length()) if mask >> row & 1]


def _within(nodes: np.ndarray, ranges: Sequence[range]) -> np.ndarray:
    """Which of some nodes lie in any of the ranges."""
    found = np.zeros(len(nodes), dtype=np.bool_)
    for one in ranges:
        found |= (nodes >= one.start) & (nodes < one.stop)
    return found
