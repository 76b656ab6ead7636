"""The units of a piece of memory, element by element, for tensors that are written to in parts.

Units are laid out as the elements of the tensor are and held as numbers of its own sort, complex
ones with a unit for each part. So every view that torch can take of the tensor can be taken of
the memory: `z.real`, a conjugate, a split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.labels import CONSTANT, collapse
from pathlen.lowering.operations import call_by_name, operation_name
from pathlen.lowering.rules import Rule
from pathlen.lowering.values import Call, Value

_ZERO = 1 - CONSTANT  # added to units, so that a sign (of a conjugate) can be told from a unit


@dataclass(frozen=True, slots=True)
class ViewStep:
    """A call that takes a view.

    Attributes:
        func: the operator.
        arguments: by name; shapes in place of other tensors.
        viewed: name of the argument that is viewed.
        position: which of several results, None for the result.
    """

    func: Any
    arguments: dict[str, Any]
    viewed: str
    position: int | None = None

    @staticmethod
    def of(call: Call, viewed: str) -> "ViewStep":
        """The step of a call, whose tensors are values or nodes."""

        def shape(tensor: Any) -> torch.Tensor:
            like = tensor.meta["val"] if isinstance(tensor, fx.Node) else tensor
            return torch.zeros(()).expand(like.shape)

        others = {name: a for name, a in call.arguments.items() if name != viewed}
        return ViewStep(call.func, pytree.tree_map_only((fx.Node, Value), shape, others), viewed)

    def __call__(self, tensor: torch.Tensor) -> Any:
        """The view of a tensor.

        Raises:
            UnsupportedOperation: elements are read as numbers of another size.
        """
        if operation_name(self.func) == "aten.view" and "dtype" in self.arguments:
            raise UnsupportedOperation("memory that is written to and viewed with another dtype")
        result = call_by_name(self.func, {**self.arguments, self.viewed: tensor})
        return result if self.position is None else result[self.position]


_MOST_WRITES = 64
ASSEMBLED = "pathlen.assembled"


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """Puts tensors together that were written to a piece of memory, and takes a view of it.

    It stands for the operator of a call, so that elements can be followed through memory as through
    any movement.

    Attributes:
        writes: the view that each tensor was written to, after the first, which was there before.
        view: the view that is taken.
    """

    writes: tuple[tuple[ViewStep, ...], ...]
    view: tuple[ViewStep, ...]
    tags: tuple[Any, ...] = ()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The view of the tensors together."""
        whole = tensors[0].clone(memory_format=torch.contiguous_format)
        for steps, tensor in zip(self.writes, tensors[1:], strict=True):
            _viewed(whole, steps).copy_(tensor)
        return _viewed(whole, self.view)

    @property
    def rule(self) -> Rule:
        """How it is lowered: a movement."""
        return Rule("movement", _assemble)


def _assemble(call: Call, lowering: Any) -> Value:
    labels = call.func([value.labels for value in call["tensors"]])
    result: Value = lowering.result(call, collapse(labels))
    return result


def _viewed(tensor: torch.Tensor, steps: Sequence[ViewStep]) -> torch.Tensor:
    for step in steps:
        tensor = step(tensor)
    return tensor


class Memory:
    """What the elements of a base are.

    Args:
        like: the base, without data.
        labels: of the base.
    """

    def __init__(self, like: torch.Tensor, labels: torch.Tensor) -> None:
        dtype = torch.complex128 if like.is_complex() else torch.float64
        strides, offset = like.stride(), int(like.storage_offset())
        if any(step == 0 and size > 1 for step, size in zip(strides, like.shape, strict=True)):
            strides, offset = torch.empty(like.shape, device="meta").stride(), 0
        last = sum((size - 1) * step for step, size in zip(strides, like.shape, strict=True))
        storage = torch.full((offset + max(last, 0) + 1,), _ZERO + CONSTANT, dtype=dtype)
        self._elements = storage.as_strided(like.shape, strides, offset)
        self._written: list[tuple[tuple[ViewStep, ...], Value]] | None = []
        self.write((), labels)

    def note(self, steps: Sequence[ViewStep], value: Value) -> None:
        """Take note of the tensor that is written to a view; the first is what was there before."""
        if self._written is not None:
            self._written.append((tuple(steps), value))
            if len(self._written) > _MOST_WRITES or value.dtype.is_complex:
                self._written = None  # its elements begin in the memory

    def call(self, node: fx.Node, steps: Sequence[ViewStep]) -> Call | None:
        """What gives a view of the memory, as a call on the tensors that were written."""
        if not self._written or not isinstance(node.meta["val"], torch.Tensor):
            return None
        (_, base), *others = self._written
        func = Assembled(tuple(where for where, _ in others), tuple(steps))
        tensors = [base, *(value for _, value in others)]
        return Call(func, ASSEMBLED, {"tensors": tensors}, node)

    def write(self, steps: Sequence[ViewStep], labels: torch.Tensor, *, real: bool = False) -> None:
        """Write to a view of the memory.

        Args:
            steps: to the view.
            labels: of what is written.
            real: whether imaginary parts become 0.
        """
        view = self._view(steps)
        units = (labels + _ZERO).double()
        if view.is_complex():
            nothing = torch.full_like(units, _ZERO + CONSTANT)
            units = torch.complex(units, nothing if real else units)
        view.copy_(units)

    def read(self, steps: Sequence[ViewStep]) -> list[torch.Tensor]:
        """Labels of a view, of the real and the imaginary part where these differ."""
        view = self._view(steps).resolve_conj().resolve_neg()
        parts = [view.real, view.imag] if view.is_complex() else [view]
        found = [collapse(part.abs().long() - _ZERO) for part in parts]
        return found[:1] if len(found) > 1 and torch.equal(found[0], found[1]) else found

    def _view(self, steps: Sequence[ViewStep]) -> torch.Tensor:
        return _viewed(self._elements, steps)
