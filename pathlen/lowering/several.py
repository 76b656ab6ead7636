"""Several functions of the same elements, where tensors meet and in rows that are added up.

A constant that varies along an axis along which everything that is read is repeated makes several
functions of it: x[:, 0, None] * w[0] + x[:, 1, None] * w[1] is a linear layer, with a unit for each
index of w. Functions that differ by a factor of the whole, or by a constant that is added in the
end, are affine functions of one unit, as 2 * (a + b) is of a + b.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pathlen.lowering.affine import Form, forms, in_call
from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    distinct_rows,
    distinct_tuples,
    expands,
)
from pathlen.lowering.operators import inverted
from pathlen.lowering.places import MOST_ELEMENTS, Places, numbered
from pathlen.lowering.values import Call, Operator, Value
from pathlen.lowering.variants import Variants

Layout = Callable[[torch.Tensor], torch.Tensor]
"""Lays out what there is of each element of a tensor in another way."""
_DIGITS = 9
_ONE = torch.ones((), dtype=torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """What is known of a tensor whose elements begin there, beside their units.

    Attributes:
        places: numbers that are equal for elements that are functions of the same elements.
        variants: numbers of these functions, int64 of its shape; None where each has one.
        scale: by how much an element is its unit, float64.
        shift: what is added to that, float64.
    """

    places: Places
    variants: torch.Tensor | None
    scale: torch.Tensor
    shift: torch.Tensor

    def by_units(self, labels: torch.Tensor) -> "Begun | None":
        """The same where elements of several units are other elements; None where none repeats.

        Args:
            labels: of the tensor, without weights.
        """
        tuples, spread = distinct_tuples([self.places.as_numbers(), labels])
        places = numbered(spread(np.arange(len(tuples))))
        return replace(self, places=places) if _repeats(places) else None

    def changed(self, change: Layout) -> "Begun":
        """The same of another view of the tensor."""
        places, variants = numbered(change(self.places.as_numbers())), self.variants
        variants = None if variants is None else change(variants)
        return Begun(places, variants, change(self.scale), change(self.shift))


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """Functions of the same elements that a tensor holds.

    Attributes:
        functions: numbers of those that are no affine functions of each other, int64 of the shape
            of the tensor; None where the same elements have one.
        begun: what the tensor is then.
    """

    functions: torch.Tensor | None
    begun: Begun

    def each(self, shape: torch.Size) -> Begun:
        """What a tensor is that holds one function of its units for each of these."""
        assert self.functions is not None
        functions = self.functions.expand(shape)
        one = torch.ones((), dtype=torch.float64).expand(shape)
        return Begun(self.begun.places, functions, one, functions.double())


def of_meeting(
    call: Call,
    operator: Operator,
    flat: Sequence[tuple[Value, Value]],
    variants: Variants,
    constants: Constants,
) -> Several | None:
    """The functions that tensors are of their elements where they meet.

    Args:
        call: in which they meet.
        operator: by which; empty for any other function of them.
        flat: the tensors, each with the one that has its factor in the call, see `flattened`.
        variants: knows what each of them holds.
        constants: gives the parameters.

    Returns:
        None where all elements of the result are functions of other elements.
    """
    shape = call.shape
    sources = [inverted(part) or part for part, _ in flat]
    if not all(expands(source.shape, shape) for source in sources):
        return None
    if not all(_may_repeat(source, shape, variants) for source in sources):
        return None
    places = _together([variants.places(source).expanded(shape) for source in sources])
    if places is None:
        return None
    labels = [broadcast(source.labels, shape) for source in sources]
    numbers = [variants.of(source) for source in sources]
    columns = [broadcast(own, shape) for own in numbers if own is not None]
    known = forms(sources, constants)
    carriers = [carrier for _, carrier in flat]
    outer = in_call(call, carriers, constants, linear=operator == "sum") if known else None
    if outer is not None:
        columns += [_numbers(part.expand(shape)) for part in outer]
    ranks = _ranks(places.as_numbers(), columns)
    if ranks is None or known is None or outer is None:
        return Several(ranks, plain(places))
    scales = torch.stack([broadcast(scale, shape) for scale, _ in known])
    shifts = torch.stack([broadcast(shift, shape) for _, shift in known])
    there = torch.stack(labels) != CONSTANT
    if operator == "sum":
        *factors, total = (part.expand(shape) for part in outer)
        scales = torch.where(there, scales * torch.stack(factors), 0)
        scale = _first(scales)
        shift = (torch.stack(factors) * shifts).sum(0) + total
        kinds = scales / scale
    elif operator == "product":
        kinds = torch.where(there, shifts / scales, 0)
        own = torch.where(there, scales, shifts)
        turned = [inverted(part) is not None for part, _ in flat]
        own[turned] = 1 / own[turned]
        scale = own.prod(0) * outer[0].expand(shape)
        shift = torch.zeros(shape, dtype=torch.float64)
    elif operator:  # the largest or the smallest of all
        scale = _first(torch.where(there, scales, 0)).abs()
        shift = shifts[0]
        kinds = torch.cat([scales / scale, (shifts - shift) / scale])
    else:
        beside = torch.stack([part.expand(shape) for part in outer])
        kinds, scale, shift = torch.cat([scales, shifts, beside]), *_plain_form(shape)
    return _several([*labels, ranks], kinds, places, (scale, shift))


def of_rows(
    source: Value,
    axes: Sequence[int],
    variants: Variants,
    constants: Constants,
    layout: Layout | None = None,
    by_layer: bool = False,
) -> Several | None:
    """The functions that rows of a tensor are, which are added up or read by a layer.

    A sum of several functions of the same elements is a unit for each of them.

    Args:
        source: the tensor.
        axes: along which a row lies; they have length 1 in what is returned.
        variants: knows what the tensor holds.
        constants: gives the parameters.
        layout: lays out something of each element of the tensor so that rows lie along the axes,
            CONSTANT or 0 where a row has no element; None where they do.
        by_layer: whether a layer reads the rows: those that differ by a factor, or by a constant
            that is added, give affine functions of the same units.

    Returns:
        None where each row has other elements than all others. What the result is, where rows
        are numbers times an affine function of one of their elements and not only sums.
    """
    if not variants.may_repeat(source):
        return None
    shown, places = variants.of(source), variants.places(source)
    if places.key is not None or source.shape.numel() > MOST_ELEMENTS:
        return None
    if shown is None and not places.repeats():
        return None
    numbers = [places.as_numbers(), *([] if shown is None else [shown])]
    sizes, (number, *functions) = _rows(numbers, axes, layout)
    begin = numbered(number.view(sizes))
    if not _repeats(begin):
        return None
    rows = functions[0] if functions else torch.zeros_like(number)
    if not bool((rows != rows[0]).any()):
        return Several(None, plain(begin))
    rows = collapse(rows.view(sizes))
    known = forms([source], constants)
    if known is None or layout is not None:
        return Several(rows, plain(begin))
    scale, shift = known[0]
    if by_layer:
        return _read_by_layer(rows, axes, source.labels, known[0], begin)
    alike = all(_is_same_along(part, axes) for part in known[0])
    first = tuple(slice(0, 1) if a in axes else slice(None) for a in range(scale.ndim))
    begun = Begun(begin, rows, scale[first], shift[first]) if alike else plain(begin)
    return Several(rows, begun)


def _read_by_layer(
    rows: torch.Tensor, axes: Sequence[int], labels: torch.Tensor, form: Form, begin: Places
) -> Several:
    """The functions of rows that a layer reads; see `of_rows`."""
    there, first = labels != CONSTANT, range(len(axes))
    scales, shifts = (
        torch.where(there, part, 0.0).movedim([*axes], [*first]).flatten(0, len(axes) - 1)
        for part in form
    )  # (features, ...)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(len(shifts), generator=generator, dtype=torch.float64)
    scale = _first(scales)
    shift = torch.tensordot(weights, shifts, 1)
    kinds = (scales / scale).view(len(scales), *rows.shape)
    return _several([rows], kinds, begin, (scale.view(rows.shape), shift.view(rows.shape)))


def _rows(
    tensors: list[torch.Tensor], axes: Sequence[int], layout: Layout | None
) -> tuple[list[int], list[torch.Tensor]]:
    """Numbers of the rows of some tensors, and the shape that they have with rows of length 1."""
    laid_out = [tensor if layout is None else layout(tensor) for tensor in tensors]
    dimensions = laid_out[0].ndim
    kept = [axis for axis in range(dimensions) if axis not in axes]
    sizes = [1 if axis in axes else n for axis, n in enumerate(laid_out[0].shape)]
    found = []
    for tensor in laid_out:
        small = compact(tensor)
        rows = small.permute(*kept, *axes).reshape(-1, _size(small, axes))
        short = [1 if axis in axes else n for axis, n in enumerate(small.shape)]
        found.append(_numbers_of_rows(rows).view(short).expand(sizes).reshape(-1))
    return sizes, found


def _is_same_along(tensor: torch.Tensor, axes: Sequence[int]) -> bool:
    small = compact(tensor)
    return all(bool((small == small.narrow(axis, 0, 1)).all()) for axis in axes)


def _several(
    columns: list[torch.Tensor], kinds: torch.Tensor, places: Places, form: tuple[torch.Tensor, ...]
) -> Several:
    """Functions, the last column of which tells them apart, of equal kinds as one.

    Args:
        columns: int64 of one shape.
        kinds: what is equal for affine functions of each other.  # (numbers, *shape)
        places: of the elements.
        form: scale and shift of each.
    """
    shape = columns[0].shape
    stacked = np.stack([column.expand(shape).reshape(-1).numpy() for column in columns], axis=1)
    tuples, first, number = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
    kind = kinds.reshape(len(kinds), -1)[:, torch.from_numpy(first)].round(decimals=_DIGITS).T
    of_kind = np.unique(kind.numpy() + 0.0, axis=0, return_inverse=True)[1].reshape(-1)
    together = np.column_stack([tuples[:, :-1], of_kind])
    _, function = np.unique(together, axis=0, return_inverse=True)
    function = function.reshape(-1)
    left = bool(np.bincount(function).max() > 1)
    shown = torch.from_numpy(function[number.reshape(-1)]).view(shape)
    begun = Begun(places, columns[-1].expand(shape), *form) if left else plain(places)
    return Several(collapse(shown), begun)


def _together(places: list[Places]) -> Places | None:
    """Places of tuples of elements; None where each is another one, or where it is not known."""
    shape = torch.Size(places[0].shape)
    if shape.numel() > MOST_ELEMENTS:
        return None
    if any(one.key is not None for one in places) or not all(one.repeats() for one in places):
        return None
    if all(one.numbers is None for one in places):
        varies = [any(one.strides[axis] for one in places) for axis in range(len(shape))]
        if all(own or size < 2 for own, size in zip(varies, shape, strict=True)):
            return None
        sizes = torch.Size([n if own else 1 for own, n in zip(varies, shape, strict=True)])
        return numbered(torch.arange(sizes.numel()).view(sizes).expand(shape))
    rows = torch.stack([one.as_numbers().reshape(-1) for one in places], 1)
    found = numbered(torch.from_numpy(distinct_rows(rows.numpy())[1]).view(shape))
    return found if _repeats(found) else None


def _may_repeat(value: Value, shape: torch.Size, variants: Variants) -> bool:
    return value.shape.numel() < shape.numel() or variants.may_repeat(value)


def _repeats(places: Places) -> bool:
    """Whether elements are repeated along an axis, all of them as often."""
    if places.numbers is None:
        return places.repeats()
    return any(places.repeats_along(axis) is not None for axis in range(len(places.shape)))


def _ranks(places: torch.Tensor, columns: list[torch.Tensor]) -> torch.Tensor | None:
    """Which of the functions of its elements each element is: the first, the second and so on.

    Args:
        places: numbers of the elements.
        columns: what tells functions apart, in the same shape.

    Returns:
        None where all have one.
    """
    if not columns:
        return None
    function = _numbers_of_rows(torch.stack([own.reshape(-1) for own in columns], 1))
    pairs = np.stack([places.reshape(-1).numpy(), function.numpy()], axis=1)
    found, first, number = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((first, found[:, 0]))
    own = found[order, 0]
    starts = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    if not rank.any():
        return None
    return collapse(torch.from_numpy(rank[number.reshape(-1)]).view(places.shape))


def _first(scales: torch.Tensor) -> torch.Tensor:
    """The first factor of several that is not 0; 1 where all are.

    Args:
        scales: # (tensors, ...)
    """
    first = (scales != 0).to(torch.int8).argmax(0, keepdim=True)
    found = scales.gather(0, first).squeeze(0)
    return torch.where(found == 0, 1.0, found)


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Integers that are equal where numbers are."""
    small = compact(tensor)
    numbers: torch.Tensor = small.round(decimals=_DIGITS).unique(return_inverse=True)[1]
    return numbers.view(small.shape).expand(tensor.shape)


def _numbers_of_rows(rows: torch.Tensor) -> torch.Tensor:
    """Integers that are equal for equal rows."""
    _, number = distinct_rows(rows.numpy())
    return torch.from_numpy(number)


def plain(places: Places) -> Begun:
    """What a tensor is whose elements have one function each."""
    return Begun(places, None, *_plain_form(places.shape))


def _plain_form(shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return _ONE.expand(tuple(shape)), torch.zeros_like(_ONE).expand(tuple(shape))


def _size(tensor: torch.Tensor, axes: Sequence[int]) -> int:
    return int(np.prod([tensor.shape[axis] for axis in axes], dtype=np.int64))
