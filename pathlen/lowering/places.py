"""Which element of a tensor each element of a later one comes from.

A region of calls is a scalar function of its entry only where elements that meet come from the
same element of it, however they were moved. Views are followed by their strides, as torch follows
them in memory: a view of a tensor without data, of the same strides, tells where each element is.
Movements that have to copy are told by a table for each axis (`tables`), or run on the numbers of
the elements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pathlen.lowering.tables import (
    HOLE,
    Numbers,
    Tables,
    numbers_of,
    repeats_in,
    separated,
    steps,
    summed,
    tables,
)

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
        numbers: the number of each element, -1 for a constant, or tables of them, in place of
            strides; None where these tell.
        key: what tells that two movements are the same where they are not followed.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    reduced: tuple[tuple[int, int], ...] = ()
    numbers: bytes | Tables | None = None
    key: Any = None

    def expanded(self, shape: Sequence[int]) -> "Places":
        """The same, broadcast to a shape."""
        shape = tuple(shape)
        if shape == self.shape:
            return self
        if self.key is not None:
            return replace(self, shape=shape, key=("expand", self.key, self.shape))
        lead = len(shape) - len(self.shape)
        if isinstance(self.numbers, Tables):
            own = [np.zeros(1, dtype=np.int64)] * lead + self.numbers.arrays()
            longer = [a if len(a) == n else a.repeat(n) for a, n in zip(own, shape, strict=True)]
            return tabled((self.numbers.offset, longer), self.reduced)
        if self.numbers is not None:
            return numbered(self.as_numbers().expand(shape), self.reduced)
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
        along = [-1 if a == axis else 1 for a in range(len(self.shape))]
        if self.numbers is None:
            return None if self.strides[axis] else torch.arange(self.shape[axis]).view(along)
        if isinstance(self.numbers, Tables) and not self.numbers.has_holes():
            repeats = torch.from_numpy(repeats_in(self.numbers.arrays()[axis])).view(along)
            return repeats if _equally_often(repeats) else None
        if self.is_large():
            return None
        numbers = self.as_numbers().movedim(axis, -1)
        ordered, order = numbers.sort(dim=-1, stable=True)
        place = torch.arange(numbers.shape[-1]).expand(numbers.shape)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
        first = torch.where(new, place, 0).cummax(dim=-1).values
        repeats = torch.empty_like(numbers).scatter_(-1, order, place - first)
        return repeats.movedim(-1, axis) if _equally_often(repeats) else None

    def count(self) -> int:
        """How many elements of the entry these are; of a statistic, how many went into it."""
        inside = math.prod(size for size, _ in self.reduced)
        if isinstance(self.numbers, Tables) and self.is_large():  # or fewer
            distinct = (len(np.unique(a[a != HOLE])) for a in self.numbers.arrays())
            return inside * math.prod(distinct)
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
        if not self.may_have_holes() and not other.may_have_holes():
            return self if self == other else None
        if self.key is not None or other.key is not None or self.reduced != other.reduced:
            return None
        if self == other or self.is_large():
            return self if self == other else None
        one, two = self.as_numbers(), other.as_numbers()
        both = torch.maximum(one, two)
        meet = bool((((one == both) | (one < 0)) & ((two == both) | (two < 0))).all())
        return numbered(both, self.reduced) if meet else None

    def as_numbers(self) -> torch.Tensor:
        """The number of each element of the tensor, int64, of its shape."""
        if self.numbers == b"":
            return torch.empty(self.shape, dtype=torch.int64)
        if isinstance(self.numbers, bytes):
            return torch.frombuffer(bytearray(self.numbers), dtype=torch.int64).view(self.shape)
        return numbers_of(*self._sums())

    def tables(self) -> Numbers | None:
        """An offset and a table an axis, None where these do not give the numbers."""
        unknown = self.key is not None or isinstance(self.numbers, bytes)
        return None if unknown else self._sums()

    def _sums(self) -> Numbers:
        if isinstance(self.numbers, Tables):
            return self.numbers.offset, self.numbers.arrays()
        along = zip(self.shape, self.strides, strict=True)
        return self.offset, [np.arange(size) * stride for size, stride in along]

    def may_have_holes(self) -> bool:
        """Whether some elements may be constants."""
        if isinstance(self.numbers, Tables):
            return self.numbers.has_holes()
        return self.numbers is not None

    def is_large(self) -> bool:
        """Whether the numbers of so many elements are not to be written down."""
        return math.prod(self.shape) > MOST_ELEMENTS

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
        told, others = self.tables(), element.tables()
        if told is not None and others is not None:
            told, others = _where_they_differ(told, others)
            if math.prod(map(len, told[1])) > MOST_ELEMENTS:
                return False
            own, other = summed(*told).reshape(-1), summed(*others).reshape(-1)
        elif self.is_large():
            return False
        else:
            own, other = (one.as_numbers().reshape(-1).numpy() for one in (self, element))
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
    """Places given element by element; by strides or tables where these tell the same."""
    told = separated(numbers.numpy())
    if told is not None:
        return tabled((told.offset, told.arrays()), reduced)
    shape = tuple(numbers.shape)
    return Places(shape, (), 0, reduced, numbers.contiguous().numpy().tobytes())


def tabled(numbers: Numbers, reduced: tuple[tuple[int, int], ...] = ()) -> Places:
    """Places given by tables; by strides where these tell the same."""
    told = tables(*numbers)
    arrays = told.arrays()
    shape = tuple(map(len, arrays))
    strides = [steps(array) for array in arrays]
    if told.offset >= 0 and None not in strides:
        return Places(shape, tuple(s for s in strides if s is not None), told.offset, reduced)
    return Places(shape, (), 0, reduced, told)


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


def _equally_often(repeats: torch.Tensor) -> bool:
    """Whether all elements are repeated, and no one more often than another."""
    times = repeats.reshape(-1).bincount()
    return len(times) > 1 and times.unique().numel() == 1


def _where_they_differ(one: Numbers, other: Numbers) -> tuple[Numbers, Numbers]:
    """Two numbers of each element, once for all elements that have the same gap between them.

    Along an axis of which both have the same table, without holes, the gap is the same.
    """
    cut = [
        np.array_equal(own, beside) and not (own == HOLE).any()
        for own, beside in zip(one[1], other[1], strict=True)
    ]
    one, other = (
        (offset, [a[:1] if same else a for a, same in zip(arrays, cut, strict=True)])
        for offset, arrays in (one, other)
    )
    return one, other
