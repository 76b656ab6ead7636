"""State space models in chunks (Mamba-2): one path graph for any length, chunk size and spelling.

The reference is the recurrence  s[t] = exp(a dt[t]) s[t - 1] + dt[t] b[t] x[t],  y[t] = c[t] s[t],
which is what the chunks compute. Its own path graph is unrolled over the steps, as that of a
recurrent layer is.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen

RATE = -0.7


def lower(size, diagonal=0):
    return torch.ones(size, size, dtype=torch.bool).tril(diagonal)


def masked_sums(a):
    """Sums over segments as transformers writes them: no differences, which would cancel."""
    size = a.shape[-1]
    a = a[..., None].expand(*a.shape, size).masked_fill(~lower(size, -1), 0)
    return a.cumsum(-2).masked_fill(~lower(size), -math.inf)


def repeated_sums(a):
    size = a.shape[-1]
    a = a.unsqueeze(-1).repeat(*[1] * a.ndim, size)
    sums = torch.where(lower(size, -1), a, 0.0).cumsum(-2)
    return torch.where(lower(size), sums, -math.inf)


def differences(a):
    sums = a.cumsum(-1)
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(~lower(a.shape[-1]), -math.inf)


def added_mask(a):
    sums = a.cumsum(-1)
    mask = torch.zeros(a.shape[-1], a.shape[-1]).masked_fill(~lower(a.shape[-1]), -math.inf)
    return sums.unsqueeze(-1) - sums.unsqueeze(-2) + mask


def in_memory(x, size):
    """A sequence in chunks: written into zeros, where it is shorter."""
    chunks = -(-x.shape[1] // size)
    padded = x.new_zeros(x.shape[0], chunks * size, *x.shape[2:])
    padded[:, : x.shape[1]] = x
    return padded.unflatten(1, (chunks, size))


def by_pad(x, size):
    padding = [0] * (2 * (x.ndim - 2)) + [0, -x.shape[1] % size]
    return F.pad(x, padding).unflatten(1, (-1, size))


def by_cat(x, size):
    zeros = torch.zeros(x.shape[0], -x.shape[1] % size, *x.shape[2:])
    return torch.cat([x, zeros], 1).unflatten(1, (-1, size))


def chunked(x, dt, b, c, size, sums=masked_sums, pad=by_pad):
    """Batch, length and features of one head: x (2), dt (1), b and c (2 states)."""
    length = x.shape[1]
    x, a, b, c = (pad(t, size) for t in (x * dt, RATE * dt[..., 0], b, c))
    total = a.cumsum(-1)
    scores = torch.einsum("bkln,bksn->bkls", c, b) * sums(a).exp()
    inside = torch.einsum("bkls,bksp->bklp", scores, x)
    decayed = b * (total[..., -1:] - total).exp()[..., None]
    states = torch.einsum("bkln,bklp->bkpn", decayed, x)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], 1)
    between = sums(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bzk,bkpn->bzpn", between, states)[:, :-1]
    before = torch.einsum("bkln,bkpn->bklp", c, states) * total.exp()[..., None]
    return (inside + before).flatten(1, 2)[:, :length]


def recurrent(x, dt, b, c):
    state, found = torch.zeros(len(x), 2, 2), []
    for t in range(x.shape[1]):
        decay = (RATE * dt[:, t]).exp()[..., None]
        state = state * decay + (x * dt)[:, t, :, None] * b[:, t, None]
        found.append((state * c[:, t, None]).sum(-1))
    return torch.stack(found, 1)


class StateSpace(nn.Module):
    """4 features to x, dt, b and c."""

    def __init__(self, scan, *settings):
        super().__init__()
        self.scan, self.settings = scan, settings
        torch.manual_seed(0)
        self.project = nn.Linear(4, 7)

    def forward(self, tokens):
        x, dt, b, c = self.project(tokens).split([2, 1, 2, 2], -1)
        return self.scan(x, F.softplus(dt), b, c, *self.settings)


def numbers(model, length):
    report = pathlen.measure(model.eval(), torch.randn(2, length, 4), exact=True)
    assert report.status == "exact"
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
        report.num_active,
    )


SPELLINGS = [
    (masked_sums, by_pad),
    (repeated_sums, by_cat),
    (differences, in_memory),
    (added_mask, by_pad),
    (masked_sums, in_memory),
]


@pytest.mark.parametrize(("sums", "pad"), SPELLINGS)
def test_chunks_compute_the_recurrence(sums, pad):
    for size, length in ((2, 5), (4, 4), (8, 3)):
        tokens = torch.randn(2, length, 4)
        expected = StateSpace(recurrent)(tokens)
        found = StateSpace(chunked, size, sums, pad)(tokens)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# Ways to each unit. Projections and softplus 4; x dt 8; b c 2 * 4 + 2 * 4, with its decay 20, with
# x dt 28. A state: b with its decay 8, with x dt 16, with the decay between chunks 20; all of x_p's
# states and c 2 * 20 + 8, with the last decay 52. Together 80 for each of 2 features.
PATHS = 160


@pytest.mark.parametrize(("sums", "pad"), SPELLINGS)
def test_neither_length_nor_padding_nor_spelling_count(sums, pad):
    expected = numbers(StateSpace(chunked, 4, differences), 8)
    assert expected[0] == PATHS
    for size, length in ((2, 3), (4, 3), (4, 4), (4, 5), (4, 7), (8, 2)):
        assert numbers(StateSpace(chunked, size, sums, pad), length) == expected, (size, length)
