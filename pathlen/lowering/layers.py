"""Layers: linear maps of path tensors by constant weights, and look-ups in constant tables."""

import numpy as np
import torch

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    channel_labels,
    compact,
    constant_labels,
    distinct,
    is_position_axis,
    label_sets,
    rename,
)
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import rule
from pathlen.lowering.values import Call, Value


@rule("layer", "aten.linear")
def linear(call: Call, lowering: Lowering) -> Value:
    """One new unit per output feature, behind a hub over the units that the layer reads."""
    _constant_weight(call, "weight", lowering)
    source = call["input"]
    if not source.is_path:  # only the bias or the weight could vary, and those are refused above
        return lowering.result(call, constant_labels(call.shape))
    labels = dense_layer(call, source.labels, len(call.shape) - 1, call.shape[-1:], lowering)
    return lowering.result(call, labels)


def dense_layer(
    call: Call, labels: torch.Tensor, axis: int, features: torch.Size, lowering: Lowering
) -> torch.Tensor:
    """Adds an ungrouped linear map along one axis; returns the labels of its result.

    Along an axis on which units vary, it is a layer: one hub over everything read, one new unit
    per output feature. Along a position axis (token mixing, a graph's adjacency) it mixes
    positions only: one new unit per unit read, as in a depthwise convolution.

    Args:
        call: the call site.
        labels: of the input.
        axis: the axis that is contracted; the output features take its place.
        features: their number.  # (1,)
        lowering: the lowering at work.
    """
    shape = torch.Size([*labels.shape[:axis], *features, *labels.shape[axis + 1 :]])
    read = distinct(labels)
    lowering.layer(call)
    if len(read) > 1 and labels.shape[axis] > 1 and is_position_axis(labels, axis):
        return rename(compact(labels), read, lowering.builder.units(read)).expand(shape)
    hub = lowering.builder.hub(read)
    return channel_labels(lowering.builder.units(np.full(features[0], hub)), shape, axis)


@rule(
    "layer",
    *aten(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"
        " _convolution"
    ),
)
def convolution(call: Call, lowering: Lowering) -> Value:
    """One new unit per output channel, behind one hub per group."""
    _constant_weight(call, "weight", lowering)
    groups, labels = call["groups"], call["input"].labels
    if not call["input"].is_path:
        return lowering.result(call, constant_labels(call.shape))
    axis = labels.ndim - call["weight"].labels.ndim + 1  # 0 for an input without a batch axis
    small = compact(labels, [a for a in range(labels.ndim) if a != axis])
    rows = small.movedim(axis, 0).reshape(groups, -1)  # (groups, what each group reads)
    lowering.layer(call)
    sets, of_group = label_sets(rows.numpy())
    hubs = lowering.builder.hubs(sets)
    alive = of_group != CONSTANT
    channels = call.shape[axis] // groups
    units = lowering.builder.units(np.repeat(hubs[of_group[alive]], channels))
    nodes = np.full((groups, channels), CONSTANT, dtype=np.int64)
    nodes[alive] = units.reshape(-1, channels)
    return lowering.result(call, channel_labels(nodes.reshape(-1), call.shape, axis))


@rule("layer", "aten.embedding")
def embedding(call: Call, lowering: Lowering) -> Value:
    """A look-up in a constant table is a layer from the units of the indices."""
    _constant_weight(call, "weight", lowering)
    indices = call["indices"]
    if not indices.is_path:
        return lowering.result(call, constant_labels(call.shape))
    lowering.layer(call)
    hub = lowering.builder.hub(distinct(indices.labels))
    units = lowering.builder.units(np.full(call.shape[-1], hub))
    return lowering.result(call, channel_labels(units, call.shape, len(call.shape) - 1))


def _constant_weight(call: Call, argument: str, lowering: Lowering) -> None:
    if call[argument].varies or (call.arguments.get("bias") is not None and call["bias"].varies):
        raise UnsupportedOperation(
            f"{lowering.site(call)}: its {argument} or bias is computed from the model's input"
        )
