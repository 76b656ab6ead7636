"""Spellings of what moves elements, and of windows along positions."""

from __future__ import annotations

from functools import reduce as fold

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from tests.spelling.rules import Call, rule, rules, written


def _at(axis: int, index) -> tuple:  # type: ignore[type-arg, no-untyped-def]
    """An index of one axis, which has the batch before it."""
    return (slice(None),) * (axis + 1) + (index,)


def _taken(c: Call, x: Tensor) -> Tensor:
    return x[_at(c.axis, torch.tensor(c.which))]


def _flat(c: Call, *xs: Tensor) -> Tensor:
    """Elements by the flat index of the operation, whatever moves; None where constants are."""
    flat = torch.cat([x.flatten(1) for x in xs], 1)
    index = torch.from_numpy(c.index.copy())
    if (index < 0).any():
        flat = torch.cat([flat, torch.zeros(flat.shape[0], 1)], 1)
        index = index.where(index >= 0, flat.shape[1] - 1)
    return flat[:, index]


def _gathered(c: Call, x: Tensor) -> Tensor | None:
    if (c.index < 0).any():
        return None
    index = torch.from_numpy(c.index.copy()).flatten().expand(x.shape[0], -1)
    return x.flatten(1).gather(1, index).view(x.shape[0], *c.node.shape)


def _contiguous(c: Call) -> bool:
    return c.which == tuple(range(c.which[0], c.which[0] + len(c.which)))


def _take_along(c: Call, x: Tensor) -> Tensor:
    shape = [len(c.which) if axis == c.axis + 1 else 1 for axis in range(x.dim())]
    index = torch.tensor(c.which).view(shape)
    return torch.take_along_dim(x, index, c.axis + 1)


def _buffer(c: Call, *parts: Tensor) -> Tensor:
    """cat as writes into zeros."""
    buffer = torch.zeros(parts[0].shape[0], *c.node.shape)
    start = 0
    for part in parts:
        end = start + part.shape[c.axis + 1]
        buffer[_at(c.axis, slice(start, end))] = part
        start = end
    return buffer


def _padded_sum(c: Call, *parts: Tensor) -> Tensor:
    """cat as a sum of padded parts."""
    length, start, padded = c.node.shape[c.axis], 0, []
    for part in parts:
        end = start + part.shape[c.axis + 1]
        after = part.dim() - 2 - c.axis
        padded.append(F.pad(part, (0, 0) * after + (start, length - end)))
        start = end
    return fold(torch.add, padded)


def _pad_widths(c: Call) -> tuple[int, ...]:
    return tuple(width for pair in reversed(c.widths) for width in pair)


def _pad_written(c: Call, x: Tensor) -> Tensor:
    before, _ = c.widths[c.axis]
    buffer = torch.zeros(x.shape[0], *c.node.shape)
    buffer[_at(c.axis, slice(before, before + x.shape[c.axis + 1]))] = x
    return buffer


def _pad_cat(c: Call, x: Tensor) -> Tensor:
    def zeros(size: int) -> Tensor:
        return torch.zeros(*x.shape[: c.axis + 1], size, *x.shape[c.axis + 2 :])

    before, after = c.widths[c.axis]
    return torch.cat([zeros(before), x, zeros(after)], c.axis + 1)


rules(
    "move:flip",
    **{
        "flip: plain": lambda c, x: x.flip(c.axis + 1),
        "flip: index": lambda c, x: x[_at(c.axis, torch.arange(x.shape[c.axis + 1] - 1, -1, -1))],
        "flip: stack of the reverse": lambda c, x: torch.stack(
            x.unbind(c.axis + 1)[::-1], c.axis + 1
        ),
        "flip: gather": _gathered,
    },
)
rules(
    "move:roll",
    **{
        "roll: plain": lambda c, x: x.roll(c.shift, c.axis + 1),
        "roll: cat": lambda c, x: torch.cat(
            [x[_at(c.axis, slice(-c.shift, None))], x[_at(c.axis, slice(None, -c.shift))]],
            c.axis + 1,
        ),
        "roll: flat index": _flat,
    },
)
rules(
    "move:take",
    **{
        "take: index": _taken,
        "take: list": lambda c, x: x[_at(c.axis, list(c.which))],
        "take: index_select": lambda c, x: x.index_select(c.axis + 1, torch.tensor(c.which)),
        "take: take_along_dim": _take_along,
        "take: gather": _gathered,
        "take: stack of selects": lambda c, x: torch.stack(
            [x.select(c.axis + 1, i) for i in c.which], c.axis + 1
        ),
        "take: cat of narrow": lambda c, x: torch.cat(
            [x.narrow(c.axis + 1, i, 1) for i in c.which], c.axis + 1
        ),
        "take: slice": lambda c, x: (
            x[_at(c.axis, slice(c.which[0], c.which[-1] + 1))] if _contiguous(c) else None
        ),
        "take: narrow": lambda c, x: (
            x.narrow(c.axis + 1, c.which[0], len(c.which)) if _contiguous(c) else None
        ),
        "take: split": lambda c, x: (
            x.split([len(c.which), x.shape[c.axis + 1] - len(c.which)], c.axis + 1)[0]
            if _contiguous(c) and c.which[0] == 0
            else None
        ),
        "take: boolean constant": lambda c, x: (
            x[_at(c.axis, torch.isin(torch.arange(x.shape[c.axis + 1]), torch.tensor(c.which)))]
            if list(c.which) == sorted(set(c.which))
            else None
        ),
    },
)
rules(
    "move:cat",
    **{
        "cat: plain": lambda c, *xs: torch.cat(xs, c.axis + 1),
        "cat: written": _buffer,
        "cat: sum of padded": _padded_sum,
        "cat: flat index": _flat,
        "cat: hstack moved": lambda c, *xs: torch.hstack(
            [x.movedim(c.axis + 1, 1) for x in xs]
        ).movedim(1, c.axis + 1),
    },
)
rules(
    "move:pad",
    **{
        "pad: plain": lambda c, x: F.pad(x, _pad_widths(c)),
        "pad: cat with zeros": _pad_cat,
        "pad: written": _pad_written,
        "pad: flat index": _flat,
    },
)
rules(
    "move:swap",
    **{
        "swap: transpose": lambda c, x: x.transpose(1, 2),
        "swap: mT": lambda c, x: x.mT,
        "swap: permute": lambda c, x: x.permute(0, 2, 1).contiguous(),
        "swap: einsum": lambda c, x: torch.einsum("bij->bji", x),
        "swap: stack": lambda c, x: torch.stack(x.unbind(1), 2),
    },
)
rules(
    "move:flatten",
    **{
        "flatten: plain": lambda c, x: x.flatten(1),
        "flatten: reshape": lambda c, x: x.reshape(x.shape[0], -1),
        "flatten: cat": lambda c, x: torch.cat([part.flatten(1) for part in x.unbind(1)], 1),
    },
)
rules(
    "move:step",
    **{
        "step: index": lambda c, x: x[:, c.at],
        "step: select": lambda c, x: x.select(1, c.at),
        "step: narrow": lambda c, x: x.narrow(1, c.at, 1).squeeze(1),
        "step: unbind": lambda c, x: x.unbind(1)[c.at],
        "step: index_select": lambda c, x: x.index_select(1, torch.tensor([c.at]))[:, 0],
    },
)
rules(
    "move:stack",
    **{
        "stack: plain": lambda c, *xs: torch.stack(xs, 1),
        "stack: cat": lambda c, *xs: torch.cat([x[:, None] for x in xs], 1),
        "stack: view of cat": lambda c, *xs: torch.cat(xs, 1).view(xs[0].shape[0], *c.node.shape),
        "stack: written in a loop": lambda c, *xs: written(
            torch.empty(xs[0].shape[0], *c.node.shape),
            *(((slice(None), t), x) for t, x in enumerate(xs)),
        ),
    },
)
rules(
    "move:repeat",
    **{
        "repeat: repeat_interleave": lambda c, x: x.repeat_interleave(c.times, c.axis + 1),
        "repeat: expand": lambda c, x: (
            x.unsqueeze(c.axis + 2)
            .expand(*x.shape[: c.axis + 2], c.times, *x.shape[c.axis + 2 :])
            .reshape(x.shape[0], *c.node.shape)
        ),
        "repeat: stack": lambda c, x: torch.stack([x] * c.times, c.axis + 2).flatten(
            c.axis + 1, c.axis + 2
        ),
        "repeat: flat index": _flat,
    },
)
rules(
    "move:shuffle",
    **{
        "channel shuffle: views": lambda c, x: (
            x.unflatten(1, (c.groups, -1)).transpose(1, 2).flatten(1, 2)
        ),
        "channel shuffle: plain": lambda c, x: (
            F.channel_shuffle(x, c.groups) if x.dim() > 2 else None
        ),
        "channel shuffle: index": _flat,
        "channel shuffle: stack of chunks": lambda c, x: torch.stack(
            x.chunk(c.groups, 1), 2
        ).flatten(1, 2),
    },
)


@rule("move:pixel_shuffle", "pixel shuffle: views")
def _pixel_views(c: Call, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    parts = x.view(b, -1, c.factor, c.factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(b, *c.node.shape)


@rule("move:pixel_shuffle", "pixel shuffle: written")
def _pixel_written(c: Call, x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape[0], *c.node.shape)
    for i in range(c.factor):
        for j in range(c.factor):
            buffer[:, :, i :: c.factor, j :: c.factor] = x[:, i * c.factor + j :: c.factor**2]
    return buffer


rules(
    "move:pixel_shuffle",
    **{
        "pixel shuffle: plain": lambda c, x: F.pixel_shuffle(x, c.factor),
        "pixel shuffle: index": _flat,
    },
)
rules(
    "move:pixel_unshuffle",
    **{
        "pixel unshuffle: plain": lambda c, x: F.pixel_unshuffle(x, c.factor),
        "pixel unshuffle: unfold": lambda c, x: F.unfold(x, c.factor, stride=c.factor).view(
            x.shape[0], *c.node.shape
        ),
        "pixel unshuffle: index": _flat,
    },
)
rules(
    "move:unfold",
    **{
        "windows: unfold": lambda c, x: x.unfold(1, c.size, 1).mT.flatten(2),
        "windows: cat of slices": lambda c, x: torch.cat(
            [x[:, i : x.shape[1] - c.size + 1 + i] for i in range(c.size)], 2
        ),
        "windows: flat index": _flat,
    },
)
rules(
    "move:squeeze",
    **{
        "squeeze: plain": lambda c, x: x.squeeze(tuple(axis + 1 for axis in c.axes)),
        "squeeze: view": lambda c, x: x.reshape(x.shape[0], *c.node.shape),
        "squeeze: select": lambda c, x: fold(
            lambda y, axis: y.select(axis + 1, 0), sorted(c.axes, reverse=True), x
        ),
        "squeeze: sum": lambda c, x: x.sum(tuple(axis + 1 for axis in c.axes)),
    },
)
rules(
    "move:select",
    **{
        "constant mask: where": lambda c, a, b: torch.where(torch.from_numpy(c.mask), a, b),
        "constant mask: turned round": lambda c, a, b: torch.where(torch.from_numpy(~c.mask), b, a),
        "constant mask: flat index": _flat,
        "constant mask: masked_scatter": lambda c, a, b: b.masked_scatter(
            torch.from_numpy(c.mask).expand_as(b),
            a.masked_select(torch.from_numpy(c.mask).expand_as(a)),
        ),
    },
)
rules(
    "move:fill",
    **{
        "constant fill: masked_fill": lambda c, x: x.masked_fill(torch.from_numpy(c.mask), 0.0),
        "constant fill: where": lambda c, x: torch.where(torch.from_numpy(c.mask), 0.0, x),
        "constant fill: flat index": _flat,
    },
)

# --- windows --------------------------------------------------------------------------------------


def _pooled(c: Call, x: Tensor, function: str) -> Tensor | None:
    """A pooling of torch, if positions are pooled and channels come first."""
    if c.channels != 1 or 0 in c.axes:
        return None
    return getattr(F, f"{function}_pool{len(c.axes)}d")(x, c.size, c.stride)


def _channels_pooled(c: Call, x: Tensor, function: str) -> Tensor | None:
    """One axis other than the last, moved there."""
    if len(c.axes) > 1:
        return None
    rows = x.movedim(c.axes[0] + 1, -1)
    flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
    pooled = getattr(F, f"{function}_pool1d")(flat, c.size, c.stride)
    return pooled.view(*rows.shape[:-1], -1).movedim(-1, c.axes[0] + 1)


def _windows(c: Call, x: Tensor) -> Tensor:
    for axis in c.axes:
        x = x.unfold(axis + 1, c.size, c.stride)
    return x.flatten(-len(c.axes))


def _slices(c: Call, x: Tensor) -> list[Tensor]:
    """Along the first axis pooled, the slices of each place in the window."""
    axis = c.axes[0]
    end = (c.node.shape[axis] - 1) * c.stride + 1
    return [x[_at(axis, slice(i, i + end, c.stride))] for i in range(c.size)]


def _positions_only(c: Call) -> bool:
    """Whether one axis of positions is pooled: a sum of slices of features would be flat."""
    return len(c.axes) == 1 and c.axes[0] + 1 != c.channels


rules(
    "window:avg_pool",
    **{
        "average pooling: plain": lambda c, x: _pooled(c, x, "avg"),
        "average pooling: moved": lambda c, x: _channels_pooled(c, x, "avg"),
        "average pooling: windows": lambda c, x: _windows(c, x).mean(-1),
        "average pooling: slices": lambda c, x: (
            fold(torch.add, _slices(c, x)) / c.size if _positions_only(c) else None
        ),
    },
)
rules(
    "window:max_pool",
    **{
        "max pooling: plain": lambda c, x: _pooled(c, x, "max"),
        "max pooling: moved": lambda c, x: _channels_pooled(c, x, "max"),
        "max pooling: windows": lambda c, x: _windows(c, x).amax(-1),
        "max pooling: slices": lambda c, x: (
            fold(torch.maximum, _slices(c, x)) if _positions_only(c) else None
        ),
    },
)


def _lengths(c: Call) -> list[int]:
    return [axis + 1 for axis, name in enumerate(c.node.layout) if name != "c"]


def _interpolated(c: Call, x: Tensor, **arguments: str) -> Tensor:
    last = x if c.channels == 1 else x.mT
    result = F.interpolate(last, scale_factor=2, **arguments)
    return result if c.channels == 1 else result.mT


rules(
    "window:upsample_nearest",
    **{
        "upsampling: interpolate": lambda c, x: _interpolated(c, x),
        "upsampling: repeat_interleave": lambda c, x: fold(
            lambda y, axis: y.repeat_interleave(2, axis), _lengths(c), x
        ),
        "upsampling: expand": lambda c, x: fold(
            lambda y, axis: torch.stack([y, y], axis + 1).flatten(axis, axis + 1), _lengths(c), x
        ),
        "upsampling: index": lambda c, x: fold(
            lambda y, axis: y[_at(axis - 1, torch.arange(2 * y.shape[axis]) // 2)], _lengths(c), x
        ),
    },
)


def _linear_upsampled(c: Call, x: Tensor) -> Tensor | None:
    """Two neighbours with their weights, along the one axis of positions."""
    if len(_lengths(c)) > 1:
        return None
    axis = _lengths(c)[0]
    size = x.shape[axis]
    near = ((torch.arange(2 * size) + 0.5) / 2 - 0.5).clamp(min=0)
    low = near.floor().long()
    high, weight = (low + 1).clamp(max=size - 1), near - low
    weight = weight.view([-1 if a == axis else 1 for a in range(x.dim())])
    return x.index_select(axis, low) * (1 - weight) + x.index_select(axis, high) * weight


rules(
    "window:upsample_linear",
    **{
        "upsampling: linear interpolate": lambda c, x: _interpolated(
            c, x, mode="linear" if x.dim() == 3 else "bilinear"
        ),
        "upsampling: two neighbours": _linear_upsampled,
    },
)


def _running(c: Call, x: Tensor) -> Tensor | None:
    if c.axis + 1 == c.channels:
        return None
    total, totals = None, []
    for part in x.unbind(c.axis + 1):
        total = part if total is None else total + part
        totals.append(total)
    return torch.stack(totals, c.axis + 1)


rules(
    "window:cumsum",
    **{
        "cumsum: plain": lambda c, x: x.cumsum(c.axis + 1),
        "cumsum: in a loop": _running,
    },
)
rules(
    "window:cummax",
    **{"cummax: plain": lambda c, x: x.cummax(c.axis + 1).values},
)
rules(
    "window:sort",
    **{
        "sort: plain": lambda c, x: x.sort(c.axis + 1).values,
        "sort: topk": lambda c, x: x.topk(x.shape[c.axis + 1], c.axis + 1, largest=False).values,
        "sort: descending, flipped": lambda c, x: x.sort(c.axis + 1, descending=True).values.flip(
            c.axis + 1
        ),
        "sort: argsort and gather": lambda c, x: x.gather(c.axis + 1, x.argsort(c.axis + 1)),
    },
)
rules(
    "window:fft",
    **{
        "fft: plain": lambda c, x: torch.fft.fft(x, dim=c.axis + 1).real,
        "fft: real view": lambda c, x: torch.view_as_real(torch.fft.fft(x, dim=c.axis + 1))[..., 0],
        "fft: conjugate": lambda c, x: torch.fft.fft(x, dim=c.axis + 1).conj().real,
        "fft: of complex": lambda c, x: torch.fft.fft(x.to(torch.complex64), dim=c.axis + 1).real,
    },
)
