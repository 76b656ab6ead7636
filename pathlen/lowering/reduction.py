"""Reductions and pooling: the same units over positions, a hub over features."""

import math
from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import torch

from pathlen.lowering.along import axes_along, has_new_axes, is_identity
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merged, scalar_function
from pathlen.lowering.flat import Factor, combined
from pathlen.lowering.gains import meta_error
from pathlen.lowering.labels import (
    CONSTANT,
    collapse,
    compact,
    constant_labels,
    distinct,
    distinct_tuples,
    is_position_axis,
    label_sets,
)
from pathlen.lowering.magnitudes import factors_of
from pathlen.lowering.operations import aten
from pathlen.lowering.operators import Meeting, operator_along
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import Result, kind_of, rule
from pathlen.lowering.stacks import Stack, stack_of
from pathlen.lowering.statistics import keeps_axes
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.variants import varying_axes
from pathlen.lowering.weighted_merges import function_units, summed_over

_WITH_MEAN = frozenset(aten("var_mean std_mean"))
_MAXIMA = frozenset(
    aten(
        "amax amin max min max_pool1d max_pool2d max_pool3d adaptive_max_pool1d"
        " adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices"
    )
)


@rule(
    "reduction",
    *aten(
        "mean sum nansum amax amin max min norm linalg_vector_norm logsumexp var std prod var_mean"
        " std_mean"
    ),
)
def reduction(call: Call, lowering: Lowering) -> Result:
    """Over positions the same units; over features one hub over the labels reduced.

    Tensors that were stacked along the axis reduced are added up or compared element by element;
    and a sum of products with constants that differ along another axis is a linear layer.
    """
    stack = stack_of(call, lowering.constants)
    if stack is not None:
        meeting = _meeting(call, stack, lowering)
        if meeting is not None:
            return meeting
    source = next(value for value in call.values() if value.varies)
    axes = _axes(call.arguments.get("dim"), source.labels.ndim)
    number = prod(source.shape[axis] for axis in axes)
    divisor = {"aten.mean": number, "aten.sum": 1, "aten.nansum": 1}.get(call.name)
    if call.name in _WITH_MEAN and len(distinct(source.labels)) > 1:
        lowering.uncertain(call, "the mean beside a variance")
    merged = union_over(call, source.labels, axes, lowering, divisor)
    if call.name in _MAXIMA:
        merged = lowering.counted("pooling", call, merged)
    layer, features = None, not all(is_position_axis(source.labels, axis) for axis in axes)
    if divisor is not None or (features and lowering.weights is None):
        layer = _as_layer(call, source, merged, axes, divisor, lowering)
    found = _without(merged if layer is None else layer, axes, keeps_axes(call))
    results = _results(call, found, lowering)
    if isinstance(results, Value):
        results.layer = layer is not None
    return results


def _without(labels: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """Labels without axes that have length 1, unless they stay."""
    return labels if keep or not axes else labels.squeeze(tuple(axes))


def _meeting(call: Call, stack: Stack, lowering: Lowering) -> Result | None:
    """The result of an operation over stacked tensors; None where it is that of a reduction."""
    varying = [piece for piece in stack.pieces if piece.varies]
    region = find_region(call, varying, lowering.constants) if len(varying) else None
    if region is not None:
        return _with_places(call, scalar_function(region, lowering), lowering)
    operator = operator_along(call)
    number_of_paths = sum(piece.is_path for piece in varying)
    if not operator or number_of_paths < (1 if operator == "sum" else 2):
        return None
    if stack.scalings and operator not in ("sum", "product"):
        return None  # the largest of what is scaled
    share = 1 / len(stack.pieces) if call.name == "aten.mean" else 1.0
    terms = [
        (_as_result(call, piece, lowering), share * _in_stack(call, stack, number, lowering))
        for number, piece in enumerate(stack.pieces)
        if piece.varies
    ]
    last = combined(call, operator, terms)
    meeting = Meeting(operator, [piece for piece, _ in terms], (last,))
    return _with_places(call, merged(last, meeting, lowering, tried=True), lowering)


def _in_stack(call: Call, stack: Stack, number: int, lowering: Lowering) -> Factor:
    """What a stacked tensor is multiplied by before it is added up; 1 where that has no value."""
    if not stack.scalings:
        return 1.0
    try:
        factor = stack.factor_of(number, lowering.constants.of)
    except UnknownConstantError as error:
        if lowering.weights is not None:
            raise meta_error(stack.pieces[number], call) from error
        return 1.0
    there = keeps_axes(call) and factor.ndim >= len(call.shape) - stack.axis
    return factor.unsqueeze(stack.axis - len(call.shape)) if there else factor


def function_along(call: Call, lowering: Lowering) -> Result | None:
    """The result of a call along axes on which one element is repeated, unless it is affine.

    It is a scalar function of that element; along new axes of length 1 it may be a view. None
    where the rule of the call says what it is.
    """
    if axes_along(call) is None:
        return None
    if is_identity(call):
        (source,) = varying_operands(call)
        if not isinstance(call.node.meta["val"], torch.Tensor) or not has_new_axes(source):
            return None
        several = lowering.variants.of(source) is not None  # linear functions: a layer
        return None if several else reshaped(call, source, lowering)
    region = find_region(
        call,
        varying_operands(call),
        lowering.constants,
        lambda region: region.state.part != "shifted",  # a log softmax only shifts
    )
    if region is None or region.affine:
        return None
    return _with_places(call, scalar_function(region, lowering), lowering)


def _with_places(call: Call, found: Value, lowering: Lowering) -> Result:
    """A result; in a pair of values and indices the indices carry no path."""
    vals = call.node.meta["val"]
    if isinstance(vals, torch.Tensor):
        return found
    places = constant_labels(vals[1].shape)
    return found, lowering.result(call, places, dtype=vals[1].dtype)


def _as_result(call: Call, piece: Value, lowering: Lowering) -> Value:
    """A stacked tensor in the shape of the result, which differs in axes of length 1 only."""
    if piece.shape == call.shape:
        return piece
    below = varying_operands(piece.call) if piece.call is not None else []
    if len(below) == 1 and kind_of(piece) == "movement" and below[0].shape == call.shape:
        return below[0]  # that got an axis of length 1
    return reshaped(call, piece, lowering)


def reshaped(call: Call, value: Value, lowering: Lowering) -> Value:
    """A tensor in the shape of a call's result, as a view of it would be."""
    arguments = {"self": value, "shape": list(call.shape)}
    view = Call(torch.ops.aten.reshape.default, "aten.reshape", arguments, call.node)
    return lowering.result(view, collapse(value.labels.reshape(call.shape)))


def _as_layer(
    call: Call,
    source: Value,
    merged: torch.Tensor,
    axes: list[int],
    divisor: float | None,
    lowering: Lowering,
) -> torch.Tensor | None:
    """Labels of a sum of products: one new unit for each of several linear functions of a hub.

    Args:
        call: the sum, or another reduction over features.
        source: what is reduced.
        merged: labels of the result, without units of its own; the axes have length 1.
        axes: that are reduced.
        divisor: 1 for a sum, the number of elements for a mean, None for what is neither.
        lowering: the lowering at work.

    Returns:
        The labels, None where there is one function of each.
    """
    variants = lowering.variants.of(source)
    if variants is None:
        return None
    kept = [axis for axis in range(variants.ndim) if axis not in axes]
    small = compact(variants)
    order = small.permute(*kept, *axes)
    rows = order.reshape(math.prod(order.shape[: len(kept)]), -1).numpy()
    _, number = np.unique(rows, axis=0, return_inverse=True)
    sizes = [1 if axis in axes else size for axis, size in enumerate(small.shape)]
    functions = torch.from_numpy(number.reshape(-1)).view(sizes).expand(merged.shape)
    labels = lowering.unified(source.labels)
    mixes_positions = all(is_position_axis(labels, axis) for axis in axes)
    if lowering.weights is None:
        shared = [] if mixes_positions else _axes_without_weights(source, axes)
        hubs = union_over(call, source.labels, [*axes, *shared], lowering).expand(merged.shape)
    else:
        hubs = lowering.weights.scales.roots(merged)
    tuples, spread = distinct_tuples([hubs, functions])
    has_units = tuples[:, 0] != CONSTANT
    read = tuples[has_units, 0]
    if len(np.unique(read)) == len(read):
        return None  # one function of each
    lowering.layer(call)
    if len(distinct(labels)) > 1 and mixes_positions:
        read, unit = np.unique(tuples[:, 0], return_inverse=True)  # positions are mixed
        read, unit = read[read != CONSTANT], unit - np.count_nonzero(read == CONSTANT)
    else:
        unit = np.where(has_units, np.cumsum(has_units) - 1, CONSTANT)
    if lowering.weights is None:
        units = lowering.builder.units(np.ascontiguousarray(read))
    else:
        assert divisor is not None, "edges carry weights in sums"
        factors = factors_of(source, lowering.weights.scales, lowering.constants)
        units = function_units(call, factors, axes, spread(unit), divisor, lowering)
    return spread(np.append(units, CONSTANT)[unit])  # CONSTANT is -1: the last entry


def _axes_without_weights(source: Value, axes: list[int]) -> list[int]:
    """Axes along which products to be added up have the same constants, as positions have.

    What such axes told apart is collapsed by a layer.
    """
    assert source.call is not None
    constants = [value for value in source.call.values() if not value.varies]
    if not constants or kind_of(source) != "elementwise":
        return []
    dimensions = len(source.shape)
    told_apart = {
        dimensions - len(constant.shape) + axis
        for constant in constants
        for axis in varying_axes(constant)
    }
    return [axis for axis in range(dimensions) if axis not in {*told_apart, *axes}]


@rule(
    "reduction",
    *aten(
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
        " adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"
        " adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d"
        " max_pool2d_with_indices max_pool3d_with_indices"
    ),
)
def pooling(call: Call, lowering: Lowering) -> Result:
    """The same units, on a coarser grid."""
    dimensions = int(call.name.partition("pool")[2][0])
    merged = _resample(call, dimensions, lowering)
    if call.arguments.get("divisor_override"):
        size = prod(_kernel_size(call, axis) or 1 for axis in range(-dimensions, 0))
        factor = torch.tensor(size / abs(call["divisor_override"]), dtype=torch.float64)
        merged = lowering.scaled(merged, factor)
    if call.name in _MAXIMA:
        merged = lowering.counted("pooling", call, merged)
    return _results(call, merged, lowering)


@rule(
    "reduction",
    *aten(
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d"
        " upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact1d"
        " _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa"
        " _upsample_bicubic2d_aa"
    ),
)
def interpolation(call: Call, lowering: Lowering) -> Result:
    """The same units, on another grid."""
    if "bicubic" in call.name:
        lowering.uncertain(call, "the gain of bicubic interpolation")
    return _results(call, _resample(call, len(call.shape) - 2, lowering), lowering)


def union_over(
    call: Call,
    labels: torch.Tensor,
    axes: Iterable[int],
    lowering: Lowering,
    divisor: float | None = None,
) -> torch.Tensor:
    """Labels with the given axes cut to length 1: a hub where different units meet.

    Constants beside path elements are left out; where all elements are one unit, it stays.

    Args:
        call: the call site.
        labels: of the tensor.
        axes: to be cut.
        lowering: the lowering at work.
        divisor: for a sum of elements, what it is divided by; None where the result is one of the
            elements, or no linear function of them, so that each counts as 1.
    """
    if lowering.weights is not None:
        if divisor is not None:
            return summed_over(call, labels, axes, divisor, lowering)
        labels = lowering.unified(labels)
    axes = sorted(axes)
    small = compact(labels, axes)
    varying = [axis for axis in axes if small.shape[axis] > 1]
    if not varying:
        return small
    if small.numel() == 0:
        return constant_labels([1 if a in axes else s for a, s in enumerate(labels.shape)])
    kept = [axis for axis in range(labels.ndim) if axis not in varying]
    small = compact(small)
    rows = small.permute(*kept, *varying)
    flat = rows.reshape(-1, int(np.prod([small.shape[a] for a in varying])))
    sets, of_row = label_sets(flat.numpy())
    if (sets.sizes > 1).any():
        lowering.layer(call)
    hubs = np.append(lowering.builder.hubs(sets), CONSTANT)  # CONSTANT is -1: the last entry
    united = hubs[of_row]
    shape = [1 if axis in varying else small.shape[axis] for axis in range(labels.ndim)]
    sizes = [1 if axis in axes else labels.shape[axis] for axis in range(labels.ndim)]
    return torch.from_numpy(united).view(shape).expand(sizes)


def _resample(call: Call, dimensions: int, lowering: Lowering) -> torch.Tensor:
    """Labels after pooling: windows where units vary, else any position may read any other."""
    source = next(value for value in call.values() if value.varies)
    axes = [
        axis
        for axis in range(source.labels.ndim - dimensions, source.labels.ndim)
        if not (_kernel_size(call, axis - source.labels.ndim) == 1 and _keeps_size(call, axis))
    ]
    windows = _windows(call, source.labels, axes)
    if windows is not None:
        inner = range(source.labels.ndim, windows.ndim)
        number = prod(windows.shape[axis] for axis in inner)
        divisor = number if "avg" in call.name else None
        merged = union_over(call, windows, inner, lowering, divisor).squeeze(tuple(inner))
        return merged.expand(call.shape)
    nodes = lowering.builder.num_nodes
    merged = union_over(call, source.labels, axes, lowering)
    if lowering.builder.num_nodes > nodes:  # different units met in hubs
        lowering.remark(f"{lowering.site(call)}: a window is taken to read every position", "bound")
        lowering.uncertain(call, "which positions a window reads")
    return merged.expand(call.shape)


def _windows(call: Call, labels: torch.Tensor, axes: list[int]) -> torch.Tensor | None:
    """The labels in each window of a pooling, on an axis more for each axis on which units vary.

    None where units vary on no axis, or windows are of other kinds (adaptive, dilated, ceiled).
    """
    small = compact(labels)
    varying = [axis for axis in axes if small.shape[axis] > 1]
    for axis in varying:
        place = axis - labels.ndim
        size, padding = _kernel_size(call, place), _setting(call, "padding", place)
        if size is None or padding is None:
            return None
        border = [0, 0] * (small.ndim - 1 - axis) + [padding, padding]
        small = torch.nn.functional.pad(small, border, value=CONSTANT)
        small = small.unfold(axis, size, _setting(call, "stride", place) or size)
        if small.shape[axis] != call.shape[axis] or _setting(call, "dilation", place) not in (
            None,
            1,
        ):
            return None
    return small if varying else None


def _setting(call: Call, name: str, axis: int) -> int | None:
    """A setting of a window on an axis (counted from the end); None where it is not given."""
    sizes = call.arguments.get(name)
    if not sizes:
        return None
    return int(sizes[axis] if len(sizes) >= -axis else sizes[-1])


def _kernel_size(call: Call, axis: int) -> int | None:
    """Size of the window on an axis (counted from the end); None where it is not given."""
    return _setting(call, "kernel_size", axis)


def _keeps_size(call: Call, axis: int) -> bool:
    source = next(value for value in call.values() if value.varies)
    return source.shape[axis] == call.shape[axis]


def _axes(dim: int | Sequence[int] | None, dimensions: int) -> list[int]:
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(dimensions))
    chosen = [dim] if isinstance(dim, int) else list(dim)
    return sorted({axis % max(dimensions, 1) for axis in chosen}) if dimensions else []


def _results(call: Call, labels: torch.Tensor, lowering: Lowering) -> Result:
    """The result; in a pair of values and indices the indices carry no path."""
    vals = call.node.meta["val"]
    if isinstance(vals, torch.Tensor):
        return lowering.result(call, labels)
    return tuple(
        lowering.result(
            call,
            labels if val.is_floating_point() else constant_labels(val.shape),
            dtype=val.dtype,
        )
        for val in vals
    )
