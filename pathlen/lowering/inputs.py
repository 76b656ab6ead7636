"""Input units: the features that the first layer to read an input tells apart."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import fx

from pathlen.errors import TraceError
from pathlen.lowering.context import Lowering
from pathlen.lowering.input_reads import number_features
from pathlen.lowering.input_walk import Walk
from pathlen.lowering.labels import CONSTANT, channel_labels
from pathlen.lowering.origins import origin_of_input
from pathlen.tracing import Recording


def input_features(
    node: fx.Node,
    recording: Recording,
    input_axis: int | Mapping[str, int] | None,
    lowering: Lowering,
) -> torch.Tensor:
    """The feature that each element of an input belongs to, counted from 0.

    Channels for a convolution, positions along the contracted axis for a linear layer; an integer
    input is one feature, a bool input none (-1). An input that no layer reads has its features
    along the axis of a normalization's parameters, else along axis 1.

    Args:
        node: placeholder of the input.
        recording: the program.
        input_axis: the axis of the features, or a mapping from the names of inputs to axes.
        lowering: takes a remark where no layer tells and the choice matters.

    Raises:
        TraceError: `input_axis` names no axis of the input.
    """
    val = node.meta["val"]
    if val.dtype == torch.bool:
        return torch.full((), CONSTANT).expand(val.shape)
    if not (val.is_floating_point() or val.is_complex()) or val.ndim == 0:
        return torch.zeros((), dtype=torch.int64).expand(val.shape)
    name = node.meta.get("input_name", node.name)
    axis = input_axis.get(name) if isinstance(input_axis, Mapping) else input_axis
    if axis is not None:
        if not -val.ndim <= axis < val.ndim:
            raise TraceError(f"input_axis={axis} does not fit input {name!r} {tuple(val.shape)}")
        return _along(val.shape, axis % val.ndim)
    return _first_read(node, recording, lowering)


def check_input_axis(graph: fx.Graph, input_axis: int | Mapping[str, int] | None) -> None:
    """Raise TraceError if `input_axis` is no axis, or names an input that there is not."""
    axes = input_axis.values() if isinstance(input_axis, Mapping) else (input_axis,)
    for axis in axes:
        if axis is not None and type(axis) is not int:
            raise TraceError(
                f"input_axis takes an axis, or axes by the names of inputs: not {axis!r}"
            )
    if isinstance(input_axis, Mapping):
        nodes = [node for node in graph.nodes if node.op == "placeholder"]
        names = [node.meta.get("input_name", node.name) for node in nodes]
        for name in input_axis:
            if name not in names:
                raise TraceError(
                    f"input_axis names {name!r}, but the inputs are {', '.join(map(repr, names))}"
                )


def _first_read(node: fx.Node, recording: Recording, lowering: Lowering) -> torch.Tensor:
    """Follow an input to the layers that read it; say so where none does."""
    shape = node.meta["val"].shape
    fallback = min(1, len(shape) - 1)
    if shape.numel() == 0:
        return _along(shape, fallback)
    walk = Walk()
    walk.run(recording.graph, recording.attributes, {node: origin_of_input(shape)})
    reads = walk.reads or ([walk.hint] if walk.hint else [])
    if reads:
        return number_features(reads, shape)
    if node.users and shape.numel() > shape[fallback]:
        name = node.meta.get("input_name", node.name)
        lowering.remark(
            f"no layer tells along which axis input {name!r} {tuple(shape)} has its features: taken"
            f" along axis {fallback}; input_axis= says otherwise"
        )
    return _along(shape, fallback)


def _along(shape: torch.Size, axis: int) -> torch.Tensor:
    return channel_labels(np.arange(shape[axis]), shape, axis)
