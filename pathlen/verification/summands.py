"""Where a call begins that adds up functions of several earlier values, or multiplies them.

A sum is flat: summands of inner sums that nothing else reads are its own, through whatever adds
them up (a stack that is reduced, a product with constants), and those that are functions of one
tensor meet in a unit before the others do. So are products, maxima and minima. So the graph may let
a call begin at values far behind its operands. They are found here from the graph alone: one walks
back from what has units that the call does not read, until all that it reads is there. Whether the
call is flat in functions of these values, each by itself, is seen by running it; see `Connections`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pathlen.graph.path_graph import Kind
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Call, Value
from pathlen.verification.cuts import Cut, leaves, operands, units_of
from pathlen.verification.edges import Edges
from pathlen.verification.replay import Tensors

_BY_ELEMENT = ("elementwise", "normalization", "movement", "softmax")
_PASSING = ("elementwise", "normalization", "movement")
_TOTALS = frozenset(aten("sum mean nansum"))


def sums_behind(step: Step, path: Sequence[Value], edges: Edges, tensors: Tensors) -> Iterator[Cut]:
    """Cuts at values that the graph lets a call begin at, all of them and no others.

    Args:
        step: the call.
        path: its operands that paths lead through.
        edges: the unpruned graph.
        tensors: behind the values of the lowering.

    Yields:
        At most two: reductions in between are statistics in one, and let parts meet in the other.
    """
    for adding in (False, True):
        found = _Walk(step, edges, tensors, adding=adding).back(path)
        if found is not None:
            yield found


class _Walk:
    """Walks back from the operands of a call to where the graph says that it begins."""

    def __init__(self, step: Step, edges: Edges, tensors: Tensors, *, adding: bool) -> None:
        self._step = step
        self._edges = edges
        self._tensors = tensors
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
            if not behind and self._hold_statistics():
                continue
            if not behind and (passed := self._passed_on()):
                found = self._look_behind(max(passed, key=lambda value: value.order))
                left |= {id(v) for v in found if np.isin(units_of([v]), outside).any()}
                continue
            if not behind:
                return self._cut(outside, self._edges.read(self._step, self._calls))
            value = max(behind, key=lambda value: value.order)
            if value.softmax != "whole" and (self._adds_up(value) or kind_of(value) in _BY_ELEMENT):
                self._look_behind(value)
            elif np.isin(units_of([value]), outside).any():
                left.add(id(value))
            elif self._is_a_statistic(value):
                del self._frontier[id(value)]
                self._held.append(value)
            else:
                return None

    def _hold_statistics(self) -> bool:
        """Hold what reduces another value and meets it, without a unit of its own."""
        for value in list(self._frontier.values()) if not self._adding else ():
            others = [v for v in self._frontier.values() if v is not value]
            if self._is_a_statistic(value) and np.isin(units_of([value]), units_of(others)).all():
                del self._frontier[id(value)]
                self._held.append(value)
                return True
        return False

    def _passed_on(self) -> list[Value]:
        """Values that pass on the units of another one, such as -v and v: they meet in v.

        And those that a mask of another one chose from.
        """
        found = []
        for value in self._frontier.values():
            passes = value.call is not None and not self._edges.made_by(value.call)
            if passes and value.softmax != "whole" and kind_of(value) in _PASSING:
                others = [v for v in self._frontier.values() if v is not value]
                shared = np.isin(units_of([value]), units_of(others)).any()
                if shared or any(self._is_a_mask(read) for read in _read(value)):
                    found.append(value)
        return found

    def _is_a_mask(self, value: Value) -> bool:
        """Whether a value without paths is computed from one at which the walk has arrived."""
        stack = [] if value.is_path else [value]
        while stack:
            current = stack.pop()
            if id(current) in self._frontier:
                return True
            stack += _read(current) if kind_of(current) in _BY_ELEMENT else []
        return False

    def _look_behind(self, value: Value) -> list[Value]:
        del self._frontier[id(value)]
        assert value.call is not None
        self._calls.append(value.call)
        path = [operand for operand in operands(value.call) if operand.is_path]
        for operand in path:
            self._frontier.setdefault(id(operand), operand)
        return path

    def _adds_up(self, value: Value) -> bool:
        if not self._adding or value.call is None:
            return False
        return value.call.name in _TOTALS or kind_of(value) == "contraction"

    def _cut(self, outside: np.ndarray, read: np.ndarray) -> Cut | None:
        values = tuple(self._frontier.values())
        lacking = read[~np.isin(read, units_of(values))]
        behind = [self._edges.predecessors(node) for node in lacking.tolist()]
        hubs = self._edges.kind[lacking] == Kind.HUB
        is_whole = all(hubs) and all(np.isin(b, units_of(values)).all() for b in behind)
        are_read = all(np.isin(units_of([value]), outside).any() for value in values)
        if not is_whole or not are_read or not all(map(self._comes_from, self._held)):
            return None
        held = {id(value) for value in self._held}
        return Cut(self._step, values, self._moving(held), flat="unknown")

    def _is_a_statistic(self, value: Value) -> bool:
        """Whether a value reduces others: also as a product with equal numbers, or of squares."""
        if kind_of(value) != "contraction" or value.call is None:
            return kind_of(value) == "reduction"
        read = leaves(value.call)
        constants = [self._tensors[v] for v in read if not v.varies]
        return all(bool((tensor == tensor.reshape(-1)[:1]).all()) for tensor in constants)

    def _comes_from(self, value: Value) -> bool:
        """Whether a statistic is one of the values of the cut, and of nothing else."""
        units = units_of(tuple(self._frontier.values()))
        stack, seen = [value], set[int]()
        while stack:
            current = stack.pop()
            known = current.is_path and bool(np.isin(units_of([current]), units).all())
            if known or id(current) in seen:
                continue
            seen.add(id(current))
            reduces = kind_of(current) in _BY_ELEMENT or self._is_a_statistic(current)
            if current.call is None or not reduces:
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
