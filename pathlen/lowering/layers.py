"""Layers: linear maps of path tensors by weights without a path, and look-ups in tables of these.

Weights may depend on the input all the same: gathered by an index, masked by a comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.contracted import as_pooling
from pathlen.lowering.elementwise import merge_labels
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    channel_labels,
    compact,
    constant_labels,
    distinct,
    is_position_axis,
    label_sets,
    labels_of_features,
    rename,
    sets_of_rows,
)
from pathlen.lowering.layer_weights import looked_up, weights_of
from pathlen.lowering.letters import of_convolution
from pathlen.lowering.lookups import brings_paths
from pathlen.lowering.operations import BAGS, aten
from pathlen.lowering.reduced import union_over
from pathlen.lowering.rules import Result, find_rule, rule
from pathlen.lowering.several import Begun, of_rows
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_layers import Matrix, convolution_nodes, dense_units
from pathlen.lowering.weighted_merges import labels_by_function


def dense_layer(
    call: Call,
    labels: torch.Tensor,
    axis: int,
    features: torch.Size,
    matrix: Matrix,
    lowering: Lowering,
    *,
    is_last: bool = True,
    functions: torch.Tensor | None = None,
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
        matrix: gives the weights, where edges carry them.
        lowering: the lowering at work.
        is_last: whether the axis is the last of the tensor. There a single unit that is repeated
            is taken for features, elsewhere for positions.
        functions: numbers of the functions that the rows along the axis are of the same elements,
            in the shape of the input with an axis of length 1: a layer on each. None for one.
    """
    structure = lowering.unified(labels)
    read = distinct(structure)
    is_same = labels.shape[axis] > 1 and is_position_axis(structure, axis)
    mixes_positions = is_same and (len(read) > 1 or not is_last)
    if lowering.weights is not None:
        return dense_units(
            call, labels, axis, features, matrix, lowering, mixes_positions, functions
        )
    shape = torch.Size([*labels.shape[:axis], *features, *labels.shape[axis + 1 :]])
    lowering.layer(call)
    if mixes_positions:
        return rename(compact(labels), read, lowering.builder.units(read)).expand(shape)
    hub = lowering.builder.hub(read)
    number = 1 if functions is None else int(functions.max()) + 1
    units = lowering.builder.units(np.broadcast_to(hub, number * features.numel()))
    return labels_of_features(units, functions, shape, axis)


@dataclass(frozen=True, slots=True, eq=False)
class RowsRead:
    """What a linear map reads, as rows with the features last.

    Attributes:
        labels: of the rows, one for each function where they are several.
        functions: see `dense_layer`.
        begun: of what each row is, with one feature; None where none is repeated.
    """

    labels: torch.Tensor
    functions: torch.Tensor | None = None
    begun: Begun | None = None

    def begun_of(self, labels: torch.Tensor, lowering: Lowering) -> Begun | None:
        """What is known of a layer on the rows, of which these are the labels."""
        if self.begun is None:
            return None
        wide = self.begun.changed(lambda tensor: tensor.expand(labels.shape))
        return wide.by_units(lowering.roots(labels))


def rows_read(source: Value, axes: Sequence[int], lowering: Lowering) -> RowsRead:
    """The rows that lie along some axes of a tensor."""
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        ordered = tensor.permute(*kept, *axes)
        return ordered.flatten(len(kept)) if axes else ordered.unsqueeze(-1)

    variants, constants = lowering.variants, lowering.constants
    several = of_rows(source, axes, variants, constants, by_layer=True) if axes else None
    if several is None:
        return RowsRead(rows(source.labels))
    labels, functions = source.labels, several.functions
    if functions is not None:
        numbers = variants.of(source)
        assert numbers is not None
        labels = labels_by_function(source, numbers, lowering)
        functions = rows(functions) if bool((functions != functions.min()).any()) else None
    return RowsRead(rows(labels), functions, several.begun.changed(rows))


@rule(
    "layer",
    *aten(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"
        " _convolution"
    ),
)
def convolution(call: Call, lowering: Lowering) -> Value:
    """One new unit per output channel, behind one hub per group."""
    if brings_paths(call["weight"], beside=call["input"]):
        return plus_bias(call, _dynamic_convolution(call, lowering), lowering)
    if not call["input"].is_path:
        return plus_bias(call, lowering.result(call, constant_labels(call.shape)), lowering)
    return plus_bias(call, _convolution(call, lowering), lowering)


def _convolution(call: Call, lowering: Lowering) -> Value:
    groups, labels = call["groups"], call["input"].labels
    axis = _channel_axis(call)
    if _mixes_positions(call, axis, lowering):
        return _along_channels(call, axis, rows_read(call["input"], [axis], lowering), lowering)
    whole = None if of_convolution(call) is None else rows_read(call["input"], [axis], lowering)
    if whole is not None and whole.begun is not None:
        return _along_channels(call, axis, whole, lowering)
    pooling = as_pooling(call, lowering.constants)
    variants = lowering.variants
    if (
        pooling is not None
        and variants.may_repeat(call["input"])
        and variants.of(call["input"]) is not None
    ):
        return _pooled(call, pooling, lowering)
    if lowering.weights is not None:
        units = convolution_nodes(call, axis, lowering)
        return lowering.result(call, channel_labels(units, call.shape, axis))
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


def _pooled(call: Call, pooling: Call, lowering: Lowering) -> Value:
    """A convolution that adds up windows, as the pooling that it is, but for a factor."""
    found = find_rule(pooling.func)
    assert found is not None
    value = found.apply(pooling, lowering)
    assert isinstance(value, Value)
    if lowering.weights is None:
        return value
    number = lowering.constants.one_number(call["weight"])
    assert number is not None
    factor = torch.tensor(abs(number) * call["weight"].shape.numel(), dtype=torch.float64)
    return lowering.result(call, lowering.scaled(value.labels, factor))


def _mixes_positions(call: Call, axis: int, lowering: Lowering) -> bool:
    """Whether a convolution of size 1 has units along other axes than that of its channels.

    It is the linear map along tokens of an MLP-Mixer, which gives it tokens for channels.
    """
    labels = lowering.unified(call["input"].labels)
    if labels.shape[axis] < 2 or not is_position_axis(labels, axis) or call["groups"] > 1:
        return False
    whole = list(call["weight"].shape[2:]) == [1] * (labels.ndim - axis - 1)
    same = call.shape[axis + 1 :] == labels.shape[axis + 1 :]
    return whole and same and len(distinct(labels)) > 1


def _along_channels(call: Call, axis: int, rows: RowsRead, lowering: Lowering) -> Value:
    """A convolution of size 1, as the linear map that it is."""
    is_transposed = "transpose" in call.name or bool(call.arguments.get("transposed"))

    def matrix() -> torch.Tensor | None:
        found = weights_of(call, call["weight"], lowering)
        if found is None:
            return None
        found = found.flatten(1)
        return (found.mT if is_transposed else found).unsqueeze(0)

    last, features = len(call.shape) - 1, call.shape[axis : axis + 1]
    labels = dense_layer(
        call, rows.labels, last, features, matrix, lowering, functions=rows.functions
    )
    value = lowering.result(call, labels.movedim(-1, axis))
    begun = rows.begun_of(labels, lowering)
    value.begun = begun and begun.changed(lambda tensor: tensor.movedim(-1, axis))
    return value


@rule("layer", "aten.embedding")
def embedding(call: Call, lowering: Lowering) -> Value:
    """A look-up in a table of parameters is a layer from the units of the indices.

    A table that comes from the input is read at places, which have no path.
    """
    table = call["weight"]
    if brings_paths(table, beside=call["indices"]):
        rows = union_over(call, table.labels, [0], lowering).squeeze(0)
        return lowering.result(call, rows.expand(call.shape))
    return look_up(call, call["indices"], call["weight"], lowering)


@rule("layer", *BAGS)
def embedding_bag(call: Call, lowering: Lowering) -> Result | None:
    """Sums of rows of a table; what else it returns serves its gradient.

    Rows that are multiplied by numbers with paths are written out, as sums of products.
    """
    require_no_path(call, ("weight",), lowering)
    numbers = call["per_sample_weights"]
    if isinstance(numbers, Value) and numbers.is_path:
        if not _are_alike(call, lowering):
            raise UnsupportedOperation(
                f"{lowering.site(call)}: its per_sample_weights are computed from the model's"
                " input, and its bags are of several sizes"
            )
        return None
    if call["mode"] == 0:
        lowering.uncertain(call, "the number of rows in a sum")
    bags = look_up(call, call["indices"], call["weight"], lowering)
    return bags, *(
        lowering.result(call, constant_labels(val.shape), dtype=val.dtype)
        for val in call.node.meta["val"][1:]
    )


def _are_alike(call: Call, lowering: Lowering) -> bool:
    """Whether bags are known to have as many rows each, and no row is left out."""
    try:
        offsets = lowering.constants.of(call["offsets"])
    except UnknownConstantError:
        return False
    total = call["indices"].shape.numel()
    end = offsets[:0] if call["include_last_offset"] else offsets.new_tensor([total])
    sizes = torch.cat([offsets, end]).diff()
    alike = bool((sizes == total // max(len(sizes), 1)).all())
    return alike and call["padding_idx"] in (None, -1)


@rule("layer", "aten._grouped_mm", "transformers.grouped_mm_fallback")
def experts(call: Call, lowering: Lowering) -> Value:
    """Tokens sorted by expert times the experts' matrices: a layer whichever expert they meet."""
    names = [argument.name for argument in call.func._schema.arguments]
    tokens, weights = call[names[0]], call[names[1]]
    require_no_path(call, (names[1],), lowering)
    if not tokens.is_path or weights.labels.ndim != 3:
        raise UnsupportedOperation(f"{lowering.site(call)}: no matrices of experts")
    axis = len(call.shape) - 1

    def matrix() -> torch.Tensor | None:
        found = weights_of(call, weights, lowering)
        return None if found is None else found.transpose(1, 2)

    labels = dense_layer(call, tokens.labels, axis, call.shape[-1:], matrix, lowering)
    return lowering.result(call, labels)


def look_up(call: Call, indices: Value, table: Value, lowering: Lowering) -> Value:
    """Rows of a constant table: one new unit per column, from the units of the indices."""
    if not indices.is_path:
        return lowering.result(call, constant_labels(call.shape))
    lowering.layer(call)
    hub = np.full(call.shape[-1], lowering.builder.hub(distinct(lowering.unified(indices.labels))))
    if lowering.weights is None:
        units = lowering.builder.units(hub)
    else:
        units = lowering.weights.units(hub, weights=looked_up(call, table, [1], lowering))
    return lowering.result(call, channel_labels(units, call.shape, len(call.shape) - 1))


def plus_bias(call: Call, result: Value, lowering: Lowering) -> Value:
    """The result of a layer, merged with a bias that comes from the input."""
    bias = call["bias"]
    if bias is None or not bias.is_path:
        return result
    axis = _channel_axis(call)
    along = bias.labels.reshape([-1 if a == axis else 1 for a in range(len(call.shape))])
    added = lowering.result(call, along.expand(call.shape))
    if not result.is_path:
        return added
    return lowering.result(call, merge_labels(call, [result, added], lowering))


def _channel_axis(call: Call) -> int:
    """The axis of channels of a convolution; 0 for an input without a batch axis."""
    return len(call["input"].shape) - len(call["weight"].shape) + 1


def require_no_path(call: Call, names: tuple[str, ...], lowering: Lowering) -> None:
    """Refuse a layer whose parameters the model's input decides on, other than by choosing them.

    Raises:
        UnsupportedOperation: a path leads through one of the arguments.
    """
    for name in names:
        if isinstance(call.arguments.get(name), Value) and call[name].is_path:
            raise UnsupportedOperation(
                f"{lowering.site(call)}: its {name} is computed from the model's input"
            )


def _dynamic_convolution(call: Call, lowering: Lowering) -> Value:
    """A convolution whose weight comes from the input: a product of input and weight.

    One new unit per output channel, with a hub over what its group reads and a hub over the
    channel's weights as predecessors. Groups that read the same units by weights of the same units
    (the items of a batch, where each has its own weights) are one.
    """
    weight, groups = lowering.unified(call["weight"].labels), call["groups"]
    lowering.by_data()
    axis = _channel_axis(call)
    if "transpose" in call.name or call.arguments.get("transposed"):
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # channels out
    channels = weight.shape[0]
    rows = np.full((channels, 2), CONSTANT)
    lowering.layer(call)
    for column, (tensor, along, count) in enumerate(
        ((lowering.unified(call["input"].labels), axis, groups), (weight, 0, channels))
    ):
        small = compact(tensor, [a for a in range(tensor.ndim) if a != along])
        sets, number = label_sets(small.movedim(along, 0).reshape(count, -1).numpy())
        hubs = np.append(lowering.builder.hubs(sets), CONSTANT)  # CONSTANT is -1: the last entry
        rows[:, column] = np.repeat(hubs[number], channels // count)
    within_group = np.arange(channels) % (channels // groups)
    kinds, kind = np.unique(np.column_stack([rows, within_group]), axis=0, return_inverse=True)
    sets = sets_of_rows(kinds[:, :2])
    alive = sets.sizes > 0
    nodes = np.full(len(kinds), CONSTANT)
    activity = float(lowering.policy.counts("product"))
    nodes[alive] = lowering.builder.merges(LabelSets(sets.members, sets.sizes[alive]), activity)
    return lowering.result(call, channel_labels(nodes[kind.reshape(-1)], call.shape, axis))
