"""Elementwise operations: passes, activations and merges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pathlen.lowering.activity import active_functions
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    collapse,
    constant_labels,
    distinct_tuples,
    sets_of_rows,
)
from pathlen.lowering.operations import aten
from pathlen.lowering.regions import (
    SUMS,
    Region,
    degree_of_call,
    find_region,
    first_entry,
    flattened_summands,
    varying_operands,
)
from pathlen.lowering.rules import rule
from pathlen.lowering.same_functions import function_numbers, places
from pathlen.lowering.softmax import shift_entry, softmax_entry
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_merges import (
    merged_nodes,
    passed,
    remember_terms,
    scaled_operands,
)

_SCALES = frozenset(aten("mul multiply where"))  # a number beside a unit leaves it as it is
Passes = Literal["all", "beside constants", "none"]
_PRODUCTS = frozenset(aten("mul multiply div divide true_divide"))
_EXTREMES = frozenset(aten("maximum minimum max min fmax fmin"))


@rule(
    "elementwise",
    "elementwise",  # the name under which pointwise operators find this rule
    "aten.max.other",
    "aten.min.other",
    *aten(
        "hardswish prelu log_sigmoid rsub true_divide multiply subtract divide special_expit"
        " leaky_relu"  # torch before 2.13 does not say that it is pointwise
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
    source = softmax_entry(call)
    if source is not None:
        lowering.by_data()
        labels = lowering.counted("softmax", call, broadcast(source.labels, call.shape))
        return lowering.result(call, labels, softmax=True)
    shifted = shift_entry(call)
    if shifted is not None:
        labels = broadcast(shifted.labels, call.shape)
        return lowering.result(call, lowering.counted("normalization", call, labels))
    region = find_region(call)
    if region is not None:
        if region.affine:
            labels = passed(call, region.entry, lowering)
            if region.normalization:
                lowering.by_data()
                labels = lowering.counted("normalization", call, labels)
            return lowering.result(call, labels, softmax_of=region.entry)
        return _activation(call, region, lowering)
    if len(path) == 1:  # the others are masks made from elsewhere: they only choose elements
        if degree_of_call(call, path[0], {}) in (0, 1) or len(varying) > 1:
            return lowering.result(call, passed(call, path[0], lowering), softmax_of=path[0])
        return _activation(call, Region(path[0], False, False), lowering)
    return _merge(call, path, lowering)


def _keeps_paths(call: Call, path: list[Value]) -> bool:
    """Comparisons and casts from floating point to integers cut; integer arithmetic does not."""
    output = call.output
    if output.is_floating_point() or output.is_complex():
        return True
    return output.dtype != torch.bool and not any(value.dtype.is_floating_point for value in path)


def _activation(call: Call, region: Region, lowering: Lowering) -> Value:
    """One new unit per label of the entry, and per parameter index where parameters split it."""
    entry = first_entry(call, region, lowering.readers)
    labels = lowering.unified(broadcast(entry.labels, call.shape))
    active = active_functions(call, entry, lowering.constants, lowering.policy.tolerance)
    if active is None:
        lowering.remark(
            f"{lowering.site(call)}: parameters without values (meta device); units taken as active"
        )
        active = torch.ones((), dtype=torch.bool)
    split = split_units(call, entry, labels, active.shape, lowering.constants)
    value = lowering.result(call, activation_units(call, split, active, lowering))
    value.function_of = entry
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The units of an activation: one for each label and function that meet in an element.

    Attributes:
        entries: of each unit, in order, the label that it reads.
        function: and where its function is, among those laid out flat.
        shape: of the functions; it broadcasts to that of the result.
        labels_of: gives the labels of the result, once the units have ids.
    """

    entries: np.ndarray
    function: np.ndarray
    shape: torch.Size
    labels_of: Callable[[np.ndarray], torch.Tensor]

    def of_units(self, functions: torch.Tensor) -> np.ndarray:
        """Something of each function, in a shape that broadcasts to theirs, by unit."""
        found: np.ndarray = functions.expand(self.shape).reshape(-1).numpy()[self.function]
        return found


def activation_units(
    call: Call, split: Split, active: torch.Tensor, lowering: Lowering
) -> torch.Tensor:
    """Adds the units of an activation site; returns the labels of its result.

    Args:
        call: the call site.
        split: the units.
        active: for each parameter index, in a shape that broadcasts to the result's.
        lowering: the lowering at work.
    """
    lowering.layer(call)
    activity: np.ndarray | float = 0.0
    if lowering.policy.counts("activation"):
        activity = float(active) if active.numel() == 1 else split.of_units(active.double())
    return split.labels_of(lowering.builder.units(split.entries, activity))


def split_units(
    call: Call,
    entry: Value,
    labels: torch.Tensor,
    functions: Sequence[int],
    constants: Constants,
) -> Split:
    """Find the units of an activation.

    Args:
        call: the last call of its functions.
        entry: the tensor that they are functions of.
        labels: of that, in the shape of the result.
        functions: their shape, as the values of their parameters tell them apart.
        constants: gives the parameters.
    """
    split = _split(labels, places(functions))
    if len(np.unique(split.entries)) == len(split.entries):
        return split
    return _split(labels, function_numbers(call, entry, constants, functions))


def _split(labels: torch.Tensor, index: torch.Tensor) -> Split:
    several = index.numel() > 1
    tuples, spread = distinct_tuples(
        [labels, broadcast(index, labels.shape)] if several else [labels]
    )
    rows = tuples[:, 0] != CONSTANT
    function = tuples[rows, 1] if several else np.zeros(np.count_nonzero(rows), dtype=np.int64)

    def labels_of(units: np.ndarray) -> torch.Tensor:
        of_row = np.full(len(tuples), CONSTANT, dtype=np.int64)
        of_row[rows] = units
        return spread(of_row)

    return Split(tuples[rows, 0], function, index.shape, labels_of)


def _merge(call: Call, path: list[Value], lowering: Lowering) -> Value:
    """One new unit per distinct tuple of labels, with those labels as predecessors."""
    if call.name == "aten.where":
        chosen = _chosen(call, lowering)
        if chosen is not None:
            return lowering.result(call, chosen)
    summing = call.name in SUMS
    if summing:
        path = flattened_summands(path, lowering.readers)
    kind = "product" if call.name in _PRODUCTS else "pooling" if call.name in _EXTREMES else ""
    counted = bool(kind) and lowering.policy.counts(kind)
    passes: Passes = "all" if summing else "beside constants" if call.name in _SCALES else "none"
    if lowering.weights is None:
        columns = [broadcast(operand.labels, call.shape) for operand in path]
    else:
        path, columns = scaled_operands(call, path, lowering)
    labels = merge_columns(call, columns, lowering, counted=counted, passes=passes)
    value = lowering.result(call, labels)
    if summing:
        value.summands = tuple(path)
        remember_terms(value, call, lowering)
    elif kind == "product":
        lowering.by_data()
    value.merge = True
    return value


def _chosen(call: Call, lowering: Lowering) -> torch.Tensor | None:
    """Labels of a `where` whose condition is a constant: element by element one of the two."""
    condition = call["condition"]
    if condition.varies:
        return None
    try:
        mask = lowering.constants.of(condition).bool()
    except UnknownConstantError:
        lowering.remark(f"{lowering.site(call)}: its constant mask has no values here", "bound")
        return None
    sides = [call[name] for name in ("self", "other")]
    labels = [broadcast(side.labels, call.shape) for side in sides]
    return collapse(torch.where(mask, labels[0], labels[1]))


def merge_labels(call: Call, operands: list[Value], lowering: Lowering) -> torch.Tensor:
    """Adds the units of a sum of values; returns the labels of its result."""
    columns = [broadcast(operand.labels, call.shape) for operand in operands]
    return merge_columns(call, columns, lowering)


def merge_columns(
    call: Call,
    columns: list[torch.Tensor],
    lowering: Lowering,
    *,
    counted: bool = False,
    passes: Passes = "all",
) -> torch.Tensor:
    """Adds the units where several label tensors of one shape meet; returns the result's labels.

    Args:
        call: the call site.
        columns: one label tensor an operand.
        lowering: the lowering at work.
        counted: whether the units are nonlinearities.
        passes: which elements of a single unit pass it on: in a sum all (x + x, x + constant), in
            a product those beside constants (x * constant, but not x * x).
    """
    tuples, spread = distinct_tuples([lowering.unified(column) for column in columns])
    single_passes: np.ndarray | bool = passes == "all"
    if passes != "all":
        single_passes = (tuples == CONSTANT).any(axis=1) & (passes == "beside constants")
    if lowering.weights is not None:
        return spread(merged_nodes(call, tuples, single_passes, counted, lowering))
    sets = sets_of_rows(tuples)
    passing = (sets.sizes == 1) & single_passes
    nodes = np.full(len(tuples), CONSTANT, dtype=np.int64)
    nodes[passing] = tuples.max(axis=1)[passing]
    meeting = (sets.sizes > 0) & ~passing
    if meeting.any():
        members = sets.members[np.repeat(meeting, sets.sizes)]
        lowering.layer(call)
        merged = lowering.builder.merges(LabelSets(members, sets.sizes[meeting]), float(counted))
        nodes[meeting] = merged
    return spread(nodes)
