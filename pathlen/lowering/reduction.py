"""Reductions and pooling: the same units over positions, a hub over features."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch

from pathlen.lowering.along import axes_along, has_new_axes, is_identity
from pathlen.lowering.chosen import chosen_over
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merged, scalar_function
from pathlen.lowering.flat import Factor, combined, moved_along
from pathlen.lowering.gains import meta_error
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    constant_labels,
    distinct,
    is_position_axis,
)
from pathlen.lowering.one_hot import numbers_of_one_hot
from pathlen.lowering.operations import aten
from pathlen.lowering.operators import Meeting, operator_along
from pathlen.lowering.reduced import MAXIMA, Summed, reduced_rows, union_over
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import Result, kind_of, rule
from pathlen.lowering.several import Layout
from pathlen.lowering.stacks import Stack, stack_of
from pathlen.lowering.states import COPIES, PRODUCTS, TOTALS
from pathlen.lowering.statistics import keeps_axes, reduced_axes
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.written_views import first_along, in_shape

_WITH_MEAN = frozenset(aten("var_mean std_mean"))


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
    drawn_out = _without_common_factor(call, source, axes, lowering)
    if drawn_out is not None:
        return drawn_out
    chosen = _one_of_several(call, source, axes, lowering)
    if chosen is not None:
        return chosen
    number = prod(source.shape[axis] for axis in axes)
    divisor = {"aten.mean": number, "aten.sum": 1, "aten.nansum": 1}.get(call.name)
    if call.name in _WITH_MEAN and len(distinct(source.labels)) > 1:
        lowering.uncertain(call, "the mean beside a variance")
    return _result_of_rows(
        call, reduced_rows(call, source, axes, divisor, lowering), axes, lowering
    )


def _without_common_factor(
    call: Call, source: Value, axes: list[int], lowering: Lowering
) -> Value | None:
    """A sum of products with one element: that times a sum. None for other reductions."""
    if call.name not in TOTALS:
        return None
    factors = _factors_of(source, lowering)
    if factors is None or not all(factor.is_path for factor in factors):
        return None
    wide = [axis for axis in axes if source.shape[axis] > 1]
    for factor, summand in (factors, factors[::-1]):
        labels = broadcast(lowering.unified(summand.labels), source.shape)
        if not summand.is_path or all(is_position_axis(labels, axis) for axis in wide):
            continue
        if not factor.is_path or not _is_repeated(factor, source.shape, wide, lowering):
            continue
        arguments = {**call.arguments, "self": in_shape(call, summand, source.shape)}
        total = reduction(replace(call, arguments=arguments), lowering)
        shown = in_shape(call, factor, source.shape)
        for axis in axes:
            shown = first_along(call, shown, axis)
        operands = [in_shape(call, shown, call.shape), total]
        last = combined(call, "product", [(one, 1.0) for one in operands if isinstance(one, Value)])
        return merged(last, Meeting("product", varying_operands(last), (last,)), lowering)
    return None


def _one_of_several(call: Call, source: Value, axes: list[int], lowering: Lowering) -> Value | None:
    """A sum of products with one-hot vectors, which choose one of several results."""
    wide = [axis for axis in axes if source.shape[axis] > 1]
    factors = _factors_of(source, lowering) if call.name == "aten.sum" and len(wide) == 1 else None
    for one in factors or ():
        at = wide[0] - len(source.shape) + len(one.shape)
        numbers = None
        if not one.is_path and at >= 0:
            numbers = numbers_of_one_hot(one, at, lowering.constants)
        if numbers is not None:
            labels = chosen_over(call, source, source.labels, axes, [numbers], lowering)
            return lowering.result(call, _without(labels, axes, keeps_axes(call)))
    return None


def _factors_of(value: Value, lowering: Lowering) -> list[Value] | None:
    """The two tensors that a product is of, moved as it was since; None for anything else."""
    inner, between = value, list[Value]()
    while lowering.readers.get(id(inner.node), 0) == 1 and inner.call is not None:
        operands = varying_operands(inner.call)
        if inner.call.name in PRODUCTS:
            made = [
                moved_along(v, inner, between, lowering.constants) if between else v
                for v in operands
            ]
            both = [one for one in made if one is not None]
            meet = inner.merge or not all(one.is_path for one in both)
            return both if meet and len(both) == 2 else None
        copies = kind_of(inner) == "movement" or inner.call.name in COPIES
        if not copies or len(operands) != 1:
            break
        between.insert(0, inner)
        inner = operands[0]
    return None


def _is_repeated(value: Value, shape: torch.Size, axes: list[int], lowering: Lowering) -> bool:
    """Whether a tensor has one element, and one function of it, along each of some axes."""
    if lowering.variants.of(value) is not None:
        return False
    places = lowering.variants.places(value).expanded(shape)
    return bool(axes) and all(places.repeats_along(axis) is not None for axis in axes)


def _result_of_rows(call: Call, rows: Summed, axes: list[int], lowering: Lowering) -> Result:
    """The result of a reduction of whole axes."""
    keep = keeps_axes(call)
    results = _results(call, _without(rows.labels, axes, keep), lowering)
    if isinstance(results, Value):
        results.layer = rows.is_layer
        without = partial(_without, axes=axes, keep=keep)
        results.begun = None if rows.begun is None else rows.begun.changed(without)
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
    source, whole = next(value for value in call.values() if value.varies), reduced_axes(call)
    if whole and not call.arguments.get("divisor_override"):
        number = prod(source.shape[axis] for axis in whole) if "avg" in call.name else None
        rows = reduced_rows(call, source, whole, number, lowering)
        return _result_of_rows(call, rows, whole, lowering)
    rows = _resample(call, dimensions, lowering)
    if call.arguments.get("divisor_override"):
        size = prod(_kernel_size(call, axis) or 1 for axis in range(-dimensions, 0))
        factor = torch.tensor(size / abs(call["divisor_override"]), dtype=torch.float64)
        rows = replace(rows, labels=lowering.scaled(rows.labels, factor))
    return _result_of_rows(call, rows, [], lowering)


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
    return _results(call, _resample(call, len(call.shape) - 2, lowering).labels, lowering)


def _resample(call: Call, dimensions: int, lowering: Lowering) -> Summed:
    """Pooling: windows where units vary, else any position may read any other."""
    source = next(value for value in call.values() if value.varies)
    axes = [
        axis
        for axis in range(source.labels.ndim - dimensions, source.labels.ndim)
        if not (_kernel_size(call, axis - source.labels.ndim) == 1 and _keeps_size(call, axis))
    ]
    windows = _windows(call, source, axes, lowering)
    if windows is not None:
        layout, sizes = windows
        inner = [*range(source.labels.ndim, source.labels.ndim + len(sizes))]
        divisor = prod(sizes) if "avg" in call.name else None
        rows = reduced_rows(call, source, inner, divisor, lowering, layout)
        labels = rows.labels.squeeze(tuple(inner)).expand(call.shape)
        begun = rows.begun and rows.begun.changed(lambda t: t.squeeze(tuple(inner)))
        return Summed(labels, rows.is_layer, begun)
    nodes = lowering.builder.num_nodes
    merged = union_over(call, source.labels, axes, lowering)
    if lowering.builder.num_nodes > nodes:  # different units met in hubs
        lowering.remark(f"{lowering.site(call)}: a window is taken to read every position", "bound")
        lowering.uncertain(call, "which positions a window reads")
    if call.name in MAXIMA:
        merged = lowering.counted("pooling", call, merged)
    return Summed(merged.expand(call.shape))


def _windows(
    call: Call, source: Value, axes: list[int], lowering: Lowering
) -> tuple[Layout, list[int]] | None:
    """Lays out each window of a pooling, on an axis more for each axis on which units vary.

    Returns:
        The layout, and the sizes of the new axes. None where units vary on no axis, or windows are
        of other kinds (adaptive, dilated, ceiled).
    """
    dimensions, several = source.labels.ndim, lowering.variants.of(source) is not None
    varying = [a for a in axes if not is_position_axis(source.labels, a)]
    read = axes if several and varying else varying
    sizes, steps, borders = list[int](), list[int](), [0] * (2 * dimensions)
    for axis in read:
        place = axis - dimensions
        size, padding = _kernel_size(call, place), _setting(call, "padding", place)
        if size is None or padding is None or _setting(call, "dilation", place) not in (None, 1):
            return None
        step = _setting(call, "stride", place) or size
        if (source.shape[axis] + 2 * padding - size) // step + 1 != call.shape[axis]:
            return None
        sizes.append(size)
        steps.append(step)
        borders[-2 * axis - 2] = borders[-2 * axis - 1] = padding

    def layout(tensor: torch.Tensor) -> torch.Tensor:
        missing = 0 if tensor.is_floating_point() else CONSTANT
        small = compact(tensor, [a for a in range(dimensions) if a not in read])
        small = torch.nn.functional.pad(small, borders, value=missing)
        for axis, size, step in zip(read, sizes, steps, strict=True):
            small = small.unfold(axis, size, step)
        return small.expand(*call.shape, *sizes)

    return (layout, sizes) if read else None


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
