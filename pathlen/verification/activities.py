"""Fourth check: whether each activation is affine, seen by running its calls on a line of values.

The entry of an activation is filled with one number after another, all other operands and all
statistics stay what they are in the model, and the results are looked at element by element.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pathlen.graph.path_graph import Kind
from pathlen.lowering.labels import CONSTANT
from pathlen.lowering.rules import kind_of, kind_of_call
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Value
from pathlen.policy import Policy
from pathlen.verification.connections import MOST_UNITS, Connections
from pathlen.verification.cuts import (
    Cut,
    results,
    scalar_function,
    units_of,
    with_units_in_common,
)
from pathlen.verification.edges import Edges
from pathlen.verification.replay import Tensors
from pathlen.verification.support import positions
from pathlen.verification.tally import Tally, offence, place
from pathlen.verification.verdict import Check

_MARGIN = 2.0  # the tolerance is a threshold: this close to it either answer is right
_COUNTED_AS = {
    "softmax": "softmax",
    "normalization": "normalization",
    "reduction": "pooling",
    "contraction": "product",
    "layer": "product",
}
_FAR = torch.tensor([7.3, 9.1, 13.0, 21.0, 34.0, 55.0, 99.0], dtype=torch.float64)
_NEAR = torch.linspace(-6.05, 6.05, 89, dtype=torch.float64)
_REAL_POINTS = torch.cat([-_FAR.flip(0), _NEAR, _FAR])
_PRODUCTS = ("mul", "multiply", "div", "divide", "true_divide")


class Activities:
    """Checks the activity of the nodes of each call.

    Args:
        edges: the unpruned graph.
        connections: know where flat sums and products begin.
        tensors: behind the values of the lowering.
        policy: of the lowering.
    """

    def __init__(
        self, edges: Edges, connections: Connections, tensors: Tensors, policy: Policy
    ) -> None:
        self._edges = edges
        self._connections = connections
        self._tensors = tensors
        self._policy = policy
        self._tally = Tally(
            "activities",
            "units are active where a line of values fed to their calls comes out bent",
            "units",
        )

    def check(self) -> Check:
        """The finished check."""
        return self._tally.check()

    def add(self, step: Step) -> None:
        """Check one call."""
        values = results(step)
        if step.program is not None or not any(value.is_path for value in values):
            return
        cut = scalar_function(step, self._edges.read(step))
        try:
            if cut is not None and self._is_of_one_element(cut, *cut.values):
                points, lines = self._lines(cut, cut.values)
                self._function(step, points, lines)
                return
            behind = self._connections.flat_behind(step)
            if behind is None:
                self._uncounted(step)
            else:
                self._flat(behind)
        except Exception as error:  # operators raise whatever they raise
            self._tally.leave(error, place(step))

    def _is_of_one_element(self, cut: Cut, entry: Value) -> bool:
        """Whether elements of a result depend on one element of a value each: some are tried.

        By their derivatives, and by whether they stay when all other elements change their signs,
        for comparisons have no derivative.
        """
        kinds = {kind_of_call(cut.step.call), *map(kind_of, cut.inside)}
        if kinds == {"elementwise"}:
            return True
        if not self._tensors[entry].is_floating_point():
            return True
        leaf = self._tensors[entry].detach().clone().requires_grad_()
        with torch.enable_grad():
            result = cut({id(entry): leaf}, self._tensors)[0].reshape(-1)
        scatters = any("scatter" in call.name for call in (*cut.calls, cut.step.call))
        for element in torch.linspace(0, len(result) - 1, 8).long().unique().tolist():
            (slope,) = torch.autograd.grad(result[element], leaf, retain_graph=True)
            read = int((slope != 0).sum())
            if read > 1:
                return False
            own = slope != 0
            if not read and scatters and leaf.shape == cut.step.call.shape:
                own.view(-1)[element] = True
            with torch.no_grad():
                others = {id(entry): torch.where(own, leaf, -leaf)}
                changed = cut(others, self._tensors)[0].reshape(-1)
            if own.any() and not torch.isclose(changed[element], result[element], equal_nan=True):
                return False
        return True

    def _uncounted(self, step: Step) -> None:
        """Units that are no activations are active only where the policy counts their kind."""
        nodes = np.arange(step.nodes.start, step.nodes.stop)
        nodes = nodes[self._edges.kind[nodes] == Kind.UNIT]
        nodes = nodes[np.isin(nodes, units_of(results(step)))]  # no line tells of others
        kind = _COUNTED_AS.get(kind_of_call(step.call) or "")
        if kind is None:
            kind = "product" if step.call.operation in _PRODUCTS else "pooling"
        wrong = 0
        if not self._policy.counts(kind) and step.status == "exact":  # a probe sees functions too
            wrong = int(np.count_nonzero(self._edges.activity[nodes]))
        told = None
        if wrong:
            what = f"{wrong} units are active, but the policy does not count any {kind}"
            told = offence(step, what, float(wrong))
        self._tally.add(len(nodes), wrong, told)

    def _lines(self, cut: Cut, entries: Sequence[Value]) -> tuple[torch.Tensor, torch.Tensor]:
        """Results for some values of a cut filled with each of some numbers.

        Returns:
            The numbers, ascending, and the results.  # (points,), (points, elements)

        Raises:
            Exception: whatever an operator raises.
        """
        like = {id(value): self._tensors[value] for value in entries}
        points = _REAL_POINTS
        if not any(t.is_floating_point() or t.is_complex() for t in like.values()):
            points = torch.arange(-16, 17).double()
        with torch.no_grad():
            lines = torch.stack(
                [
                    cut(
                        {key: _filled(tensor, point) for key, tensor in like.items()},
                        self._tensors,
                    )[0].reshape(-1)
                    for point in points.tolist()
                ]
            )
        return points, lines if lines.is_complex() else lines.double()

    def _function(self, step: Step, points: torch.Tensor, lines: torch.Tensor) -> None:
        """Compare units with what their functions are."""
        result = results(step)[0]
        units = np.unique(result.labels.numpy())
        units = units[units != CONSTANT]
        bent = _by_unit(bend(points, lines), result.labels, units)
        own = (units >= step.nodes.start) & (units < step.nodes.stop)
        active = self._edges.activity[units] > 0
        if (
            result.softmax == "whole" and not own.any()
        ):  # exp(x) / sum(exp(x)) written out passes units on
            logarithm = _by_unit(bend(points, lines.log()), result.labels, units)
            bent = np.minimum(bent, logarithm)
        is_active, is_linear = self._is(bent)
        wrong = ~own & is_active | own & active & is_linear
        if self._policy.counts("activation"):
            wrong |= own & ~active & is_active
        said = np.where(own, np.where(active, "active", "linear"), "passed on as if linear")
        self._add(step, units, wrong, said, bent)

    def _is(self, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For which units the graph must have an active unit, and for which it may not."""
        tolerance = self._policy.tolerance
        active, linear = bent > _MARGIN * tolerance, bent < tolerance / _MARGIN
        if self._policy.counts("normalization") or self._policy.counts("softmax"):
            linear &= False  # an affine region is counted where it is one of these
        elif not self._policy.counts("activation"):
            linear |= True
        return active, linear

    def _flat(self, cut: Cut) -> None:
        """Compare the units of a flat sum or product with what it is as a function of each value.

        Of the largest of several values no line tells what each of them is.
        """
        if cut.flat in ("maximum", "minimum"):
            return
        step = cut.step
        result = results(step)[0]
        rows = units_of([result])[:MOST_UNITS]
        units = units_of(cut.values)
        claim = self._edges.claim(step, rows.tolist(), units, cut.calls)
        for values in with_units_in_common(cut.values):
            if len(values) > 1 and any(value.softmax == "whole" for value in values):
                continue  # a softmax that meets its own tensor passes its units in any form
            if not all(self._is_of_one_element(cut, value) for value in values):
                continue
            lines = [self._lines(cut, [value]) for value in values]
            apart, together = (
                [_by_unit(bend(*line), result.labels, rows) for line in some]
                for some in (lines, [self._lines(cut, values)])
            )
            bent = np.maximum.reduce([*apart, *together])
            columns = np.isin(units, units_of(values))
            reached = claim.reaches[:, columns].any(axis=1)
            active = claim.bent[:, columns].any(axis=1)
            is_linear = self._is(bent)[1]
            straightest = np.minimum(np.maximum.reduce(apart), together[0])
            for form in _forms(cut):
                formed = [bend(points, form(line)) for points, line in lines]
                of_units = [_by_unit(bent_so, result.labels, rows) for bent_so in formed]
                straightest = np.minimum(straightest, np.maximum.reduce(of_units))
            is_active = self._is(straightest)[0]
            wrong = active & is_linear
            if self._policy.counts("activation"):
                wrong |= reached & ~active & is_active
            said = np.where(active, "an active", "a linear")
            names = " and ".join(repr(value.node.name) for value in values)
            said = np.char.add(said, f" function of {names}")
            self._add(step, rows, wrong, said, bent)

    def _add(
        self, step: Step, units: np.ndarray, wrong: np.ndarray, said: np.ndarray, bent: np.ndarray
    ) -> None:
        told = None
        if wrong.any():
            unit = int(np.argmax(wrong))
            told = offence(
                step,
                f"unit {units[unit]} is {said[unit]}, but its slope varies by {bent[unit]:.3g} of"
                f" the steepest; the tolerance is {self._policy.tolerance} ({int(wrong.sum())} of"
                f" {len(units)})",
                float(wrong.sum()),
            )
        self._tally.add(len(units), int(wrong.sum()), told)


def _forms(cut: Cut) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """In what other forms a factor merges: as a divisor; in a softmax, exponentiated."""
    if cut.flat != "product":
        return []
    statistics = any(kind_of(value) == "reduction" for value in cut.constants())
    return [torch.reciprocal, torch.log] if statistics else [torch.reciprocal]


def _filled(tensor: torch.Tensor, point: float) -> torch.Tensor:
    """A number in the shape of a tensor; in both parts of a complex one, either may be read."""
    return torch.full_like(tensor, complex(point, point) if tensor.is_complex() else point)


def bend(points: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
    """How much the slope of each line varies, as a share of its steepest slope.

    Args:
        points: ascending.  # (points,)
        lines: real or complex values there; those that are not finite are left out.
            # (points, elements)

    Returns:
        0 for an affine function; 0 too where fewer than three values are finite, and 1 where a
        tenth of those near 0 are not.  # (elements,)
    """
    if lines.is_complex():
        return torch.maximum(bend(points, lines.real), bend(points, lines.imag))
    positive = points > 0
    if bool(lines[points < 0].isnan().all() & lines[positive].isfinite().all()):
        points, lines = points[positive], lines[positive]  # of a root or logarithm
    slopes = lines.diff(dim=0) / points.diff().unsqueeze(1)
    noise = 1e-12 * lines.abs().nan_to_num(0, 0, 0).amax(0)
    known = slopes.isfinite()
    slopes = torch.where(known, slopes, 0)
    steepest = slopes.abs().amax(0)
    highest = torch.where(known, slopes, -steepest).amax(0)
    lowest = torch.where(known, slopes, steepest).amin(0)
    share = (highest - lowest) / steepest.clamp_min(1e-300)
    share = torch.where((known.sum(0) < 2) | (steepest <= noise), 0.0, share)
    near = lines[points.abs() <= _NEAR.max()].isfinite().double().mean(0)
    return torch.where((known.sum(0) >= 2) & (near < 0.9), share.clamp_min(1.0), share)


def _by_unit(values: torch.Tensor, labels: torch.Tensor, units: np.ndarray) -> np.ndarray:
    """The largest value of any element of each unit.

    Returns:
        Largest values.  # (units,)
    """
    most = torch.zeros(len(units) + 1, dtype=torch.float64)
    most.scatter_reduce_(0, positions(labels, units), values, "amax")
    found: np.ndarray = most[: len(units)].numpy()
    return found
