"""Label tensors: which unit every element of a tensor belongs to.

They are torch tensors, because operators run on them, but are compared and sorted by numpy, in
this thread: torch would share such small work between threads, and wait for them.

A label tensor is an int64 tensor of the value's shape that holds the graph node of each element,
or `CONSTANT` where no input reaches. Along position axes (batch, space, tokens) all elements
belong to the same unit; there the stride is 0, so that the tensor stays small and operations that
only move data can run on the labels themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

CONSTANT = -1
_RANGE = 8  # numbers of a range for each one given, up to which marking them beats sorting
_FEW_COLUMNS = 8
_WORTH_COMPRESSING = 4096  # elements; sorting fewer is faster than looking for runs


def constant_labels(shape: Sequence[int]) -> torch.Tensor:
    """Labels of a tensor that no input reaches."""
    return torch.full((), CONSTANT, dtype=torch.int64).expand(tuple(shape))


def channel_labels(nodes: np.ndarray, shape: Sequence[int], axis: int) -> torch.Tensor:
    """Labels that run over `nodes` along one axis and are the same along all others."""
    along = [1] * len(shape)
    along[axis] = len(nodes)
    return torch.from_numpy(np.ascontiguousarray(nodes)).view(along).expand(tuple(shape))


def labels_of_features(
    nodes: np.ndarray, functions: torch.Tensor | None, shape: Sequence[int], axis: int
) -> torch.Tensor:
    """Labels of features along an axis, of which there are several kinds.

    Args:
        nodes: of each kind and feature.  # (kinds * features,)
        functions: the kind of each row along the axis, which has length 1; None for one kind.
        shape: of the labels.
        axis: that of the features.
    """
    if functions is None:
        return channel_labels(nodes, shape, axis)
    of_kind = torch.from_numpy(np.ascontiguousarray(nodes)).view(-1, shape[axis])
    small = compact(functions).squeeze(axis)
    return of_kind[small].movedim(-1, axis).expand(tuple(shape))


def is_position_axis(labels: torch.Tensor, axis: int) -> bool:
    """Whether labels are known to be the same along an axis."""
    return labels.shape[axis] == 1 or labels.stride(axis) == 0


def compact(labels: torch.Tensor, axes: Iterable[int] | None = None) -> torch.Tensor:
    """The labels with position axes (all of them, or those among `axes`) cut to length 1."""
    shape, strides = list(labels.shape), labels.stride()
    for axis in range(labels.ndim) if axes is None else axes:
        if strides[axis] == 0 and shape[axis] > 1:
            shape[axis] = 1
    return labels if shape == list(labels.shape) else labels.as_strided(shape, strides)


def collapse(labels: torch.Tensor) -> torch.Tensor:
    """The same labels with stride 0 along every axis on which they do not vary."""
    shape, small = labels.shape, compact(labels)
    for axis in reversed(range(labels.ndim)):
        if small.shape[axis] > 1:
            first = small.narrow(axis, 0, 1)
            last = small.narrow(axis, -1, 1)
            # most axes that vary differ at the ends, and that is seen at little cost
            if _equal(first, last) and _equal(small, first):
                small = first
    return small.expand(shape)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one.numpy() == other.numpy()).all())


def expands(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a shape is broadcast to another as it is."""
    return len(shape) <= len(whole) and all(
        size in (1, now) for size, now in zip(shape[::-1], whole[::-1], strict=False)
    )


def one_along(labels: torch.Tensor, axes: Sequence[int]) -> torch.Tensor | None:
    """The one label along some axes, kept with length 1; None where several meet.

    Constants beside it are left out.
    """
    small = compact(labels, axes)
    highest = small.amax(tuple(axes), keepdim=True)
    return highest if bool(((small == highest) | (small == CONSTANT)).all()) else None


def broadcast(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Labels broadcast to a shape, as an elementwise operation broadcasts its operands."""
    return labels if labels.shape == tuple(shape) else labels.expand(tuple(shape))


def compress(
    columns: list[torch.Tensor],
) -> tuple[list[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """One element for each run of equal slices along every axis.

    A class token beside patches or a padded border makes the labels vary along a position axis,
    but in a few runs only, and everything after costs as much as there are runs.

    Args:
        columns: tensors of one shape; a run ends where any of them changes.

    Returns:
        The tensors without repetitions, and a function that puts the repetitions back into a
        tensor of that smaller shape (with stride 0 along axes of one run).
    """
    shape = columns[0].shape
    axes = [a for a in range(len(shape)) if all(is_position_axis(c, a) for c in columns)]
    small = list(torch.broadcast_tensors(*[compact(column, axes) for column in columns]))
    repeats: list[tuple[int, torch.Tensor]] = []
    for axis in range(len(shape)):
        size = small[0].shape[axis]
        if size < 2 or sum(column.numel() for column in small) < _WORTH_COMPRESSING:
            continue
        changes = np.zeros(size, dtype=np.bool_)
        for column in small:
            slices = column.movedim(axis, 0).numpy()
            steps = slices[1:] != slices[:-1]
            changes[1:] |= steps.any(axis=tuple(range(1, len(shape))))
        if not changes[1:].all():
            starts = torch.from_numpy(np.concatenate([[0], np.flatnonzero(changes)]))
            small = [column.index_select(axis, starts) for column in small]
            repeats.append((axis, torch.from_numpy(np.cumsum(changes))))

    def restore(tensor: torch.Tensor) -> torch.Tensor:
        for axis, run in repeats:
            if not is_position_axis(tensor, axis):
                tensor = tensor.index_select(axis, run)
        return compact(tensor).expand(shape)

    return small, restore


def without_repeats(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal slices along an axis cut to one slice each.

    Returns:
        The smaller array, and the number of its slice for every index of the axis.
    """
    if not array.shape[axis]:
        return array, np.empty(0, dtype=np.int64)
    slices = np.moveaxis(array, axis, 0)
    changes = (slices[1:] != slices[:-1]).any(axis=tuple(range(1, array.ndim)))
    number = np.concatenate([[0], np.cumsum(changes)])
    starts = np.flatnonzero(np.concatenate([[True], changes]))
    return np.take(array, starts, axis=axis), number


def by_runs(columns: list[torch.Tensor], axis: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Tensors cut to one slice for each run of equal slices along an axis.

    Args:
        columns: label tensors of one size along the axis; a run ends where any of them changes.
        axis: counted from the end.

    Returns:
        The smaller tensors, and the number of its run for every index of the axis.
    """
    size = columns[0].shape[axis]
    changes = np.zeros(size, dtype=np.bool_)
    for column in columns:
        slices = compact(column).movedim(axis, 0).numpy()
        if len(slices) > 1:
            steps = slices[1:] != slices[:-1]
            changes[1:] |= steps.any(axis=tuple(range(1, steps.ndim)))
    starts = torch.from_numpy(np.flatnonzero(np.concatenate([[True], changes[1:]])[:size]))
    cut = [
        column.narrow(axis, 0, len(starts))
        if is_position_axis(column, axis)
        else compact(column)
        .index_select(axis, starts)
        .expand([*column.shape[:axis], len(starts), *column.shape[axis:][1:]])
        for column in columns
    ]
    return cut, torch.from_numpy(np.cumsum(changes))


def distinct(labels: torch.Tensor) -> np.ndarray:
    """The units that occur, ascending, constants left out."""
    (small,), _ = compress([labels])
    found = small.numpy().reshape(-1)
    if not (found[1:] > found[:-1]).all():
        found = _sorted(found)
    units: np.ndarray = found[found != CONSTANT]
    return units


def _sorted(numbers: np.ndarray) -> np.ndarray:
    """Distinct numbers, ascending; marked in their range where that is no wider than they."""
    lowest, highest = int(numbers.min()), int(numbers.max())
    if highest - lowest > _RANGE * len(numbers):
        return np.unique(numbers)
    marks = np.zeros(highest - lowest + 1, dtype=np.bool_)
    marks[numbers - lowest] = True
    return np.flatnonzero(marks) + lowest


def rename(labels: torch.Tensor, old: np.ndarray, new: np.ndarray) -> torch.Tensor:
    """Labels with every unit `old[i]` (ascending, all that occur) replaced by `new[i]`."""
    (small,), restore = compress([labels])
    position = np.searchsorted(old, small.numpy()).clip(max=len(old) - 1)
    return restore(torch.from_numpy(np.where(small.numpy() == CONSTANT, CONSTANT, new[position])))


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Sets of units, one after another.

    Attributes:
        members: of all sets, ascending within each.  # (sum of sizes,)
        sizes: number of members of each set.  # (sets,)
    """

    members: np.ndarray
    sizes: np.ndarray


def sets_of_rows(rows: np.ndarray) -> LabelSets:
    """The set of labels in each row, constants left out.

    Args:
        rows: labels, in any order and with repetitions.  # (r, k)
    """
    ordered = sorted_rows(rows)
    counts = ordered != CONSTANT
    counts[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return LabelSets(ordered[counts], true_in_rows(counts))


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """Rows whose numbers ascend; those of two numbers all at once, as most are."""
    if rows.shape[1] != 2:
        return np.sort(rows, axis=1)
    ordered = np.empty(rows.shape, dtype=rows.dtype)
    np.minimum(rows[:, 0], rows[:, 1], out=ordered[:, 0])
    np.maximum(rows[:, 0], rows[:, 1], out=ordered[:, 1])
    return ordered


def true_in_rows(marks: np.ndarray) -> np.ndarray:
    """How many are true in each row; by columns where there are few."""
    number = np.zeros(len(marks), dtype=np.int64)
    if marks.shape[1] > _FEW_COLUMNS:
        return np.sum(marks, axis=1, out=number)
    for column in marks.T:
        number += column
    return number


def label_sets(rows: np.ndarray) -> tuple[LabelSets, np.ndarray]:
    """The distinct non-empty sets of labels among rows.

    Args:
        rows: labels, one row a set, in any order and with repetitions.  # (r, k)

    Returns:
        The sets, and for every row the number of its set, or `CONSTANT` for a row of constants.
        # sets, (r,)
    """
    ordered = sorted_rows(rows)
    repeated = ordered[:, 1:] == ordered[:, :-1]
    if repeated.any():  # rows of one set become equal
        ordered[:, 1:][repeated] = CONSTANT
        ordered = sorted_rows(ordered)
    firsts, inverse = distinct_rows(ordered)
    sets = sets_of_rows(firsts)
    number = np.where(sets.sizes > 0, np.cumsum(sets.sizes > 0) - 1, CONSTANT)
    return LabelSets(sets.members, sets.sizes[sets.sizes > 0]), number[inverse]


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in order of appearance, and for every row the number of its equal.

    Compares rows as bytes: `np.unique(axis=0)` makes a record type with a field a column.
    """
    if len(rows) == 1 or not rows.shape[1]:
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    as_bytes = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))
    _, first, inverse = np.unique(as_bytes.ravel(), return_index=True, return_inverse=True)
    appearance = np.argsort(first)
    rank = np.empty_like(appearance)
    rank[appearance] = np.arange(len(rank))
    return rows[first[appearance]], rank[inverse]


def distinct_tuples(
    columns: list[torch.Tensor],
) -> tuple[np.ndarray, Callable[[np.ndarray], torch.Tensor]]:
    """The distinct tuples that tensors of equal shape form element by element.

    Args:
        columns: k non-empty label tensors (or other int64 tensors) of one shape.

    Returns:
        The tuples in ascending order, and a function that makes labels of that shape from one
        for each tuple.  # (t, k)
    """
    small, restore = compress(columns)
    stacked = np.stack([column.numpy().reshape(-1) for column in small])  # (k, elements)
    first, number = _first_and_number(stacked)

    def spread(of_tuple: np.ndarray) -> torch.Tensor:
        labels = np.asarray(of_tuple[number.reshape(small[0].shape)])  # of a scalar: no array
        return restore(collapse(torch.from_numpy(labels)))

    return stacked[:, first].T, spread


def _first_and_number(stacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct tuple of k numbers is first, and which tuple each element has.

    Tuples are in ascending order, as the labels of most tensors are before they are sorted.
    """
    key = stacked[0]
    if (key[1:] > key[:-1]).all():
        every = np.arange(len(key))
        return every, every
    for column in stacked[1:]:  # number the tuples of the first 1, 2, ... k columns
        _, key = np.unique(key, return_inverse=True)
        _, numbers = np.unique(column, return_inverse=True)
        key = key * (int(numbers.max()) + 1) + numbers
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return first, number
