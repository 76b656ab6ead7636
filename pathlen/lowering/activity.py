"""Which units are active: evaluates their scalar functions and asks whether these are affine."""

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.errors import ActivityError, UnsupportedOperation
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.operations import call_by_name, functional
from pathlen.lowering.regions import degree
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, Value
from pathlen.tracing import module_path

_MOST_EVALUATIONS = 1 << 25
_FIXED_STATISTIC = 1.25


def grid() -> torch.Tensor:
    """Where scalar functions are evaluated: closely around 0, and up to +-100.

    Returns:
        The points, ascending.  # (points,)
    """
    near = torch.linspace(-6, 6, 97, dtype=torch.float64)
    far = torch.logspace(np.log10(6.5), 2, 16, dtype=torch.float64)
    return torch.cat([-far.flip(0), near, far])


def slope_variation(
    points: torch.Tensor, values: torch.Tensor, rounding: float = 0.0
) -> torch.Tensor:
    """How far functions are from affine: the range of their slopes over the steepest slope.

    For alpha * x + (1 - alpha) * relu(x) with alpha in [0, 1] this is 1 - alpha, whatever factor
    stands before it. Points where a function is not finite are left out.

    Args:
        points: ascending.  # (points,)
        values: one function a column.  # (points, functions)
        rounding: relative error of points and values; variation that it explains is none.

    Returns:
        0 for affine functions, up to 2; infinite where fewer than three values are finite.
    """
    steps = (points[1:] - points[:-1]).unsqueeze(1)
    slopes = (values[1:] - values[:-1]) / steps
    finite = slopes.isfinite()
    steepest = torch.where(finite, slopes.abs(), 0).amax(0)
    error = _slope_error(points, values, steepest, rounding) / steps
    highest = torch.where(finite, slopes - error, -torch.inf).amax(0)
    lowest = torch.where(finite, slopes + error, torch.inf).amin(0)
    level = torch.where(values.isfinite(), values.abs(), 0).amax(0)
    flat = steepest <= 1e-12 * level  # rounding of a constant is no slope
    variation = (highest - lowest).clamp_min(0) / steepest.clamp_min(1e-300)
    variation = torch.where(flat, 0.0, variation)
    return torch.where(finite.sum(0) < 2, torch.inf, variation)


def _slope_error(
    points: torch.Tensor, values: torch.Tensor, steepest: torch.Tensor, rounding: float
) -> torch.Tensor | float:
    """How far the difference of two neighbouring values may be off, by rounding both of them."""
    if not rounding:
        return 0.0
    sizes = values.abs() + steepest * points.abs().unsqueeze(1)
    return rounding * (sizes[1:] + sizes[:-1])


def active_functions(
    call: Call, entry: Value, constants: Constants, tolerance: float
) -> torch.Tensor | None:
    """Whether the scalar functions that lead from `entry` to the result of `call` are not affine.

    Statistics in between are held fixed. A function with per-channel parameters is one function
    for each parameter index.

    Args:
        call: the last call of the functions.
        entry: the tensor that they are functions of.
        constants: gives the parameters.
        tolerance: see `Policy`.

    Returns:
        Booleans in a shape that broadcasts to the shape of the result (one for each index of the
        parameters), or None where parameters have no values (meta device).

    Raises:
        ActivityError: a parameter is not a number.
        UnsupportedOperation: an operator does not run on the points of the grid.
    """
    if call.name == "aten.prelu" and call["self"] is entry:
        try:
            slopes = constants.of(call["weight"])
        except UnknownConstantError:
            return None
        if slopes.isnan().any():
            raise ActivityError(nan_message(call["weight"]))
        return (1 - per_channel(slopes, len(call.shape))).abs() > tolerance
    found = function_values(call, entry, constants)
    if found is None:
        return None
    points, values, rounding = found
    variation = slope_variation(points, values.reshape(len(points), -1), rounding)
    return (variation > tolerance).view(values.shape[1:])


def function_values(
    call: Call, entry: Value, constants: Constants
) -> tuple[torch.Tensor, torch.Tensor, float] | None:
    """The scalar functions that lead from `entry` to the result of `call`, on the grid.

    Returns:
        The points, the values (one function for each index of the axes after the first), and the
        relative error of both; None where parameters have no values.  # (points,), (points, ...)

    Raises:
        ActivityError: a parameter is not a number.
        UnsupportedOperation: an operator does not run on the points of the grid.
    """
    points = grid()
    dimensions = max(len(call.shape), entry.labels.ndim)
    evaluation = _Evaluation(entry, points.view(-1, *[1] * dimensions), constants)
    try:
        values = evaluation.call(call)
    except UnknownConstantError:
        return None
    return points, values.expand(len(points), *values.shape[1:]), evaluation.rounding


class _Evaluation:
    """Evaluates calls with `entry` replaced by grid points along a new first axis.

    Attributes:
        rounding: relative error of the results, 0 for float64.
    """

    def __init__(self, entry: Value, points: torch.Tensor, constants: Constants) -> None:
        self._known: dict[int, torch.Tensor] = {id(entry): points}
        self._degrees: dict[int, float | None] = {}
        self._entry = entry
        self._dimensions = points.ndim - 1
        self._constants = constants
        self.rounding = 0.0

    def value(self, value: Value) -> torch.Tensor:
        if id(value) not in self._known:
            self._known[id(value)] = self._value(value)
        return self._known[id(value)]

    def _value(self, value: Value) -> torch.Tensor:
        if not value.varies:
            return self._constant(value)
        if degree(value, self._entry, self._degrees) == 0:
            return torch.tensor(_FIXED_STATISTIC, dtype=torch.float64)
        assert value.call is not None
        return self.call(value.call)

    def call(self, call: Call) -> torch.Tensor:
        if call.name in ("aten.to", "aten._to_copy", "aten.type_as"):
            source = self.value(call["self"])
            floating = call.output.is_floating_point()
            return source.double() if floating else source.to(call.output.dtype)
        if call.name.endswith("dropout"):
            return self.value(next(call.values()))
        if call.name == "aten.prelu":
            x = self.value(call["self"])
            slopes = self._channels(call["weight"])
            return torch.where(x >= 0, x, slopes * x)
        if kind_of_call(call) == "normalization":
            return self._normalize(call)
        result = torch.as_tensor(self._run(call))
        if result.numel() > _MOST_EVALUATIONS:
            raise UnknownConstantError(call.node.name)
        return result

    def _run(self, call: Call) -> Any:
        """Result of an operator in float64; of one that knows none, in the model's own precision.

        Raises:
            UnsupportedOperation: it runs in neither.
        """
        function, arguments = functional(call.func), call.replace_values(self.value)
        try:
            return call_by_name(function, arguments)
        except Exception as error:  # an operator of the user's may raise anything
            in_float64 = error

        def traced(value: Value) -> torch.Tensor:
            tensor = self.value(value)
            return tensor.to(value.dtype) if tensor.dtype == torch.float64 else tensor

        try:
            result = call_by_name(function, call.replace_values(traced))
        except Exception as error:
            raise UnsupportedOperation(_failure(call, in_float64, error)) from error
        dtypes = {v.dtype for v in call.values() if v.dtype.is_floating_point}
        self.rounding += max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        return pytree.tree_map_only(torch.Tensor, _widened, result)

    def _normalize(self, call: Call) -> torch.Tensor:
        """A normalization layer with its statistics fixed: scale and shift, per channel."""
        x = self.value(next(v for v in call.values() if v.varies))
        if call.arguments.get("running_mean") is not None and not call.arguments.get(
            "use_input_stats", call.arguments.get("training")
        ):
            variance = self._channels(call["running_var"]) + call["eps"]
            x = (x - self._channels(call["running_mean"])) / variance.sqrt()
        trailing = call.name in ("aten.layer_norm", "aten.rms_norm")
        read = self.value if trailing else self._channels
        if isinstance(call.arguments.get("weight"), Value):
            x = x * read(call["weight"])
        if isinstance(call.arguments.get("bias"), Value):
            x = x + read(call["bias"])
        return x

    def _channels(self, value: Value) -> torch.Tensor:
        return per_channel(self._constant(value), self._dimensions)

    def _constant(self, value: Value) -> torch.Tensor:
        tensor = self._constants.of(value)
        if tensor.is_floating_point():
            tensor = tensor.double()
            if tensor.isnan().any():
                raise ActivityError(nan_message(value))
        for axis in range(tensor.ndim):  # what broadcasts anyway need not be evaluated twice
            if tensor.shape[axis] > 1 and bool((tensor == tensor.narrow(axis, 0, 1)).all()):
                tensor = tensor.narrow(axis, 0, 1)
        return tensor


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _failure(call: Call, in_float64: Exception, in_own: Exception) -> str:
    """What to tell of an operator that cannot be evaluated."""
    own = ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in call.values()}))
    told = [str(error).partition("\n")[0].partition(". ")[0] for error in (in_float64, in_own)]
    return (
        f"{call.name} cannot be evaluated at points of a grid along a new first axis, to see"
        f" whether it is affine: in float64: {told[0]!r}; in {own}: {told[1]!r}"
    )


def nan_message(value: Value) -> str:
    """What to tell of a parameter that is not a number."""
    place = f"the constant {value.node.name!r} in module {module_path(value.node)!r}"
    if value.node.op == "get_attr":
        place = f"parameter {value.node.target!r}"
    return (
        f"{place} holds NaN, so that it cannot be told which units are active; repair it or pass"
        " activities yourself (graph.with_activity)"
    )


def per_channel(parameter: torch.Tensor, dimensions: int) -> torch.Tensor:
    """A parameter of one number a channel, in a shape that broadcasts along axis 1."""
    if parameter.ndim != 1 or parameter.numel() == 1 or dimensions < 2:
        return parameter.reshape(-1) if dimensions else parameter.reshape(())
    return parameter.view(-1, *[1] * (dimensions - 2))
