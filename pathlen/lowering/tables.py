"""Numbers of elements that are a sum of one number for each axis.

Where the halves of an axis are swapped, where it is flipped or every other element is taken, places
are irregular along that axis and regular along the others. One table an axis says all of it, so
that such movements cost what the tables hold, not what the tensor holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

Numbers = tuple[int, list[np.ndarray]]
"""An offset, and a table an axis: int64, holes where elements are constants."""
HOLE = -(1 << 56)
"""In a table: all elements there are constants. The sum of a few is still below any number."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Element (i, j, ...) has the number  offset + axes[0][i] + axes[1][j] + ...

    Made by `tables`, so that equal numbers have equal tables.

    Attributes:
        offset: of the first element that is no constant.
        axes: int64 numbers or `HOLE`, the first that is none being 0.
    """

    offset: int
    axes: tuple[bytes, ...]

    def arrays(self) -> list[np.ndarray]:
        """The table of each axis, int64."""
        return [np.frombuffer(axis, dtype=np.int64) for axis in self.axes]

    def has_holes(self) -> bool:
        """Whether some elements are constants."""
        return any(bool((axis == HOLE).any()) for axis in self.arrays())


def tables(offset: int, arrays: Sequence[np.ndarray]) -> Tables:
    """Tables of given numbers an axis.

    Args:
        offset: of all elements.
        arrays: int64, one an axis, none empty; what is far below 0 is a hole.
    """
    axes = []
    for array in arrays:
        there = array > HOLE // 2
        if offset < HOLE // 2 or not there.any():  # no element has a number
            return Tables(HOLE, tuple(np.full(len(a), HOLE).tobytes() for a in arrays))
        first = int(array[there.argmax()])
        offset += first
        axes.append(np.where(there, array - first, HOLE).tobytes())
    return Tables(offset, tuple(axes))


def summed(offset: int, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The number of each element, -1 for constants."""
    total = np.array(offset, dtype=np.int64)
    for axis, array in enumerate(arrays):
        total = total + array.reshape([-1 if a == axis else 1 for a in range(len(arrays))])
    return np.where(total < HOLE // 2, -1, total)


def separated(numbers: np.ndarray) -> Tables | None:
    """Tables of the numbers of elements, -1 for constants; None where no tables give these."""
    there = numbers >= 0
    if not there.any():
        return tables(HOLE, [np.zeros(n) for n in numbers.shape]) if numbers.size else None
    first = [int(n) for n in np.unravel_index(int(there.argmax()), numbers.shape)]
    offset = int(numbers[tuple(first)])
    arrays = []
    for axis in range(numbers.ndim):
        line = numbers[tuple(slice(None) if a == axis else n for a, n in enumerate(first))]
        arrays.append(np.where(line < 0, HOLE, line - offset))
    return tables(offset, arrays) if (summed(offset, arrays) == numbers).all() else None


def steps(array: np.ndarray) -> int | None:
    """How far apart the numbers of a table are, 0 for a single one; None where they differ."""
    if len(array) < 2:
        return 0
    step = int(array[1] - array[0])
    even = (array == array[0] + step * np.arange(len(array))).all()
    return step if even and array.min() > HOLE // 2 else None


def reshaped(numbers: Numbers, shape: Sequence[int], most: int) -> Numbers | None:
    """The same elements in a tensor of another shape; None where no tables give them.

    Args:
        numbers: of the tensor.
        shape: the other one, of as many elements, none of its axes empty.
        most: elements of axes which become others that may be written down.
    """
    offset, arrays = numbers
    offset += sum(int(array[0]) for array in arrays if len(array) == 1)
    old = [array for array in arrays if len(array) > 1]
    new = [axis for axis, size in enumerate(shape) if size > 1]
    found = [np.zeros(1, dtype=np.int64)] * len(shape)
    while old:
        own, others = [old.pop(0)], [new.pop(0)]
        sizes = [len(own[0]), shape[others[0]]]
        while sizes[0] != sizes[1]:  # as few axes as have the same elements
            if sizes[0] < sizes[1]:
                own.append(old.pop(0))
                sizes[0] *= len(own[-1])
            else:
                others.append(new.pop(0))
                sizes[1] *= shape[others[-1]]
        if len(own) > 1 or len(others) > 1:
            if sizes[0] > most:
                return None
            lowest = _lowest(own)
            split = separated(summed(-lowest, own).reshape([shape[axis] for axis in others]))
            if split is None:
                return None
            own, offset = split.arrays(), offset + split.offset + lowest
        for axis, array in zip(others, own, strict=True):
            found[axis] = array
    return offset, found


def _lowest(arrays: Sequence[np.ndarray]) -> int:
    """The lowest number that a sum of tables can be, holes aside."""
    return sum(int(array.min(where=array > HOLE // 2, initial=0)) for array in arrays)


def side_by_side(
    pieces: Sequence[Numbers | None], sizes: Sequence[int], axis: int
) -> Numbers | None:
    """Tensors that are put side by side along an axis; None where no tables give their elements.

    Args:
        pieces: numbers of each; None for a constant.
        sizes: of the pieces along the axis.
        axis: which.
    """
    along, others = [], None
    for piece, size in zip(pieces, sizes, strict=True):
        if piece is None:
            along.append(np.full(size, HOLE))
            continue
        offset, arrays = piece
        rest = [array for a, array in enumerate(arrays) if a != axis]
        if others is not None and not all(map(np.array_equal, rest, others)):
            return None
        along.append(arrays[axis] + offset)
        others = rest
    if others is None:
        return None
    return 0, [*others[:axis], np.concatenate(along), *others[axis:]]


def read_at(
    table: np.ndarray, offset: int, strides: Sequence[int], shape: Sequence[int]
) -> Numbers | None:
    """What a view of one axis reads from its table; None where no tables give it.

    Args:
        table: of the axis.
        offset: of the first element of the view in the axis.
        strides: of the view, in elements of the axis.
        shape: of the view.
    """
    walked = [axis for axis, stride in enumerate(strides) if stride and shape[axis] > 1]
    index = np.array(offset)
    for axis in walked:
        index = index[..., None] + np.arange(shape[axis]) * strides[axis]
    read, lowest = table[index], _lowest([table])
    split = separated(np.where(read <= HOLE // 2, -1, read - lowest))
    if split is None:
        return None
    found = [np.zeros(size, dtype=np.int64) for size in shape]
    for axis, array in zip(walked, split.arrays(), strict=True):
        found[axis] = array
    return split.offset + lowest, found


def repeats_in(array: np.ndarray) -> np.ndarray:
    """How many numbers before each one of a table are the same."""
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    place = np.arange(len(array))
    repeats = np.empty_like(place)
    repeats[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return repeats


def numbers_of(offset: int, arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """The number of each element, int64, -1 for constants; not contiguous where it repeats."""
    shape = [len(array) for array in arrays]
    small = [array if array.any() else array[:1] for array in arrays]
    return torch.from_numpy(summed(offset, small)).expand(shape)
