"""Sums over an axis that a product of matrices computes: of squares, or with equal weights."""

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places
from pathlen.lowering.states import CONSTANT, Of, State
from pathlen.lowering.values import Call, Value

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


def _only_adds(value: Value, constants: Constants) -> bool:
    """Whether a constant matrix holds one number only."""
    try:
        tensor = constants.of(value)
    except UnknownConstantError:
        return False
    first = tensor.reshape(-1)[:1]
    return bool(tensor.numel()) and bool((tensor == first).all()) and bool(first != 0)


def _letters(call: Call) -> tuple[list[Value], list[str], str] | None:
    """The operands of a product of matrices and the letters of their axes, as in einsum."""
    if call.name not in _MATRIX_PRODUCTS:
        return None
    if call.name == "aten.linear":
        if call["bias"] is not None:
            return None
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


def _contracted_places(places: Places, own: str, out: str, shape: torch.Size) -> Places:
    strides = dict(zip(own, places.strides, strict=True))
    sizes = dict(zip(own, places.shape, strict=True))
    reduced = [(sizes[a], strides[a]) for a in own if a not in out and strides[a]]
    along = tuple(
        strides.get(a, 0) if size > 1 and sizes.get(a, 1) == size else 0
        for a, size in zip(out, shape, strict=True)
    )
    return Places(tuple(shape), along, places.offset, tuple(sorted((*places.reduced, *reduced))))
