"""A product with a zero that the program puts there is no path, however the zero is put there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen

ROWS, COLUMNS = torch.tril_indices(4, 4)


def written(h):
    memory = torch.zeros(h.shape)
    memory[:, :, ROWS, COLUMNS] = h[:, :, ROWS, COLUMNS]
    return memory


TRIANGLES = {
    "tril": torch.tril,
    "where": lambda h: torch.where(torch.ones(4, 4).tril() > 0, h, 0.0),
    "where a tensor": lambda h: torch.where(
        torch.ones(4, 4).tril() > 0, h, torch.zeros_like(h[:, :1])
    ),
    "masked_fill": lambda h: h.masked_fill(torch.ones(4, 4).tril() == 0, 0.0),
    "written": written,
    "index_put": lambda h: torch.zeros(h.shape).index_put(
        (torch.arange(2)[:, None, None], torch.arange(5)[:, None], ROWS, COLUMNS),
        h[:, :, ROWS, COLUMNS],
    ),
    "stacked rows": lambda h: torch.stack(
        [F.pad(h[..., row, : row + 1], (0, 3 - row)) for row in range(4)], 2
    ),
}


class Triangle(nn.Module):
    def __init__(self, triangle):
        super().__init__()
        self.entries, self.factors, self.triangle = nn.Linear(3, 16), nn.Linear(3, 4), triangle

    def forward(self, x):
        matrix = self.triangle(self.entries(x).view(2, 5, 4, 4))
        return (matrix * self.factors(x)[..., None, :]).relu().sum(-1)


@pytest.mark.parametrize("name", TRIANGLES)
def test_entries_of_a_triangle(name):
    """Ten entries, a product of two layers of three inputs each."""
    report = pathlen.measure(Triangle(TRIANGLES[name]), torch.randn(2, 5, 3), exact=True)
    assert (report.path_count, report.num_active) == (10 * 6, 10)


class Upsampled(nn.Module):
    """Windows of 3 x 3 weighted for each of 4 places, as RAFT upsamples a flow."""

    def __init__(self, windows):
        super().__init__()
        self.flow, self.mask = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 36, 3, padding=1)
        self.windows = windows

    def forward(self, x):
        windows = self.windows(self.flow(x)).reshape(1, 2, 9, 1, 4, 4)
        return (self.mask(x).view(1, 1, 9, 4, 4, 4).softmax(2) * windows).sum(2)


@pytest.mark.parametrize(
    "windows",
    [
        lambda flow: F.unfold(flow, 3, padding=1),
        lambda flow: F.unfold(F.pad(flow, (1, 1, 1, 1)), 3),
        lambda flow: (
            F.pad(flow, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).movedim((4, 5), (2, 3))
        ),
    ],
    ids=["unfold", "pad and unfold", "views"],
)
def test_windows_over_a_border(windows):
    """Nine kinds of positions see 9, 6 or 4 of the 9 places: 49 products in all."""
    report = pathlen.measure(Upsampled(windows), torch.randn(1, 3, 4, 4), exact=True)
    assert report.path_count == 2 * 4 * 49 * (3 + 3)


# --- constant masks -------------------------------------------------------------------------------

MASK = torch.tensor([True, False, True, False])


class Masked(nn.Module):
    """Of two dense layers 4 -> 4 the first where a mask says so, the second where it does not."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 4), nn.Linear(4, 4), function
        self.register_buffer("mask", MASK.clone())

    def forward(self, x):
        return self.function(self.mask, self.a(x), self.b(x))


CHOSEN = {
    "where": torch.where,
    "products with masks": lambda m, a, b: m * a + ~m * b,
    "products with numbers": lambda m, a, b: a * m.float() + (1 - m.float()) * b,
    "masked_fill": lambda m, a, b: a.masked_fill(~m, 0) + b.masked_fill(m, 0),
    "products in place": lambda m, a, b: a.clone().mul_(m).add_(b.clone().mul_(~m)),
    "lerp": lambda m, a, b: torch.lerp(b, a, m.float()),
    "lerp in place": lambda m, a, b: b.clone().lerp_(a, m.float()),
    "scaled sums": lambda m, a, b: 2 * m.float() * (a + 1) + (b - 1) * (~m),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_constant_mask_chooses_as_a_factor_too(name):
    report = pathlen.measure(Masked(CHOSEN[name]), torch.randn(2, 4), exact=True)
    assert report.path_count == 4 * 4  # each of 4 features is of one layer


def test_parameters_that_are_zero_are_no_mask():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.scale = nn.Linear(4, 4), nn.Parameter(MASK.float())
            self.register_buffer("other", MASK.float())

        def forward(self, x):
            return self.a(x) * self.scale, self.a(x) * self.other, self.a(x) * torch.zeros(4)

    assert pathlen.measure(Scaled(), torch.randn(2, 4), exact=True).path_count == 3 * 4 * 4


def placed(h):
    memory = torch.zeros(*h.shape, 4)
    memory[:, torch.arange(4), torch.arange(4)] = h
    return memory


DIAGONALS = {
    "diag_embed": torch.diag_embed,
    "where": lambda h: torch.where(torch.eye(4).bool(), h[..., None], 0),
    "where, expanded": lambda h: torch.where(torch.eye(4) > 0, h[:, None].expand(-1, 4, -1), 0.0),
    "masked_fill": lambda h: h[..., None].repeat(1, 1, 4).masked_fill(~torch.eye(4).bool(), 0),
    "product": lambda h: torch.eye(4) * h[:, None],
    "written": placed,
}


@pytest.mark.parametrize("name", DIAGONALS)
def test_a_diagonal_holds_each_element_once(name):
    diagonal = DIAGONALS[name]
    alone = Masked(lambda _, a, b: diagonal(a).relu())
    report = pathlen.measure(alone, torch.randn(2, 4), exact=True)
    assert (report.path_count, report.width_profile) == (16, (4,))
    # a row that is added up has one element that is not 0
    summed = Masked(lambda _, a, b: diagonal(a).sum(-1) + b)
    assert pathlen.measure(summed, torch.randn(2, 4), exact=True).path_count == 4 * (4 + 4)


@pytest.mark.parametrize("name", ["products with masks", "lerp in place"])
def test_verify_agrees_with_masks(name):
    assert pathlen.verify(Masked(CHOSEN[name]), torch.randn(2, 4), samples=2, spellings=0).ok
