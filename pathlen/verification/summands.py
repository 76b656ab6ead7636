"""Where a call begins that adds up functions of several earlier values.

A sum is flat: summands of inner sums that nothing else reads are its own, through whatever adds
them up (a stack that is reduced, a product with constants), and those that are functions of one
tensor meet in a unit before the others do. So the graph may let a call begin at values far behind
its operands. They are found here from the graph alone: one walks back from what has units that the
call does not read, until all that it reads is there. Whether the call adds up functions of these
values, each by itself, is seen by running it; see `Connections`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pathlen.graph import Kind
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of, kind_of_call
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Call, Value
from pathlen.verification.cuts import Cut, operands, units_of
from pathlen.verification.edges import Edges

_BY_ELEMENT = ("elementwise", "normalization", "movement", "softmax")
_ADDING = ("elementwise", "reduction", "contraction", "layer")
_TOTALS = frozenset(aten("sum mean nansum"))


def sums_behind(step: Step, path: Sequence[Value], edges: Edges) -> Iterator[Cut]:
    """Cuts at values that the graph lets a call begin at, all of them and no others.

    Args:
        step: the call.
        path: its operands that paths lead through.
        edges: the unpruned graph.

    Yields:
        At most two: reductions in between are statistics in one, and add up in the other.
    """
    if kind_of_call(step.call) not in _ADDING:
        return
    for adding in (False, True):
        found = _Walk(step, edges, adding=adding).back(path)
        if found is not None:
            yield found


class _Walk:
    """Walks back from the operands of a call to where the graph says that it begins."""

    def __init__(self, step: Step, edges: Edges, *, adding: bool) -> None:
        self._step = step
        self._edges = edges
        self._adding = adding
        self._calls: list[Call] = []  # whose units count as those of the call
        self._frontier: dict[int, Value] = {}
        self._held: list[Value] = []

    def back(self, path: Sequence[Value]) -> Cut | None:
        """The cut; None where there is none that has all units that the graph lets it have."""
        self._frontier = {id(value): value for value in path}
        left: set[int] = set()  # with some units that are not read, and nothing behind
        while True:
            outside = self._edges.outside(self._step, self._calls)
            behind = [v for v in self._frontier.values() if not _all_read(v, outside)]
            behind = [value for value in behind if id(value) not in left]
            behind = behind or self._passed_on()
            if not behind:
                return self._cut(outside)
            value = max(behind, key=lambda value: value.order)
            if value.softmax != "whole" and (self._adds_up(value) or kind_of(value) in _BY_ELEMENT):
                self._look_behind(value)
            elif np.isin(units_of([value]), outside).any():
                left.add(id(value))
            elif kind_of(value) == "reduction":
                del self._frontier[id(value)]
                self._held.append(value)
            else:
                return None

    def _passed_on(self) -> list[Value]:
        """Values that pass on the units of another one, such as -v and v: they meet in v."""
        found = []
        for value in self._frontier.values():
            passes = value.call is not None and not self._edges.made_by(value.call)
            if (
                passes
                and value.softmax != "whole"
                and kind_of(value) in ("elementwise", "normalization")
            ):
                others = [v for v in self._frontier.values() if v is not value]
                if np.isin(units_of([value]), units_of(others)).any():
                    found.append(value)
        return found

    def _look_behind(self, value: Value) -> None:
        del self._frontier[id(value)]
        assert value.call is not None
        self._calls.append(value.call)
        for operand in operands(value.call):
            if operand.is_path:
                self._frontier.setdefault(id(operand), operand)

    def _adds_up(self, value: Value) -> bool:
        if not self._adding or value.call is None:
            return False
        return value.call.name in _TOTALS or kind_of(value) == "contraction"

    def _cut(self, outside: np.ndarray) -> Cut | None:
        values = tuple(self._frontier.values())
        known = np.isin(outside, units_of(values))
        is_whole = bool((known | (self._edges.kind[outside] == Kind.HUB)).all())
        are_read = all(np.isin(units_of([value]), outside).any() for value in values)
        if not is_whole or not are_read or not all(map(self._comes_from, self._held)):
            return None
        held = {id(value) for value in self._held}
        return Cut(self._step, values, self._moving(held), sums=True)

    def _comes_from(self, value: Value) -> bool:
        """Whether a statistic is one of the values of the cut, and of nothing else."""
        stack, seen = [value], set[int]()
        while stack:
            current = stack.pop()
            if id(current) in seen or id(current) in self._frontier:
                continue
            seen.add(id(current))
            if current.call is None or kind_of(current) not in (*_BY_ELEMENT, "reduction"):
                return False
            stack += operands(current.call)
        return True

    def _moving(self, held: set[int]) -> tuple[Value, ...]:
        """Values between the cut and the call that move with it, in order; masks among them."""
        needed: dict[int, Value] = {}
        stack = operands(self._step.call)
        while stack:
            value = stack.pop()
            if id(value) in needed or id(value) in self._frontier or id(value) in held:
                continue
            if value.call is not None and (self._adds_up(value) or kind_of(value) in _BY_ELEMENT):
                needed[id(value)] = value
                stack += operands(value.call)
        moving, inside = set(self._frontier), list[Value]()
        for value in sorted(needed.values(), key=lambda value: value.order):
            if any(id(operand) in moving for operand in _read(value)):
                moving.add(id(value))
                inside.append(value)
        return tuple(inside)


def _read(value: Value) -> list[Value]:
    return [] if value.call is None else operands(value.call)


def _all_read(value: Value, outside: np.ndarray) -> bool:
    return bool(np.isin(units_of([value]), outside).all())
