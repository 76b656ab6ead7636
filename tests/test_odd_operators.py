"""Operators of several results, of complex numbers, on tables: a worked number, or a refusal."""

import math

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import UnsupportedOperation
from pathlen.lowering.activity import grid, slope_variation
from tests.constructs import X2, Model, answer, pointwise

J = 1j


@pytest.mark.parametrize(
    ("function", "length"),
    [
        (lambda h: torch.exp(J * h).real, 1),  # a cosine
        (lambda h: torch.polar(torch.ones(3), h).imag, 1),  # a sine
        (lambda h: (h * (2 + 3j)).imag, 0),
        (lambda h: (h * J + h).to(torch.complex128).conj().real.float(), 0),
        (lambda h: torch.complex(h, torch.ones(3)).log().imag, 1),
        (lambda h: torch.frexp(h)[0], 1),  # a sawtooth
        (lambda h: torch.frexp(h).mantissa * 2 + h, 1),
    ],
)
def test_functions_of_one_unit(function, length):
    assert answer(pointwise(function), X2) == (2 * 3, length, length)


def test_exponents_belong_to_the_function():
    assert answer(pointwise(lambda h: h + torch.frexp(h).exponent.float()), X2) == (6, 1, 1)
    assert answer(pointwise(lambda h: torch.frexp(h).exponent.float()), X2) == (6, 1, 1)


def test_a_phase_keeps_two_units_apart():
    # the angle of (a, b) is a function of a pair of units: 2 * 2 paths into each of 3
    model = Model(
        lambda m, x: m.c(torch.exp(J * torch.complex(m.a(x), m.b(x)).angle()).real),
        a=nn.Linear(2, 3),
        b=nn.Linear(2, 3),
        c=nn.Linear(3, 1),
    )
    # and the cosine of the angle is another function of it
    assert answer(model, torch.randn(5, 2)) == (2 * 2 * 3, 2, 2)


def test_slopes_of_complex_functions():
    x = grid()
    functions = {
        "affine": (2 - 3j) * x + 1j,
        "real, but for rounding": 2 * x + 1e-17j * x.sin(),
        "a circle": torch.exp(0.1j * x),
        "a kink aside": x + 1j * x.abs(),
    }
    found = slope_variation(x, torch.stack(list(functions.values()), 1).to(torch.complex128))
    assert found[:2].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert found[3] == pytest.approx(2)
    assert found[2] > 1


def looked_up(table, ids):
    return torch.take_along_dim(table.weight.expand(2, 10, 4), ids[..., None], 1)


def test_a_table_read_along_an_axis():
    # an embedding: 6 ids, each one input unit that feeds 4 features, and these 2 outputs
    layers = {"table": nn.Embedding(10, 4), "out": nn.Linear(4, 2)}
    ids = torch.arange(12).view(2, 6) % 10
    forms = [
        lambda m, i: m.out(torch.relu(m.table(i))),
        lambda m, i: m.out(torch.relu(looked_up(m.table, i))),
    ]
    for form in forms:
        assert answer(Model(form, **layers), ids) == (4 * 2, 1, 1)


def test_places_of_a_mask_beside_weights():
    def forward(m, x):
        (rows,) = torch.where(x[:, 0] > -1)
        return m.a(x)[rows] + 2 * x[rows]

    model = Model(forward, a=nn.Linear(2, 2))
    report = pathlen.measure(model, X2, edges="weights")
    assert report.path_count == 2 * (2 + 1)


def test_a_rule_that_fails_is_a_refusal_that_says_where():
    library = torch.library.Library("test_odd_operators", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")

    def rule(call, lowering):
        raise math.inf.as_integer_ratio()  # an OverflowError

    pathlen.register_rule("test_odd_operators::twice", rule)
    model = pointwise(lambda h: torch.ops.test_odd_operators.twice(h))
    with pytest.raises(UnsupportedOperation, match=r"(?s)OverflowError.*register_rule") as caught:
        pathlen.measure(model, X2)
    assert isinstance(caught.value.__cause__, OverflowError)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h.cumsum(0),
        lambda h: h.cummax(0).values,
        lambda h: h.logcumsumexp(0),
        lambda h: h.flip(0),
        lambda h: h.roll(1),
        lambda h: h.sort().values,
    ],
)
def test_a_number_alone(function):
    """Operators along an axis leave what has none as it is: here the sum of 3 units of 2 inputs."""
    model = Model(lambda m, x: function(torch.relu(m.a(x)).sum()), a=nn.Linear(2, 3))
    assert answer(model, X2) == (2 * 3, 1, 1)


@pytest.mark.parametrize("flip", [torch.fliplr, torch.flipud, lambda h: h.flip(1)])
def test_flips(flip):
    assert answer(pointwise(lambda h: torch.relu(flip(h))), X2) == (6, 1, 1)


@pytest.mark.parametrize(
    "function",
    [lambda h: h + h.clone().logical_not_(), lambda h: h * torch.ones_like(h).copysign_(h)],
)
def test_booleans_and_signs_written_in_place(function):
    assert answer(pointwise(function), torch.randn(2, 2)) == (6, 1, 1)
