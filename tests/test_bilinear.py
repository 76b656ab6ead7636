"""A bilinear layer is a contraction of two tensors, in whatever calls it is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model, answer

X, TOKENS = torch.randn(2, 5), torch.randn(2, 7, 5)


def model(function, widths=(4, 3)):
    """A function of two rectified tensors, and of a matrix for each of six features."""
    torch.manual_seed(0)
    one, other = widths
    made = Model(
        lambda m, x: function(F.relu(m.a(x)), F.relu(m.b(x)), m.w),
        a=nn.Linear(5, one),
        b=nn.Linear(5, other),
    )
    made.w = nn.Parameter(torch.randn(6, one, other))
    return made


def flat(x, w):
    """The product with weights as a linear layer, with a matrix for each feature."""
    return F.linear(x, w.mT.reshape(-1, w.shape[1])).unflatten(-1, (len(w), w.shape[2]))


SPELLINGS = {
    "bilinear": F.bilinear,
    "einsum": lambda x, y, w: torch.einsum("bi,oij,bj->bo", x, w, y),
    "einsum in another order": lambda x, y, w: torch.einsum("bj,bi,oij->bo", y, x, w),
    "first x": lambda x, y, w: torch.einsum("boj,bj->bo", torch.einsum("bi,oij->boj", x, w), y),
    "first y": lambda x, y, w: torch.einsum("boi,bi->bo", torch.einsum("bj,oij->boi", y, w), x),
    "matrices": lambda x, y, w: (x[:, None, None] @ w @ y[:, None, :, None]).flatten(1),
    "matrices from the right": lambda x, y, w: (
        x[:, None, None] @ (w @ y[:, None, :, None])
    ).flatten(1),
    "linear": lambda x, y, w: (flat(x, w) @ y[..., None]).squeeze(-1),
    "tensordot": lambda x, y, w: (torch.tensordot(x, w, ([1], [1])) @ y[..., None]).squeeze(-1),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_bilinear_layer(name):
    x, y, w = torch.randn(2, 4), torch.randn(2, 3), torch.randn(6, 4, 3)
    torch.testing.assert_close(SPELLINGS[name](x, y, w), F.bilinear(x, y, w))
    found = answer(model(lambda *args: SPELLINGS[name](*args)), X)
    assert found == (6 * 5 * (4 + 3), 1, 1)  # a hub over the 4 units of x, one over the 3 of y


def with_ones(x):
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


BIAFFINE = {
    "einsum": lambda x, y, w: torch.einsum("bxi,oij,byj->boxy", with_ones(x), w, with_ones(y)),
    "matrices": lambda x, y, w: with_ones(x)[:, None] @ w @ with_ones(y)[:, None].mT,
    "from the right": lambda x, y, w: with_ones(x)[:, None] @ (w @ with_ones(y)[:, None].mT),
    "linear": lambda x, y, w: flat(with_ones(x), w).movedim(2, 1) @ with_ones(y)[:, None].mT,
}


@pytest.mark.parametrize("name", BIAFFINE)
def test_biaffine_scores_of_a_parser(name):
    made = model(lambda *args: BIAFFINE[name](*args))
    made.w = nn.Parameter(torch.randn(6, 5, 4))
    assert answer(made, TOKENS) == (6 * 5 * (4 + 3), 1, 1)


def test_a_form_of_one_tensor():
    def both(form):
        return answer(model(lambda x, y, w: form(x, w) + 0 * y.sum(), (4, 4)), X)

    plain = both(lambda x, w: F.bilinear(x, x, w))
    assert plain == both(lambda x, w: torch.einsum("bi,oij,bj->bo", x, w, x))
    assert plain == both(lambda x, w: (x[:, None, None] @ w @ x[:, None, :, None]).flatten(1))


def test_queries_and_keys_keep_their_layers():
    """Scores of two linear maps: 3 queries' features with 5 ways each, as many of the keys."""
    torch.manual_seed(0)
    heads = Model(
        lambda m, x: m.q(x).unflatten(-1, (2, 3)).transpose(1, 2) @ m.k(x)[:, None].mT,
        q=nn.Linear(5, 6),
        k=nn.Linear(5, 3),
    )
    assert answer(heads, TOKENS)[0] == 2 * (3 * 5 + 3 * 5)


@pytest.mark.parametrize("name", ["einsum", "matrices"])
def test_verify_knows_bilinear_layers(name):
    verdict = pathlen.verify(model(lambda *args: SPELLINGS[name](*args)), X, spellings=0)
    assert verdict.ok, str(verdict)
