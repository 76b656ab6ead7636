"""Passes, merges and sums whose edges carry weights; the nodes are those of connections."""

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
import torch

from pathlen.errors import TraceError
from pathlen.lowering.context import Lowering
from pathlen.lowering.functions import labels_of_entry
from pathlen.lowering.gains import gains, normalization_gain, require_finite, terms
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    compact,
    constant_labels,
    is_position_axis,
    label_sets,
    sets_of_rows,
)
from pathlen.lowering.magnitudes import factors_of
from pathlen.lowering.regions import Region
from pathlen.lowering.values import Call, Value


def passed(region: Region, lowering: Lowering) -> torch.Tensor:
    """Labels of the result of a region that passes its entry on, scaled as it scales."""
    labels = labels_of_entry(region, lowering.constants)
    if lowering.weights is None:
        return labels
    return lowering.scaled(labels, gains(region.last, [region.entry], lowering.constants)[0])


def normalized(call: Call, labels: torch.Tensor, lowering: Lowering) -> torch.Tensor:
    """Labels of the result of a normalization: scaled by its gain, its statistics held fixed."""
    if lowering.weights is None:
        return labels
    if not call.name.startswith("aten."):
        lowering.uncertain(call, "the gain of a normalization of your own")
        return labels
    return lowering.scaled(labels, normalization_gain(call, lowering.constants).abs())


def labels_by_function(
    value: Value,
    functions: torch.Tensor,
    lowering: Lowering,
    factor: torch.Tensor | None = None,
) -> torch.Tensor:
    """Labels of a tensor that holds several functions of its units, each with its own factor.

    Args:
        value: the tensor.
        functions: their numbers, of a shape that the tensor is broadcast to.
        lowering: the lowering at work.
        factor: what it is multiplied by besides, at least 0.
    """
    labels = broadcast(value.labels, functions.shape)
    if lowering.weights is None:
        return labels
    scales = lowering.weights.scales
    factors = broadcast(factors_of(value, scales, lowering.constants), functions.shape)
    if factor is not None:
        factors = compact(factors) * factor
        factors = factors.expand(functions.shape)
    return scales.by_function(labels, factors, functions)


def scaled_operands(call: Call, path: list[Value], lowering: Lowering) -> list[torch.Tensor]:
    """The labels of what merges in a call, scaled as the call scales it."""
    columns = [broadcast(operand.labels, call.shape) for operand in path]
    if lowering.weights is None:
        return columns
    factors = gains(call, path, lowering.constants)
    return [lowering.scaled(own, factor) for own, factor in zip(columns, factors, strict=True)]


def factors_of_parts(call: Call, carriers: list[Value], lowering: Lowering) -> list[torch.Tensor]:
    """What parts are multiplied by in a sum or product, signs included.

    On the meta device, where no edge has a weight, it is 1.

    Args:
        call: the call.
        carriers: of each part, the tensor that has its factor in the call.
        lowering: the lowering at work.

    Raises:
        TraceError: edges have weights, and a factor has no value or is not finite.
    """
    one = torch.ones((), dtype=torch.float64)
    try:
        found = terms(call, carriers, lowering.constants)
    except TraceError:
        if lowering.weights is not None:
            raise
        return [one] * len(carriers)
    factors = [found.get(id(carrier), one) for carrier in carriers]
    if lowering.weights is not None:
        require_finite(call, factors)
    return factors


def remember_terms(
    value: Value, call: Call, carriers: Mapping[Value, Value], lowering: Lowering
) -> None:
    """Keep by which factors a value has its parts in it, for values that it is nested in.

    Args:
        value: the value.
        call: that made it.
        carriers: by part, the tensor that has its factor in the call.
        lowering: the lowering at work.
    """
    if lowering.weights is not None:
        found = terms(call, list(carriers.values()), lowering.constants)
        value.terms = {
            id(part): found[id(carrier)]
            for part, carrier in carriers.items()
            if id(carrier) in found
        }


def merged_nodes(
    call: Call,
    tuples: np.ndarray,
    single_passes: np.ndarray | bool,
    counted: bool,
    lowering: Lowering,
) -> np.ndarray:
    """A node for each tuple of labels that meet; see `elementwise.merge_columns`.

    Args:
        call: the call site.
        tuples: the distinct ones.  # (t, k)
        single_passes: in which tuples a single unit passes on.  # (t,)
        counted: whether the new units are nonlinearities.
        lowering: the lowering at work.

    Returns:
        # (t,)
    """
    assert lowering.weights is not None
    roots, factors = lowering.weights.scales.split(tuples)
    sizes = sets_of_rows(roots).sizes
    passing = (sizes == 1) & single_passes
    nodes = np.full(len(tuples), CONSTANT, dtype=np.int64)
    total = np.where(roots != CONSTANT, factors, 0).sum(axis=1)
    nodes[passing] = lowering.weights.scales.times(roots.max(axis=1)[passing], total[passing])
    meeting = (sizes > 0) & ~passing
    if meeting.any():
        lowering.layer(call)
        rows = tuples[meeting]
        there = rows != CONSTANT
        sets = LabelSets(rows[there], there.sum(axis=1))
        nodes[meeting] = lowering.weights.merges(sets, float(counted))
    return nodes


def summed_over(
    call: Call, labels: torch.Tensor, axes: Iterable[int], divisor: float, lowering: Lowering
) -> torch.Tensor:
    """`reduced.union_over` for a sum of elements, each divided by a number.

    A unit weighs as many divisors as it has elements in the sum; where sums that a hub stands for
    differ in that, the largest number counts.

    Args:
        call: the call site.
        labels: of the tensor that is summed.
        axes: along which it is.
        divisor: 1 for a sum, the number of elements for a mean.
        lowering: the lowering at work.
    """
    assert lowering.weights is not None
    axes = sorted(axes)
    labels = lowering.unified(labels)
    small = compact(labels, axes)
    varying = [axis for axis in axes if small.shape[axis] > 1]
    positions = prod(labels.shape[axis] for axis in axes if axis not in varying)
    if not varying or small.numel() == 0:
        cut = (
            small
            if not varying
            else constant_labels([1 if a in axes else s for a, s in enumerate(labels.shape)])
        )
        return lowering.scaled(cut, torch.tensor(positions / divisor, dtype=torch.float64))
    kept = [axis for axis in range(labels.ndim) if axis not in varying]
    small = compact(small)
    flat = small.permute(*kept, *varying).reshape(-1, prod(small.shape[a] for a in varying))
    sets, of_row = label_sets(flat.numpy())
    if (sets.sizes > 1).any():
        lowering.layer(call)
    counts = _most_elements(flat.numpy(), sets, of_row)
    hubs = np.append(lowering.weights.hubs(sets, counts * positions / divisor), CONSTANT)
    shape = [1 if axis in varying else small.shape[axis] for axis in range(labels.ndim)]
    sizes = [1 if axis in axes else labels.shape[axis] for axis in range(labels.ndim)]
    return torch.from_numpy(hubs[of_row]).view(shape).expand(sizes)


def _most_elements(rows: np.ndarray, sets: LabelSets, of_row: np.ndarray) -> np.ndarray:
    """How often each member of a set occurs in a row of that set, at most.

    Args:
        rows: labels.  # (r, k)
        sets: the distinct sets among the rows.
        of_row: the set of each row, `CONSTANT` for a row of constants.  # (r,)

    Returns:
        # (members of all sets,)
    """
    labels = np.unique(rows)
    place = np.searchsorted(labels, rows) + of_row[:, None] * len(labels)
    counts = np.zeros(len(sets.members))
    number = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    keys = number * len(labels) + np.searchsorted(labels, sets.members)  # ascending
    for row, own in zip(place, rows, strict=True):
        found, times = np.unique(row[own != CONSTANT], return_counts=True)
        at = np.searchsorted(keys, found)
        counts[at] = np.maximum(counts[at], times)
    return counts


def function_units(
    call: Call,
    rows: list[torch.Tensor],
    axes: list[int],
    numbers: torch.Tensor,
    divisor: float,
    lowering: Lowering,
) -> np.ndarray:
    """The units of a sum of products that is a layer, each with an edge for each unit it reads.

    An edge weighs what one element of the sum takes from all elements of the unit together, as in
    `weighted_layers`: the sum of their factors, and the largest such sum among the elements that
    are of one unit.

    Args:
        call: the sum.
        rows: the units of the elements that are added up, and their factors.
        axes: along which they are.
        numbers: which new unit each element of the sum is of, `CONSTANT` for none; the axes have
            length 1.
        divisor: 1 for a sum, the number of elements for a mean.
        lowering: the lowering at work.

    Returns:
        The units, as many as there are numbers.
    """
    builder, (roots, factors) = lowering.weights, rows
    assert builder is not None
    wide = [roots, factors, broadcast(numbers, roots.shape)]
    same = [a for a in range(roots.ndim) if all(is_position_axis(t, a) for t in wide)]
    repeats = prod(roots.shape[axis] for axis in same if axis in axes)
    small = torch.broadcast_tensors(*[compact(tensor, same) for tensor in wide])
    builder.require(lowering.site(call), 0, 40 * small[0].numel())
    kept = [axis for axis in range(roots.ndim) if axis not in axes]
    nodes, terms, unit = (
        tensor.permute(*kept, *axes).reshape(prod(small[0].shape[a] for a in kept), -1).numpy()
        for tensor in small
    )
    there = (nodes != CONSTANT) & (unit != CONSTANT)
    row = np.broadcast_to(np.arange(len(nodes))[:, None], nodes.shape)[there]
    known, node = np.unique(nodes[there], return_inverse=True)
    in_row, place = np.unique(row * len(known) + node, return_inverse=True)
    sums = np.bincount(place, terms[there]) * (repeats / divisor)
    of_row = unit.max(axis=1)[in_row // len(known)]
    edges, place = np.unique(of_row * len(known) + in_row % len(known), return_inverse=True)
    weights = np.zeros(len(edges))
    np.maximum.at(weights, place, sums)
    units, node = np.divmod(edges, len(known))
    count = int(numbers.max()) + 1
    used = weights != 0
    builder.require(lowering.site(call), int(used.sum()), 40 * small[0].numel())
    reads = LabelSets(known[node], np.bincount(units, minlength=count))
    degrees = np.bincount(units[used], minlength=count)
    return builder.layer_units(degrees, known[node[used]], weights[used], reads, np.arange(count))
