"""Elementwise operations: passes, activations and merges."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from pathlen.lowering.activity import active_functions, function_without_parameters
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.functions import Function, Split, carried, labels_of_entry
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    collapse,
    compact,
    constant_labels,
    distinct_tuples,
    is_position_axis,
    sets_of_rows,
)
from pathlen.lowering.lookups import is_step
from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.places import identity
from pathlen.lowering.regions import (
    Region,
    find_region,
    first_entry,
    region_of,
    region_to_exponent,
)
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.states import PRODUCTS, SUMS, State, is_exponential
from pathlen.lowering.sums import Factor, RegionTerm, Term, flattened, grouped, have_common_origin
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.weighted_merges import (
    factors_in_sum,
    labels_by_function,
    merged_nodes,
    passed,
    remember_terms,
    scaled_operands,
)
from pathlen.lowering.zeros import zeros_of

_SCALES = frozenset(
    aten("mul multiply where masked_fill")
)  # a number beside a unit leaves it as it is
Passes = Literal["all", "beside constants", "alike", "none"]
_PRODUCTS = frozenset(aten("mul multiply div divide true_divide"))
_EXTREMES = frozenset(aten("maximum minimum max min fmax fmin"))
_FACTORS_OF_SUMS = {
    "aten.lerp": ("weight",),
    "aten.addcmul": ("tensor1", "tensor2"),
    "aten.addcdiv": ("tensor2",),
}
_CHOICES = {"aten.where": "condition", "aten.masked_fill": "mask"}


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
    if is_exponential(call) and path[0].softmax == "log":
        return _softmax(call, broadcast(path[0].labels, call.shape), lowering)
    region = find_region(call, varying, lowering.constants)
    if region is not None:
        return scalar_function(region, lowering)
    if call.name in _PRODUCTS:  # a factor made from comparisons only chooses
        path = [value for value in path if not is_step(value)] or path
    if len(path) == 1:  # the others are masks made from elsewhere: they only choose elements
        return lowering.result(call, _chosen_or_passed(call, path[0], lowering), softmax_of=path[0])
    return _merge(call, path, lowering)


@rule("elementwise", "aten.frexp")
def frexp(call: Call, lowering: Lowering) -> Result:
    """Mantissas are a function of each element; exponents are integers, which carry no path."""
    mantissas = elementwise(call, lowering)
    assert isinstance(mantissas, Value)
    return mantissas, lowering.result(call, constant_labels(call.shape), dtype=torch.int32)


def scalar_function(region: Region, lowering: Lowering) -> Value:
    """The result of a region: its entry passed on, or an activation of it."""
    call, entry = region.last, region.entry
    part = region.state.part
    if part == "softmax":
        return _softmax(call, _before_exponential(region, lowering), lowering)
    if not region.affine:
        return _activation(region, lowering)
    if entry.call is not None and call.name in _CHOICES and not region.between:
        labels = _chosen_or_passed(call, entry, lowering)
    else:
        labels = passed(region, lowering)
    if region.normalization:
        lowering.by_data()
        labels = lowering.counted("normalization", call, labels)
    value = lowering.result(call, labels, softmax_of=None if region.normalization else entry)
    if region.normalization and region.state.places == (identity(call.shape),):
        value.passes = entry if entry.shape == call.shape else None
    if part in ("shifted", "exp"):
        value.softmax = "log" if part == "shifted" else "exp"
    elif value.softmax != "whole":
        value.softmax = ""
    return value


def _keeps_paths(call: Call, path: list[Value]) -> bool:
    """Comparisons and casts from floating point to integers cut; integer arithmetic does not."""
    output = call.output
    if output.is_floating_point() or output.is_complex():
        return True
    return output.dtype != torch.bool and not any(value.dtype.is_floating_point for value in path)


def _softmax(call: Call, labels: torch.Tensor, lowering: Lowering) -> Value:
    """A softmax written out: it passes the units of what was exponentiated."""
    lowering.by_data()
    return lowering.result(call, lowering.counted("softmax", call, labels), softmax="whole")


def _before_exponential(region: Region, lowering: Lowering) -> torch.Tensor:
    """Labels of what a softmax is of: before exponentials and the shift by a maximum."""
    constants = lowering.constants
    if region.entry.softmax == "exp":
        region = region_to_exponent(region, constants) or region
    inner = region.entry
    if inner.call is not None and inner.call.name in SUMS:
        shift = find_region(inner.call, varying_operands(inner.call), constants)
        if shift is not None and shift.affine and shift.normalization:
            between = [*region.between, inner, *shift.between]
            region = region_of(region.last, shift.entry, between, constants) or region
    return labels_of_entry(region, constants)


def _activation(region: Region, lowering: Lowering) -> Value:
    """One new unit per label of the entry, and per parameter index where parameters split it."""
    call, constants = region.last, lowering.constants
    region = first_entry(region, lowering.readers, constants)
    variants = lowering.variants.of(region.entry)
    if variants is None:
        labels = lowering.unified(labels_of_entry(region, constants))
    else:
        labels = labels_by_function(region.entry, variants, lowering)
        labels, variants = (
            carried(region, numbers, call.shape, constants) for numbers in (labels, variants)
        )
    function = Function(region, labels, variants)
    active = _active(region, lowering)
    if active is None:
        lowering.remark(
            f"{lowering.site(call)}: parameters without values (meta device); units taken as active"
        )
        active = torch.ones((), dtype=torch.bool)
    split = function.split(active.shape, constants)
    value = lowering.result(call, activation_units(call, split, active, lowering))
    value.function = function
    if region.state.part == "exp":
        value.softmax = "exp"
    return value


def _active(region: Region, lowering: Lowering) -> torch.Tensor | None:
    """Which functions of a region are active; each function without parameters is tried once."""
    function = function_without_parameters(region)
    known = None if function is None else lowering.activity.get(function)
    if known is None:
        known = active_functions(region, lowering.constants, lowering.policy.tolerance)
        if function is not None and known is not None:
            lowering.activity[function] = known
    return known


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


def _merge(call: Call, path: list[Value], lowering: Lowering) -> Value:
    """One new unit per distinct tuple of labels, with those labels as predecessors."""
    if call.name in _CHOICES and len(path) > 1:
        chosen = _chosen(call, lowering)
        if chosen is not None:
            return lowering.result(call, chosen)
    if adds(call):
        return merged_sum(call, path, lowering, tried=True)
    if call.name in _FACTORS_OF_SUMS:
        return _sum_with_a_product(call, lowering)
    kind = "product" if call.name in _PRODUCTS else "pooling" if call.name in _EXTREMES else ""
    counted = bool(kind) and lowering.policy.counts(kind)
    passes: Passes = "beside constants" if call.name in _SCALES else "none"
    if kind == "pooling" and not counted:
        passes = "alike"  # the largest of a unit at several positions, as a pooling has it
    if lowering.weights is None:
        columns = [broadcast(operand.labels, call.shape) for operand in path]
    else:
        path, columns = scaled_operands(call, path, lowering)
    if call.name in PRODUCTS:
        columns = _without_zeros(call, path, columns, lowering)
    value = lowering.result(
        call, merge_columns(call, columns, lowering, counted=counted, passes=passes)
    )
    if kind == "product":
        lowering.by_data()
    value.merge = True
    return value


def _without_zeros(
    call: Call, operands: list[Value], columns: list[torch.Tensor], lowering: Lowering
) -> list[torch.Tensor]:
    """Labels of the factors of a product, none where one of them is a zero of the program."""
    masks = [zeros_of(operand, lowering.constants) for operand in operands]
    found = [broadcast(mask, call.shape) for mask in masks if mask is not None]
    if not found:
        return columns
    zero = collapse(torch.stack(found).any(0))
    return [collapse(torch.where(zero, CONSTANT, column)) for column in columns]


def _sum_with_a_product(call: Call, lowering: Lowering) -> Value:
    """What `addcmul`, `addcdiv` and `lerp` compute, written in products and sums."""

    def part(func: Any, one: Any, other: Any) -> Value:
        tensors = [v for v in (one, other) if isinstance(v, Value)]
        shape = torch.broadcast_shapes(*(v.shape for v in tensors))
        like = torch.empty(shape, dtype=call.output.dtype, device="meta")
        arguments = {"self": one, "other": other}
        if func in (add, subtract):
            arguments["alpha"] = 1
        made = elementwise(Call(func, operation_name(func), arguments, call.node, like), lowering)
        assert isinstance(made, Value)
        return made

    add, subtract = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor
    multiply, divide = torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor
    if call.name == "aten.lerp":
        product = part(multiply, call["weight"], part(subtract, call["end"], call["self"]))
    else:
        func = multiply if call.name == "aten.addcmul" else divide
        product = part(func, call["tensor1"], call["tensor2"])
        if call["value"] != 1:
            product = part(multiply, product, call["value"])
    return part(add, call["self"], product)


def adds(call: Call) -> bool:
    """Whether a call is a sum of its operands, each times a constant."""
    if call.name in SUMS:
        return True
    names = _FACTORS_OF_SUMS.get(call.name, ())
    return any(not isinstance(call[n], Value) or not call[n].varies for n in names)


def merged_sum(
    call: Call, operands: list[Value], lowering: Lowering, *, tried: bool = False
) -> Value:
    """A sum: of all summands, those of sums inside that nobody else reads included.

    Functions of one tensor among the summands meet first, whatever the order.

    Args:
        call: the sum.
        operands: the path tensors among its operands.
        lowering: the lowering at work.
        tried: whether it is known that the operands together are no function of one tensor.
    """
    flat = flattened(
        call, operands, lowering.readers, lowering.constants, weighted=lowering.weights is not None
    )
    carriers = dict(flat)
    summands = list(carriers)
    may_meet = not (tried and len(summands) < 3) and have_common_origin(summands)
    terms: list[Term] = [(summand, 1.0) for summand in summands]
    if may_meet or lowering.weights is not None:
        factors = factors_in_sum(call, list(carriers.values()), lowering)
        terms = [*zip(summands, factors, strict=True)]
    groups: Sequence[Term | RegionTerm] = terms
    if may_meet:
        groups = grouped(call, terms, lowering.constants)
    columns = [_labels_of_term(call, summand, factor, lowering) for summand, factor in groups]
    value = lowering.result(call, merge_columns(call, columns, lowering))
    value.summands = tuple(summands)
    value.merge = True
    remember_terms(value, call, carriers, lowering)
    return value


def _labels_of_term(
    call: Call, summand: Value | Region, factor: Factor, lowering: Lowering
) -> torch.Tensor:
    value = scalar_function(summand, lowering) if isinstance(summand, Region) else summand
    labels = broadcast(value.labels, call.shape)
    if lowering.weights is None:
        return labels
    return lowering.scaled(labels, torch.as_tensor(factor, dtype=torch.float64).abs())


def _chosen(call: Call, lowering: Lowering) -> torch.Tensor | None:
    """Labels of a `where` whose condition is a constant: element by element one of the two."""
    condition = call[_CHOICES[call.name]]
    if condition.varies:
        return None
    try:
        mask = lowering.constants.of(condition).bool()
    except UnknownConstantError:
        lowering.remark(f"{lowering.site(call)}: its constant mask has no values here", "bound")
        return None
    sides = ("self", "other") if call.name == "aten.where" else ("value", "self")
    labels = [
        broadcast(call[n].labels, call.shape)
        if isinstance(call[n], Value)
        else constant_labels(call.shape)
        for n in sides
    ]
    return collapse(torch.where(mask, labels[0], labels[1]))


def _chosen_or_passed(call: Call, value: Value, lowering: Lowering) -> torch.Tensor:
    """Labels of one tensor passed on, without units that a constant mask replaces everywhere."""
    labels = broadcast(value.labels, call.shape)
    if lowering.weights is not None:
        region = Region(value, State(1, (identity(value.shape),)), (), (), call)
        return passed(region, lowering)
    if call.name not in _CHOICES or call[_CHOICES[call.name]].varies:
        return labels
    try:
        mask = lowering.constants.of(call[_CHOICES[call.name]]).bool()
    except UnknownConstantError:
        return labels
    if call.name == "aten.masked_fill" or call["self"] is not value:
        mask = ~mask
    lead = labels.ndim - mask.ndim
    for axis in range(mask.ndim):  # at some positions is enough: they are one unit
        if mask.shape[axis] > 1 and is_position_axis(labels, lead + axis):
            mask = mask.any(axis, keepdim=True)
    if bool(mask.all()):
        return labels
    small = compact(labels)
    kept = torch.isin(small, small[mask.expand(small.shape)])
    return collapse(torch.where(kept, small, CONSTANT).expand(labels.shape))


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
            a product those beside constants (x * constant, but not x * x), in a maximum those
            beside itself.
    """
    tuples, spread = distinct_tuples([lowering.unified(column) for column in columns])
    single_passes: np.ndarray | bool = passes == "all"
    if passes != "all":
        beside_constants = (tuples == CONSTANT).any(axis=1)
        which = {"beside constants": beside_constants, "alike": ~beside_constants}
        single_passes = which.get(passes, False)
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
