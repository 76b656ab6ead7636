"""A layer whose result is taken apart again is the layer on each of the parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model, answer

EXAMPLE = (torch.randn(2, 5), torch.randn(2, 5))


def two_tensors():
    """Parts for `Model`: two rectified tensors, a layer that both go through, and a last one."""
    torch.manual_seed(0)
    return {"a": nn.Linear(5, 4), "b": nn.Linear(5, 4), "o": nn.Linear(4, 3), "q": nn.Linear(3, 2)}


def rows(s, x, y):
    return torch.stack([F.relu(s.a(x)), F.relu(s.b(y))], 1)


FIRST = {
    "select": lambda s, z: s.o(z)[:, 0],
    "slice": lambda s, z: s.o(z)[:, :1].squeeze(1),
    "unbind": lambda s, z: s.o(z).unbind(1)[0],
    "flat": lambda s, z: s.o(z.flatten(0, 1)).view(2, 2, 3)[:, 0],
    "transposed": lambda s, z: (s.o.weight @ z.mT)[..., 0] + s.o.bias,
    "einsum": lambda s, z: torch.einsum("btk,ok->bto", z, s.o.weight)[:, 0] + s.o.bias,
    "bias after": lambda s, z: (z @ s.o.weight.T + s.o.bias)[:, 0],
    "index": lambda s, z: s.o(z)[torch.arange(2), torch.tensor([0, 0])],
}


def numbers(body, **options):
    return answer(Model(body, **two_tensors()), *EXAMPLE, **options)


@pytest.mark.parametrize("taken", FIRST)
@pytest.mark.parametrize("edges", ["connections", "weights"])
def test_one_row(taken, edges):
    before = numbers(lambda s, x, y: s.q(F.relu(s.o(F.relu(s.a(x))))), edges=edges)
    after = numbers(lambda s, x, y: s.q(F.relu(FIRST[taken](s, rows(s, x, y)))), edges=edges)
    assert after == before
    if edges == "connections":
        assert before[0] == 5 * 4 * 3 * 2


def test_both_rows_apart():
    def apart(s, x, y):
        one, other = s.o(rows(s, x, y)).unbind(1)
        return s.q(F.relu(one) + other)

    def before(s, x, y):
        return s.q(F.relu(s.o(F.relu(s.a(x)))) + s.o(F.relu(s.b(y))))

    assert numbers(apart) == numbers(before)
    verdict = pathlen.verify(Model(apart, **two_tensors()), EXAMPLE, spellings=1)
    assert verdict.ok, str(verdict)


def test_some_rows():
    def three(s, x, y):
        return torch.cat([rows(s, x, y), F.relu(s.a(y))[:, None]], 1)

    some = numbers(lambda s, x, y: F.relu(s.o(three(s, x, y))[:, :2]))
    two = numbers(lambda s, x, y: F.relu(s.o(rows(s, x, y))))
    assert some == two


def test_a_row_of_constants_has_no_units():
    def padded(s, x, y):
        h = torch.cat([torch.zeros(2, 1, 4), F.relu(s.a(x))[:, None]], 1)
        nothing, something = s.o(h).unbind(1)
        return something + nothing

    assert numbers(padded) == numbers(lambda s, x, y: s.o(F.relu(s.a(x))))


def test_rows_that_are_read_together_have_the_same_units():
    """As the class token and the patches of a vision transformer: 2 * (5 * 4) paths to a unit."""
    together = numbers(lambda s, x, y: s.q(F.relu(s.o(rows(s, x, y)))).sum(1))
    assert together[0] == 2 * 5 * 4 * 3 * 2
