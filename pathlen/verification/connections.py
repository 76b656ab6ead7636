"""Second check: what each lowered call connects, against the support of its Jacobian."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pathlen.graph.path_graph import Kind
from pathlen.lowering.labels import CONSTANT, compact
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Value
from pathlen.policy import Policy
from pathlen.verification.cuts import (
    SCALINGS,
    SUMS,
    Cut,
    before_weights,
    behind_statistics,
    complex_part,
    find_region,
    followed_operands,
    lacks_held_form,
    results,
    taken_apart,
    units_of,
    with_units_in_common,
)
from pathlen.verification.draws import Drawn, Draws
from pathlen.verification.edges import Claim, Edges
from pathlen.verification.replay import Tensors
from pathlen.verification.summands import sums_behind
from pathlen.verification.support import Support
from pathlen.verification.tally import Tally, offence, place
from pathlen.verification.verdict import Check

Meet = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MOST_UNITS = 64
_LEAST_DRAWS = 2
_LINE = [number / 4 + 0.01 for number in range(-24, 25)]
_FLAT: dict[str, Meet] = {
    "sum": torch.add,
    "product": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
_EXTREMES = ("maximum", "minimum")
_CHANGES = 3  # draws at which what no derivative shows is looked for by changing units


class Connections:
    """Checks calls one by one.

    Args:
        edges: the unpruned graph.
        tensors: behind the values of the lowering.
        policy: of the lowering.
        samples: most draws for one call.
        seed: of the random draws.
    """

    def __init__(
        self, edges: Edges, tensors: Tensors, policy: Policy, samples: int, seed: int
    ) -> None:
        self._edges = edges
        self._tensors = tensors
        self._policy = policy
        self._samples = samples
        self._draws = Draws(seed)
        self._cuts: dict[int, Cut] = {}
        self._flat: dict[int, Cut | None] = {}
        self._missing = Tally(
            "nothing missing",
            "every dependence between units within a call has a path",
            "pairs of units",
        )
        self._extra = Tally(
            "nothing extra",
            "every path between units within an exact call is a dependence",
            "paths",
        )

    def checks(self) -> tuple[Check, Check]:
        """The two finished checks."""
        return self._missing.check(), self._extra.check()

    def cut(self, step: Step) -> Cut:
        """Where the graph says that a call begins.

        At the single entry of a region, if the graph has no other units before it; at the
        operands, if it has all of them; where a flat sum begins. Otherwise at the nearest entry
        that it knows, or at the operands, and what they lack will show.
        """
        known = self._cuts.get(id(step))
        if known is None:
            known = self._cuts[id(step)] = self._find(step)
        return known

    def flat_behind(self, step: Step) -> Cut | None:
        """A call as a flat sum, product or extreme of functions that begin behind its operands.

        None where it is none. Whether functions of single values meet in it is seen by running it.
        """
        if id(step) not in self._flat:
            path = followed_operands(step.call, self._edges.outside(step), self._policy)
            found = sums_behind(step, path, self._edges, self._tensors)
            behind = (cut for cut in found if {*map(id, cut.values)} != {*map(id, path)})
            known = ((cut, self._operator(cut)) for cut in behind)
            flat = (replace(cut, flat=operator) for cut, operator in known if operator)
            self._flat[id(step)] = next(flat, None)
        return self._flat[id(step)]

    def _find(self, step: Step) -> Cut:
        outside = self._edges.outside(step)
        path = followed_operands(step.call, outside, self._policy)
        plain = Cut(step, tuple(path))
        part = taken_apart(step)
        if part is not None:
            return part
        if not len(outside):
            return plain
        read = self._edges.read(step)
        whole, some = find_region(step, read, outside)
        if whole is not None:
            return whole
        if any(np.array_equal(units_of(path), known) for known in (read, outside)):
            return plain
        parts = complex_part(step)
        if parts is not None:
            return parts
        behind = self.flat_behind(step)
        if behind is not None:
            return behind
        factored = step.call.name in SUMS and self._edges.is_nested(step)
        if kind_of_call(step.call) == "contraction":
            return before_weights(step, outside[self._edges.kind[outside] != Kind.HUB]) or plain
        if factored or step.call.name in SCALINGS:  # divided before, or with factors drawn out
            covering = behind_statistics(step, partial(self._edges.outside, step))
            if covering is not None:
                return replace(covering, flat="unknown" if factored else "")
        is_read = [np.isin(units_of([value]), outside).any() for value in path]
        return plain if all(is_read) or some is None else some

    def add(self, step: Step) -> None:
        """Check one call."""
        cut = self.cut(step)
        rows = self._rows(step)
        if step.program is not None or not cut.values or not rows:
            return
        units = units_of(cut.values)
        if len(rows) > MOST_UNITS:
            note = f"{MOST_UNITS} units of a result were drawn from more"
            self._missing.note(note, place(step))
            rows = [rows[i] for i in self._draws.order(len(rows))[:MOST_UNITS]]
        if lacks_held_form(step.call):
            why = "its statistics cannot be held fixed, so that its rule is taken at its word"
            self._missing.leave(why, place(step))
            return
        claim = self._edges.claim(step, rows, units, cut.calls if cut.flat else ())
        support = Support(cut, rows, units, self._tensors, self._draws)
        failure = self._observe(cut, claim, support)
        if failure is not None:
            self._missing.leave(failure, place(step))
            return
        self._compare(step, rows, units, claim, support)

    def _rows(self, step: Step) -> list[int]:
        """Units of the result, and `CONSTANT` where floating-point elements have no unit."""
        values = results(step)
        rows: list[int] = units_of(values).tolist()
        floating = [v for v in values if v.dtype.is_floating_point or v.dtype.is_complex]
        if any(bool((compact(v.labels).numpy() == CONSTANT).any()) for v in floating):
            rows.append(CONSTANT)
        return rows

    def _observe(self, cut: Cut, claim: Claim, support: Support) -> Exception | None:
        """Draw operands until all claimed paths were seen; None, or why nothing could be seen."""
        seen: list[Exception | None] = []
        most = self._samples * (len(cut.values) if cut.flat in _EXTREMES else 1)
        for number in range(most + 1):  # only one of several is the largest
            if number >= _LEAST_DRAWS and (support.maybe | ~claim.reaches).all():
                break
            seen.append(self._attempt(cut, number, support.add_jacobian))
        if len(cut.values) == 1 and (claim.reaches & ~support.maybe).any():
            self._look_along_a_line(cut, support)
        derived = any(error is None for error in seen)
        columns, proof = self._columns_to_change(cut, claim, support, differentiated=derived)
        for number in range(_CHANGES if columns else 0):
            change = partial(support.add_changes, columns=columns, proof=proof)
            seen.append(self._attempt(cut, number, change))
        return None if any(error is None for error in seen) else seen[-1]

    def _attempt(self, cut: Cut, number: int, look: Callable[[Drawn], None]) -> Exception | None:
        """Look at one draw, the widest that the operator takes; what it raised if it takes none."""
        failure: Exception | None = None
        for constants, below in self._variants(cut):
            drawn = self._draws.operands(cut.values, constants, self._tensors, number, below)
            try:
                look(drawn)
            except Exception as error:  # operators raise whatever they raise
                failure = error
            else:
                return None
        return failure

    def _look_along_a_line(self, cut: Cut, support: Support) -> None:
        """Look at a function of one value where all its elements are one number, then another.

        Random numbers may all miss where it has a slope: between two knots, say.
        """
        (value,) = cut.values
        tensor = self._tensors[value]
        for point in _LINE if tensor.is_floating_point() else ():
            with contextlib.suppress(Exception):  # operators raise whatever they raise
                support.add_jacobian({id(value): torch.full_like(tensor, point)})

    def _variants(self, cut: Cut) -> list[tuple[list[Value], int]]:
        """What else to draw than the operands, the most first; an operator may not take it all.

        Indices that the input decides on run through as many integers as the operator accepts. A
        constant that a tensor is multiplied by is weights, but a mask that chooses is as it is.
        """
        choices = cut.choices(self._tensors)
        constants = [v for v in cut.constants() if v.varies or id(v) not in choices]
        indices = [v for v in constants if v.varies and not v.dtype.is_floating_point]
        shapes = [self._tensors[v].shape for v in (*cut.values, *constants)] if indices else []
        sizes = sorted({size for shape in shapes for size in shape}, reverse=True)
        return [*((constants, size) for size in sizes), (constants, 0), ([], 0)]

    def _columns_to_change(
        self, cut: Cut, claim: Claim, support: Support, *, differentiated: bool
    ) -> tuple[list[int], set[int]]:
        """Units of the operands that derivatives do not tell enough of.

        All, where autograd has no formula; integers; and those that have a path that no
        derivative has shown: the operation may round, choose or compare.

        Returns:
            Their positions, and of which of them a change proves a dependence: where there is a
            derivative, a comparison may pass a change on, and comparisons cut.
        """
        units = units_of(cut.values)
        whole = [v for v in cut.values if v not in support.floating()]
        proof = np.isin(units, units_of(whole))
        if not differentiated or not support.differentiable:
            self._missing.note("seen by changing units, for lack of a derivative", place(cut.step))
            proof[:] = True
        unseen = (claim.reaches & ~support.maybe).any(axis=0)
        columns = np.flatnonzero(proof | unseen).tolist()
        if len(columns) > MOST_UNITS:
            chosen = [columns[i] for i in self._draws.order(len(columns))[:MOST_UNITS]]
            left = np.setdiff1d(columns, chosen)
            claim.reaches[:, left] &= support.maybe[:, left]  # nothing is said of these
            self._extra.note(
                f"{MOST_UNITS} units of operands were drawn from more", place(cut.step)
            )
            columns = chosen
        return columns, set(np.flatnonzero(proof).tolist())

    def _compare(
        self, step: Step, rows: list[int], units: np.ndarray, claim: Claim, support: Support
    ) -> None:
        missing = support.surely & ~claim.reaches
        names = _operand_names(self.cut(step), units)
        told = None
        if missing.any():
            row, column = np.argwhere(missing)[0]
            whose = (
                "elements without a unit depend"
                if rows[row] == CONSTANT
                else (f"unit {rows[row]} of the result depends")
            )
            told = offence(
                step,
                f"{whose} on unit {units[column]} of {names[column]}, but no path leads there"
                f" ({int(missing.sum())} of {missing.size} pairs)",
                float(missing.sum()),
            )
        self._missing.add(missing.size, int(missing.sum()), told)
        extra = claim.reaches & ~support.maybe
        if step.status != "exact":
            if extra.any():
                text = f"beside that, {step.status}s have more paths than dependences"
                self._extra.note(text, f"{place(step)}: {int(extra.sum())}")
            return
        told = None
        if extra.any():
            row, column = np.argwhere(extra)[0]
            told = offence(
                step,
                f"a path leads from unit {units[column]} of {names[column]} to unit {rows[row]} of"
                f" the result, which never depends on it ({int(extra.sum())} of"
                f" {int(claim.reaches.sum())} paths)",
                float(extra.sum()),
            )
        elif claim.foreign.any():
            row = int(np.flatnonzero(claim.foreign)[0])
            told = offence(
                step,
                f"unit {rows[row]} of the result has a predecessor that is no unit of the operands",
                float(claim.foreign.sum()),
            )
        self._extra.add(int(claim.reaches.sum()), int(extra.sum()) + int(claim.foreign.sum()), told)

    def _operator(self, cut: Cut) -> str:
        """In what functions of one value each meet, those with units in common together; or "".

        Then two results add up (are multiplied) to the same as those where a value has been
        exchanged between the two.
        """
        groups = with_units_in_common(cut.values)
        one, other = (
            self._draws.operands(cut.values, [], self._tensors, number) for number in (1, 2)
        )
        left = [*_FLAT]
        try:
            with torch.no_grad():
                ends = cut(one, self._tensors), cut(other, self._tensors)
                for group in groups if len(groups) > 1 else []:
                    keys = [id(value) for value in group]
                    there = cut({**one, **{key: other[key] for key in keys}}, self._tensors)
                    back = cut({**other, **{key: one[key] for key in keys}}, self._tensors)
                    left = [name for name in left if _same(_FLAT[name], ends, (there, back))]
        except Exception:  # operators raise whatever they raise: nothing is seen
            return cut.flat if len(groups) < 2 else ""
        return next(iter(left), "")


def _same(
    meet: Meet,
    one: Sequence[Sequence[torch.Tensor]],
    other: Sequence[Sequence[torch.Tensor]],
) -> bool:
    """Whether the two results of one pair meet in what those of another do."""
    return all(
        torch.allclose(meet(a, b), meet(c, d), rtol=1e-6, atol=1e-9, equal_nan=True)
        for a, b, c, d in zip(*one, *other, strict=True)
    )


def _operand_names(cut: Cut, units: np.ndarray) -> list[str]:
    """For each unit the first operand that it occurs in."""
    names = [""] * len(units)
    for value in reversed(cut.values):
        for column in np.flatnonzero(np.isin(units, units_of([value]))).tolist():
            names[column] = repr(value.node.name)
    return names
