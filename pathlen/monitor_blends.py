"""Blends alpha * x + (1 - alpha) * phi(x): what their activity is, read off alpha.

With p the slopes of phi on the grid, those of the blend are alpha + (1 - alpha) p. Their range is
|1 - alpha| (max p - min p), and the steepest of them belongs to one of the two extremes. So two
numbers of phi, found once, decide for every alpha what an evaluation of the blend would say
(`pathlen.lowering.activity.slope_variation`): it is affine for alpha between two bounds around 1.

That a call site is a blend is proved, not guessed: its operations show that it is affine in alpha
(`_degree`), two evaluations give the constant and the linear part, and a third at random alphas
tells which of them belongs to which channel.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pathlen.lowering.activity import function_values
from pathlen.lowering.constants import Constants, writers
from pathlen.lowering.operations import READS_SHAPE_OF_OTHER, aten, viewed_argument
from pathlen.lowering.regions import SAME, SUMS, degree
from pathlen.lowering.values import Call, Value, bind_call

_MOST_SLOPES = 1 << 20
_STEPS = 1 << 21  # random alphas are multiples of 1 / this: exact in float32, and so is 1 - alpha
_LEAST_RANGE = 0.05  # of the slopes of phi; what is flatter is evaluated
_SAME = SAME - {"aten.nan_to_num"}
_PRODUCTS = frozenset(aten("mul multiply"))
_QUOTIENTS = frozenset(aten("div divide true_divide"))
_VIEWS = frozenset(
    aten("view reshape unsqueeze squeeze flatten unflatten expand expand_as view_as")
)


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """What decides the activity of a call site that is a blend.

    Attributes:
        low: The smallest slope of phi on the grid.
        high: The largest.
        element: int64[...], the element of alpha that each function has, in the shape of functions.
    """

    low: float
    high: float
    element: Tensor

    def linear_between(self, tolerance: float) -> tuple[float, float] | None:
        """The least and the largest alpha at which the slopes vary by no more than the tolerance.

        With t = 1 - alpha, k = 1 - p at either extreme p and r their distance, the slopes vary by
        r |t| / max |1 - k t|. Where r > tolerance |k| that is within the tolerance from
        t = -tolerance / (r - tolerance k) to t = tolerance / (r + tolerance k), for the larger of
        the two maxima: so the wider of the two intervals counts, on either side of 0.

        Returns:
            The bounds, None where the tolerance is so large that there are none.
        """
        distance = self.high - self.low
        factors = (1 - self.low, 1 - self.high)
        if distance <= 2 * tolerance * max(map(abs, factors)):
            return None
        above = max(tolerance / (distance + tolerance * k) for k in factors)
        below = max(tolerance / (distance - tolerance * k) for k in factors)
        return 1 - above, 1 + below


def find_blend(
    call: Call, entry: Value, reads: tuple[Value, ...], alpha: Tensor, constants: Constants
) -> Blend | None:
    """The blend that leads from `entry` to the result of a call, None where it is not shown to be.

    Args:
        call: The last call of the function.
        entry: What it is a function of.
        reads: The constants that it has, all of which come from one tensor.
        alpha: That tensor.
        constants: Gives them.
    """
    if alpha.dtype not in (torch.float32, torch.float64) or not 0 < alpha.numel() <= _MOST_SLOPES:
        return None
    if _Degrees(entry, alpha.dtype, constants).of_call(call) != 1:
        return None

    def evaluate(trial: Tensor) -> tuple[Tensor, Tensor] | None:
        found = function_values(call, entry, constants.renewed(lambda *_: trial, reads))
        return found[:2] if found is not None and not found[2] else None

    kind: dict[str, Any] = {"dtype": alpha.dtype, "device": "cpu"}
    ends = [evaluate(torch.full(alpha.shape, end, **kind)) for end in (0.0, 1.0)]
    trial = _distinct(alpha.numel()).to(alpha.dtype).view(alpha.shape)
    between = evaluate(trial)
    if ends[0] is None or ends[1] is None or between is None:
        return None
    points, phi = ends[0]
    if phi.numel() != len(points) or not phi.isfinite().all():
        return None
    phi = phi.reshape(-1)
    element = _elements(points, phi, ends[1][1], between[1], trial)
    slopes = phi.diff() / points.diff()
    low, high = float(slopes.min()), float(slopes.max())
    if element is None or high - low < _LEAST_RANGE:
        return None
    return Blend(low, high, element)


def _distinct(count: int) -> Tensor:
    """Different numbers in [-0.5, 1.5), in random order: float64[count]."""
    generator = torch.Generator().manual_seed(0)
    stride = 2 * _STEPS // count
    steps = stride * torch.arange(count) + torch.randint(stride, (count,), generator=generator)
    return steps[torch.randperm(count, generator=generator)].double() / _STEPS - 0.5


def _elements(
    points: Tensor, phi: Tensor, linear: Tensor, values: Tensor, alpha: Tensor
) -> Tensor | None:
    """Which element of alpha stands in each function, None where they are no blends.

    Args:
        points: The grid.  # (points,)
        phi: The functions at alpha = 0.  # (points,)
        linear: Those at alpha = 1.  # (points, ...)
        values: Those at the given alpha.  # (points, ...)
        alpha: Distinct numbers.
    """
    at = (-1, *[1] * (values.ndim - 1))
    x, bent = points.view(at), phi.view(at)
    size = 1e-9 * (1 + x.abs() + bent.abs())
    if ((linear - x).abs() > size).any():
        return None
    where = int((points - phi).abs().argmax())  # as large a difference as there is
    read = (values[where] - phi[where]) / (points[where] - phi[where])
    if ((bent + read * (x - bent) - values).abs() > size).any():
        return None
    known, order = alpha.double().reshape(-1).sort()
    nearest = torch.searchsorted(known, read - 0.25 / _STEPS).clamp(max=len(known) - 1)
    if ((known[nearest] - read).abs() > 0.25 / _STEPS).any():
        return None
    return order[nearest]


class _Degrees:
    """Degree of the values of a region as functions of alpha: 0, 1, or inf where not known."""

    def __init__(self, entry: Value, dtype: torch.dtype, constants: Constants) -> None:
        self._entry = entry
        self._bits = torch.finfo(dtype).bits
        self._constants = constants
        self._known: dict[Any, float] = {}
        self._of_entry: dict[int, float | None] = {}

    def of_call(self, call: Call) -> float:
        """Degree of the result of a call."""
        return self._degree(call, self._of_value)

    def _of_value(self, value: Any) -> float:
        if not isinstance(value, Value) or value is self._entry:
            return 0
        if not value.varies:
            return self._of_node(value.node)
        if id(value) not in self._known:
            fixed = degree(value, self._entry, self._of_entry) == 0  # a statistic, held fixed
            found = 0 if fixed else math.inf if value.call is None else self.of_call(value.call)
            self._known[id(value)] = found
        return self._known[id(value)]

    def _of_node(self, node: Any) -> float:
        """Degree of a constant: of what is computed from alpha alone."""
        if not isinstance(node, fx.Node):
            return 0
        if node not in self._known:
            self._known[node] = self._of_constant(node)
        return self._known[node]

    def _of_constant(self, node: fx.Node) -> float:
        if node.op == "get_attr":
            return math.inf if writers(node) else 1
        given = self._constants.given(node)
        if given is not None:
            return self._of_node(given.node)
        if not hasattr(node.target, "_schema") or writers(node):
            return math.inf
        return self._degree(bind_call(node.target, node.args, node.kwargs, node), self._of_node)

    def _degree(self, call: Call, of: Callable[[Any], float]) -> float:
        degrees = {name: _highest(argument, of) for name, argument in call.arguments.items()}
        if call.name in READS_SHAPE_OF_OTHER:
            degrees["other"] = 0
        highest = max(degrees.values(), default=0)
        if highest == 0 or highest > 1:
            return highest
        found = _combined(call.name, degrees)
        if call.name in _VIEWS and viewed_argument(call.func) is not None:
            found = 1
        rounds = not call.output.is_floating_point() or (
            torch.finfo(call.output.dtype).bits < self._bits
        )
        return math.inf if rounds or found > 1 else found


def _highest(argument: Any, of: Callable[[Any], float]) -> float:
    leaves = argument if isinstance(argument, (list, tuple)) else (argument,)
    return max((of(leaf) for leaf in leaves), default=0)


def _combined(name: str, of: Mapping[str, float]) -> float:
    """Degree of a result by those of its operands, for what is known to be affine in each."""
    if name in SUMS | _SAME:
        return max(of.values())
    if name in _PRODUCTS:
        return of["self"] + of["other"]
    if name in _QUOTIENTS and not of["other"]:
        return of["self"]
    if name == "aten.where" and not of["condition"]:
        return max(of["self"], of["other"])
    if name == "aten.lerp":
        return of["weight"] + max(of["self"], of["end"])
    if name == "aten.addcmul":
        return max(of["self"], of["tensor1"] + of["tensor2"])
    if name == "aten.prelu" and not of["self"]:
        return of["weight"]
    return math.inf
