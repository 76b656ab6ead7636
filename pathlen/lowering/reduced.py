"""Rows of a tensor that are reduced: hubs over their units, layers where they are several sums."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    compact,
    constant_labels,
    distinct,
    distinct_tuples,
    is_position_axis,
    label_sets,
)
from pathlen.lowering.magnitudes import factors_of
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.several import Begun, Layout, Several, of_rows
from pathlen.lowering.values import Call, Value
from pathlen.lowering.variants import varying_axes
from pathlen.lowering.weighted_merges import function_units, summed_over

MAXIMA = frozenset(
    aten(
        "amax amin max min max_pool1d max_pool2d max_pool3d adaptive_max_pool1d"
        " adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices"
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Summed:
    """The rows of a tensor, reduced.

    Attributes:
        labels: of the result; the axes that were reduced have length 1.
        is_layer: whether it is a linear layer.
        begun: what is known of the result beside its labels.
    """

    labels: torch.Tensor
    is_layer: bool = False
    begun: Begun | None = None


def reduced_rows(
    call: Call,
    source: Value,
    axes: list[int],
    divisor: float | None,
    lowering: Lowering,
    layout: Layout | None = None,
) -> Summed:
    """Rows of a tensor as units: a hub over each, and a unit for each of several functions of one.

    So a sum of products with constants that differ along an axis along which what is summed is
    repeated is a linear layer.

    Args:
        call: a sum, or another reduction.
        source: what is reduced.
        axes: along which the rows lie.
        divisor: 1 for a sum, the number of elements for a mean, None for what is neither.
        lowering: the lowering at work.
        layout: lays out something of each element so that rows lie along the axes, CONSTANT or 0
            where a row has no element; None where they do.
    """
    laid_out = source.labels if layout is None else layout(source.labels)
    merged = union_over(call, laid_out, axes, lowering, divisor)
    if call.name in MAXIMA:
        merged = lowering.counted("pooling", call, merged)
    mixes_positions = all(is_position_axis(laid_out, axis) for axis in axes)
    if divisor is None and lowering.weights is not None and not mixes_positions:
        return Summed(merged)
    constants = lowering.constants
    several = of_rows(source, axes, lowering.variants, constants, layout)
    if several is None or several.functions is None:
        return _summed(merged, several, lowering)
    if divisor is None and mixes_positions:
        return Summed(merged, begun=several.each(merged.shape).by_units(lowering.roots(merged)))
    functions = several.functions.expand(merged.shape)
    labels = lowering.unified(laid_out)
    mixes_positions = all(is_position_axis(labels, axis) for axis in axes)
    mixes_positions = mixes_positions and len(distinct(labels)) > 1
    if mixes_positions and several.begun.variants is not None:
        return _summed(merged, several, lowering)  # each is the same function at all positions
    if lowering.weights is None:
        shared = [] if mixes_positions else _axes_without_weights(source, axes)
        hubs = union_over(call, laid_out, [*axes, *shared], lowering).expand(merged.shape)
    else:
        hubs = lowering.weights.scales.roots(merged)
    tuples, spread = distinct_tuples([hubs, functions])
    has_units = tuples[:, 0] != CONSTANT
    read = tuples[has_units, 0]
    if len(np.unique(read)) == len(read):
        return _summed(merged, several, lowering)  # one function of each
    lowering.layer(call)
    if mixes_positions:
        read, unit = np.unique(tuples[:, 0], return_inverse=True)  # positions are mixed
        read, unit = read[read != CONSTANT], unit - np.count_nonzero(read == CONSTANT)
    else:
        unit = np.where(has_units, np.cumsum(has_units) - 1, CONSTANT)
    if lowering.weights is None:
        units = lowering.builder.units(np.ascontiguousarray(read))
    else:
        assert divisor is not None, "edges carry weights in sums"
        factors = factors_of(source, lowering.weights.scales, constants)
        roots = lowering.weights.scales.roots(source.labels)
        rows = [roots, factors] if layout is None else [layout(roots), layout(factors)]
        units = function_units(call, rows, axes, spread(unit), divisor, lowering)
    made = spread(np.append(units, CONSTANT)[unit])  # CONSTANT is -1: the last entry
    begun = None if mixes_positions else several
    return replace(_summed(made, begun, lowering), is_layer=True)


def _summed(labels: torch.Tensor, several: Several | None, lowering: Lowering) -> Summed:
    if several is None:
        return Summed(labels)
    return Summed(labels, begun=several.begun.by_units(lowering.roots(labels)))


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
    return over_rows(labels, axes, lambda rows: _hubs_over(call, rows, lowering))


def _hubs_over(call: Call, rows: np.ndarray, lowering: Lowering) -> np.ndarray:
    sets, of_row = label_sets(rows)
    if (sets.sizes > 1).any():
        lowering.layer(call)
    hubs = np.append(lowering.builder.hubs(sets), CONSTANT)  # CONSTANT is -1: the last entry
    united: np.ndarray = hubs[of_row]
    return united


def over_rows(
    labels: torch.Tensor, axes: Iterable[int], unite: Callable[[np.ndarray], np.ndarray]
) -> torch.Tensor:
    """Labels with the given axes cut to length 1: one node for the labels along these.

    Args:
        labels: of a tensor.
        axes: to be cut.
        unite: gives the node of each row of labels, where they vary.
    """
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
    united = unite(rows.reshape(-1, int(np.prod([small.shape[a] for a in varying]))).numpy())
    shape = [1 if axis in varying else small.shape[axis] for axis in range(labels.ndim)]
    sizes = [1 if axis in axes else labels.shape[axis] for axis in range(labels.ndim)]
    return torch.from_numpy(united).view(shape).expand(sizes)
