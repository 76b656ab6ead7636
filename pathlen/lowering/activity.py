"""Which units are active: evaluates their scalar functions and asks whether these are affine."""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.errors import ActivityError, UnsupportedOperation
from pathlen.lowering.along import axes_along
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.labels import collapse, compact
from pathlen.lowering.lookups import as_chosen, chooser_of, choosing
from pathlen.lowering.masks import READS, adds_to_what_is_there, mask_of, written_by
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.operations import aten, call_by_name, functional, widened
from pathlen.lowering.ranks import Order, picked_by, written_by_rank
from pathlen.lowering.regions import Region
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.stacks import stack_of
from pathlen.lowering.states import State
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.tracing import module_path

_MOST_EVALUATIONS = 1 << 25
_FIXED_STATISTIC = 1.25
_FILL = frozenset(aten("pad constant_pad_nd im2col fill_diagonal"))  # constants beside elements
_CHOICES = frozenset(aten("where masked_fill masked_scatter index_put"))
_NEAR = 6.0
_MOST_OF = 0.9
_SETTINGS = (bool, int, float, str, torch.dtype)


def grid() -> torch.Tensor:
    """Where scalar functions are evaluated: closely around 0, and up to +-100.

    Returns:
        The points, ascending.  # (points,)
    """
    near = torch.linspace(-_NEAR, _NEAR, 97, dtype=torch.float64)
    far = torch.logspace(np.log10(6.5), 2, 16, dtype=torch.float64)
    return torch.cat([-far.flip(0), near, far])


def slope_variation(
    points: torch.Tensor, values: torch.Tensor, rounding: float = 0.0
) -> torch.Tensor:
    """How far functions are from affine: the range of their slopes over the steepest slope.

    For alpha * x + (1 - alpha) * relu(x) with alpha in [0, 1] this is 1 - alpha, whatever factor
    stands before it. Points where a function is not finite are left out, unless a tenth of those
    near 0 are: numbers are replaced by infinity or NaN there. A complex function is as far from
    affine as the farther of its real and its imaginary part.

    Args:
        points: ascending.  # (points,)
        values: one function a column.  # (points, functions)
        rounding: relative error of points and values; variation that it explains is none.

    Returns:
        0 for affine functions, up to 2; infinite where too few values are finite.
    """
    if values.is_complex():
        size = torch.where(values.isfinite(), values.abs(), 0).amax(0)
        parts = [torch.where(part.abs() <= 1e-12 * size, 0, part) for part in _parts(values)]
        return torch.maximum(*[slope_variation(points, part, rounding) for part in parts])
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
    near = values[points.abs() <= _NEAR].isfinite()
    too_few = (finite.sum(0) < 2) | (near.sum(0) < _MOST_OF * len(near))
    return torch.where(too_few, torch.inf, variation)


def _parts(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = values.resolve_conj()
    return values.real, values.imag


def _slope_error(
    points: torch.Tensor, values: torch.Tensor, steepest: torch.Tensor, rounding: float
) -> torch.Tensor | float:
    """How far the difference of two neighbouring values may be off, by rounding both of them."""
    if not rounding:
        return 0.0
    sizes = values.abs() + steepest * points.abs().unsqueeze(1)
    return rounding * (sizes[1:] + sizes[:-1])


def function_without_parameters(region: Region) -> Hashable | None:
    """What tells the function of one call on one tensor from others; None for any other region."""
    call = region.last
    if region.between or sum(1 for _ in call.values()) != 1:
        return None
    settings = [
        (name, value) for name, value in call.arguments.items() if value is not region.entry
    ]
    if not all(isinstance(value, _SETTINGS) or value is None for _, value in settings):
        return None
    told = tuple((name, type(value), value) for name, value in settings)
    return call.func, told, call.output.dtype, len(region.entry.shape), len(call.shape)


def active_functions(region: Region, constants: Constants, tolerance: float) -> torch.Tensor | None:
    """Whether the scalar functions of a region are not affine, statistics held fixed.

    A function with per-channel parameters is one function for each parameter index.

    Args:
        region: the region.
        constants: gives the parameters.
        tolerance: see `Policy`.

    Returns:
        Booleans in a shape that broadcasts to the shape of the result (one for each index of the
        parameters), or None where parameters have no values (meta device).

    Raises:
        ActivityError: a parameter is not a number.
        UnsupportedOperation: an operator does not run on the points of the grid.
    """
    call = region.last
    if call.name == "aten.prelu" and call["self"] is region.entry:
        try:
            slopes = constants.of(call["weight"])
        except UnknownConstantError:
            return None
        if slopes.isnan().any():
            raise ActivityError(nan_message(call["weight"]))
        return (1 - per_channel(slopes, len(call.shape))).abs() > tolerance
    found = function_values(region, constants)
    if found is None:
        return None
    points, values, rounding = found
    values = values if values.is_complex() else values.double()  # some give booleans
    if not any(call.name in _CHOICES for call in region.calls):
        points, values = _where_defined(points, values)
    variation = slope_variation(points, values.reshape(len(points), -1), rounding)
    return (variation > tolerance).view(values.shape[1:])


def _where_defined(points: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Functions on positive numbers alone, where they are not defined on any other.

    A sum of squares is positive, and the square of its root is the sum again.
    """
    positive = points > 0
    nowhere = values[points < 0].isnan().all() & values[positive].isfinite().all()
    return (points[positive], values[positive]) if bool(nowhere) else (points, values)


def function_values(
    region: Region, constants: Constants
) -> tuple[torch.Tensor, torch.Tensor, float] | None:
    """The scalar functions of a region, on the grid.

    Returns:
        The points, the values (one function for each index of the axes after the first), and the
        relative error of both; None where parameters have no values.  # (points,), (points, ...)

    Raises:
        ActivityError: a parameter is not a number.
        UnsupportedOperation: an operator does not run on the points of the grid.
    """
    points = grid()
    evaluation = _Evaluation(region, points, constants)
    try:
        values = evaluation.result()
    except UnknownConstantError:
        return None
    return points, values.expand(len(points), *values.shape[1:]), evaluation.rounding


class _Evaluation:
    """Evaluates the calls of a region at points of a grid, which lie along a new first axis.

    Every function has as many axes more as the tensor of most axes has, the last of which are
    those of its own tensor: of length 1 where the function does not vary.

    Attributes:
        rounding: relative error of the results, 0 for float64.
    """

    def __init__(self, region: Region, points: torch.Tensor, constants: Constants) -> None:
        shapes = [region.entry.shape, region.last.shape, *(v.shape for v in region.between)]
        self._dimensions = max(map(len, shapes))
        self._region = region
        self._constants = constants
        self._known = {id(region.entry): points.view(-1, *[1] * self._dimensions)}
        self.rounding = 0.0

    def result(self) -> torch.Tensor:
        """The functions that the last call gives."""
        for value, state in zip(self._region.between, self._region.states, strict=True):
            assert value.call is not None
            if state is None:
                continue  # nothing that counts reads it
            if state.degree or not state.places:
                self._known[id(value)] = self._call(value.call, item_of(value) or 0, state)
            else:
                self._known[id(value)] = torch.tensor(_FIXED_STATISTIC, dtype=torch.float64)
        values = self._call(self._region.last, 0, self._region.state)
        lead = max(0, values.ndim - 1 - self._dimensions)
        values = values.reshape(values.shape[0], *values.shape[1 + lead :])
        own = len(self._region.last.shape)
        extra = values.ndim - 1 - own
        return values.reshape(values.shape[0], *values.shape[1 + extra :]) if extra > 0 else values

    def _value(self, value: Value) -> torch.Tensor:
        return self._known[id(value)] if value.varies else self._constant(value)

    def _call(self, call: Call, item: int, state: State) -> torch.Tensor:
        if call.name in ("aten.to", "aten._to_copy", "aten.type_as"):
            source = self._value(call["self"])
            if call.output.is_complex() or source.is_complex():
                return source.to(torch.complex128)
            return (
                source.double() if call.output.is_floating_point() else source.to(call.output.dtype)
            )
        if call.name.endswith("dropout"):
            return self._value(next(call.values()))
        if call.name == "aten.prelu":
            x = self._value(call["self"])
            slopes = self._channels(call["weight"], call)
            return torch.where(x >= 0, x, slopes * x)
        order = written_by_rank(call)
        if order is not None:
            return self._ranked(call, order)
        kind = kind_of_call(call)
        if kind == "normalization":
            return self._normalize(call)
        if kind == "softmax" and state.part == "shifted":  # by what is held fixed
            return self._value(next(v for v in call.values() if v.varies)) - _FIXED_STATISTIC
        if kind in ("reduction", "softmax"):
            return self._reduce(call, item)
        if chooser_of(call) is not None:
            return self._choose(call, item)
        if kind == "movement":
            return self._move(call, item)
        result = self._run(call)
        result = torch.as_tensor(result[item] if isinstance(result, (list, tuple)) else result)
        if result.numel() > _MOST_EVALUATIONS:
            raise UnknownConstantError(call.node.name)
        return result

    def _reduce(self, call: Call, item: int) -> torch.Tensor:
        """Tensors that were stacked and reduced again, element by element."""
        stack = stack_of(call, self._constants.traced)
        if stack is None:
            return self._along(call, item)
        scaled = [
            self._value(piece) * stack.factor_of(number, self._constants.of)
            for number, piece in enumerate(stack.pieces)
        ]
        functions = torch.broadcast_tensors(*scaled)
        arguments = {**call.arguments, "self": torch.stack([f.double() for f in functions])}
        if "dim" in arguments:
            arguments["dim"] = [0] if isinstance(arguments["dim"], (list, tuple)) else 0
        arguments.update({key: False for key in ("keepdim", "keepdims") if key in arguments})
        result = call_by_name(functional(call.func), arguments)
        return result if isinstance(result, torch.Tensor) else result[0]

    def _along(self, call: Call, item: int) -> torch.Tensor:
        """A call along axes on which one element is repeated, at one point after the other."""
        (source,) = varying_operands(call)
        function, axes = self._value(source), axes_along(call)
        assert axes is not None
        own = function.shape[1 + self._dimensions - len(source.shape) :]
        sizes = [source.shape[a] if a in axes else n for a, n in enumerate(own)]
        if math.prod(sizes) * len(function) > _MOST_EVALUATIONS:
            raise UnknownConstantError(call.node.name)
        found = []
        for one in function.reshape(-1, *own).double():
            arguments = call.replace_values(lambda _, x=one: x.expand(sizes))
            result = call_by_name(functional(call.func), arguments)
            found.append(result if isinstance(result, torch.Tensor) else result[item])
        values = torch.stack(found)
        lead = self._dimensions - values.ndim + 1
        return values.reshape(len(values), *[1] * lead, *values.shape[1:])

    def _move(self, call: Call, item: int) -> torch.Tensor:
        """Functions in other places; each element of a constant is a constant function."""
        if mask_of(call) is not None:
            return self._masked(call)
        points = next(iter(self._known.values())).shape[0]
        operands = moved_operands(call)
        functions = [self._value(value) for value in operands]
        if not any(value.varies for value in operands):
            points = 1
        if len(functions) == 1 and functions[0].numel() in (1, points) and call.name not in _FILL:
            return functions[0].reshape(-1, *[1] * self._dimensions)
        table, tensors, first = [torch.zeros(points, 1, dtype=torch.float64)], {}, 1
        for value, function in zip(operands, functions, strict=True):
            own = function.shape[1:] if value.varies else function.shape
            own = own[len(own) - min(len(own), len(value.shape)) :]
            rows = function.reshape(-1, own.numel()) if value.varies else function.reshape(1, -1)
            table.append(rows.double().expand(points, -1))
            index = first + torch.arange(own.numel()).view(own)
            tensors[id(value)] = index.expand(value.shape)
            first += own.numel()
        moved = run_movement(call, tensors, self._constants.traced)
        if moved is None:
            raise UnknownConstantError(call.node.name)
        index = compact(collapse(moved[item]))
        if index.numel() * points > _MOST_EVALUATIONS:
            raise UnknownConstantError(call.node.name)
        flat = torch.cat(table, 1)[:, index.reshape(-1).clamp_min(0)]
        lead = self._dimensions - index.ndim
        return flat.view(points, *[1] * lead, *index.shape)

    def _choose(self, call: Call, item: int) -> torch.Tensor:
        """What integers choose: at each number that they are, the movement by that number."""
        chooser = chooser_of(call)
        assert chooser is not None
        given = self._value(chooser)
        own = given.shape[len(given.shape) - len(chooser.shape) :]
        shown = as_chosen(call, given.reshape(len(given), *own))
        lead = [1] * (1 + self._dimensions - shown.ndim)  # none where there are as many axes
        shown = shown.reshape(len(given), *lead, *shown.shape[1:])
        if call.name == "aten.one_hot":
            return (shown == torch.arange(call.shape[-1])).double()
        result = torch.zeros((), dtype=torch.float64)
        for number in given.unique().tolist():
            chosen = self._move(choosing(call, int(number)), item)
            result = torch.where(shown == number, chosen.double(), result)
        return result

    def _ranked(self, call: Call, order: Order) -> torch.Tensor:
        """Elements that are written at the places of the largest: above a statistic."""
        there = self._value(order.source) > _FIXED_STATISTIC
        if call.name == "aten.one_hot":
            return there.double()
        written, beside = (
            self._value(one).double() if isinstance(one, Value) else torch.tensor(one)
            for one in (picked_by(call, order), call["self"])
        )
        whole = call["index"].shape == call.shape
        return written if whole else torch.where(there, written.double(), beside.double())

    def _masked(self, call: Call) -> torch.Tensor:
        """Elements read or written where a mask says so."""
        source = self._value(call["self"])
        if call.name in READS:
            return self._same_everywhere(source, call)
        mask, written = mask_of(call), written_by(call)
        assert mask is not None
        if isinstance(written, Value):
            value = self._value(written)
            new = self._same_everywhere(value, call) if written.varies else value.reshape(-1)[:1]
        else:
            new = torch.tensor(float(written))
        new = new.double() + source.double() if adds_to_what_is_there(call) else new.double()
        return torch.where(self._value(mask).bool(), new, source.double())

    def _same_everywhere(self, function: torch.Tensor, call: Call) -> torch.Tensor:
        """A function that is one for all elements, since which are read is not known."""
        if function[0].numel() > 1:
            raise UnknownConstantError(call.node.name)
        return function.reshape(-1, *[1] * self._dimensions)

    def _run(self, call: Call) -> Any:
        """Result of an operator in float64; of one that knows none, in the model's own precision.

        Raises:
            UnsupportedOperation: it runs in neither.
        """
        function, arguments = functional(call.func), call.replace_values(self._value)
        try:
            return call_by_name(function, arguments)
        except Exception as error:  # an operator of the user's may raise anything
            in_float64 = error

        def traced(value: Value) -> torch.Tensor:
            tensor = self._value(value)
            return tensor.to(value.dtype) if tensor.dtype == torch.float64 else tensor

        try:
            result = call_by_name(function, call.replace_values(traced))
        except Exception as error:
            raise UnsupportedOperation(_failure(call, in_float64, error)) from error
        dtypes = {v.dtype for v in call.values() if v.dtype.is_floating_point}
        self.rounding += max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        return pytree.tree_map_only(torch.Tensor, widened, result)

    def _normalize(self, call: Call) -> torch.Tensor:
        """A normalization layer with its statistics fixed: scale and shift, per channel."""
        x = self._value(next(v for v in call.values() if v.varies))
        if call.arguments.get("running_mean") is not None and not call.arguments.get(
            "use_input_stats", call.arguments.get("training")
        ):
            variance = self._channels(call["running_var"], call) + call["eps"]
            x = (x - self._channels(call["running_mean"], call)) / variance.sqrt()
        trailing = call.name in ("aten.layer_norm", "aten.rms_norm")
        for name in ("weight", "bias"):
            if isinstance(call.arguments.get(name), Value):
                own = call[name]
                factor = self._value(own) if trailing else self._channels(own, call)
                x = x * factor if name == "weight" else x + factor
        return x

    def _channels(self, value: Value, call: Call) -> torch.Tensor:
        return per_channel(self._constant(value), len(call.shape))

    def _constant(self, value: Value) -> torch.Tensor:
        tensor = self._constants.of(value)
        if tensor.is_floating_point():
            tensor = tensor.double()
            written = tensor.numel() == 1 and not self._constants.traced.holds_parameters(value)
            if tensor.isnan().any() and not written:
                raise ActivityError(nan_message(value))
        for axis in range(tensor.ndim):  # what broadcasts anyway need not be evaluated twice
            if tensor.shape[axis] > 1 and bool((tensor == tensor.narrow(axis, 0, 1)).all()):
                tensor = tensor.narrow(axis, 0, 1)
        return tensor


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
