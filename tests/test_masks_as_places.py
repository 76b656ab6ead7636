"""Masks that are given as the places where they are true, by `nonzero` and `where`.

The activation stands in a residual block, c(x + b(f(a(x)))) with widths 4, 5, 4 and 3: 252 paths,
of which 240 lead through its five active units. How many elements a mask picks is decided by
values, so that the status is that of the example.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import pathlen
from tests.test_along import Residual, assert_plain


def written(h):
    h = h.clone()
    rows, columns = (h < 0).nonzero(as_tuple=True)
    h[rows, columns] = 0.0
    return h


def where(h):
    h = h.clone()
    h[torch.where(h < 0)] = 0.0
    return h


def put(h):
    return h.index_put(torch.where(h < 0), torch.zeros(()))


def scattered(h):
    return h.masked_scatter(h < 0, torch.zeros_like(h))


def flat(h):
    elements = h.flatten().clone()
    elements[(elements < 0).nonzero().squeeze(1)] = 0.0
    return elements.view_as(h)


def filled(h):
    elements = h.flatten()
    return elements.index_fill(0, torch.nonzero(elements < 0)[:, 0], 0.0).view_as(h)


def scaled(h):
    h = h.clone()
    rows, columns = (h < 0).nonzero().unbind(1)
    h[rows, columns] *= 0.01
    return h


def scaled_by_columns(h):
    h = h.clone()
    rows, columns = (h < 0).nonzero().T
    h[rows, columns] = h[rows, columns] * 0.01
    return h


SPELLINGS = [
    (functional.relu, written),
    (functional.relu, where),
    (functional.relu, put),
    (functional.relu, flat),
    (functional.relu, filled),
    (functional.leaky_relu, scaled),
    (functional.leaky_relu, scaled_by_columns),
]


def test_one_number_scattered_by_a_mask():
    report = pathlen.measure(Residual(scattered), torch.randn(6, 4), exact=True)
    assert (report.path_count, report.num_active, report.status) == (252, 5, "exact")


def test_several_numbers_scattered_by_a_mask_are_no_function():
    numbers = torch.arange(30.0).view(6, 5)
    model = Residual(lambda h: h.masked_scatter(h < 0, numbers))
    assert pathlen.measure(model, torch.randn(6, 4)).num_active == 0


@pytest.mark.parametrize(("plain", "other"), SPELLINGS, ids=lambda one: one.__name__)
def test_an_activation_written_at_places(plain, other):
    h = torch.randn(4, 5)
    assert torch.allclose(plain(h), other(h))
    assert_plain(Residual(other), torch.randn(6, 4), "example")


def test_places_of_another_tensor_are_no_function():
    """A write at the places of another mask, or with its axes in another order."""

    def other_mask(h):
        h = h.clone()
        h[torch.where(h.flip(0) < 0)] = 0.0
        return h

    def swapped(h):
        h = torch.cat([h, h[:1]])[:5].clone()
        rows, columns = (h < 0).nonzero(as_tuple=True)
        h[columns, rows] = 0.0
        return h

    for function in (other_mask, swapped):
        assert pathlen.measure(Residual(function), torch.randn(5, 4)).num_active == 0
