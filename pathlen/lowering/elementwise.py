"""Elementwise operations: passes, activations and merges."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch

from pathlen.lowering.activity import active_functions, function_without_parameters
from pathlen.lowering.choices import (
    CHOICES,
    LEAVES_OUT,
    chosen_by_weights,
    chosen_labels,
    left_over,
)
from pathlen.lowering.context import Lowering
from pathlen.lowering.factored_sums import factored_sum
from pathlen.lowering.flat import Factor, RegionTerm, Term, flattened, grouped, have_common_origin
from pathlen.lowering.functions import Function, Split, carried, labels_of_entry
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    collapse,
    constant_labels,
    distinct_tuples,
    sets_of_rows,
    true_in_rows,
)
from pathlen.lowering.lookups import is_step
from pathlen.lowering.moving import before_moves
from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.operators import Meeting, adds, has_a_product, inverted, meeting_of
from pathlen.lowering.places import identity
from pathlen.lowering.regions import (
    Region,
    find_region,
    first_entry,
    region_of,
    region_to_exponent,
)
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.several import Several, of_meeting
from pathlen.lowering.states import SUMS, State, is_exponential
from pathlen.lowering.statistics import of_one
from pathlen.lowering.values import Call, Operator, Value, varying_operands
from pathlen.lowering.weighted_merges import (
    factors_of_parts,
    labels_by_function,
    merged_nodes,
    passed,
    remember_terms,
    scaled_operands,
)
from pathlen.lowering.zeros import zeros_of

Passes = Literal["all", "beside constants", "alike", "none"]


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
    if call.name == "aten.lerp":
        call = chosen_by_weights(call, lowering.constants) or call
    varying = varying_operands(call)
    path = [value for value in varying if value.is_path]
    if not path or not _keeps_paths(call, path):
        return lowering.result(call, constant_labels(call.shape))
    if is_exponential(call) and path[0].softmax == "log":
        return _softmax(call, broadcast(path[0].labels, call.shape), lowering)
    meeting = meeting_of(call)
    region = find_region(
        call, varying, lowering.constants, lambda region: not of_one_element(region, lowering)
    )
    if region is not None:
        shifted = _shifted_sum(call, region, lowering)
        if shifted is not None:
            return shifted
        value = scalar_function(region, lowering)
        if meeting is not None and meeting.inverts:
            _remember(value, call, meeting, _flattened(call, meeting, lowering), lowering)
        return value
    if meeting is not None:
        return merged(call, meeting, lowering, tried=True)
    if len(path) == 1:  # the others are masks made from elsewhere: they only choose elements
        return _beside_masks(call, path[0], lowering)
    return _merge(call, path, lowering)


@rule("elementwise", "aten.frexp")
def frexp(call: Call, lowering: Lowering) -> Result:
    """Mantissas are a function of each element; exponents are integers, which carry no path."""
    mantissas = elementwise(call, lowering)
    assert isinstance(mantissas, Value)
    return mantissas, lowering.result(call, constant_labels(call.shape), dtype=torch.int32)


def of_one_element(region: Region, lowering: Lowering) -> bool:
    """Whether what a region takes for a statistic is a function of single elements.

    Beside constants and other functions of the same element: the sum of exp(h) and exp(0).
    """
    numbers = lowering.variants.elements(region.entry) if region.normalization else None
    if numbers is None:
        return False
    flat = numbers.reshape(-1)
    return any(
        of_one(flat, places)
        for state in region.states
        if state is not None and not state.degree
        for places in state.places
    )


def scalar_function(region: Region, lowering: Lowering) -> Value:
    """The result of a region: its entry passed on, or an activation of it."""
    call, entry = region.last, region.entry
    part = region.state.part
    if part == "softmax":
        return _softmax(call, _before_exponential(region, lowering), lowering)
    if not region.affine:
        return _activation(region, lowering)
    if entry.call is not None and call.name in LEAVES_OUT and not region.between:
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


def _shifted_sum(call: Call, region: Region, lowering: Lowering) -> Value | None:
    """A sum with a constant added to it, where that makes a product: h + g + h g + 1."""
    if not (region.affine and adds(call)):
        return None
    entry = before_moves(region.entry)
    if entry.operator != "sum" or not entry.merge:
        return None
    meeting = Meeting("sum", varying_operands(call), (call,))
    return factored_sum(call, meeting, [(v, v) for v in entry.parts], lowering, merged)


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
    if call.name in CHOICES:
        chosen = chosen_labels(call, lowering)
        if chosen is not None:
            return lowering.result(call, chosen)
    if has_a_product(call):
        return _sum_with_a_product(call, lowering)
    columns = scaled_operands(call, path, lowering)
    passes: Passes = "beside constants" if call.name in CHOICES else "none"
    flat = [(value, value) for value in path]
    several = of_meeting(call, "", flat, lowering.variants, lowering.constants)
    labels = merge_columns(call, columns, lowering, passes=passes, several=several)
    return _merge_of(call, labels, several, lowering)


def _merge_of(
    call: Call, labels: torch.Tensor, several: Several | None, lowering: Lowering
) -> Value:
    value = lowering.result(call, labels)
    value.merge = True
    if several is not None:
        value.begun = several.begun.by_units(lowering.roots(labels))
    return value


def _beside_masks(call: Call, value: Value, lowering: Lowering) -> Value:
    """One path tensor passed on: nothing else that the call reads has a path."""
    return lowering.result(call, _chosen_or_passed(call, value, lowering), softmax_of=value)


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


def merged(
    call: Call,
    meeting: Meeting,
    lowering: Lowering,
    *,
    tried: bool = False,
    kept: Collection[int] | None = None,
) -> Value:
    """A sum, product, maximum or minimum of all that meets, in inner ones that it alone reads too.

    Functions of one tensor among the parts meet first, whatever the order.

    Args:
        call: the call.
        meeting: what meets in it.
        lowering: the lowering at work.
        tried: whether it is known that the operands together are no function of one tensor.
        kept: ids of operands that are one part each, of a sum in its canonical form; None of a sum
            as the program has it.
    """
    operator, flat = meeting.operator, _flattened(call, meeting, lowering, kept or ())
    parts = [part for part, _ in flat]
    if operator == "sum" and kept is None:
        found = factored_sum(call, meeting, flat, lowering, merged)
        if found is not None:
            return found
    may_meet = not (tried and len(parts) < 3) and have_common_origin(parts)
    terms: list[Term] = [(part, 1.0) for part in parts]
    if lowering.weights is not None or (may_meet and operator == "sum"):
        factors = factors_of_parts(call, [carrier for _, carrier in flat], lowering)
        terms = [*zip(parts, factors, strict=True)]
    groups: Sequence[Term | RegionTerm] = terms
    if may_meet:
        groups = grouped(call, operator, terms, lowering.constants)
    path = _with_paths(operator, meeting.operands)
    if len(path) == 1 and len(groups) == len(terms):
        value = _beside_masks(call, inverted(path[0]) or path[0], lowering)
    else:
        bringing = _with_paths(operator, parts)
        read = [pair for pair in flat if pair[0] in bringing]
        whole = operator if len(groups) == len(terms) else ""
        several = of_meeting(call, whole, read, lowering.variants, lowering.constants)
        columns = [
            _labels_of_term(call, part, factor, several, lowering)
            for part, factor in groups
            if isinstance(part, Region) or part in bringing
        ]
        labels = _met(call, operator, parts, columns, several, lowering)
        value = _merge_of(call, labels, several, lowering)
    _remember(value, call, meeting, flat, lowering)
    return value


def _with_paths(operator: Operator, parts: Sequence[Value]) -> list[Value]:
    """The parts that bring paths; a factor made from comparisons only chooses, beside others."""
    path = [part for part in parts if part.is_path]
    chosen = [part for part in path if operator == "product" and is_step(part)]
    return [part for part in path if part not in chosen] or path


def _met(
    call: Call,
    operator: Operator,
    parts: list[Value],
    columns: list[torch.Tensor],
    several: Several | None,
    lowering: Lowering,
) -> torch.Tensor:
    """Labels of the result where parts meet, of which columns are the labels."""
    if operator == "sum":
        return merge_columns(call, columns, lowering, several=several)
    counted = lowering.policy.counts("product" if operator == "product" else "pooling")
    passes: Passes = "none"
    if operator == "product":
        lowering.by_data()
        if not any(map(inverted, parts)):
            passes = "beside constants"
        columns = _without_zeros(call, parts, columns, lowering)
    elif not counted:
        passes = "alike"  # the largest of a unit at several positions, as a pooling has it
    return merge_columns(call, columns, lowering, counted=counted, passes=passes, several=several)


def _without_zeros(
    call: Call, parts: list[Value], columns: list[torch.Tensor], lowering: Lowering
) -> list[torch.Tensor]:
    """Labels of the factors of a product, none where one of them is a zero of the program."""
    factors = [part for part in parts if part.is_path and inverted(part) is None]
    masks = [zeros_of(factor, lowering.constants) for factor in factors]
    found = [broadcast(mask, call.shape) for mask in masks if mask is not None]
    if not found:
        return columns
    zero = collapse(torch.stack(found).any(0))
    return [collapse(torch.where(zero, CONSTANT, column)) for column in columns]


def _flattened(
    call: Call, meeting: Meeting, lowering: Lowering, kept: Collection[int] = ()
) -> list[tuple[Value, Value]]:
    weighted = lowering.weights is not None
    readers, constants = lowering.readers, lowering.constants
    return flattened(call, meeting, readers, constants, weighted=weighted, kept=kept)


def _remember(
    value: Value,
    call: Call,
    meeting: Meeting,
    flat: list[tuple[Value, Value]],
    lowering: Lowering,
) -> None:
    """Keep what a value has met from, for values that it meets further."""
    value.operator = meeting.operator
    value.parts = tuple(part for part, _ in flat)
    carriers = {inverted(part) or part: carrier for part, carrier in flat}
    remember_terms(value, call, carriers, lowering)


def _labels_of_term(
    call: Call,
    part: Value | Region,
    factor: Factor,
    several: Several | None,
    lowering: Lowering,
) -> torch.Tensor:
    value = scalar_function(part, lowering) if isinstance(part, Region) else part
    labels = broadcast(value.labels, call.shape)
    if lowering.weights is None:
        return labels
    size = torch.as_tensor(factor, dtype=torch.float64).abs()
    if several is not None and several.functions is not None:
        return labels_by_function(value, several.functions, lowering, size)
    return lowering.scaled(labels, size)


def _chosen_or_passed(call: Call, value: Value, lowering: Lowering) -> torch.Tensor:
    """Labels of one tensor passed on, without units that a constant mask replaces everywhere."""
    if lowering.weights is None:
        labels, places = broadcast(value.labels, call.shape), lowering.variants.places
        return left_over(call, value, labels, places, lowering.constants)
    region = Region(value, State(1, (identity(value.shape),)), (), (), call)
    return passed(region, lowering)


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
    several: Several | None = None,
) -> torch.Tensor:
    """Adds the units where several label tensors of one shape meet; returns the result's labels.

    Args:
        call: the call site.
        columns: one label tensor an operand.
        lowering: the lowering at work.
        counted: whether the units are nonlinearities.
        passes: which elements of a single unit pass it on: in a sum all (x + x, x + constant), in
            a product those beside constants alone (x * constant, but not x * x), in a maximum
            those beside itself.
        several: the functions of the same elements that meet.
    """
    functions = None if several is None else several.functions
    if functions is None:
        tuples, spread = distinct_tuples([lowering.unified(column) for column in columns])
    else:
        tuples, spread = distinct_tuples([*columns, functions])
        tuples = tuples[:, :-1]
    single_passes: np.ndarray | bool = passes == "all"
    if passes != "all":
        there = true_in_rows(tuples != CONSTANT)
        which = {"beside constants": there == 1, "alike": there == tuples.shape[1]}
        single_passes = which.get(passes, False)
    if lowering.weights is not None:
        return spread(merged_nodes(call, tuples, single_passes, counted, lowering))
    sets = sets_of_rows(tuples)
    passing = (sets.sizes == 1) & single_passes
    nodes = np.full(len(tuples), CONSTANT, dtype=np.int64)
    nodes[passing] = tuples[passing].max(axis=1)
    meeting = (sets.sizes > 0) & ~passing
    if meeting.any():
        members = sets.members[np.repeat(meeting, sets.sizes)]
        lowering.layer(call)
        merged = lowering.builder.merges(LabelSets(members, sets.sizes[meeting]), float(counted))
        nodes[meeting] = merged
    return spread(nodes)
