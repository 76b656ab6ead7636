"""Sums over an axis that a product of matrices computes: of squares, or with equal weights."""

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places
from pathlen.lowering.states import CONSTANT, Of, State
from pathlen.lowering.values import Call, Value

_CONVOLUTIONS = frozenset(aten("conv1d conv2d conv3d convolution"))
_LAYERS = _CONVOLUTIONS | {"aten.linear"}
_MATRIX_PRODUCTS = frozenset(aten("matmul mm bmm mv dot vdot linear"))


def contracted(call: Call, of: Of, constants: Constants) -> State | None:
    """A sum over an axis by a product of matrices: of squares, or with equal weights."""
    letters = _letters(call)
    if letters is None:
        return None
    operands, names, out = letters
    found: list[Places] = []
    part, scale = "", CONSTANT.scale
    for value, own in zip(operands, names, strict=True):
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
            found.append(_contracted_places(places, own, out, call.shape))
        part, scale = ("sum" if state.part == "exp" else ""), state.scale
    if sum(value.varies for value in operands) > 1:
        part = ""
    return State(0, tuple(dict.fromkeys(found)), part, scale)


def adds_up(call: Call, constants: Constants) -> bool:
    """Whether a linear layer only adds up what it reads, each with the same constant weight."""
    letters = _letters(call)
    if letters is None or call.name not in _LAYERS:
        return False
    source, weight = letters[0]
    return source.varies and not weight.varies and _only_adds(weight, constants)


def _only_adds(value: Value, constants: Constants) -> bool:
    """Whether a constant matrix holds one number only."""
    try:
        tensor = constants.of(value)
    except UnknownConstantError:
        return False
    first = tensor.reshape(-1)[:1]
    if not bool((tensor.reshape(-1)[:16] == first).all()):
        return False  # most matrices end here
    return bool(tensor.numel()) and bool((tensor == first).all()) and bool(first != 0)


def _letters(call: Call) -> tuple[list[Value], list[str], str] | None:
    """The operands of a product of matrices and the letters of their axes, as in einsum."""
    if call.name in _LAYERS and call.arguments.get("bias") is not None:
        return None
    if call.name in _CONVOLUTIONS:
        return _letters_of_convolution(call)
    if call.name not in _MATRIX_PRODUCTS:
        return None
    if call.name == "aten.linear":
        lead = "".join(chr(65 + n) for n in range(len(call["input"].shape) - 1))
        return [call["input"], call["weight"]], [lead + "k", "jk"], lead + "j"
    one, other = list(call.values())[:2]
    most = max(len(one.shape), len(other.shape)) - 2
    batch = "".join(chr(65 + n) for n in range(max(most, 0)))

    def own(value: Value, last: str, vector: str) -> str:
        if len(value.shape) == 1:
            return vector
        return batch[len(batch) - (len(value.shape) - 2) :] + last

    left, right = own(one, "ik", "k"), own(other, "kj", "k")
    out = batch + ("i" if "i" in left else "") + ("j" if "j" in right else "")
    return [one, other], [left, right], out


def _letters_of_convolution(call: Call) -> tuple[list[Value], list[str], str] | None:
    """A convolution of kernel size 1 is a product of matrices at each position."""
    source, weight = call["input"], call["weight"]
    plain = {"stride": 1, "padding": 0, "dilation": 1}
    steps = [call.arguments.get(name, number) for name, number in plain.items()]
    moves = any(
        set(step if isinstance(step, (list, tuple)) else [step]) - {number}
        for step, number in zip(steps, plain.values(), strict=True)
    )
    kernel = weight.shape[2:]
    if moves or kernel.numel() != 1 or call.arguments.get("groups", 1) != 1:
        return None
    if call.arguments.get("transposed") or len(source.shape) != len(weight.shape):
        return None
    positions = "".join(chr(65 + n) for n in range(len(kernel)))
    return [source, weight], ["bk" + positions, "jk" + positions.lower()], "bj" + positions


def _contracted_places(places: Places, own: str, out: str, shape: torch.Size) -> Places:
    strides = dict(zip(own, places.strides, strict=True))
    sizes = dict(zip(own, places.shape, strict=True))
    reduced = [(sizes[a], strides[a]) for a in own if a not in out and strides[a]]
    along = tuple(
        strides.get(a, 0) if size > 1 and sizes.get(a, 1) == size else 0
        for a, size in zip(out, shape, strict=True)
    )
    return Places(tuple(shape), along, places.offset, tuple(sorted((*places.reduced, *reduced))))
