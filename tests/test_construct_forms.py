"""Canonical forms and merges at the level of single elements, worked out by hand."""

from fractions import Fraction

import pytest
import torch
from torch import nn

import pathlen
from pathlen import Policy
from tests.constructs import ALPHA, X2, Model, answer, pointwise
from tests.test_constructs import NORMALIZATIONS, layer_norm


@pytest.mark.parametrize(
    "f", [layer_norm, NORMALIZATIONS["RMSNorm written out"], NORMALIZATIONS["F.normalize"]]
)
def test_written_out_normalization_counts_under_policy(f):
    assert answer(pointwise(f), X2, policy=Policy(count={"normalization"})) == (6, 1, 1)


def test_softmax_with_two_exps():
    def f(x):
        return torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)

    assert answer(pointwise(f), X2) == (6, 0, 0)


def test_where_with_a_constant_mask_picks_one_by_channel():
    def f(m, x):
        return torch.where(ALPHA > 0.1, m.a(x), torch.relu(m.b(x)))

    model = Model(f, a=nn.Linear(2, 3), b=nn.Linear(2, 3))
    assert answer(model, X2) == (6, Fraction(1, 3), Fraction(1, 3))


def test_a_channel_that_meets_itself_in_a_mixed_sum():
    # cat(a, b) + cat(a, c) = (2a, b + c): the first channel is a itself, whatever the second is;
    # then (2a) + a is still one predecessor
    def f(m, x):
        a, b, c = m.a(x), m.b(x), m.c(x)
        t = torch.cat([a, b], 1) + torch.cat([a, c], 1)
        return t[:, :1] + a, t[:, :1]

    # a has 2 ways: outputs have 2 and 2 paths
    assert answer(Model(f, a=nn.Linear(2, 1), b=nn.Linear(2, 1), c=nn.Linear(2, 1)), X2) == (
        4,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("places", "paths", "status"),
    [
        ((torch.tensor([0]), torch.tensor([3])), 2 * 5, "exact"),  # channel 3 has two ways in
        ((torch.tensor([0, 0]), torch.tensor([3, 3])), 2 * 5, "exact"),  # the same twice
    ],
)
def test_adding_at_constant_places_reaches_these_alone(places, paths, status):
    def f(m, x):
        y = m.a(x)
        written = y[:, 0].expand(len(places[0]))
        return y.index_put(places, written, accumulate=True)

    report = pathlen.measure(Model(f, a=nn.Linear(2, 4)), torch.randn(1, 2), exact=True)
    assert (report.path_count, report.status) == (paths, status)


def test_different_channels_added_at_one_place_meet():
    def f(m, x):
        y = m.a(x)
        places = torch.tensor([[2, 2]])
        return y.scatter_add(1, places, y[:, :2])

    # channels 0, 1 and 3 stay, channel 2 is a sum of three
    assert answer(Model(f, a=nn.Linear(2, 4)), torch.randn(1, 2))[0] == 2 * (3 + 3)
