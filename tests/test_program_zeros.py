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
