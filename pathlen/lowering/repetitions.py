"""Finds stretches of a program that repeat: blocks that are the same but for their parameters.

A stretch of nodes repeats if each of them calls the same operator as the node one period before,
with the same numbers, on tensors of the same shapes, and reads either the node that is as far back
or the same one from before the stretch (any from there, where nothing reads its result). It is cut
where a single tensor leads from one block to the next; without such a place it is no repetition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import map_aggregate

FEWEST_BLOCKS = 5
"""Of fewer, too few could be left out: some are lowered before it is known that they repeat."""
_FEWEST_NODES = 150
_FEW_GAPS = 3


@dataclass(frozen=True, slots=True)
class Repetition:
    """Blocks of nodes that follow each other and are the same.

    Attributes:
        first: number of the first node of the first block, among the nodes of the program.
        period: nodes in a block.
        count: blocks.
        link: number of the node of the first block that the next block reads.
    """

    first: int
    period: int
    count: int
    link: int

    def end(self, block: int) -> int:
        """The number of the node that follows a block."""
        return self.first + (block + 1) * self.period


def find_repetitions(
    number: Mapping[fx.Node, int], outputs: Sequence[fx.Node], readers: Mapping[int, int]
) -> list[Repetition]:
    """Find the stretches that repeat, in order; none overlaps another.

    Args:
        number: of each node of the program, in order.
        outputs: those that it returns.
        readers: how many calls read the result of each, by its id.
    """
    if len(number) < _FEWEST_NODES:
        return []
    return list(_Search(number, outputs, readers).within(0, len(number)))


class _Search:
    def __init__(
        self, number: Mapping[fx.Node, int], outputs: Sequence[fx.Node], readers: Mapping[int, int]
    ) -> None:
        nodes = list(number)
        self._nodes, self._number, self._readers = nodes, number, readers
        numbers: dict[Any, int] = {}
        kinds = [node.op if node.op == "get_attr" else node.target for node in nodes]
        self._kinds = np.array([numbers.setdefault(kind, len(numbers)) for kind in kinds])
        last = [max(map(self._number.__getitem__, node.users), default=-1) for node in nodes]
        for node in outputs:
            last[self._number[node]] = len(nodes)
        self._last = np.array(last)
        self._told: dict[int, Any] = {}

    def within(self, start: int, stop: int) -> Iterator[Repetition]:
        """The repetitions of a part of the program."""
        if stop - start < _FEWEST_NODES:
            return
        for period, first, last in self._periods(start, stop):
            found = self._repeated(first, last, period)
            if found is not None:
                yield from self.within(start, found.first)
                yield found
                yield from self.within(found.end(found.count - 1), stop)
                return

    def _periods(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Periods that may be those of a repetition, the one that saves most first.

        Returns:
            Each with where the longest stretch begins and ends in which every node calls what the
            node one period before it does.
        """
        kinds = self._kinds[start:stop]
        order = np.argsort(kinds, kind="stable")
        same = kinds[order[1:]] == kinds[order[:-1]]
        distances, counts = np.unique(np.diff(order)[same], return_counts=True)
        often = np.argsort(-counts * distances, kind="stable")[: 4 * _FEW_GAPS]
        found = []
        for period in distances[often].tolist():
            first, last = _longest_run(kinds[period:] == kinds[:-period])
            saved = last - first - (FEWEST_BLOCKS - 1) * period
            if saved >= 0:
                found.append((-saved, period, first + start + period, last + start + period))
        return [(period, first, last) for _, period, first, last in sorted(found)[:_FEW_GAPS]]

    def _repeated(self, first: int, last: int, period: int) -> Repetition | None:
        """The longest repetition of a period whose nodes call the same operators."""
        agrees = np.zeros(last - first, dtype=np.bool_)
        oldest = np.full(last - first, -1)  # of the nodes that both read
        for number in range(first, last):
            read = self._agrees(number, period)
            if read is not None:
                agrees[number - first], oldest[number - first] = True, read
        low, high = _longest_run(agrees)
        if high - low < (FEWEST_BLOCKS - 1) * period:
            return None
        begin = max(first + low - period, int(oldest[low:high].max()) + 1)
        return self._cut(begin, first + high, period)

    def _agrees(self, number: int, period: int) -> int | None:
        """Whether a node is like the one a period before: the last node that both read, or -1."""
        node, before = self._nodes[number], self._nodes[number - period]
        if self._readers.get(id(node), 0) != self._readers.get(id(before), 0):
            return None
        if len(node.all_input_nodes) != len(before.all_input_nodes):
            return None
        oldest, is_read = -1, bool(node.users or before.users)
        for own, other in zip(node.all_input_nodes, before.all_input_nodes, strict=True):
            follows = self._number[own] - self._number[other] == period
            if own is other or not (is_read or follows):
                oldest = max(oldest, self._number[own], self._number[other])
            elif not follows:
                return None
        return oldest if self._said(number) == self._said(number - period) else None

    def _said(self, number: int) -> Any:
        """What a node says besides the nodes that it reads, and what it makes."""
        if number in self._told:
            return self._told[number]
        node, sort = self._nodes[number], None
        if node.op == "get_attr":
            sort = isinstance(node.meta["val"], torch.nn.Parameter), node.meta["val"].is_meta
        places = {own: place for place, own in enumerate(node.all_input_nodes)}

        def said(value: Any) -> Any:
            return places[value] if isinstance(value, fx.Node) else (type(value), value)

        said_of = map_aggregate((node.args, node.kwargs), said)
        made = map_aggregate(node.meta.get("val"), _like)
        told = self._told[number] = repr(said_of), made, sort
        return told

    def _cut(self, begin: int, end: int, period: int) -> Repetition | None:
        """Cut a stretch where one tensor leads on; nothing else of a block may be read later."""
        for first in range(begin, min(begin + period, end - FEWEST_BLOCKS * period + 1)):
            count = (end - first) // period
            ends = first + np.arange(1, count + 1) * period
            own = np.arange(first, first + period)
            inner = own[None, :] + np.arange(count - 1)[:, None] * period
            beyond = self._last[inner] >= ends[:-1, None]
            if (beyond.sum(1) != 1).any() or (self._last[inner] >= ends[1:, None]).any():
                continue
            (link,) = np.flatnonzero(beyond[0])
            if beyond[:, link].all():
                return Repetition(first, period, count, first + int(link))
        return None


def _like(value: Any) -> Any:
    """Of what sort a tensor is."""
    if not isinstance(value, torch.Tensor):
        return type(value), value
    strides = value.stride() if value.layout is torch.strided else ()
    return value.dtype, value.shape, strides


def _longest_run(holds: np.ndarray) -> tuple[int, int]:
    """The first longest stretch of True: where it begins and where it ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])
