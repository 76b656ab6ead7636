"""Mixtures of experts as they are written: gates of all experts, results that are chosen.

x has 4 features; each of 3 experts has 5 hidden units and 6 features out. Values are worked out by
hand.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import answer

X, ROWS = torch.randn(8, 4), torch.arange(8)


class Experts(nn.Module):
    """A function of a router, of experts as modules, and of their weights as one tensor."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.gate = nn.Linear(4, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6)) for _ in range(3)
        )
        self.one = nn.Parameter(torch.randn(3, 4, 6))
        self.first = nn.Parameter(torch.randn(3, 4, 5))
        self.second = nn.Parameter(torch.randn(3, 5, 6))

    def gates(self, x):
        return self.gate(x).softmax(-1)

    def all_of(self, x):
        return torch.stack([expert(x) for expert in self.experts], 1)

    def by_weights(self, x):
        hidden = torch.einsum("bi,eih->beh", x, self.first).relu()
        return torch.einsum("beh,eho->beo", hidden, self.second)

    def forward(self, x):
        return self.function(self, x)


def nested(m, x):
    g, (one, two, three) = m.gates(x), m.experts
    first = torch.addcmul(g[:, :1] * one(x), g[:, 1:2], two(x))
    return torch.addcmul(first, g[:, 2:], three(x))


GATED = {
    "einsum": lambda m, x: torch.einsum("be,beo->bo", m.gates(x), m.all_of(x)),
    "product and sum": lambda m, x: (m.gates(x)[..., None] * m.all_of(x)).sum(1),
    "in a loop": lambda m, x: sum(m.gates(x)[:, i, None] * e(x) for i, e in enumerate(m.experts)),
    "bmm": lambda m, x: torch.bmm(m.gates(x)[:, None], m.all_of(x))[:, 0],
    "from the weights": lambda m, x: torch.einsum("be,beo->bo", m.gates(x), m.by_weights(x)),
    "nested": nested,
}


@pytest.mark.parametrize("name", GATED)
def test_gates_of_all_experts(name):
    # each of 6 features: of 3 experts the gate, 4 ways, or the result, 5 units of 4 ways each
    paths = 6 * 3 * (4 + 20)
    assert answer(Experts(GATED[name]), X) == (paths, Fraction(20, 24), Fraction(1, 2))


def chosen(m, x):
    return m.gates(x).argmax(-1)


def gathered(results, axis, places):
    shape = [1, 1, 6]
    shape[1 - axis] = len(places)
    index = places.view([1 if a == axis else -1 for a in range(2)] + [1]).expand(shape)
    return results.gather(axis, index).squeeze(axis)


CHOSEN = {
    "weights": lambda m, x, i: torch.bmm(x[:, None], m.one[i])[:, 0],
    "index": lambda m, x, i: torch.einsum("bi,eio->beo", x, m.one)[ROWS, i],
    "index of a matrix product": lambda m, x, i: (x @ m.one)[i, ROWS],
    "gather": lambda m, x, i: gathered(torch.einsum("bi,eio->beo", x, m.one), 1, i),
    "gather along the first axis": lambda m, x, i: gathered(x @ m.one, 0, i),
    "take_along_dim": lambda m, x, i: torch.einsum("bi,eio->beo", x, m.one).take_along_dim(
        i[:, None, None], 1
    )[:, 0],
    "one linear layer": lambda m, x, i: F.linear(x, m.one.transpose(1, 2).reshape(18, 4)).view(
        -1, 3, 6
    )[ROWS, i],
    "one-hot": lambda m, x, i: torch.einsum(
        "beo,be->bo", torch.einsum("bi,eio->beo", x, m.one), hot(i)
    ),
    "one-hot, product and sum": lambda m, x, i: (
        (torch.einsum("bi,eio->beo", x, m.one) * hot(i)[..., None]).mT.contiguous().sum(-1)
    ),
    "compared": lambda m, x, i: (
        torch.einsum("bi,eio->beo", x, m.one) * (i[:, None] == torch.arange(3))[..., None]
    ).sum(1),
}


def hot(places):
    return F.one_hot(places, 3).float()


@pytest.mark.parametrize("name", CHOSEN)
def test_a_chosen_result_is_that_of_chosen_weights(name):
    function = CHOSEN[name]
    assert answer(Experts(lambda m, x: function(m, x, chosen(m, x))), X) == (24, 0, 0)


CHOSEN_LATE = {
    "weights": lambda m, x, i: torch.bmm(torch.bmm(x[:, None], m.first[i]).relu(), m.second[i])[
        :, 0
    ],
    "index": lambda m, x, i: m.by_weights(x)[ROWS, i],
    "one-hot": lambda m, x, i: torch.einsum("be,beo->bo", hot(i), m.by_weights(x)),
    "hidden units": lambda m, x, i: torch.einsum(
        "bh,bho->bo", torch.einsum("bi,eih->beh", x, m.first).relu()[ROWS, i], m.second[i]
    ),
}


@pytest.mark.parametrize("name", CHOSEN_LATE)
def test_a_choice_passes_back_through_all_that_is_computed_alike(name):
    # 4 inputs, 5 active hidden units and 6 features of the expert that was chosen
    function = CHOSEN_LATE[name]
    model = Experts(lambda m, x: function(m, x, chosen(m, x)))
    assert answer(model, X) == (4 * 5 * 6, 1, 1)
    report = pathlen.measure(model, X)
    assert report.width_profile == (5,)


def test_modules_that_are_chosen_from_are_several():
    # each of 6 features: of one of 3 experts, 20 ways each
    model = Experts(lambda m, x: m.all_of(x)[ROWS, chosen(m, x)])
    assert answer(model, X) == (6 * 3 * 20, 1, 1)


def test_places_of_the_largest_elements_choose_from_all():
    model = Experts(lambda m, x: (lambda h: h.gather(1, h.argmax(1, keepdim=True)))(m.gate(x)))
    assert answer(model, X) == (12, 0, 0)  # a hub over 3 features, as the maximum has


def test_a_choice_of_what_differs_is_a_hub_where_it_differs():
    # x itself has 4 features of its own; what is added to it is computed alike
    def function(m, x):
        return (x + x @ m.one[0, :, :4]).relu().gather(1, chosen(m, x)[:, None])

    assert answer(Experts(function), X) == (4 + 4, 1, 1)


def test_verify_agrees_where_results_are_chosen():
    for name in ("index", "one-hot"):
        function = CHOSEN_LATE[name]
        model = Experts(lambda m, x, f=function: f(m, x, chosen(m, x)))
        assert pathlen.verify(model, X, samples=2).ok


def scattered(gates, places, values):
    return torch.zeros_like(gates).scatter(-1, places, values)


def placed(places, values):
    return (F.one_hot(places, 3) * values[..., None]).sum(1)


LARGEST = {
    "scatter": lambda g, v, i: scattered(g, i, v),
    "one-hot": lambda g, v, i: placed(i, v),
    "compared": lambda g, v, i: (v[..., None] * (i[..., None] == torch.arange(3))).sum(-2),
    "a mask of one-hot vectors": lambda g, v, i: g * F.one_hot(i, 3).sum(1),
    "a mask": lambda g, v, i: torch.where(g >= v[:, -1:], g, 0),
    "normalized": lambda g, v, i: scattered(g, i, v / v.sum(-1, keepdim=True)),
    "normalized, one-hot": lambda g, v, i: placed(i, v / v.sum(-1, keepdim=True)),
    "softmax of the largest": lambda g, v, i: scattered(g, i, v.softmax(-1)),
    "softmax of the largest, one-hot": lambda g, v, i: placed(i, v.softmax(-1)),
    "softmax without the others": lambda g, v, i: (
        torch.full_like(g, -torch.inf).scatter(-1, i, v).softmax(-1)
    ),
    "a sigmoid": lambda g, v, i: scattered(g, i, v.sigmoid()),
}


@pytest.mark.parametrize("name", LARGEST)
def test_gates_of_the_experts_that_score_highest_are_thresholds(name):
    # each gate is an active unit, beside the 5 active hidden units of its expert
    def function(m, x):
        gates = m.gate(x)
        values, places = gates.topk(2, -1)
        return torch.einsum("be,beo->bo", LARGEST[name](gates, values, places), m.all_of(x))

    assert answer(Experts(function), X) == (6 * 3 * (4 + 20), 1, 1)


def test_verify_agrees_where_largest_elements_are_placed():
    def function(m, x):
        values, places = m.gates(x).topk(2, -1)
        return placed(places, values / values.sum(-1, keepdim=True))

    verdict = pathlen.verify(Experts(function), X, samples=2, spellings=2)
    assert verdict.ok, str(verdict)


THREE = {
    "be,beh,eho->bo": (0, 1, 2),
    "beh,be,eho->bo": (1, 0, 2),
    "eho,be,beh->bo": (2, 0, 1),
    "beh,eho,be->bo": (1, 2, 0),
}


@pytest.mark.parametrize("equation", THREE)
def test_gates_hidden_units_and_weights_in_one_einsum(equation):
    # a bilinear layer: of each of 6 features a hub over 3 gates and one over 15 hidden units
    def function(m, x):
        hidden = torch.einsum("bi,eih->beh", x, m.first).relu()
        tensors = m.gates(x), hidden, m.second
        return torch.einsum(equation, *(tensors[place] for place in THREE[equation]))

    assert answer(Experts(function), X) == (6 * (12 + 60), Fraction(5, 6), Fraction(1, 2))
