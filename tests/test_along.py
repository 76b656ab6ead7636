"""Operations along an axis on which one element is repeated are functions of that element.

Each spelling is a plain activation beside a residual, c(x + b(f(a(x)))) with widths 4, 5, 4 and 3:
4 * (5 * 4 + 1) * 3 = 252 paths, of which 240 lead through the five active units.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

import pathlen
from tests.constructs import Function


class Residual(nn.Module):
    """An activation in the branch of a residual block."""

    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)
        self.activation = activation

    def forward(self, x):
        return self.c(x + self.b(self.activation(self.a(x))))


def assert_plain(model, x, status):
    """A residual block of five activations."""
    report = pathlen.measure(model, x, exact=True)
    found = report.path_count, report.average_path_length, report.normalized_average_path_length
    assert found == (252, Fraction(20, 21), Fraction(1, 2))
    assert (report.num_active, report.status) == (5, status)


def beside_zero(h, axis=-1):
    return torch.stack([h, torch.zeros_like(h)], axis)


def each(function):
    """A function of channels, one after the other."""
    return lambda h: torch.stack([function(h[:, i]) for i in range(5)], 1)


POWERS = torch.arange(4)
COEFFICIENTS = torch.tensor([0.5, -1.0, 0.25, 2.0])
SPELLINGS = {
    "larger of two, sorted": (functional.relu, lambda h: beside_zero(h).sort(-1).values[..., 1]),
    "larger of two, topk": (functional.relu, lambda h: beside_zero(h).topk(1, -1).values[..., 0]),
    "larger of two, pooled": (
        functional.relu,
        lambda h: functional.max_pool1d(beside_zero(h), 2)[..., 0],
    ),
    "larger of two, cummax": (functional.relu, lambda h: beside_zero(h, 0).cummax(0).values[1]),
    "larger of two, joined": (
        functional.relu,
        lambda h: torch.cat([h[None], torch.zeros_like(h)[None]]).max(0).values,
    ),
    "softmax of two": (torch.sigmoid, lambda h: beside_zero(h).softmax(-1)[..., 0]),
    "softmax of opposites": (
        torch.sigmoid,
        lambda h: torch.softmax(torch.stack([h, -h]) / 2, 0)[0],
    ),
    "log softmax of two": (
        functional.softplus,
        lambda h: -functional.log_softmax(beside_zero(h), -1)[..., 1],
    ),
    "logsumexp of two": (functional.softplus, lambda h: beside_zero(h).logsumexp(-1)),
    "gated by a softmax": (functional.silu, lambda h: h * beside_zero(h, 0).softmax(0)[0]),
    "gated linear unit of one tensor": (
        functional.silu,
        lambda h: functional.glu(torch.cat([h, h], 1), 1),
    ),
    "norm of one element": (torch.abs, lambda h: h[..., None].norm(dim=-1)),
    "vector norm of one element": (
        torch.abs,
        lambda h: torch.linalg.vector_norm(h.unsqueeze(0), dim=0),
    ),
    "root of a sum of one square": (
        torch.abs,
        lambda h: h[..., None].pow(2).sum(-1).sqrt(),
    ),
    "product of two copies": (torch.square, lambda h: h[None].expand(2, -1, -1).prod(0)),
    "channel by channel": (functional.silu, each(lambda h: h * h.sigmoid())),
    "coefficients of powers": (
        lambda h: ((2 * h + 0.25) * h - 1.0) * h + 0.5,
        lambda h: (h[..., None] ** POWERS * COEFFICIENTS).sum(-1),
    ),
}


@pytest.mark.parametrize(("plain", "other"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_function_of_one_element(plain, other):
    h = torch.randn(2, 5)
    assert torch.allclose(plain(h), other(h), atol=1e-6)
    for activation in (plain, other):
        assert_plain(Residual(activation), torch.randn(2, 4), "exact")


def test_an_axis_of_positions_may_have_one_position():
    """A statistic over positions is one in a small example too."""

    def forward(h):
        return h * torch.sigmoid(h.mean((2, 3), keepdim=True))

    for size in (1, 3):
        model = nn.Sequential(nn.Conv2d(2, 4, 1), Function(forward), nn.Conv2d(4, 2, 1))
        assert pathlen.measure(model, torch.randn(1, 2, size, size)).num_active == 0


@pytest.mark.parametrize("features", [1, 3])
def test_a_part_of_the_features_may_have_one_feature(features):
    """Its norm is a norm, as that of parts with more features is."""

    def forward(h):
        part, _ = h.split([features, 6 - features], -1)
        return part * torch.rsqrt(part.pow(2).mean(-1, keepdim=True) + 1e-6)

    model = nn.Sequential(nn.Linear(4, 6), Function(forward), nn.Linear(features, 2))
    report = pathlen.measure(model, torch.randn(2, 5, 4))
    assert (report.path_count, report.num_active) == (4 * features * 2, 0)


def test_a_sum_over_one_element_is_the_element():
    """A linear layer of one feature, as product and sum, of an activation that stays one unit."""
    weights = torch.randn(3, 1)
    forwards = [
        lambda h: functional.linear(functional.elu(h[:, :1]), weights),
        lambda h: (functional.elu(h[:, :1])[:, None] * weights).sum(-1),
    ]
    for forward in forwards:
        report = pathlen.measure(
            nn.Sequential(nn.Linear(4, 2), Function(forward)), torch.randn(5, 4)
        )
        assert (report.path_count, report.num_active) == (12, 1)


def test_several_elements_along_the_axis_are_none():
    model = nn.Sequential(
        nn.Linear(4, 6), Function(lambda h: h.view(-1, 2, 3).softmax(-1).flatten(1))
    )
    assert pathlen.measure(model, torch.randn(2, 4)).num_active == 0


UNDEFINED = {
    "nan": lambda h: torch.where(h > 0, h, torch.nan).nan_to_num(0),
    "nan in a tensor": lambda h: torch.where(h > 0, h, torch.tensor(torch.nan)).nan_to_num(0),
    "infinity": lambda h: h.masked_fill(h < 0, -torch.inf).clamp(min=0),
    "asked for": lambda h: (lambda t: torch.where(t.isinf(), 0.0, t))(
        h.masked_fill(h < 0, -torch.inf)
    ),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_a_relu_by_way_of_what_is_no_number(name):
    h = torch.randn(2, 5)
    torch.testing.assert_close(UNDEFINED[name](h), h.relu())
    assert_plain(Residual(UNDEFINED[name]).eval(), torch.randn(2, 4), "exact")


FREQUENCIES = torch.arange(1.0, 6.0)
REPEATED = {
    "after": lambda h: h.tanh()[..., None] * FREQUENCIES,
    "expanded before": lambda h: h[..., None].expand(2, 4, 5).tanh() * FREQUENCIES,
    "repeated before": lambda h: h.repeat_interleave(5, 1).tanh().view(2, 4, 5) * FREQUENCIES,
    "stacked before": lambda h: torch.stack([h] * 5, -1).tanh() * FREQUENCIES,
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_activation_of_repeated_elements_repeats_its_own(name):
    # 4 units, of each an activation, of that 5 waves; 3 outputs
    model = Function(lambda x: torch.cos(REPEATED[name](x)).flatten(1) @ torch.ones(20, 3))
    report = pathlen.measure(model, torch.randn(2, 4), exact=True)
    assert (report.path_count, report.num_active) == (4 * 5 * 3, 4 + 4 * 5)
    assert report.average_path_length == 2
