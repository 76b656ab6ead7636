"""The units of a piece of memory, element by element, for tensors that are written to in parts.

Units are held as numbers of the tensor's own sort, complex ones with a unit for each part, and laid
out as its elements are where that matters. So every view that torch can take of the tensor can be
taken of the memory: `z.real`, a conjugate, a split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from pathlen.lowering.labels import CONSTANT, collapse, compact
from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.rules import Rule
from pathlen.lowering.values import Call, Value
from pathlen.lowering.views import ViewStep

_ZERO = 1 - CONSTANT  # added to units, so that a sign (of a conjugate) can be told from a unit
_BY_STRIDES = frozenset(aten("as_strided _reshape_alias"))  # these say where elements are in memory
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
        covers: whether nothing is left in it of what was there before.
    """

    writes: tuple[tuple[ViewStep, ...], ...]
    view: tuple[ViewStep, ...]
    covers: bool = False
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

    They have stride 0 along each axis on which nothing that was written told them apart. An axis is
    written out when something does, once, so that many small writes cost as much as what they
    write.

    Args:
        like: the base, without data.
        labels: of the base.
    """

    def __init__(self, like: torch.Tensor, labels: torch.Tensor) -> None:
        self._like = like
        self._elements = _numbers(compact(labels), is_complex=like.is_complex()).expand(like.shape)
        self._places: list[torch.Tensor] | None = None
        self._written: list[tuple[tuple[ViewStep, ...], Value]] | None = []
        self._which: Memory | None = None  # which of these each element is of

    def note(self, steps: Sequence[ViewStep], value: Value) -> None:
        """Take note of the tensor that is written to a view; the first is what was there before."""
        if self._written is None:
            return
        self._written.append((tuple(steps), value))
        if value.dtype.is_complex or self._like.is_complex():
            self._written = self._which = None  # its elements begin in the memory
        elif len(self._written) > 1:
            if self._which is None:
                self._which = Memory(self._like, torch.zeros((), dtype=torch.int64))
            number = torch.full((), len(self._written) - 1)
            self._which.write(steps, number.expand(value.shape))

    def call(self, node: fx.Node, steps: Sequence[ViewStep]) -> Call | None:
        """What gives a view of the memory, as a call on the tensors that were written."""
        if not self._written or not isinstance(node.meta["val"], torch.Tensor):
            return None
        (_, base), *others = self._written
        covers = False
        if self._which is not None:
            numbers = compact(self._which.read(steps)[0]).unique().tolist()
            covers = 0 not in numbers
            others = [others[n - 1] for n in numbers if n]
        if len(others) > _MOST_WRITES:
            return None  # its elements begin in the memory
        func = Assembled(tuple(where for where, _ in others), tuple(steps), covers)
        tensors = [base, *(value for _, value in others)]
        return Call(func, ASSEMBLED, {"tensors": tensors}, node)

    def write(self, steps: Sequence[ViewStep], labels: torch.Tensor, *, real: bool = False) -> None:
        """Write to a view of the memory.

        Args:
            steps: to the view.
            labels: of what is written.
            real: whether imaginary parts become 0.
        """
        labels = collapse(labels)
        self._write_out(self._told_apart(steps, labels))
        view = self._view(steps)
        if not _shares_memory(view, self._elements):  # a reshape that would copy what repeats
            self._lay_out()
            view = self._view(steps)
        written = labels.expand(view.shape)
        for axis in range(view.ndim):
            if _is_repeated(view, axis):
                view, written = view.narrow(axis, 0, 1), written.narrow(axis, 0, 1)
        view.copy_(_numbers(written, is_complex=view.is_complex(), real=real))

    def read(self, steps: Sequence[ViewStep]) -> list[torch.Tensor]:
        """Labels of a view, of the real and the imaginary part where these differ."""
        view = self._view(steps)
        found = [
            collapse((part.abs().long() - _ZERO).expand(view.shape))
            for part in _parts(compact(view))
        ]
        return found[:1] if len(found) > 1 and torch.equal(found[0], found[1]) else found

    def _view(self, steps: Sequence[ViewStep]) -> torch.Tensor:
        if any(operation_name(step.func) in _BY_STRIDES for step in steps):
            self._lay_out()
        try:
            return _viewed(self._elements, steps)
        except RuntimeError:  # axes are joined of which some repeat elements
            self._lay_out()
            return _viewed(self._elements, steps)

    def _told_apart(self, steps: Sequence[ViewStep], labels: torch.Tensor) -> list[int]:
        """The axes of the base along which what repeats no longer does after a write to a view.

        It still does along an axis of which the view has all elements, whatever their places along
        others are (it is no diagonal), if what is written is the same for all of them.
        """
        repeated = [axis for axis in range(self._like.ndim) if _is_repeated(self._elements, axis)]
        try:
            views = [_viewed(row, steps) for row in self._rows(bool(repeated))]
        except RuntimeError:  # axes are joined
            return repeated
        places = [compact(collapse(_parts(compact(view))[0])) for view in views]
        varies = [_varying(place) for place in (*places, compact(labels))]

        def is_whole(axis: int) -> bool:
            return bool(places[axis].unique().numel() == self._like.shape[axis])

        return [
            axis
            for axis in repeated
            if any(varies[axis] & other for n, other in enumerate(varies) if n != axis)
            or not is_whole(axis)
        ]

    def _rows(self, wanted: bool) -> list[torch.Tensor]:
        """For each axis of the base, the place along it of each element."""
        if wanted and self._places is None:
            shape = self._like.shape
            self._places = [
                _numbers(torch.arange(size), is_complex=self._like.is_complex())
                .view([-1 if a == axis else 1 for a in range(len(shape))])
                .expand(shape)
                for axis, size in enumerate(shape)
            ]
        return self._places or []

    def _write_out(self, axes: list[int]) -> None:
        """Give elements that repeat along axes of the base places of their own."""
        if axes:
            shared = [axis for axis in range(self._like.ndim) if axis not in axes]
            small = compact(self._elements, shared)
            self._elements = small.clone(memory_format=torch.contiguous_format).expand(
                self._like.shape
            )

    def _lay_out(self) -> None:
        """Give each element the place that it has in the base."""
        shape, strides = self._like.shape, self._like.stride()
        offset = int(self._like.storage_offset())
        if any(step == 0 and size > 1 for step, size in zip(strides, shape, strict=True)):
            strides, offset = torch.empty(shape, device="meta").stride(), 0
        if (self._elements.stride(), self._elements.storage_offset()) == (strides, offset):
            return
        last = sum((size - 1) * step for step, size in zip(strides, shape, strict=True))
        length = offset + max(last, 0) + 1
        storage = torch.full((length,), _ZERO + CONSTANT, dtype=self._elements.dtype)
        self._elements = storage.as_strided(shape, strides, offset).copy_(self._elements)


def _numbers(labels: torch.Tensor, *, is_complex: bool, real: bool = False) -> torch.Tensor:
    """Units as memory holds them, in memory of their own."""
    units = (labels + _ZERO).double()
    if not is_complex:
        return units
    nothing = torch.full_like(units, _ZERO + CONSTANT)
    return torch.complex(units, nothing if real else units)


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The real and the imaginary part, where there are two."""
    tensor = tensor.resolve_conj().resolve_neg()
    return [tensor.real, tensor.imag] if tensor.is_complex() else [tensor]


def _varying(compacted: torch.Tensor) -> set[int]:
    """The axes along which a tensor varies that was cut along all others."""
    return {axis for axis, size in enumerate(compacted.shape) if size > 1}


def _is_repeated(tensor: torch.Tensor, axis: int) -> bool:
    return tensor.shape[axis] > 1 and tensor.stride(axis) == 0


def _shares_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)
