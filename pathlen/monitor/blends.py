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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pathlen.lowering.activity import function_values
from pathlen.lowering.constants import Constants, UnknownConstantError, writers
from pathlen.lowering.operations import (
    READS_SHAPE_OF_OTHER,
    aten,
    makes_constant,
    viewed_argument,
)
from pathlen.lowering.regions import Region
from pathlen.lowering.states import SAME, SUMS, State
from pathlen.lowering.values import Call, Value, bind_call

_MOST_SLOPES = 1 << 20
_STEPS = 1 << 21  # random alphas are multiples of 1 / this: exact in float32, and so is 1 - alpha
_LEAST_RANGE = 0.05  # of the slopes of phi; what is flatter is evaluated
_SAME = SAME - {"aten.nan_to_num"}
_PRODUCTS = frozenset(aten("mul multiply"))
_QUOTIENTS = frozenset(aten("div divide true_divide"))
_MOVES = frozenset(  # beside views
    aten(
        "reshape flatten unflatten expand_as view_as index index_select gather take_along_dim cat"
        " stack flip roll repeat tile repeat_interleave constant_pad_nd channel_shuffle"
        " native_channel_shuffle pixel_shuffle pixel_unshuffle"
    )
)
Attribute = tuple[fx.Graph, str]


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """What decides the activity of a call site that is a blend.

    Attributes:
        low: The smallest slope of phi on the grid.
        high: The largest.
        element: int64[...], the element of alpha that each function has, in the shape of functions;
            -1 where it is no blend, as where zeros are padded.
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


def find_elements(value: Value, key: Attribute, constants: Constants) -> Tensor | None:
    """Which element of a tensor from outside stands in each place of a constant.

    Args:
        value: The constant.
        key: The program and the name of the tensor; others that are behind it stay as they are.
        constants: Gives them.

    Returns:
        int64 of the constant's shape, -1 where something else stands; None where it does not only
        move elements.
    """
    alpha = constants.attributes_behind([value])[key]
    if alpha.is_meta or _Degrees(None, alpha.dtype, key, constants).of_constant(value.node) != 1:
        return None
    generator = torch.Generator().manual_seed(0)
    trial = torch.rand(alpha.shape, generator=generator, dtype=torch.float64)
    try:
        zero, found = (_renewed(constants, key, t, [value]).of(value) for t in (0 * trial, trial))
    except UnknownConstantError:
        return None
    known, order = trial.reshape(-1).sort()
    place = torch.searchsorted(known, found.double().contiguous()).clamp(max=len(known) - 1)
    return torch.where((known[place] == found) & (zero == 0), order[place], -1)


def find_blend(
    region: Region, reads: tuple[Value, ...], key: Attribute, constants: Constants
) -> Blend | None:
    """The blend that a region is, None where it is not shown to be one.

    Args:
        region: The region.
        reads: The constants that it has.
        key: The program and the name of the tensor that they come from, but for indices.
        constants: Gives them.
    """
    alpha = constants.attributes_behind(reads)[key]
    if alpha.dtype not in (torch.float32, torch.float64) or not 0 < alpha.numel() <= _MOST_SLOPES:
        return None
    if _Degrees(region, alpha.dtype, key, constants).of_result() != 1:
        return None

    def evaluate(trial: Tensor) -> tuple[Tensor, Tensor] | None:
        found = function_values(region, _renewed(constants, key, trial, reads))
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
    if high - low < _LEAST_RANGE:
        return None
    return Blend(low, high, element)


def _renewed(
    constants: Constants, key: Attribute, trial: Tensor, values: Iterable[Value]
) -> Constants:
    """Constants with another tensor in the place of one from outside."""
    values = tuple(values)
    behind = {**constants.attributes_behind(values), key: trial}
    return constants.renewed(lambda *own: behind[own], values)


def _distinct(count: int) -> Tensor:
    """Different numbers in [-0.5, 1.5), in random order: float64[count]."""
    generator = torch.Generator().manual_seed(0)
    stride = 2 * _STEPS // count
    steps = stride * torch.arange(count) + torch.randint(stride, (count,), generator=generator)
    return steps[torch.randperm(count, generator=generator)].double() / _STEPS - 0.5


def _elements(points: Tensor, phi: Tensor, linear: Tensor, values: Tensor, alpha: Tensor) -> Tensor:
    """Which element of alpha stands in each function, -1 where it is no blend.

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
    where = int((points - phi).abs().argmax())  # as large a difference as there is
    read = (values[where] - phi[where]) / (points[where] - phi[where])
    known, order = alpha.double().reshape(-1).sort()
    nearest = torch.searchsorted(known, read - 0.25 / _STEPS).clamp(max=len(known) - 1)
    other = ((linear - x).abs() > size).any(0)
    other = other | ((bent + read * (x - bent) - values).abs() > size).any(0)
    other = other | ((known[nearest] - read).abs() > 0.25 / _STEPS)
    return torch.where(other, -1, order[nearest])


class _Degrees:
    """Degree of the values of a region as functions of alpha: 0, 1, or inf where not known."""

    def __init__(
        self, region: Region | None, dtype: torch.dtype, key: Attribute, constants: Constants
    ) -> None:
        self._region = region
        self._states: dict[int, State | None] = {}
        if region is not None:
            self._states = dict(zip(map(id, region.between), region.states, strict=True))
        self._key = key
        self._bits = torch.finfo(dtype).bits
        self._constants = constants
        self._known: dict[Any, float] = {}

    def of_result(self) -> float:
        """Degree of the result of the region."""
        assert self._region is not None
        return self._degree(self._region.last, self._of_value)

    def _of_value(self, value: Any) -> float:
        if not isinstance(value, Value) or (self._region and value is self._region.entry):
            return 0
        if not value.varies:
            return self.of_constant(value.node)
        if id(value) not in self._known:
            state = self._states.get(id(value))
            found = math.inf
            if state is not None and value.call is not None:  # a statistic is held fixed
                found = self._degree(value.call, self._of_value) if state.degree else 0
            self._known[id(value)] = found
        return self._known[id(value)]

    def of_constant(self, node: Any) -> float:
        """Degree of a constant: of what is computed from alpha alone."""
        if not isinstance(node, fx.Node):
            return 0
        if node not in self._known:
            self._known[node] = self._of_node(node)
        return self._known[node]

    def _of_node(self, node: fx.Node) -> float:
        if writers(node):
            return math.inf if self._constants.is_behind(self._key, node) else 0
        if node.op == "get_attr":
            return float((node.graph, str(node.target)) == self._key)
        given = self._constants.given(node)
        if given is not None:
            return self.of_constant(given.node)
        if not isinstance(node.target, torch._ops.OpOverload):
            return math.inf
        if makes_constant(node.target):
            return 0
        return self._degree(bind_call(node.target, node.args, node.kwargs, node), self.of_constant)

    def _degree(self, call: Call, of: Callable[[Any], float]) -> float:
        degrees = {name: _highest(argument, of) for name, argument in call.arguments.items()}
        if call.name in READS_SHAPE_OF_OTHER:
            degrees["other"] = 0
        highest = max(degrees.values(), default=0)
        if highest == 0 or highest > 1:
            return highest
        found = _combined(call.name, degrees)
        if call.name in _MOVES or viewed_argument(call.func) is not None:
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
