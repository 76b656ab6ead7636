"""Writes programs operation by operation: shapes, and which element goes where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.spelling.program import Node, Program, Shape, channel_axis, positions


class Builder:
    """A program that grows; operations return the place of their result."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: str, args: Sequence[int], shape: Shape, layout: str, **attrs: Any) -> int:
        self.nodes.append(Node(op, tuple(args), tuple(shape), layout, attrs))
        return len(self.nodes) - 1

    def program(self, *outputs: int, constructs: Sequence[str] = ()) -> Program:
        return Program(tuple(self.nodes), outputs, tuple(constructs)).pruned()

    def shape(self, x: int) -> Shape:
        return self.nodes[x].shape

    def layout(self, x: int) -> str:
        return self.nodes[x].layout

    def channels(self, x: int) -> int:
        return self.shape(x)[channel_axis(self.layout(x))]

    # --- inputs and layers ------------------------------------------------------------------------

    def input(self, layout: str, *shape: int) -> int:
        return self.add("input", (), shape, layout)

    def ids(self, tokens: int, vocabulary: int) -> int:
        return self.add("ids", (), (tokens,), "t", vocabulary=vocabulary)

    def linear(self, x: int, out: int, *gates: int, **attrs: Any) -> int:
        return self.add("linear", (x, *gates), (*self.shape(x)[:-1], out), self.layout(x), **attrs)

    def bilinear(self, x: int, y: int, out: int) -> int:
        return self.add("bilinear", (x, y), (*self.shape(x)[:-1], out), self.layout(x))

    def embedding(self, x: int, out: int) -> int:
        vocabulary = self.nodes[x].attrs["vocabulary"]
        return self.add("embedding", (x,), (*self.shape(x), out), "tc", vocabulary=vocabulary)

    def mixing(self, x: int, tokens: int) -> int:
        shape, time = list(self.shape(x)), self.layout(x).index("t")
        shape[time] = tokens
        return self.add("mixing", (x,), tuple(shape), self.layout(x))

    def conv(
        self,
        x: int,
        out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        transposed: bool = False,
    ) -> int:
        def length(size: int) -> int:
            if transposed:
                return (size - 1) * stride - 2 * (kernel // 2) + kernel
            return (size + 2 * (kernel // 2) - kernel) // stride + 1

        shape = (out, *map(length, self.shape(x)[1:]))
        attrs = {"kernel": kernel, "stride": stride, "groups": groups, "transposed": transposed}
        return self.add("conv", (x,), shape, self.layout(x), **attrs)

    def like(self, op: str, *args: int, **attrs: Any) -> int:
        """An operation whose result has the shape of its (broadcast) arguments."""
        shape = np.broadcast_shapes(*map(self.shape, args))
        largest = max(args, key=lambda arg: (len(self.shape(arg)), np.prod(self.shape(arg))))
        return self.add(op, args, shape, self.layout(largest), **attrs)

    def act(self, x: int, name: str, parameter: Any = 0.0) -> int:
        return self.like("act", x, name=name, parameter=parameter)

    def basis(self, x: int, name: str, knots: Sequence[float]) -> int:
        """Channels c become c * knots, the knots of a channel side by side (layouts c and tc)."""
        shape = (*self.shape(x)[:-1], self.shape(x)[-1] * len(knots))
        return self.add("basis", (x,), shape, self.layout(x), name=name, knots=tuple(knots))

    def affine(self, x: int, factor: Any = 1.0, offset: Any = 0.0, **attrs: Any) -> int:
        shape = np.broadcast_shapes(self.shape(x), np.shape(factor), np.shape(offset))
        return self.add(
            "affine", (x,), shape, self.layout(x), factor=factor, offset=offset, **attrs
        )

    def sum(self, *args: int, factors: Sequence[float] | None = None) -> int:
        return self.like("sum", *args, factors=tuple(factors or (1.0,) * len(args)))

    def product(self, *args: int) -> int:
        return self.like("product", *args)

    def quotient(self, above: int, *below: int) -> int:
        """One divided by all others."""
        return self.like("quotient", above, *below, inverted=(False, *(True for _ in below)))

    def attention(self, q: int, k: int, v: int, heads: int) -> int:
        shape = (self.shape(q)[0], self.shape(v)[1])
        return self.add("attention", (q, k, v), shape, "tc", heads=heads)

    def matmul(
        self, a: int, b: int, layout: str, *, left: bool = False, right: bool = False
    ) -> int:
        """a b, a transposed where `left` is set, b where `right` is."""
        rows = self.shape(a)[1 if left else 0]
        columns = self.shape(b)[0 if right else 1]
        attrs = {"transpose_a": left, "transpose_b": right}
        return self.add("matmul", (a, b), (rows, columns), layout, **attrs)

    # --- what moves -------------------------------------------------------------------------------

    def move(
        self,
        how: str,
        args: Sequence[int],
        function: Callable[..., np.ndarray],
        layout: str | None = None,
        **attrs: Any,
    ) -> int:
        """`function` moves flat indices as the operation moves elements; -1 is a constant."""
        start, indices = 0, []
        for arg in args:
            indices.append(start + positions(self.shape(arg)))
            start += indices[-1].size
        index = function(*indices)
        layout = layout or self.layout(args[0])
        return self.add("move", args, index.shape, layout, how=how, index=index, **attrs)

    def flip(self, x: int, axis: int) -> int:
        return self.move("flip", [x], lambda i: np.flip(i, axis), axis=axis)

    def roll(self, x: int, axis: int, shift: int = 1) -> int:
        return self.move("roll", [x], lambda i: np.roll(i, shift, axis), axis=axis, shift=shift)

    def take(self, x: int, axis: int, which: Sequence[int]) -> int:
        """Some indices of an axis, in an order, perhaps one several times."""
        return self.move(
            "take", [x], lambda i: np.take(i, which, axis), axis=axis, which=tuple(which)
        )

    def slice(self, x: int, axis: int, start: int, end: int) -> int:
        return self.take(x, axis, range(start, end))

    def cat(self, args: Sequence[int], axis: int) -> int:
        return self.move("cat", args, lambda *i: np.concatenate(i, axis), axis=axis)

    def pad(self, x: int, axis: int, before: int, after: int) -> int:
        widths = [(0, 0)] * len(self.shape(x))
        widths[axis] = (before, after)
        return self.move(
            "pad", [x], lambda i: np.pad(i, widths, constant_values=-1), axis=axis, widths=widths
        )

    def swap(self, x: int) -> int:
        """Tokens first to channels first, or back."""
        layout = {"tc": "ct", "ct": "tc"}[self.layout(x)]
        return self.move("swap", [x], lambda i: i.T, layout)

    def flatten(self, x: int) -> int:
        return self.move("flatten", [x], lambda i: i.reshape(-1), "c")

    def step(self, x: int, at: int) -> int:
        """One token of tokens: layout c."""
        return self.move("step", [x], lambda i: i[at], "c", at=at)

    def stack(self, args: Sequence[int]) -> int:
        """Vectors as tokens."""
        return self.move("stack", args, lambda *i: np.stack(i), "tc")

    def repeat(self, x: int, axis: int, times: int) -> int:
        return self.move("repeat", [x], lambda i: np.repeat(i, times, axis), axis=axis, times=times)

    def shuffle(self, x: int, groups: int) -> int:
        """Channel shuffle; channels first."""

        def moved(index: np.ndarray) -> np.ndarray:
            parts = index.reshape(groups, -1, *index.shape[1:])
            return parts.swapaxes(0, 1).reshape(index.shape)

        return self.move("shuffle", [x], moved, groups=groups)

    def pixel_shuffle(self, x: int, factor: int = 2) -> int:
        def moved(index: np.ndarray) -> np.ndarray:
            c, h, w = index.shape
            parts = index.reshape(c // factor**2, factor, factor, h, w)
            return parts.transpose(0, 3, 1, 4, 2).reshape(-1, h * factor, w * factor)

        return self.move("pixel_shuffle", [x], moved, factor=factor)

    def pixel_unshuffle(self, x: int, factor: int = 2) -> int:
        def moved(index: np.ndarray) -> np.ndarray:
            c, h, w = index.shape
            parts = index.reshape(c, h // factor, factor, w // factor, factor)
            return parts.transpose(0, 2, 4, 1, 3).reshape(-1, h // factor, w // factor)

        return self.move("pixel_unshuffle", [x], moved, factor=factor)

    def unfold(self, x: int, size: int) -> int:
        """Windows of tokens side by side: (t, c) to (t - size + 1, c * size)."""

        def moved(index: np.ndarray) -> np.ndarray:
            windows = np.lib.stride_tricks.sliding_window_view(index, size, 0)
            return windows.swapaxes(1, 2).reshape(windows.shape[0], -1)

        return self.move("unfold", [x], moved, size=size)

    def select(self, a: int, b: int, mask: np.ndarray) -> int:
        """a where a constant mask (that broadcasts) is set, else b."""
        return self.move("select", [a, b], lambda i, j: np.where(mask, i, j), mask=mask)

    def fill(self, x: int, mask: np.ndarray) -> int:
        """x, but a constant where a constant mask is set."""
        return self.move("fill", [x], lambda i: np.where(mask, -1, i), mask=mask)

    # --- windows ----------------------------------------------------------------------------------

    def along(self, x: int, windows_of: dict[int, list[list[int]]], kind: str, **attrs: Any) -> int:
        """Windows along axes: for each index of the result the indices of the argument."""
        shape = list(self.shape(x))
        for axis, windows in windows_of.items():
            shape[axis] = len(windows)
        flat = positions(self.shape(x))
        reads = np.empty(shape, dtype=object)
        for at in np.ndindex(*shape):
            where = [windows_of[a][i] if a in windows_of else [i] for a, i in enumerate(at)]
            reads[at] = tuple(flat[np.ix_(*where)].ravel().tolist())
        return self.add(
            "window", (x,), tuple(shape), self.layout(x), kind=kind, reads=reads, **attrs
        )

    def pool(self, x: int, kind: str, axes: Sequence[int], size: int, stride: int) -> int:
        """avg or max; windows that cover whole axes reduce them."""

        def windows(length: int) -> list[list[int]]:
            starts = range(0, length - size + 1, stride)
            return [list(range(start, start + size)) for start in starts]

        which = {axis: windows(self.shape(x)[axis]) for axis in axes}
        whole = all(self.shape(x)[axis] == size for axis in axes)
        how = {"axes": tuple(axes), "size": size, "stride": stride, "whole": whole}
        return self.along(x, which, f"{kind}_pool", **how)

    def upsample(self, x: int, kind: str) -> int:
        """Twice as long along the positions, `nearest` or `linear`."""
        axes = [a for a, name in enumerate(self.layout(x)) if name != "c"]

        def windows(length: int) -> list[list[int]]:
            if kind == "nearest":
                return [[i // 2] for i in range(2 * length)]
            near = [(i + 0.5) / 2 - 0.5 for i in range(2 * length)]
            return [
                sorted({min(max(int(np.floor(y)) + d, 0), length - 1) for d in (0, 1)})
                for y in near
            ]

        which = {axis: windows(self.shape(x)[axis]) for axis in axes}
        return self.along(x, which, f"upsample_{kind}", ordered=kind == "linear")

    def scan(self, x: int, kind: str, axis: int) -> int:
        """cumsum and cummax read what is before; sort and fft (its real part) read all."""
        length = self.shape(x)[axis]
        before = kind in ("cumsum", "cummax")
        windows = [list(range(i + 1 if before else length)) for i in range(length)]
        return self.along(x, {axis: windows}, kind, axis=axis, ordered=True)

    def reduce(self, x: int, kind: str, axes: Sequence[int], *, keep: bool = True) -> int:
        """mean, sum, amax, amin, std, norm or logsumexp of whole axes."""
        which = {axis: [list(range(self.shape(x)[axis]))] for axis in axes}
        reduced = self.along(x, which, kind, axes=tuple(axes), whole=True)
        if keep:
            return reduced
        layout = "".join(name for a, name in enumerate(self.layout(x)) if a not in axes)
        return self.move("squeeze", [reduced], lambda i: i.squeeze(tuple(axes)), layout, axes=axes)
