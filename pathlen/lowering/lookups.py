"""Look-ups: elements of a tensor that integers computed from single elements choose.

`table[(h > 0).long()]` is a function of h, as `torch.where(h > 0, table[1], table[0])` is: for each
number that an integer may be, the look-up is a movement by a constant index, and of all these
movements it is a choice.
"""

from dataclasses import replace

import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.labels import broadcast
from pathlen.lowering.operations import aten
from pathlen.lowering.places import MOST_ELEMENTS, Places, numbered
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.states import SAME
from pathlen.lowering.values import Call, Value

_INDEXED = frozenset(aten("index _unsafe_index"))
_ALONG_AN_AXIS = frozenset(aten("gather index_select take_along_dim"))
_STEPS = frozenset(aten("sign sgn heaviside"))
_KEEP_STEPS = frozenset({"elementwise", "movement", "reduction"})
_MOST_CHOICES = 64
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def as_look_up(call: Call) -> Call:
    """An embedding as the look-up in its table that it is; any other call as it is."""
    if call.name != "aten.embedding":
        return call
    arguments = {"self": call["weight"], "indices": [call["indices"]]}
    return Call(torch.ops.aten.index.Tensor, "aten.index", arguments, call.node, call.like)


def chooser_of(call: Call) -> Value | None:
    """The integers by which a call chooses elements, where these are its only varying index."""
    if call.name in _INDEXED:
        indices = [i for i in call["indices"] if isinstance(i, Value)]
    elif call.name == "aten.one_hot":
        indices = [call["self"]]
    elif call.name in _ALONG_AN_AXIS and call.arguments.get("dim") is not None:
        indices = [call.arguments.get("index", call.arguments.get("indices"))]
    else:
        return None
    varying = [index for index in indices if index.varies]
    alone = len(varying) == 1 and varying[0].dtype in _INTEGERS
    return varying[0] if alone and has_root(varying[0]) else None


def has_root(value: Value) -> bool:
    """Whether elements may be functions of single elements of a unit, through masks and integers.

    What argmax, sorting and counting give is none.
    """
    if value.rooted is None:
        value.rooted = _has_root(value)
    return value.rooted


def _has_root(value: Value) -> bool:
    if value.is_path:
        return value.dtype.is_floating_point or value.dtype.is_complex
    if value.call is None or kind_of_call(value.call) not in ("elementwise", "movement"):
        return False
    operands = [operand for operand in value.call.values() if operand.varies]
    return bool(operands) and all(has_root(operand) for operand in operands)


def number_of_choices(call: Call) -> int | None:
    """How many elements there are to choose from; None where these are too many to look at."""
    chooser, source = chooser_of(call), call["self"]
    if call.name == "aten.one_hot":
        return call.shape[-1]
    if call.name in _INDEXED:
        axis = next(a for a, index in enumerate(call["indices"]) if index is chooser)
    else:
        axis = call["dim"] % max(len(source.shape), 1)
    count = int(source.shape[axis]) if source.shape else 1
    return count if count <= _MOST_CHOICES or not is_chosen_from(call) else None


def is_chosen_from(call: Call) -> bool:
    """Whether what a call chooses from varies too."""
    return call.name != "aten.one_hot" and bool(call["self"].varies)


def one_hot_look_up(call: Call, one_hot: Value, own: str, table: Value, other: str) -> Call | None:
    """A product of one-hot vectors with a matrix as the look-up of its rows that it is.

    Args:
        call: the product.
        one_hot: that may be such vectors, along their last axis.
        own: letters of its axes.
        table: the matrix.
        other: letters of its axes.

    Returns:
        The look-up, with axes in the order of the matrix, those of the vectors in place of the
        one that was contracted; None for any other product.
    """
    made = one_hot.call
    while made is not None and made.name in SAME:
        made = next(made.values()).call
    if made is None or made.name != "aten.one_hot" or not has_root(made["self"]):
        return None
    if not own or own[-1] not in other or {*own[:-1]} & {*other}:
        return None
    axis = other.index(own[-1])
    sizes = [*table.shape]
    sizes[axis : axis + 1] = made["self"].shape
    like = torch.empty(sizes, dtype=call.output.dtype, device="meta")
    arguments = {"self": table, "indices": [*[None] * axis, made["self"]]}
    return Call(torch.ops.aten.index.Tensor, "aten.index", arguments, call.node, like)


def choosing(call: Call, number: int) -> Call:
    """The movement that a look-up is where all integers are one number."""
    chooser = chooser_of(call)

    def constant(value: Value) -> Value | torch.Tensor:
        return torch.full(value.shape, number) if value is chooser else value

    return replace(call, arguments=pytree.tree_map_only(Value, constant, dict(call.arguments)))


def as_chosen(call: Call, numbers: torch.Tensor) -> torch.Tensor:
    """Something of each of the integers, laid out as the elements are that they choose.

    Args:
        call: the look-up.
        numbers: of the shape of its integers, which are the last axes.

    Returns:
        In a shape that broadcasts to the result's; axes before those of the integers stay.
    """
    chooser = chooser_of(call)
    assert chooser is not None
    own, lead = len(chooser.shape), numbers.ndim - len(chooser.shape)
    if call.name in _INDEXED:
        given = [index for index in call["indices"] if index is not None]
        axes = [axis for axis, index in enumerate(call["indices"]) if index is not None]
        count = max(len(index.shape) for index in given)
        neighbours = axes == list(range(axes[0], axes[0] + len(axes)))
        first = axes[0] if neighbours else 0
        behind = len(call.shape) - first - count
        sizes = [*[1] * (count - own), *numbers.shape[lead:], *[1] * behind]
    elif call.name == "aten.one_hot":
        sizes = [*numbers.shape[lead:], 1]
    elif call.name == "aten.index_select":
        behind = len(call.shape) - 1 - call["dim"] % max(len(call.shape), 1)
        sizes = [*numbers.shape[lead:], *[1] * behind]
    else:
        return numbers
    return numbers.reshape([*numbers.shape[:lead], *sizes])


def places_as_chosen(call: Call, places: Places) -> Places | None:
    """Places of integers, laid out as the elements are that they choose; None where unknown."""
    if places.key is not None or call.shape.numel() > MOST_ELEMENTS:
        return None
    shown = broadcast(as_chosen(call, places.as_numbers()), call.shape)
    return numbered(shown, places.reduced)


def is_step(value: Value) -> bool:
    """Whether a tensor was made from comparisons alone: its elements choose between numbers."""
    if value.step is None:
        value.step = _is_step(value)
    return value.step


def _is_step(value: Value) -> bool:
    if value.dtype == torch.bool:
        return True
    call = value.call
    if call is None or value.layer or kind_of_call(call) not in _KEEP_STEPS:
        return False
    operands = [operand for operand in call.values() if operand.varies]
    return call.name in _STEPS or (bool(operands) and all(is_step(one) for one in operands))


def brings_paths(value: Value, beside: Value) -> bool:
    """Whether paths lead through what another tensor is multiplied by or read from.

    A table, a factor or a matrix that was made from comparisons chooses, beside what has paths.
    """
    return value.is_path and not (beside.is_path and is_step(value))
