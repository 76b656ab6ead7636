"""Programs that draw random numbers past torch: one draw of several, always the same one."""

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import pathlen
from tests.constructs import Model

X = torch.zeros(2, 4)
DRAWN = "this is one draw of several"


class Drawing(Model):
    """A model with generators of its own."""

    def __init__(self, function):
        layers = {name: nn.Linear(4, 4) for name in "abc"}
        super().__init__(function, **layers)
        self.python, self.torch = random.Random(3), torch.Generator()
        self.numpy, self.old = np.random.default_rng(3), np.random.RandomState(3)

    def states(self):
        bits = self.numpy.bit_generator.state["state"], self.old.get_state()[2]
        return self.python.getstate(), bits, self.torch.get_state().tolist()


def either(m, x, number):
    return torch.relu(m.a(x)) if number < 0.5 else m.b(x)


def shallow(m, x):
    """Drops one layer in ten, as stochastic depth does."""
    for layer in (m.a, m.b, m.c):
        if np.random.rand() > 0.1:
            x = x + torch.relu(layer(x))
    return x


def chosen_channels(m, x):
    return m.a(x)[:, random.sample(range(4), 2)]


def masked(m, x):
    return torch.where(torch.from_numpy(np.random.rand(4)) < 0.5, m.a(x), m.b(x))


DECIDING = {
    "random": lambda m, x: either(m, x, random.random()),
    "numpy": lambda m, x: either(m, x, np.random.rand()),
    "a choice of layers of one shape": lambda m, x: random.choice([m.a, m.b])(x),
    "sizes": lambda m, x: nn.functional.avg_pool1d(m.a(x), random.choice([1, 2])),
    "stochastic depth": shallow,
    "channels": chosen_channels,
    "a permutation": lambda m, x: m.a(x)[:, np.random.permutation(4)],
    "a mask": lambda m, x: torch.where(torch.from_numpy(np.random.rand(4) < 0.5), m.a(x), m.b(x)),
    "a mask made by torch": masked,
    "its own generator": lambda m, x: either(m, x, m.python.random()),
    "its own generator of numpy": lambda m, x: either(m, x, m.numpy.random()),
    "its own old generator": lambda m, x: either(m, x, m.old.rand()),
    "values and draws": lambda m, x: either(m, x * x.sum().item(), random.random()),
    "gradients and draws": lambda m, x: torch.autograd.grad(
        either(m, x.requires_grad_(), random.random()).exp().sum(), x
    )[0],
}


@pytest.mark.parametrize("name", DECIDING)
def test_draws_that_decide(name):
    model = Drawing(DECIDING[name])
    states = model.states()
    reports = []
    for seed in (1, 2):  # whatever the caller has drawn before
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate()
        reports.append(pathlen.measure(model, X, exact=True))
        assert random.getstate() == before
        assert model.states() == states
    first, second = reports
    assert first.status == "example"
    assert any(DRAWN in cause for cause in first.causes)
    assert (first.path_count, first.average_path_length) == (
        second.path_count,
        second.average_path_length,
    )


def always_the_same(m, x):
    random.seed(1)
    return m.a(x) if random.random() < 0.5 else m.b(m.a(x))


NOT_DECIDING = {
    "unused": lambda m, x: (random.random(), m.a(x))[1],
    "a number": lambda m, x: m.a(x) + random.gauss(0, 1),
    "noise": lambda m, x: m.a(x) + torch.from_numpy(np.random.randn(4)).float(),
    "dropout": lambda m, x: m.a(x) * torch.from_numpy(np.random.rand(4) < 0.5).float(),
    "a branch that is always taken": lambda m, x: m.a(x) if random.random() < 2 else x,
    "seeded in the forward": always_the_same,
}


@pytest.mark.parametrize("name", NOT_DECIDING)
def test_draws_that_decide_nothing(name):
    report = pathlen.measure(Drawing(NOT_DECIDING[name]), X, exact=True)
    assert (report.status, report.path_count) == ("exact", 16)
    assert [c for c in report.causes if "draws numbers at random" in c] == list(report.causes)
    assert len(report.causes) == 1


def test_a_draw_of_torch_with_a_generator_of_the_model():
    model = Drawing(lambda m, x: either(m, x, torch.rand((), generator=m.torch)))
    states = model.states()
    first, second = (pathlen.measure(model, X, exact=True) for _ in range(2))
    assert first.status == "example"
    assert first.average_path_length == second.average_path_length
    assert model.states() == states


def test_the_check_runs_the_draw_that_was_measured():
    # each layer is a residual block of width 4 as wide inside: 1/2 a block that is not dropped
    model = Drawing(shallow)
    report = pathlen.measure(model, X, exact=True)
    assert report.normalized_average_path_length in {Fraction(n, 2) for n in range(4)}
    random.seed(5)
    np.random.seed(5)
    assert pathlen.verify(model, torch.randn(2, 4)).ok
