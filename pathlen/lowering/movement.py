"""Operations that only move data: run on the labels themselves."""

from typing import Any

import torch
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    constant_labels,
    is_position_axis,
)
from pathlen.lowering.operations import aten, call_by_name, functional, operation_name
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.values import Call, Value

_SAME_SIZE = frozenset({"aten.roll", "aten.flip"})


@rule(
    "movement",
    "movement",  # the name under which views find this rule
    *aten(
        "stack hstack vstack dstack column_stack roll flip fliplr flipud rot90 repeat tile"
        " repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle"
        " reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d"
        " replication_pad2d replication_pad3d slice_scatter select_scatter diagonal_scatter"
        " view_copy"
        " permute_copy reshape flatten unflatten _unsafe_view _reshape_alias"
        " unsafe_split unsafe_chunk meshgrid atleast_1d atleast_2d"
    ),
)
def movement(call: Call, lowering: Lowering) -> Result:
    """The same operation on the labels; constants are -1."""
    if call.name in _SAME_SIZE and _moves_positions_only(call):
        return lowering.result(call, call["self"].labels, softmax_of=call["self"])
    arguments = {
        name: _repeats(call, lowering) if name == "repeats" else _labels(argument)
        for name, argument in call.arguments.items()
    }
    moved = run_on_labels(functional(call.func), arguments)
    first = next(call.values())
    if isinstance(moved, torch.Tensor):
        return lowering.result(call, moved, softmax_of=first)
    return tuple(lowering.result(call, part, dtype=first.dtype, softmax_of=first) for part in moved)


@rule("movement", "aten.broadcast_tensors")
def broadcast_tensors(call: Call, lowering: Lowering) -> Result:
    """Each tensor expanded by itself."""
    expand = torch.ops.aten.expand.default
    parts = []
    for value, val in zip(call["tensors"], call.node.meta["val"], strict=True):
        arguments = {"self": value, "size": list(val.shape), "implicit": False}
        own = Call(expand, "aten.expand", arguments, call.node, val)
        labels = broadcast(value.labels, val.shape)
        parts.append(lowering.result(own, labels, dtype=val.dtype, softmax_of=value))
    return tuple(parts)


@rule("movement", "aten.cat", "aten.concat", "aten.concatenate")
def concatenate(call: Call, lowering: Lowering) -> Value:
    """Only the axes on which some operand varies are written out: a DenseNet has many of these."""
    parts = [v.labels for v in call["tensors"] if v.labels.ndim == len(call.shape)]  # not torch's
    axis = call["dim"] % len(call.shape)  # legacy empty vector, which fits every shape
    positions = [
        a
        for a in range(len(call.shape))
        if a != axis and all(is_position_axis(part, a) for part in parts)
    ]
    joined = collapse(torch.cat([compact(part, positions) for part in parts], axis))
    return lowering.result(call, joined.expand(call.shape))


@rule("movement", "aten.pad", "aten.constant_pad_nd")
def pad(call: Call, lowering: Lowering) -> Value:
    """Padding by a constant is -1; reflected and repeated elements keep their units."""
    labels = call["self"].labels
    if call.arguments.get("mode", "constant") == "constant":
        padded = torch.nn.functional.pad(labels, call["pad"], value=CONSTANT)
        return lowering.result(call, collapse(padded))
    return lowering.result(call, run_on_labels(call.func, {**call.arguments, "self": labels}))


@rule("movement", "aten.im2col")
def windows(call: Call, lowering: Lowering) -> Value:
    """Windows side by side; the zeros of the padding are constants, so labels are run from 0 up."""
    labels = call["self"].labels
    from_zero = (compact(labels) - CONSTANT).expand(labels.shape)
    moved = run_on_labels(call.func, {**call.arguments, "self": from_zero})
    labels = (compact(moved) + CONSTANT).expand(moved.shape)
    return lowering.result(call, labels)


@rule("movement", "aten.as_strided", "aten.as_strided_copy")
def strided(call: Call, lowering: Lowering) -> Value:
    """Another look at the same memory: labels are laid out in memory as the tensor is.

    Raises:
        UnsupportedOperation: it reads memory beside the tensor.
    """
    source = call["self"]
    like = source.node.meta["val"]
    labels = torch.empty_strided(like.shape, like.stride(), dtype=torch.int64).copy_(source.labels)
    offset = call["storage_offset"]
    start = 0 if offset is None else int(offset) - int(like.storage_offset())
    try:
        moved = torch.as_strided(labels, call["size"], call["stride"], start)
    except RuntimeError as error:
        raise UnsupportedOperation(f"{lowering.site(call)} reads beside its tensor") from error
    return lowering.result(call, collapse(moved))


@rule("movement", "aten.copy", "aten.fill", "aten.zero")
def overwrite(call: Call, lowering: Lowering) -> Value:
    """What is written, whatever was there before."""
    source = call.arguments.get("src", call.arguments.get("value"))
    if not isinstance(source, Value):
        return lowering.result(call, constant_labels(call.shape))
    return lowering.result(call, broadcast(source.labels, call.shape), softmax_of=source)


@rule("movement", "aten.fill_diagonal")
def fill_diagonal(call: Call, lowering: Lowering) -> Value:
    """A number on the diagonal, the same units beside it."""
    arguments = {**call.arguments, "self": call["self"].labels, "fill_value": CONSTANT}
    return lowering.result(call, run_on_labels(functional(call.func), arguments))


def run_on_labels(func: Any, arguments: dict[str, Any]) -> Any:
    """Call an operator on label tensors, in place of the tensors they belong to.

    Labels have other strides than the tensor: where the operator cannot view them, it gets a copy;
    where it has no kernel for integers, float64, which holds labels exactly. Results get stride 0
    along the axes on which they do not vary.

    Raises:
        UnsupportedOperation: the operator does not run on labels.
    """

    def dense(labels: torch.Tensor) -> torch.Tensor:
        return labels.contiguous()

    def floating(labels: torch.Tensor) -> torch.Tensor:
        return labels.double().contiguous()

    for prepare in (None, dense, floating):
        try:
            prepared = (
                pytree.tree_map_only(torch.Tensor, prepare, arguments) if prepare else arguments
            )
            result = call_by_name(func, prepared)
        except RuntimeError as error:
            failure = error
        else:
            return pytree.tree_map_only(torch.Tensor, lambda moved: collapse(moved.long()), result)
    raise UnsupportedOperation(f"{operation_name(func)} does not run on labels: {failure}")


def _labels(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.labels
    if isinstance(argument, (list, tuple)):
        return [_labels(item) for item in argument]
    return argument


def _repeats(call: Call, lowering: Lowering) -> Any:
    """How often each element is repeated: a tensor of numbers that must be known."""
    repeats = call["repeats"]
    if not isinstance(repeats, Value):
        return repeats
    try:
        if not repeats.varies:
            return lowering.constants.of(repeats)
    except UnknownConstantError:
        pass  # a constant without values is as unknown as what depends on the input
    raise UnsupportedOperation(f"the repeats of {lowering.site(call)} are not known")


def _moves_positions_only(call: Call) -> bool:
    labels = call["self"].labels
    axes = call["dims"]
    return bool(axes and labels.ndim) and all(labels.stride(axis) == 0 for axis in axes)
