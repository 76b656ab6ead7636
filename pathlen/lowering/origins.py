"""Where the elements of a tensor come from: their coordinates in one input of the program.

An origin holds, for each axis of the input, the coordinate at which each element of a tensor was
before it was moved, so what moves elements moves coordinates. Where several elements of the input
meet in one (pooling, differences of frames, means), it keeps the coordinate of one of them, and
notes which others took part. Coordinates have stride 0 along all axes of a tensor on which they do
not vary: those of an image take as much room as its sides are long, not as it has pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.labels import broadcast, collapse, compact
from pathlen.lowering.movement import run_on_labels
from pathlen.lowering.operations import aten, functional
from pathlen.lowering.values import Call, Value

NOWHERE = 0  # the coordinate of a constant; those of the input count from 1, for padding writes 0
_PLACES = ("index", "indices", "mask", "repeats")
_RESHAPES = frozenset(
    aten("view reshape flatten unflatten _unsafe_view view_as reshape_as _reshape_alias view_copy")
)
_LOCAL = frozenset(  # leave all axes alone that are not named
    aten("cat concat concatenate stack roll flip index_select pad constant_pad_nd index")
)
_MOVED = ("self", "tensors")
_READS_AT = frozenset(aten("index _unsafe_index"))
_ASSIGNS = {  # what adds at indices, as what writes there
    "aten.index_add": torch.ops.aten.index_copy.default,
    "aten.index_reduce": torch.ops.aten.index_copy.default,
    "aten.scatter_add": torch.ops.aten.scatter.src,
    "aten.scatter_reduce": torch.ops.aten.scatter.src,
}


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where the elements of a tensor come from.

    Attributes:
        coordinates: for each axis of the input, the coordinate of each element, from 1 on, or
            NOWHERE; last, the number of the constant that it was multiplied by, from 1 on.  # the
            tensor's shape, each
        mixed: for each axis of the input, whether elements at a coordinate took part beside those
            that the coordinates tell.  # (size of the axis,), each
    """

    coordinates: tuple[torch.Tensor, ...]
    mixed: tuple[np.ndarray, ...]

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.coordinates[0].shape

    def seen(self, axis: int) -> np.ndarray:
        """Whether the tensor's own elements come from each coordinate of an axis of the input."""
        return _seen(self.coordinates[axis], len(self.mixed[axis]))

    def takes_part(self, axis: int) -> np.ndarray:
        """Whether elements at each coordinate of an axis of the input reach the tensor."""
        took_part: np.ndarray = self.seen(axis) | self.mixed[axis]
        return took_part

    def with_all_along(self, source: "Origin", axes: Iterable[int]) -> "Origin":
        """The origin where each element is made of all that a tensor holds along some axes."""
        took_part = list(self.mixed)
        for axis, own in enumerate(source.coordinates[:-1]):
            small = compact(own)
            if any(small.shape[a] > 1 for a in axes):
                took_part[axis] = took_part[axis] | source.seen(axis)
        return Origin(self.coordinates, tuple(took_part))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Origin":
        """The origin with all coordinates changed alike, nothing mixed."""
        return Origin(tuple(settled(change(k)) for k in self.coordinates), self.mixed)


def origin_of_input(shape: torch.Size) -> Origin:
    """Each element of an input comes from itself."""
    coordinates = [
        torch.arange(1, size + 1).view([-1 if a == axis else 1 for a in range(len(shape))])
        for axis, size in enumerate(shape)
    ]
    everywhere = [k.expand(shape) for k in (*coordinates, torch.tensor(NOWHERE))]
    return Origin(tuple(everywhere), tuple(np.zeros(size, dtype=np.bool_) for size in shape))


def nowhere(shape: torch.Size, like: Origin) -> Origin:
    """The origin of a constant, beside one of the same input."""
    return Origin((constant(shape),) * len(like.coordinates), tuple(m & False for m in like.mixed))


def constant(shape: torch.Size) -> torch.Tensor:
    """Coordinates of what does not come from the input."""
    return torch.tensor(NOWHERE).expand(shape)


def settled(coordinates: torch.Tensor) -> torch.Tensor:
    """Coordinates with stride 0 along each axis on which they do not vary, constants left out."""
    coordinates = collapse(coordinates)
    small = compact(coordinates).numpy()
    if small.size > 1 and (small == NOWHERE).any():
        for axis in range(small.ndim):
            highest = small.max(axis, keepdims=True)
            if ((small == highest) | (small == NOWHERE)).all():
                small = highest
    return torch.from_numpy(small).expand(coordinates.shape)


def met(origins: Sequence[Origin], shape: torch.Size) -> Origin:
    """The origin of an elementwise function of several tensors.

    On each axis of the input, the coordinates of the operand in which they vary most: that of `x`
    in `x - x.mean(1, keepdim=True)`, that of the first in a difference of frames.
    """
    if len(origins) == 1:
        return Origin(tuple(broadcast(k, shape) for k in origins[0].coordinates), origins[0].mixed)
    coordinates, mixed = [], []
    for axis, all_ in enumerate(zip(*[origin.coordinates for origin in origins], strict=True)):
        first, *others = sorted(map(compact, all_), key=lambda k: -k.numel())
        for other in others:
            if not torch.equal(first, other) and bool((first.numpy() == NOWHERE).any()):
                first = settled(torch.where(first == NOWHERE, other, first))
        coordinates.append(broadcast(first, shape))
        if axis < len(origins[0].mixed):
            size = len(origins[0].mixed[axis])
            took_part = [_seen(k, size) for k in others if not torch.equal(first, k)]
            mixed.append(np.logical_or.reduce([*(o.mixed[axis] for o in origins), *took_part]))
    return Origin(tuple(coordinates), tuple(mixed))


def mixed(origin: Origin, shape: torch.Size, dropped: Iterable[int] = ()) -> Origin:
    """The origin of a result in whose elements several elements of a tensor meet.

    An axis of another length than before (pooled, resized, the first few of a sort) keeps its
    order: an element comes from about the same place. One that is dropped comes from any.

    Args:
        origin: of the tensor.
        shape: of the result; its axes are the last of the tensor's, but for those dropped.
        dropped: axes of the tensor that the result does not have.
    """
    dropped = tuple(dropped)

    def resized(coordinates: torch.Tensor) -> torch.Tensor:
        small = compact(coordinates)
        if dropped:
            small = small.amax(dropped)
        if small.ndim > len(shape):
            small = small.amax(tuple(range(small.ndim - len(shape))))
        small = small.view([1] * (len(shape) - small.ndim) + list(small.shape))
        for axis, size in enumerate(shape):
            if small.shape[axis] not in (1, size):
                nearest = torch.arange(size) * small.shape[axis] // max(size, 1)
                small = small.index_select(axis, nearest)
        return small.expand(shape)

    result = origin.each(resized)
    took_part = [
        m if _lengths(k) == _lengths(result.coordinates[axis]) else m | origin.seen(axis)
        for axis, (k, m) in enumerate(zip(origin.coordinates, origin.mixed, strict=False))
    ]
    return Origin(result.coordinates, tuple(took_part))


def moved(
    call: Call, origins: Mapping[Any, Origin], index: Callable[[Value], torch.Tensor | None]
) -> Any:
    """The origins of what a movement returns: the same call on coordinates.

    Args:
        call: the call.
        origins: by the nodes of its operands; others are constants.
        index: gives the values of indices, None where the input decides on them. Then the first
            element stands for any.
    """
    example = next(iter(origins.values()))
    known = {v: index(v) for name in _PLACES for v in _values_in(call.arguments.get(name))}
    unknown = [v for v, places in known.items() if places is None]
    vals = call.node.meta["val"]
    if unknown and unknown[0].dtype == torch.bool and call.name not in _READS_AT:
        return mixed(example, vals.shape)

    def coordinates(value: Value, number: int) -> torch.Tensor:
        if value in known:
            found = known[value]
            return _first(value, example, vals) if found is None else found
        origin = origins.get(value.node)
        return constant(value.shape) if origin is None else origin.coordinates[number]

    parts = []
    for number in range(len(example.coordinates)):
        own = [origin.coordinates[number] for origin in origins.values()]
        replace = partial(coordinates, number=number)
        arguments = pytree.tree_map_only(Value, replace, dict(call.arguments))
        parts.append(_moved(call, own, arguments, vals))
    took_part = tuple(
        np.logical_or.reduce([o.mixed[axis] for o in origins.values()])
        | (bool(unknown) & example.seen(axis))
        for axis in range(len(example.mixed))
    )
    if isinstance(parts[0], torch.Tensor):
        return Origin(tuple(parts), took_part)
    return [Origin(tuple(item), took_part) for item in zip(*parts, strict=True)]


def _moved(call: Call, own: list[torch.Tensor], arguments: dict[str, Any], vals: Any) -> Any:
    """Run a movement on coordinates along one axis of the input, as little as can be.

    Args:
        call: the call.
        own: the coordinates of the operands that come from the input.
        arguments: of the call, coordinates in place of tensors.
        vals: what the call returns, without data.
    """
    small = [compact(k) for k in own]
    same = all(torch.equal(small[0], other) for other in small[1:])
    if same and small[0].numel() == 1:
        alike = small[0].view(())
        return pytree.tree_map_only(torch.Tensor, lambda val: alike.expand(val.shape), vals)
    if call.name in _RESHAPES:
        return settled(_reshaped(arguments["self"], vals.shape))
    touched = _touched(call, vals.ndim) if call.name in _LOCAL else None
    if touched is not None:
        stacked = call.name == "aten.stack"
        if stacked:
            small = [k.unsqueeze(*touched) for k in small]
        if same and all(small[0].shape[axis] == 1 for axis in touched):
            return small[0].expand(vals.shape)  # alike wherever it is not constant
        tensors = [t for name in _MOVED for t in _values_in(arguments.get(name), torch.Tensor)]
        still = [] if stacked else set(range(vals.ndim)) - touched
        still = [a for a in still if all(t.ndim == vals.ndim and not t.stride(a) for t in tensors)]
        for name in _MOVED:
            arguments[name] = pytree.tree_map_only(
                torch.Tensor, lambda t: compact(t, still), arguments.get(name)
            )
    for name in ("value", "fill_value"):
        if isinstance(arguments.get(name), (int, float)):
            arguments[name] = NOWHERE
    if "accumulate" in arguments:
        arguments["accumulate"] = False
    arguments = {name: arguments[name] for name in call.arguments}
    result = run_on_labels(_ASSIGNS.get(call.name, functional(call.func)), arguments)
    result = pytree.tree_map_only(torch.Tensor, settled, result)
    return result if touched is None else result.expand(vals.shape)


def _touched(call: Call, dimensions: int) -> set[int] | None:
    """The axes that a call does something to, None where it does not say."""
    if "pad" in call.arguments:
        return set(range(dimensions - len(call["pad"]) // 2, dimensions))
    if "indices" in call.arguments:
        places = [(axis, i) for axis, i in enumerate(call["indices"]) if i is not None]
        whole = len(places) == 1 and len(places[0][1].shape) == 1
        return {places[0][0]} if whole else None
    chosen = call.arguments.get("dim", call.arguments.get("dims"))
    chosen = [chosen] if isinstance(chosen, int) else chosen
    return {axis % dimensions for axis in chosen} if chosen else None


def _reshaped(coordinates: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A view in another shape: only axes that are split or joined and vary are written out."""
    old, new = list(coordinates.shape), list(shape)
    if coordinates.numel() == 0 or coordinates.numel() != shape.numel():
        return coordinates.reshape(shape)
    small = compact(coordinates)
    varies, sizes, inner = list(small.shape), list[int](), list[int]()
    while old or new:  # axes that together hold the same elements before and after, from the right
        before, after = [old.pop()] if old else [], [new.pop()] if new else []
        while prod(before) != prod(after):
            if prod(before) < prod(after):
                before.insert(0, old.pop())
            else:
                after.insert(0, new.pop())
        own = [varies.pop() for _ in before]
        inner = [*(before if prod(own) > 1 else [1] * len(before)), *inner]
        sizes = [*(after if prod(own) > 1 else [1] * len(after)), *sizes]
    return small.expand(inner).reshape(sizes).expand(shape)


def _first(index: Value, source: Origin, result: torch.Tensor) -> torch.Tensor:
    """Indices that all say 0; a mask of as many elements as were picked."""
    if index.dtype != torch.bool:
        return torch.zeros(index.shape, dtype=torch.int64)
    mask = torch.zeros(index.shape, dtype=torch.bool)
    each = max(source.shape.numel() // max(mask.numel(), 1), 1)
    mask.view(-1)[: result.numel() // each] = True
    return mask


def _lengths(coordinates: torch.Tensor) -> list[int]:
    return [size for size in compact(coordinates).shape if size > 1]


def _seen(coordinates: torch.Tensor, size: int) -> np.ndarray:
    found = np.zeros(size + 1, dtype=np.bool_)
    found[compact(coordinates).numpy().reshape(-1)] = True
    return found[1:]


def _values_in(argument: Any, kind: type = Value) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(argument) if isinstance(leaf, kind)]
