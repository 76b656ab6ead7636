"""Operations in which every element along some axes may reach every other along them."""

from collections.abc import Iterable

import numpy as np
import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_labels
from pathlen.lowering.labels import (
    CONSTANT,
    collapse,
    compact,
    constant_labels,
    distinct_tuples,
    is_position_axis,
    one_along,
)
from pathlen.lowering.operations import aten
from pathlen.lowering.reduced import reduced_rows, union_over
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.several import Begun, Layout
from pathlen.lowering.values import Call, Value

_MOST_BEFORE = 1 << 24  # elements in all sets of elements up to each


def mixed(
    call: Call,
    source: Value,
    axes: Iterable[int],
    lowering: Lowering,
    divisor: float | None = None,
) -> torch.Tensor:
    """Labels of a result that reads, along `axes`, any element of `source`.

    Args:
        call: the call site; its result has the axes of `source`, some with other sizes.
        source: the tensor that is read.
        axes: what is mixed: over features a hub, over positions the same units.
        lowering: the lowering at work.
        divisor: see `union_over`.
    """
    axes = [axis % max(source.labels.ndim, 1) for axis in axes]
    return first_of(call, union_over(call, source.labels, axes, lowering, divisor), axes)


def first_of(call: Call, merged: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """Labels of which some axes were cut to length 1, in the shape of a result."""
    for axis, size in enumerate(call.shape):  # a gather may read fewer elements of other axes
        if axis not in axes and merged.shape[axis] > size:
            merged = merged.narrow(axis, 0, size)
    return merged.expand(call.shape)


def ordered_along(
    call: Call, source: Value, axis: int, lowering: Lowering, *, counted: str = ""
) -> torch.Tensor:
    """Labels of elements in an order along an axis that the inputs decide on.

    Over positions the same units; over features a unit for each place, behind a hub over all of
    them: the smallest, the second smallest and so on are several functions.

    Args:
        call: the call site.
        source: the tensor that is read.
        axis: along which the order is.
        lowering: the lowering at work.
        counted: the kind of nonlinearity that the units are, if any.
    """
    labels = mixed(call, source, [axis], lowering)
    if not call.shape.numel() or one_along(lowering.unified(source.labels), [axis]) is not None:
        return labels
    along = [-1 if a == axis else 1 for a in range(labels.ndim)]
    place = torch.arange(call.shape[axis]).view(along).expand(call.shape)
    tuples, spread = distinct_tuples([labels, place])
    read = tuples[:, 0] != CONSTANT
    units = np.full(len(tuples), CONSTANT)
    lowering.layer(call)
    activity = float(bool(counted) and lowering.policy.counts(counted))
    units[read] = lowering.builder.units(tuples[read, 0], activity)
    return spread(units)


@rule("reduction", *aten("sort topk msort"))
def ordering(call: Call, lowering: Lowering) -> Result:
    """Values in another order: which element comes where depends on the data; indices cut.

    Only the largest few are no order but a choice: any of them, behind one hub.
    """
    source = call["self"]
    if not source.labels.ndim:
        return _with_indices(call, source.labels, lowering)
    axis = call.arguments.get("dim", 0) % source.labels.ndim
    if call.shape[axis] < source.shape[axis]:
        labels = mixed(call, source, [axis], lowering)
    else:
        labels = ordered_along(call, source, axis, lowering, counted="pooling")
    return _with_indices(call, labels, lowering)


@rule("reduction", *aten("median nanmedian mode kthvalue"))
def order_statistic(call: Call, lowering: Lowering) -> Result:
    """One of the elements along an axis, or of all: the same units, a hub over features."""
    source, axis = call["self"], call.arguments.get("dim")
    axes = range(source.labels.ndim) if axis is None else [axis % max(source.labels.ndim, 1)]
    merged = union_over(call, source.labels, axes if source.labels.ndim else [], lowering)
    if not call.arguments.get("keepdim"):
        merged = merged.squeeze(tuple(axes)) if source.labels.ndim else merged
    return _with_indices(call, merged.expand(call.shape), lowering)


@rule("reduction", *aten("quantile nanquantile"))
def quantile(call: Call, lowering: Lowering) -> Result | None:
    """As an order statistic; several of them at once are written out."""
    several = isinstance(call["q"], Value) and call["q"].shape.numel() != 1
    if several or len(call.shape) > len(call["self"].shape):
        return None
    return order_statistic(call, lowering)


@rule("reduction", *aten("cumsum cumprod logcumsumexp cummax cummin"))
def cumulative(call: Call, lowering: Lowering) -> Result:
    """Over positions the same units; over features a hub over each and those before it.

    Constants beside a unit (a padded end) make no features of positions.
    """
    source = call["self"]
    if not source.labels.ndim:
        return _with_indices(call, source.labels, lowering)
    axis = call["dim"] % source.labels.ndim
    divisor = 1.0 if call.name == "aten.cumsum" else None
    if source.labels.numel():
        unit = one_along(source.labels, [axis])
        if unit is not None:
            return _with_indices(call, collapse(unit.expand(call.shape)), lowering)
    layout = _up_to_each(source, axis, lowering)
    if layout is not None:
        inner = source.labels.ndim
        rows = reduced_rows(call, source, [inner], divisor, lowering, layout)
        return _with_indices(call, rows.labels.squeeze(-1), lowering, rows.begun)
    nodes = lowering.builder.num_nodes
    labels = mixed(call, source, [axis], lowering, divisor)
    if lowering.builder.num_nodes > nodes:  # different units met in hubs
        lowering.remark(f"{lowering.site(call)}: reads those after it too", "bound")
    return _with_indices(call, labels.expand(call.shape), lowering)


def _up_to_each(source: Value, axis: int, lowering: Lowering) -> Layout | None:
    """Lays out, on one axis more, what is up to each index of an axis; None for too many."""
    functions, size = lowering.variants.of(source), source.shape[axis]
    whole = source.shape.numel() if functions is not None else compact(source.labels).numel()
    if size == 1 or whole * size > _MOST_BEFORE or is_position_axis(source.labels, axis):
        return None
    is_before = torch.ones(size, size, dtype=torch.bool).tril()  # (index, those up to it)

    def layout(tensor: torch.Tensor) -> torch.Tensor:
        others = [a for a in range(tensor.ndim) if a != axis]
        along = compact(tensor, others).movedim(axis, -1).unsqueeze(-2)
        missing = 0.0 if tensor.is_floating_point() else CONSTANT
        up_to = torch.where(is_before, along, missing).movedim(-2, axis)
        return up_to.expand(*source.shape, size)

    return layout


def _with_indices(
    call: Call, labels: torch.Tensor, lowering: Lowering, begun: Begun | None = None
) -> Result:
    """The result, with the indices that some operators return beside it."""
    if isinstance(call.node.meta["val"], torch.Tensor):
        result = lowering.result(call, labels)
        if begun is not None:
            result.begun = begun.changed(lambda tensor: tensor.squeeze(-1))
        return result
    indices = constant_labels(call.shape)
    return lowering.result(call, labels), lowering.result(call, indices, dtype=torch.int64)


@rule(
    "layer",
    *aten("fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft"),
    *aten("_fft_r2c _fft_c2c _fft_c2r fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2"),
    *aten("fft_fftn fft_ifftn fft_rfftn fft_irfftn"),
)
def fourier(call: Call, lowering: Lowering) -> Value:
    """Along positions the same units; along features one hub over all of them."""
    source = call["self"]
    chosen = call.arguments.get("dim", -1)
    if chosen is None:  # the n-dimensional transforms: all axes
        chosen = range(source.labels.ndim)
    axes = [chosen] if isinstance(chosen, int) else list(chosen)
    lowering.uncertain(call, "the gain of a Fourier transform")
    return lowering.result(call, mixed(call, source, axes, lowering))


@rule("movement", *aten("grid_sampler grid_sampler_2d grid_sampler_3d"))
def sampling(call: Call, lowering: Lowering) -> Value:
    """Channels read at computed places: the same units. The places are read by interpolation."""
    return read_at(call, call["input"], call["grid"], range(2, len(call.shape)), lowering)


@rule("reduction", "torchvision.roi_align", "torchvision.roi_pool")
def region_pooling(call: Call, lowering: Lowering) -> Result:
    """Channels pooled in boxes of any image: the same units. No gradient reaches the boxes."""
    vals = call.node.meta["val"]
    labels = mixed(call, call["input"], (0, 2, 3), lowering)
    if isinstance(vals, torch.Tensor):
        return lowering.result(call, labels)
    places = constant_labels(vals[1].shape)
    return lowering.result(call, labels), lowering.result(call, places, dtype=vals[1].dtype)


def read_at(
    call: Call, source: Value, places: Value | None, axes: Iterable[int], lowering: Lowering
) -> Value:
    """A result that reads `source` at places along `axes` that were computed from the input.

    Interpolation passes gradients to floating-point places, so that these are predecessors too;
    integer indices cut.
    """
    labels = mixed(call, source, axes, lowering)
    if places is None or not places.is_path or not places.dtype.is_floating_point:
        return lowering.result(call, labels)
    where = union_over(call, places.labels, range(places.labels.ndim), lowering)
    steps = where.reshape([1] * len(call.shape)).expand(call.shape)
    operands = [lowering.result(call, labels), lowering.result(call, steps)]
    return lowering.result(call, merge_labels(call, operands, lowering))
