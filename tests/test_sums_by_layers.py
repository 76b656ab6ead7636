"""A linear layer of equal constant weights adds up: norms whose sum it computes are norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import pathlen


class Normalized(nn.Module):
    """c(h + relu(norm(h))) of h = a(x), with widths 4, 6 and 3."""

    def __init__(self, norm):
        super().__init__()
        self.a, self.c, self.norm = nn.Linear(4, 6), nn.Linear(6, 3), norm

    def forward(self, x):
        h = self.a(x)
        return self.c(h + functional.relu(self.norm(h)))


SIXTH = 1 / 6
NORMS = {
    "named": lambda h: functional.rms_norm(h, (6,)),
    "linear": lambda h: h * functional.linear(h * h, torch.full((1, 6), SIXTH)).rsqrt(),
    "linear to all features": lambda h: (
        h * functional.linear(h * h, torch.full((6, 6), SIXTH)).rsqrt()
    ),
    "convolution": lambda h: (
        h / functional.conv1d((h * h).mT, torch.full((1, 6, 1), SIXTH)).mT.sqrt()
    ),
    "squared error": lambda h: (
        h
        / functional.mse_loss(h, torch.zeros_like(h), reduction="none")
        .mean(-1, keepdim=True)
        .sqrt()
    ),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
def test_a_norm(norm):
    h = torch.randn(2, 5, 6)
    assert torch.allclose(norm(h), NORMS["named"](h), atol=1e-5)
    report = pathlen.measure(Normalized(norm), torch.randn(2, 5, 4), exact=True)
    # h + relu(norm(h)) is one function of h: 4 * 6 * 3 paths, through six active units
    assert (report.path_count, report.average_path_length, report.num_active) == (72, 1, 6)
    assert report.status == "exact"


def test_weights_that_differ_are_a_layer():
    weights = torch.arange(1.0, 7.0).view(1, 6)
    model = Normalized(lambda h: h * functional.linear(h * h, weights).rsqrt())
    report = pathlen.measure(model, torch.randn(2, 5, 4), exact=True)
    # squares, one root of the layer's unit, and six ReLUs
    assert report.num_active == 13
    assert report.average_path_length > 2


def test_parameters_are_a_layer_whatever_their_values_are():
    total = nn.Linear(6, 1, bias=False)
    model = Normalized(lambda h: h * total(h * h).rsqrt())
    model.total = total
    reports = []
    for fill in (nn.init.uniform_, nn.init.ones_):
        fill(total.weight)
        reports.append(pathlen.measure(model, torch.rand(2, 5, 4), exact=True))
    assert reports[0].path_count == reports[1].path_count
    assert reports[0].num_active == reports[1].num_active == 13
