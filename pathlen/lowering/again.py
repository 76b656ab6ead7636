"""Lowers a block that repeats once, and places it again.

What a block adds to the graph depends on the program, on the values of the constants that were
looked at, and on what is visible of the tensor that leads into it. So where that is alike before
and after a block, the next block adds the same: its nodes are copied, under the names of its own
modules, as long as its constants have the same values. The last block is always lowered, since
others read it than read the ones before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.aliases import Aliases
from pathlen.lowering.builder import Mark
from pathlen.lowering.context import Lowering
from pathlen.lowering.liveness import Liveness
from pathlen.lowering.repetitions import Repetition, find_repetitions
from pathlen.lowering.snapshot import Snapshot
from pathlen.lowering.values import Value
from pathlen.lowering.waiting import Waiting
from pathlen.tracing import Recording, module_path

_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Before:
    """What was so when a block was done: what follows was added by the next one."""

    snapshot: Snapshot
    mark: Mark
    rows: int
    said: int


class Again:
    """Watches a program being lowered, and places blocks again.

    Args:
        recording: the program.
        lowering: the lowering at work.
        aliases: which nodes share memory.
        liveness: which are still to be read.
        values: of the nodes that were lowered.
    """

    def __init__(
        self,
        recording: Recording,
        lowering: Lowering,
        aliases: Aliases,
        liveness: Liveness,
        values: dict[fx.Node, Any],
    ) -> None:
        self._number, self._nodes = liveness.number, list(liveness.number)
        self._attributes = recording.attributes
        self._lowering, self._aliases, self._liveness = lowering, aliases, liveness
        self._values = values
        outputs = [node for _, node in recording.outputs]
        self._left = find_repetitions(self._number, outputs, lowering.readers)
        self._block = 0
        self._tries = 0
        self._before: _Before | None = None
        self._shared: list[fx.Node] | None = None

    def after(self, number: int) -> int:
        """Where to go on in the program after a node, by numbers: behind it, or further on."""
        following = number + 1
        if not self._left or following != self._left[0].end(self._block):
            return following
        own, last = self._left[0], self._left[0].count - 1
        before = self._before
        alike = self._alike(own) if self._block < last else []
        if alike and before is not None:
            self._place(own, before, alike)
        self._block += len(alike) + 1
        following = own.end(self._block - 1)
        if self._block >= last or self._tries == _TRIES:
            self._left.pop(0)
            self._block, self._tries, self._before, self._shared = 0, 0, None, None
            self._lowering.constants.reads = None
        return following

    def _alike(self, own: Repetition) -> list[dict[str, str]]:
        """The modules of each of the next blocks that are like the one that was lowered last."""
        before, now = self._before, self._look(own)
        reads, self._lowering.constants.reads = self._lowering.constants.reads, []
        self._before = now
        if before is None or now is None or reads is None:
            return []
        self._tries += 1
        added = now.mark.node > before.mark.node and now.said == before.said
        if not added or before.snapshot.told != now.snapshot.told:
            return []
        known = self._behind([*reads, *now.snapshot.constants], own)
        named = {path for path, _ in self._lowering.rows[before.rows : now.rows]}
        found = list[dict[str, str]]()
        for skipped in range(1, own.count - 1 - self._block):
            paths = self._paths(own, skipped)
            if not (named <= paths.keys() and self._is_same(known, skipped * own.period)):
                break
            found.append(paths)
        return found

    def _look(self, own: Repetition) -> _Before | None:
        """What is visible now; None where more than the one tensor may be read that varies."""
        lowering = self._lowering
        link = self._nodes[own.link + self._block * own.period]
        if self._aliases.is_in_parts(link) or not self._alone(own):
            return None
        value = self._aliases.read(link, self._values, lowering)
        if not isinstance(value, Value) or not value.varies:
            return None
        if isinstance(value, Waiting) and value.waits:
            return None
        snapshot = Snapshot(
            value,
            lowering.readers,
            self._number,
            own.first,
            own.end(self._block),
            lowering.builder.num_nodes,
        )
        return _Before(snapshot, lowering.builder.mark(), len(lowering.rows), lowering.said)

    def _alone(self, own: Repetition) -> bool:
        """Whether nothing from before the repetition varies and is still to be read."""
        if self._shared is None:
            end = own.end(0)
            self._shared = [
                node
                for node in self._nodes[: own.first]
                if any(self._number[user] >= end for user in node.users)
            ]
        return not any(
            self._aliases.is_written(node)
            or any(v.varies for v in pytree.tree_leaves(self._values[node]) if isinstance(v, Value))
            for node in self._shared
        )

    def _behind(self, constants: Iterable[Value], own: Repetition) -> list[int]:
        """The attributes of the repetition that constants are computed from, by their nodes."""
        behind = self._lowering.constants.attributes_behind(constants)
        names = {name for graph, name in behind if graph is self._nodes[0].graph}
        return [
            number
            for number in range(own.first, own.end(self._block))
            if self._nodes[number].op == "get_attr" and self._nodes[number].target in names
        ]

    def _is_same(self, known: list[int], further: int) -> bool:
        """Whether attributes have the same values some nodes further on."""
        return all(_equal(self._attribute(n), self._attribute(n + further)) for n in known)

    def _attribute(self, number: int) -> torch.Tensor:
        return self._attributes[str(self._nodes[number].target)]

    def _paths(self, own: Repetition, skipped: int) -> dict[str, str]:
        """The modules of a later block, by those of this one and of the one before it."""
        found: dict[str, str] = {}
        several = set()
        for number in range(max(own.end(self._block - 2), own.first), own.end(self._block)):
            path = module_path(self._nodes[number])
            later = module_path(self._nodes[number + skipped * own.period])
            if found.setdefault(path, later) != later:
                several.add(path)
        return {path: later for path, later in found.items() if path not in several}

    def _place(self, own: Repetition, before: _Before, alike: list[dict[str, str]]) -> None:
        """Add the nodes of the last block again, and go on behind the last copy."""
        lowering = self._lowering
        rows = lowering.rows[before.rows :]
        names = []
        for paths in alike:
            of_copy = [(paths[path], operation) for path, operation in rows]
            names.append([(lowering.unique_name(*one), one[1]) for one in of_copy])
            lowering.rows += of_copy
        lowering.builder.repeat(before.mark, names)
        link = own.link + self._block * own.period
        further = len(alike) * own.period
        self._move(own, further)
        self._aliases.same(self._nodes[link], self._nodes[link + further], self._values)
        self._liveness.goes_on_at(self._nodes[link + further])
        assert self._before is not None
        self._before = replace(self._before, mark=lowering.builder.mark(), rows=len(lowering.rows))

    def _move(self, own: Repetition, further: int) -> None:
        """Let what is visible be of the calls of the last block that was placed."""
        assert self._before is not None
        for value in self._before.snapshot.values:
            number = self._number.get(value.node, -1)
            if number >= own.first:
                value.node = self._nodes[number + further]
            call = value.call
            number = -1 if call is None else self._number.get(call.node, -1)
            if call is not None and number >= own.first:
                value.call = replace(call, node=self._nodes[number + further])


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two constants have the same values, or both have none."""
    if one is other or (one.is_meta and other.is_meta):
        return True
    if one.is_meta or other.is_meta or one.device != other.device:
        return False
    return one.layout is other.layout is torch.strided and torch.equal(one, other)
