"""Passes, merges and sums whose edges carry weights; the nodes are those of connections."""

from collections.abc import Iterable
from math import prod

import numpy as np
import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.functions import labels_of_entry
from pathlen.lowering.gains import gains, normalization_gain, terms
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    compact,
    constant_labels,
    label_sets,
    sets_of_rows,
)
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


def scaled_operands(
    call: Call, path: list[Value], lowering: Lowering
) -> tuple[list[Value], list[torch.Tensor]]:
    """The operands of a merge, each once, and their labels, scaled as the call scales them."""
    operands = list({id(value): value for value in path}.values())
    factors = gains(call, operands, lowering.constants)
    columns = [broadcast(operand.labels, call.shape) for operand in operands]
    return operands, [
        lowering.scaled(column, factor) for column, factor in zip(columns, factors, strict=True)
    ]


def remember_terms(value: Value, call: Call, lowering: Lowering) -> None:
    """Keep by which factors a sum has its summands in it, for sums that it is nested in."""
    if lowering.weights is not None:
        value.terms = terms(call, value.summands, lowering.constants)


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
    """`reduction.union_over` for a sum of elements, each divided by a number.

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
