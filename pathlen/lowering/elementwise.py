"""Elementwise operations: passes, activations and merges."""

import numpy as np
import torch

from pathlen.lowering.activity import active_functions
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    collapse,
    compact,
    constant_labels,
    distinct_tuples,
    sets_of_rows,
)
from pathlen.lowering.operations import aten
from pathlen.lowering.regions import (
    SUMS,
    degree_of_call,
    find_region,
    flattened_summands,
    softmax_entry,
    varying_operands,
)
from pathlen.lowering.rules import rule
from pathlen.lowering.values import Call, Value

_PRODUCTS = frozenset(aten("mul multiply div divide true_divide"))
_EXTREMES = frozenset(aten("maximum minimum max min fmax fmin"))


@rule(
    "elementwise",
    "elementwise",  # the name under which pointwise operators find this rule
    "aten.max.other",
    "aten.min.other",
    *aten(
        "hardswish prelu log_sigmoid rsub true_divide multiply subtract divide special_expit"
        " dropout feature_dropout alpha_dropout feature_alpha_dropout"
        " alias contiguous to _to_copy type_as detach where lift_fresh_copy nan_to_num"
        " __and__ __or__ __xor__"
    ),
)
def elementwise(call: Call, lowering: Lowering) -> Value:
    """Each element of the result is a function of one element of each operand.

    A call that ends a region of one entry is a pass or an activation of the entry; otherwise one
    path operand makes it a pass or an activation of that, and several make it a merge.
    """
    varying = varying_operands(call)
    path = [value for value in varying if value.is_path]
    if not path or not _keeps_paths(call, path):
        return lowering.result(call, constant_labels(call.shape))
    region = find_region(call)
    if region is not None:
        if region.affine:
            return _normalization(call, region.entry, lowering)
        return _activation(call, region.entry, lowering)
    if len(path) == 1:  # the others are masks made from elsewhere: they only choose elements
        if degree_of_call(call, path[0], {}) in (0, 1) or len(varying) > 1:
            return lowering.result(call, broadcast(path[0].labels, call.shape), softmax_of=path[0])
        return _activation(call, path[0], lowering)
    return _merge(call, path, lowering)


def _keeps_paths(call: Call, path: list[Value]) -> bool:
    """Comparisons and casts from floating point to integers cut; integer arithmetic does not."""
    output = call.output
    if output.is_floating_point() or output.is_complex():
        return True
    return output.dtype != torch.bool and not any(value.dtype.is_floating_point for value in path)


def _normalization(call: Call, entry: Value, lowering: Lowering) -> Value:
    """The end of an affine region: a scaling, a normalization or a softmax written out."""
    source = softmax_entry(call, entry)
    if source is not None:
        labels = lowering.counted("softmax", call, broadcast(source.labels, call.shape))
        return lowering.result(call, labels, softmax=True)
    return lowering.result(call, broadcast(entry.labels, call.shape), softmax_of=entry)


def _activation(call: Call, entry: Value, lowering: Lowering) -> Value:
    """One new unit per label of the entry, and per parameter index where parameters split it."""
    labels = broadcast(entry.labels, call.shape)
    active = active_functions(call, entry, lowering.constants, lowering.policy.tolerance)
    if active is None:
        lowering.remark(
            f"{lowering.site(call)}: parameters without values (meta device); units taken as active"
        )
        active = torch.ones((), dtype=torch.bool)
    return lowering.result(call, activation_units(call, labels, active, lowering))


def activation_units(
    call: Call, labels: torch.Tensor, active: torch.Tensor, lowering: Lowering
) -> torch.Tensor:
    """Adds the units of an activation site; returns the labels of its result.

    Args:
        call: the call site.
        labels: of its input, in the shape of the result.
        active: for each parameter index, in a shape that broadcasts to the result's.
        lowering: the lowering at work.
    """
    flags = active.reshape(-1).numpy().astype(np.float64)
    index = torch.arange(active.numel()).view(active.shape)
    columns = [labels, broadcast(index, call.shape)] if active.numel() > 1 else [labels]
    tuples, number = distinct_tuples(columns)
    rows = tuples[:, 0] != CONSTANT
    lowering.layer(call)
    activity = flags[tuples[rows, 1]] if active.numel() > 1 else flags[0]
    if not lowering.policy.counts("activation"):
        activity = 0.0
    return spread(lowering.builder.units(tuples[rows, 0], activity), rows, number)


def _merge(call: Call, path: list[Value], lowering: Lowering) -> Value:
    """One new unit per distinct tuple of labels, with those labels as predecessors."""
    summing = call.name in SUMS
    if summing:
        path = flattened_summands(path, lowering.readers)
    kind = "product" if call.name in _PRODUCTS else "pooling" if call.name in _EXTREMES else ""
    labels = merge_labels(call, path, lowering, counted=bool(kind) and lowering.policy.counts(kind))
    value = lowering.result(call, labels)
    value.summands = tuple(path) if summing else ()
    return value


def merge_labels(
    call: Call, operands: list[Value], lowering: Lowering, *, counted: bool = False
) -> torch.Tensor:
    """Adds the units of a merge; returns the labels of its result."""
    columns = [broadcast(operand.labels, call.shape) for operand in operands]
    return merge_columns(call, columns, lowering, counted=counted)


def merge_columns(
    call: Call, columns: list[torch.Tensor], lowering: Lowering, *, counted: bool = False
) -> torch.Tensor:
    """`merge_labels` for label tensors of one shape."""
    tuples, number = distinct_tuples(columns)
    sets = sets_of_rows(tuples)
    rows = sets.sizes > 0
    if (sets.sizes < 2).all() and not counted:  # nothing meets: a pass
        return spread(sets.members, rows, number)
    lowering.layer(call)
    alive = LabelSets(sets.members, sets.sizes[rows])
    return spread(lowering.builder.merges(alive, float(counted)), rows, number)


def spread(units: np.ndarray, rows: np.ndarray, number: torch.Tensor) -> torch.Tensor:
    """Labels of a tensor whose elements hold numbers of rows, of which some became units."""
    of_row = np.full(len(rows), CONSTANT, dtype=np.int64)
    of_row[rows] = units
    return collapse(torch.from_numpy(of_row)[compact(number)].expand(number.shape))
