"""Memory that holds what repeats once has the elements of a tensor that holds all of them."""

import numpy as np
import pytest
import torch

from pathlen.lowering.memory import Memory
from pathlen.lowering.views import ViewStep

aten = torch.ops.aten
BASES = {
    "rows": torch.empty(3, 4, 6),
    "features first": torch.empty(6, 3, 4).permute(1, 2, 0),
    "every second": torch.empty(3, 8, 6)[:, ::2],
    "one axis of length 1": torch.empty(3, 1, 6),
    "complex": torch.empty(3, 4, 6, dtype=torch.complex64),
}


def step(func, viewed="self", position=None, **arguments):
    return ViewStep(func, arguments, viewed, position)


def drawn_steps(like, rng):
    """Up to three views in a row."""
    steps, view = [], like
    for _ in range(rng.integers(0, 4)):
        dim = int(rng.integers(view.ndim)) if view.ndim else 0
        size = view.shape[dim] if view.ndim else 0
        start, stop = sorted(rng.integers(0, size + 1, 2).tolist())
        every = int(rng.integers(1, 3))
        options = [step(aten.unsqueeze.default, dim=dim)]
        if view.ndim:
            options += [
                step(aten.select.int, dim=dim, index=int(rng.integers(size))),
                step(aten.slice.Tensor, dim=dim, start=start, end=max(stop, start + 1), step=every),
                step(aten.split.Tensor, split_size=max(size // 2, 1), dim=dim, position=0),
                step(aten.transpose.int, dim0=dim, dim1=view.ndim - 1),
            ]
        if view.ndim > 1:
            options.append(
                step(aten.diagonal.default, offset=0, dim1=dim, dim2=(dim + 1) % view.ndim)
            )
        if view.is_contiguous():
            options += [step(aten.view.default, size=[-1]), step(aten.reshape.default, shape=[-1])]
        if view.is_complex():
            options += [step(aten.real.default), step(aten.imag.default), step(aten._conj.default)]
        chosen = options[rng.integers(len(options))]
        following = chosen(view)
        if following.numel() == 0:
            continue
        steps.append(chosen)
        view = following
    return steps, view


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_through_views_is_read_through_others(name, seed):
    rng = np.random.default_rng(seed)
    base = BASES[name]
    start = torch.arange(6).expand(base.shape)
    memory = Memory(base.to("meta"), start)
    # the elements one by one, with imaginary parts of their own
    whole = torch.empty_strided(base.shape, base.stride(), dtype=torch.float64)
    whole = whole.to(torch.complex128) if base.is_complex() else whole
    whole.copy_(torch.complex(*[start.double() + 1] * 2) if base.is_complex() else start + 1)
    for number in range(8):
        steps, view = drawn_steps(whole, rng)
        rows = torch.arange(view.shape[0] if view.ndim else 1) + 10 * (number + 1)
        rows = rows.view(-1, *[1] * (view.ndim - 1)) if view.ndim else rows.view(())
        labels = (rows if rng.integers(2) else rows.amax()).expand(view.shape)
        memory.write(steps, labels)
        units = labels.double() + 1
        view.copy_(torch.complex(units, units) if view.is_complex() else units)

        steps, view = drawn_steps(whole, rng)
        read = memory.read(steps)
        view = view.resolve_conj().resolve_neg()
        parts = [view.real, view.imag] if view.is_complex() else [view]
        for part, found in zip(parts, read * (len(parts) if len(read) == 1 else 1), strict=True):
            assert torch.equal(part.abs().long() - 1, found)
