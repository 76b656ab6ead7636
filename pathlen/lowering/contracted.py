"""Sums over an axis that a product of matrices computes: of squares, or with equal weights."""

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.letters import CONVOLUTIONS, LAYERS, letters_of
from pathlen.lowering.places import Places
from pathlen.lowering.states import CONSTANT, Of, State
from pathlen.lowering.statistics import reduced
from pathlen.lowering.values import Call, Value


def contracted(call: Call, of: Of, entry: Value, constants: Constants) -> State | None:
    """A sum over an axis by a product of matrices: of squares, or with equal weights."""
    pooling = as_pooling(call, constants)
    if pooling is not None:
        return reduced(pooling, of, entry)
    letters = letters_of(call)
    if letters is None:
        return None
    found: list[Places] = []
    part, scale = "", CONSTANT.scale
    for value, own in zip(letters.operands, letters.own, strict=True):
        if not value.varies:
            if not _only_adds(value, constants):
                return None
            continue
        state = of(value)
        if state is None:
            return None
        for places in state.places:
            if places.key is not None or places.numbers is not None:
                return None
            found.append(_contracted_places(places, own, letters.out, call.shape))
        part, scale = ("sum" if state.part == "exp" else ""), state.scale
    if sum(value.varies for value in letters.operands) > 1:
        part = ""
    return State(0, tuple(dict.fromkeys(found)), part, scale)


def adds_up(call: Call, constants: Constants) -> bool:
    """Whether a linear layer only adds up what it reads, each with the same constant weight.

    One with parameters does not, whatever their values are.
    """
    if as_pooling(call, constants) is not None:
        return True
    letters = letters_of(call) if call.name in LAYERS else None
    if letters is None:
        return False
    source, weight = letters.operands
    if not source.varies or weight.varies or constants.is_parameter(weight):
        return False
    return _only_adds(weight, constants)


def as_pooling(call: Call, constants: Constants) -> Call | None:
    """A convolution of a single channel that adds up windows, as the pooling that it is."""
    if call.name not in CONVOLUTIONS or call.arguments.get("bias") is not None:
        return None
    source, weight = call["input"], call["weight"]
    dimensions = len(weight.shape) - 2
    if weight.varies or weight.shape[:2].numel() != 1 or weight.shape.numel() == 1:
        return None
    plain = len(source.shape) == len(weight.shape) and not isinstance(call["padding"], str)
    if not plain or call.arguments.get("transposed") or {*_each(call["dilation"])} != {1}:
        return None
    if constants.is_parameter(weight) or not _only_adds(weight, constants):
        return None
    sizes = {"kernel_size": [*weight.shape[2:]]}
    for name in ("stride", "padding"):
        sizes[name] = _each(call[name]) * (1 if len(_each(call[name])) > 1 else dimensions)
    func = getattr(torch.ops.aten, f"avg_pool{dimensions}d").default
    arguments = {"self": source, **sizes}
    return Call(func, f"aten.avg_pool{dimensions}d", arguments, call.node, call.output)


def _each(setting: int | list[int]) -> list[int]:
    return [setting] if isinstance(setting, int) else [*setting]


def _only_adds(value: Value, constants: Constants) -> bool:
    """Whether a constant matrix holds one number only, which is not 0."""
    number = constants.one_number(value)
    return number is not None and number != 0


def _contracted_places(places: Places, own: str, out: str, shape: torch.Size) -> Places:
    strides = dict(zip(own, places.strides, strict=True))
    sizes = dict(zip(own, places.shape, strict=True))
    reduced = [(sizes[a], strides[a]) for a in own if a not in out and strides[a]]
    along = tuple(
        strides.get(a, 0) if size > 1 and sizes.get(a, 1) == size else 0
        for a, size in zip(out, shape, strict=True)
    )
    return Places(tuple(shape), along, places.offset, tuple(sorted((*places.reduced, *reduced))))
