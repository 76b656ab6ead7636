"""Which element of a tensor each element of a later one comes from.

A region of calls is a scalar function of its entry only where elements that meet come from the
same element of it, however they were moved. Views are followed by their strides, as torch follows
them in memory: a view of a tensor without data, of the same strides, tells where each element is.
Movements that have to copy are run on the numbers of the elements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

MOST_ELEMENTS = 1 << 22
"""Numbers of more elements are not written down: a movement of them is equal to itself only."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the elements of a tensor are in an entry laid out flat, row by row.

    Element (i, j, ...) is number  offset + i * strides[0] + j * strides[1] + ...  of the entry. Of
    a statistic it stands for all elements that come from there in steps of what was reduced.

    Attributes:
        shape: of the tensor.
        strides: one an axis, 0 along axes of length 1 and those that repeat an element.
        offset: of the first element.
        reduced: length and stride of each axis that was reduced.
        numbers: the number of each element, -1 for a constant, in place of strides; None where
            these tell.
        key: what tells that two movements are the same where they are not followed.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    reduced: tuple[tuple[int, int], ...] = ()
    numbers: bytes | None = None
    key: Any = None

    def expanded(self, shape: Sequence[int]) -> "Places":
        """The same, broadcast to a shape."""
        shape = tuple(shape)
        if shape == self.shape:
            return self
        if self.key is not None:
            return replace(self, shape=shape, key=("expand", self.key, self.shape))
        if self.numbers is not None:
            return numbered(self.as_numbers().expand(shape), self.reduced)
        lead = len(shape) - len(self.shape)
        strides = [0] * lead + [
            stride if size == now else 0
            for stride, size, now in zip(self.strides, self.shape, shape[lead:], strict=True)
        ]
        return replace(self, shape=shape, strides=tuple(strides))

    def repeats(self) -> bool:
        """Whether elements lie side by side that are the same, or are not known to differ."""
        axes = zip(self.shape, self.strides, strict=False)
        return not self.strides or any(size > 1 and not stride for size, stride in axes)

    def repeats_along(self, axis: int) -> torch.Tensor | None:
        """How many elements before each one along an axis are the same.

        None where elements are not repeated as a whole, all of them equally often: a border that
        mirrors what is beside it still has positions.

        Returns:
            int64, of a shape that broadcasts to that of the tensor.
        """
        if self.key is not None:
            return None
        if self.numbers is None:
            along = [-1 if a == axis else 1 for a in range(len(self.shape))]
            return None if self.strides[axis] else torch.arange(self.shape[axis]).view(along)
        numbers = self.as_numbers().movedim(axis, -1)
        ordered, order = numbers.sort(dim=-1, stable=True)
        place = torch.arange(numbers.shape[-1]).expand(numbers.shape)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
        first = torch.where(new, place, 0).cummax(dim=-1).values
        repeats = torch.empty_like(numbers).scatter_(-1, order, place - first)
        times = repeats.reshape(-1).bincount()
        return repeats.movedim(-1, axis) if len(times) > 1 and times.unique().numel() == 1 else None

    def count(self) -> int:
        """How many elements of the entry these are; of a statistic, how many went into it."""
        inside = math.prod(size for size, _ in self.reduced)
        if self.numbers is not None:
            return inside * int((self.as_numbers().unique() >= 0).sum())
        axes = zip(self.shape, self.strides, strict=False)
        return inside * math.prod(size for size, stride in axes if stride)

    def meets(self, other: "Places") -> bool:
        """Whether an element is among both."""
        if self == other:
            return True
        sizes = (math.prod(self.shape), math.prod(other.shape))
        if self.key is not None or other.key is not None or max(sizes) > MOST_ELEMENTS:
            return False
        both = np.intersect1d(self.as_numbers().numpy(), other.as_numbers().numpy())
        return bool((both >= 0).any())

    def joined(self, other: "Places") -> "Places | None":
        """Places where elements of both meet, constants with any; None where different ones do."""
        if self.numbers is None and other.numbers is None:  # no constants
            return self if self == other else None
        if self.key is not None or other.key is not None or self.reduced != other.reduced:
            return None
        one, two = self.as_numbers(), other.as_numbers()
        both = torch.maximum(one, two)
        meet = bool((((one == both) | (one < 0)) & ((two == both) | (two < 0))).all())
        return numbered(both, self.reduced) if meet else None

    def as_numbers(self) -> torch.Tensor:
        """The number of each element of the tensor, int64, of its shape."""
        if self.numbers == b"":
            return torch.empty(self.shape, dtype=torch.int64)
        if self.numbers is not None:
            return torch.frombuffer(bytearray(self.numbers), dtype=torch.int64).view(self.shape)
        number = torch.full((), self.offset)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            along = torch.arange(size) * stride
            number = number + along.view([-1 if a == axis else 1 for a in range(len(self.shape))])
        return number.expand(self.shape)

    def and_beside(self, other: "Places") -> "Places | None":
        """Places of a statistic of all that went into two of them, one beside the other.

        None where they leave something out between them, and where those of neighbouring elements
        overlap: these are windows.
        """
        if self.offset > other.offset:
            return other.and_beside(self)
        told = (self.key, self.numbers, other.key, other.numbers)
        if any(t is not None for t in told) or self.strides != other.strides:
            return None
        gap, own, others = other.offset - self.offset, [*self.reduced], [*other.reduced]
        common = [r for r in own if r in others]
        for one in common:
            own.remove(one)
            others.remove(one)
        if len(own) > 1 or len(others) > 1:
            return None
        step = next((step for _, step in (*own, *others)), gap)
        ends = [n if s == step else 0 for n, s in (*(own or [(1, step)]), *(others or [(1, step)]))]
        if not step or gap % step or not all(ends) or gap // step > ends[0]:
            return None
        length = max(ends[0], gap // step + ends[1])
        runs = list[tuple[int, int]]()
        for size, along in sorted([*common, (length, step)], key=lambda run: run[1]):
            if runs and along == runs[-1][0] * runs[-1][1]:
                size, along = size * runs[-1][0], runs.pop()[1]
            runs.append((size, along))
        for size, stride in zip(self.shape, self.strides, strict=True):
            if size > 1 and any(not stride % s and stride < n * s for n, s in runs):
                return None
        return replace(self, reduced=tuple(sorted(runs)))

    def includes(self, element: "Places") -> bool:
        """Whether these are places of a statistic that each element at other places went into.

        Both are of one shape, in which the statistic is broadcast over what it reduced.
        """
        if self.key is not None or element.key is not None or element.reduced:
            return False
        if self.numbers is not None or element.numbers is not None:
            return self._includes_numbers(element)
        left = list(self.reduced)
        gap = element.offset - self.offset
        axes = zip(element.strides, self.strides, self.shape, strict=True)
        for stride, own, size in sorted(axes, reverse=True):
            if size == 1 or own == stride:
                continue
            found = next((r for r in left if own == 0 and _covers(r, size, stride)), None)
            if found is None:
                return False
            left.remove(found)
            inside = stride // found[1]  # elements of the same sum between two along this axis
            if inside > 1:
                left.append((inside, found[1]))
            gap -= min(max(gap // stride, 0), found[0] // inside - size) * stride
        for size, stride in sorted(left, key=lambda r: -r[1]):
            gap -= min(max(gap // stride, 0), size - 1) * stride if stride else 0
        return gap == 0

    def _includes_numbers(self, element: "Places") -> bool:
        own, other = self.as_numbers().reshape(-1).numpy(), element.as_numbers().reshape(-1).numpy()
        gap = other - own
        for size, stride in sorted(self.reduced, key=lambda r: -r[1]):
            gap = gap - np.clip(gap // stride, 0, size - 1) * stride if stride else gap
        constant = (own < 0) | (other < 0)
        return bool((gap[~constant] == 0).all()) and not bool(constant.all())


def _covers(reduced: tuple[int, int], size: int, stride: int) -> bool:
    """Whether a number of elements, a stride apart, are all among those that were reduced."""
    length, step = reduced
    return bool(step and stride and stride % step == 0 and (size - 1) * (stride // step) < length)


def identity(shape: Sequence[int]) -> Places:
    """Each element is where it is."""
    strides, step = [], 1
    for size in reversed(tuple(shape)):
        strides.append(step if size > 1 else 0)
        step *= size
    return Places(tuple(shape), tuple(reversed(strides)))


def numbered(numbers: torch.Tensor, reduced: tuple[tuple[int, int], ...] = ()) -> Places:
    """Places given element by element; by strides where these tell the same."""
    shape = tuple(numbers.shape)
    flat = numbers.reshape(-1)
    if flat.numel():
        offset = int(flat[0])
        strides = []
        for axis, size in enumerate(shape):
            first = [0] * len(shape)
            first[axis] = 1 if size > 1 else 0
            strides.append(int(numbers[tuple(first)]) - offset if size > 1 else 0)
        guess = Places(shape, tuple(strides), offset, reduced)
        if offset >= 0 and bool((guess.as_numbers() == numbers).all()):
            return guess
    return Places(shape, (), 0, reduced, numbers.contiguous().numpy().tobytes())


def viewed(places: Places, function: Any, arguments: dict[str, Any], name: str) -> Any:
    """Places after a view of a tensor with strides, None where torch would have to copy.

    Args:
        places: of the tensor.
        function: called with the arguments by name.
        arguments: of the call; the tensor's is replaced.
        name: of the tensor's argument.

    Returns:
        Places, or a list of them for several results.
    """
    if places.numbers is not None or places.key is not None:
        return None
    if any(stride < 0 for stride in places.strides):
        return None
    like = torch.empty_strided(places.shape, places.strides, device="meta")
    memory = like.untyped_storage()._cdata
    try:
        result = function({**arguments, name: like})
    except RuntimeError:
        return None
    results = [result] if isinstance(result, torch.Tensor) else list(result)
    if any(one.untyped_storage()._cdata != memory for one in results):
        return None
    found = [
        Places(
            tuple(one.shape),
            tuple(s if n > 1 else 0 for s, n in zip(one.stride(), one.shape, strict=True)),
            places.offset + int(one.storage_offset()),
            places.reduced,
        )
        for one in results
    ]
    return found[0] if isinstance(result, torch.Tensor) else found
