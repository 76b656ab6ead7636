"""Layers with explicit edges, one for each unit read and output feature that a weight connects.

An edge weighs what one element of the output takes from all elements of the unit together: the sum
of the absolute weights, over kernel positions and over all features that are of the unit, and the
largest such sum where elements of the output differ.
"""

from collections.abc import Callable

import numpy as np
import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    compact,
    distinct,
    labels_of_features,
    rename,
)
from pathlen.lowering.layer_weights import absolute, kernel_sums, weights_of
from pathlen.lowering.values import Call
from pathlen.lowering.weighted_builder import WeightedBuilder

Matrix = Callable[[], torch.Tensor | None]
"""Gives the weights of a layer, [positions, features out, features in]; None if they vary."""


def dense_units(
    call: Call,
    labels: torch.Tensor,
    axis: int,
    features: torch.Size,
    matrix: Matrix,
    lowering: Lowering,
    mixes_positions: bool,
    functions: torch.Tensor | None = None,
) -> torch.Tensor:
    """`layers.dense_layer` with explicit edges; the same units.

    Args:
        call: the call site.
        labels: of the input.
        axis: the axis that is contracted; the output features take its place.
        features: their number.  # (1,)
        matrix: gives the weights.
        lowering: the lowering at work.
        mixes_positions: whether the axis is one of positions.
        functions: see `layers.dense_layer`.
    """
    assert lowering.weights is not None
    shape = torch.Size([*labels.shape[:axis], *features, *labels.shape[axis + 1 :]])
    structure = lowering.unified(labels)
    read = distinct(structure)
    weight = matrix()
    lowering.layer(call)
    if mixes_positions:
        row_sum = 1.0 if weight is None else float(absolute(weight).sum(-1).amax())
        units = lowering.weights.units(read, weights=row_sum)
        return rename(compact(structure), read, units).expand(shape)
    if functions is None:
        rows = compact(labels, [a for a in range(labels.ndim) if a != axis]).movedim(axis, -1)
        slices = rows.reshape(1, -1, labels.shape[axis]).numpy()
    else:
        slices = labels.movedim(axis, -1).reshape(-1, labels.shape[axis]).numpy()
        number = functions.expand([*labels.shape[:axis], 1, *labels.shape[axis + 1 :]])
        slices = slices[members_of(number.reshape(-1).numpy())]
    if weight is None:
        weight = torch.ones(1, *features, labels.shape[axis])
    weight = weight.expand(len(slices), *weight.shape)
    nodes = grouped_units(call, slices, weight, lowering)
    return labels_of_features(nodes.reshape(-1), functions, shape, axis)


def members_of(group: np.ndarray) -> np.ndarray:
    """The indices that are of each group, the first repeated where others have more.

    Args:
        group: of each index.  # (indices,)

    Returns:
        # (groups, most members)
    """
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    places = np.arange(sizes.max())
    members: np.ndarray = order[starts[:, None] + np.where(places < sizes[:, None], places, 0)]
    return members


def grouped_units(
    call: Call, slices: np.ndarray, weight: torch.Tensor, lowering: Lowering
) -> np.ndarray:
    """Adds the units of a layer of groups, each of which has weights of its own.

    Args:
        call: the call site.
        slices: the labels of the features that a group reads, at one or several places.
            # (groups, places, features in)
        weight: # (groups, positions, features out, features in)
        lowering: the lowering at work.

    Returns:
        The units, `CONSTANT` in groups of constants.  # (groups, features out)
    """
    builder = lowering.weights
    assert builder is not None
    groups, features = len(slices), weight.shape[2]
    width = slices.shape[2] if slices.shape[1] == 1 else len(np.unique(slices))
    scratch = 8 * (2 * weight.numel() + groups * features * width)
    builder.require(lowering.site(call), 0, scratch)
    dense = absolute(weight).numpy()
    at_once = _read_once(slices, dense, builder)
    if at_once is not None:
        read, matrices = list(at_once[0]), list(at_once[1])
    else:
        found = [_matrix(slices[g], dense[g], builder) for g in range(groups)]
        read, matrices = [f[0] for f in found], [f[1] for f in found]
    del dense
    alive = [g for g in range(groups) if len(read[g])]
    nodes = np.full((groups, features), CONSTANT, dtype=np.int64)
    if not alive:
        return nodes
    edges = sum(int(np.count_nonzero(matrices[g])) for g in alive)
    builder.require(lowering.site(call), edges, scratch)
    rows = [_sparse(read[g], matrices[g]) for g in alive]
    sizes = np.array([len(read[g]) for g in alive], dtype=np.int64)
    reads = LabelSets(_joined([read[g] for g in alive]), sizes)
    degrees, predecessors, weights = (_joined(list(part)) for part in zip(*rows, strict=True))
    of_group = np.repeat(np.arange(len(alive)), features)
    units = builder.layer_units(degrees, predecessors, weights, reads, of_group)
    nodes[alive] = units.reshape(-1, features)
    return nodes


def convolution_nodes(call: Call, axis: int, lowering: Lowering) -> np.ndarray:
    """The units of a convolution by constant weights, channel by channel.

    Args:
        call: the call site.
        axis: the axis of the channels.
        lowering: the lowering at work.

    Returns:
        # (channels out,)
    """
    groups, labels = call["groups"], call["input"].labels
    weight = weights_of(call, call["weight"], lowering)
    small = compact(labels, [a for a in range(labels.ndim) if a != axis]).movedim(axis, -1)
    slices = small.reshape(-1, groups, labels.shape[axis] // groups).transpose(0, 1).numpy()
    if weight is None:
        kernel = torch.ones(groups, call.shape[axis] // groups, slices.shape[2])
    else:
        kernel = kernel_sums(call, weight, labels.shape[axis + 1 :], call.shape[axis + 1 :])
    lowering.layer(call)
    if slices.shape[1] > 1 and weight is not None and weight[0, 0].numel() > 1:
        lowering.uncertain(call, "which kernel positions meet units that differ by position")
    return grouped_units(call, slices, kernel.unsqueeze(1), lowering).reshape(-1)


def bilinear_units(call: Call, lowering: Lowering) -> np.ndarray:
    """The units of a bilinear layer of two path tensors: each reads a hub of its own over each.

    Args:
        call: the call site.
        lowering: the lowering at work.

    Returns:
        # (features out,)
    """
    builder, features = lowering.weights, call.shape[-1]
    assert builder is not None
    found = weights_of(call, call["weight"], lowering)
    if found is None:
        found = torch.ones(call["weight"].shape)
    lowering.by_data()
    hubs: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    for name, others in (("input1", 2), ("input2", 1)):
        labels = compact(call[name].labels, range(len(call[name].shape) - 1))
        slices = labels.reshape(-1, labels.shape[-1]).numpy()
        builder.require(lowering.site(call), features * len(np.unique(slices)))
        weight = absolute(found).sum(others).unsqueeze(0)
        nodes, matrix = _matrix(slices, weight.numpy(), builder)
        before = hubs.get(nodes.tobytes(), (nodes, 0.0))[1]
        hubs[nodes.tobytes()] = nodes, before + matrix
    columns = [
        builder.hubs(
            LabelSets(np.tile(nodes, features), np.full(features, len(nodes))), matrix.reshape(-1)
        )
        for nodes, matrix in hubs.values()
    ]
    rows = np.stack(columns, axis=1)
    counted = float(lowering.policy.counts("product"))
    return builder.merges(LabelSets(rows.reshape(-1), np.full(features, len(columns))), counted)


def _read_once(
    slices: np.ndarray, dense: np.ndarray, builder: WeightedBuilder
) -> tuple[np.ndarray, np.ndarray] | None:
    """The common case, for all groups at once: at one place, each feature a unit of its own.

    Returns:
        The nodes read, ascending, and their weights; None where the case is another.
        # (groups, features in), (groups, features out, features in)
    """
    if slices.shape[1] != 1 or dense.shape[1] != 1 or (slices == CONSTANT).any():
        return None
    roots, factors = builder.scales.split(slices[:, 0])
    if (roots[:, 1:] <= roots[:, :-1]).any():
        return None
    matrices = dense[:, 0]
    return roots, matrices if (factors == 1).all() else matrices * factors[:, None, :]


def _matrix(
    slices: np.ndarray, dense: np.ndarray, builder: WeightedBuilder
) -> tuple[np.ndarray, np.ndarray]:
    """The weights from every node that one group reads to every feature that it writes.

    Args:
        slices: # (places, features in)
        dense: absolute weights.  # (positions, features out, features in)
        builder: knows which nodes the labels stand for.

    Returns:
        The nodes, ascending.  # (nodes,), (features out, nodes)
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for labels in np.unique(slices, axis=0) if len(slices) > 1 else slices:
        there = np.flatnonzero(labels != CONSTANT)
        roots, factors = builder.scales.split(labels[there])
        order = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(roots[order]) > 0)[: len(order)])
        if not len(starts):
            continue
        terms = dense[:, :, there[order]] * factors[order]
        sums = np.add.reduceat(terms, starts, axis=2)
        parts.append((roots[order][starts], sums.max(axis=0)))
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty((dense.shape[1], 0))
    if len(parts) == 1:
        return parts[0]
    nodes = np.unique(np.concatenate([roots for roots, _ in parts]))
    largest = np.zeros((dense.shape[1], len(nodes)))
    for roots, sums in parts:
        place = np.searchsorted(nodes, roots)
        largest[:, place] = np.maximum(largest[:, place], sums)
    return nodes, largest


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _sparse(nodes: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Degrees of the rows of a matrix, and node and weight of each entry that is not 0."""
    there = matrix != 0
    if not len(nodes) or nodes[-1] < 1 << 31:
        nodes = nodes.astype(np.int32)
    predecessors = np.broadcast_to(nodes, matrix.shape)[there]
    return there.sum(axis=1), predecessors, matrix[there]
