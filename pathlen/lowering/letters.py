"""Letters for the axes of what products of matrices read and give, as in einsum."""

from dataclasses import dataclass

import torch

from pathlen.lowering.operations import aten
from pathlen.lowering.values import Call, Value

_MATRIX_PRODUCTS = frozenset(aten("matmul mm bmm mv dot vdot"))
CONVOLUTIONS = frozenset(aten("conv1d conv2d conv3d convolution"))
LAYERS = CONVOLUTIONS | {"aten.linear"}
_BATCH = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLAIN = {"stride": 1, "padding": 0, "dilation": 1}


@dataclass(frozen=True, slots=True)
class Letters:
    """A product of two tensors.

    Attributes:
        operands: the tensors.
        own: a letter an axis of each.
        out: those of the result.
    """

    operands: tuple[Value, Value]
    own: tuple[str, str]
    out: str

    @property
    def sizes(self) -> dict[str, int]:
        """Of the axes of both; 1 where only one of them is that short."""
        pairs = [*zip("".join(self.own), (n for o in self.operands for n in o.shape), strict=True)]
        return dict(sorted(pairs, key=lambda pair: pair[1] != 1))

    @property
    def batch(self) -> list[str]:
        """Letters that both have and the result too."""
        return [a for a in self.own[0] if a in self.own[1] and a in self.out]

    @property
    def summed(self) -> list[str]:
        """Letters that both have and the result has not."""
        return [a for a in self.own[0] if a in self.own[1] and a not in self.out]

    def free(self, position: int) -> list[str]:
        """Letters that only the operand at a position has."""
        return [a for a in self.own[position] if a not in self.own[1 - position]]


def permuted(labels: torch.Tensor, letters: str, order: list[str]) -> torch.Tensor:
    """Labels with their axes in another order."""
    return labels.permute([letters.index(letter) for letter in order])


def letters_of(call: Call) -> Letters | None:
    """The letters of a matrix product, and of a layer without a bias that is one; else None."""
    if call.name in LAYERS and call.arguments.get("bias") is not None:
        return None
    if call.name in CONVOLUTIONS:
        return of_convolution(call)
    if call.name == "aten.linear":
        lead = _BATCH[: len(call["input"].shape) - 1]
        return Letters((call["input"], call["weight"]), (lead + "k", "jk"), lead + "j")
    if call.name in _MATRIX_PRODUCTS:
        one, other = call.values()
        return of_matrices(one, other)
    return None


def of_matrices(one: Value, other: Value) -> Letters:
    """The letters of a product of matrices, with the broadcasting of `torch.matmul`."""
    batch = _BATCH[: max(len(one.shape), len(other.shape), 2) - 2]

    def own(value: Value, last: str) -> str:
        if len(value.shape) == 1:
            return "k"
        return batch[len(batch) + 2 - len(value.shape) :] + last

    left, right = own(one, "ik"), own(other, "kj")
    out = batch + ("i" if "i" in left else "") + ("j" if "j" in right else "")
    return Letters((one, other), (left, right), out)


def of_convolution(call: Call) -> Letters | None:
    """A convolution of kernel size 1 is a product of matrices at each position."""
    source, weight = call["input"], call["weight"]
    kernel = weight.shape[2:]
    if kernel.numel() != 1 or call.arguments.get("groups", 1) != 1:
        return None
    if call.arguments.get("transposed") or len(source.shape) != len(weight.shape):
        return None
    for name, number in _PLAIN.items():
        steps = call.arguments.get(name, number)
        if {*(steps if isinstance(steps, (list, tuple)) else [steps])} != {number}:
            return None
    at = _BATCH[: len(kernel)]
    return Letters((source, weight), (f"bk{at}", f"jk{at.lower()}"), f"bj{at}")
