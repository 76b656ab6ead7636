"""Statistics in pieces, in loops, by running sums, and by which a product is divided afterwards.

Each spelling computes what the plain one does, and has the numbers that its definition gives.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

import pathlen
from tests.constructs import Model, answer
from tests.test_along import Residual, assert_plain

TOKENS, ROWS = torch.randn(2, 5, 4), torch.randn(2, 4)


def over(total):
    """Exponentials over what adds them up."""

    def softmax(scores):
        exponentials = scores.exp()
        return exponentials / total(exponentials)

    return softmax


def online(size):
    """A softmax whose maximum and sum run over parts of a row."""

    def softmax(scores):
        top, total = torch.full((2, 5, 1), -1e9), torch.zeros(2, 5, 1)
        for part in scores.split(size, -1):
            above = torch.maximum(top, part.amax(-1, keepdim=True))
            inside = (part - above).exp().sum(-1, keepdim=True)
            total, top = total * (top - above).exp() + inside, above
        return (scores - top).exp() / total

    return softmax


def log_sum(scores):
    return scores.logsumexp(-1, keepdim=True)


SOFTMAX = {
    "running sum": over(lambda e: e.cumsum(-1)[..., -1:]),
    "running sum, selected": over(lambda e: e.cumsum(-1).select(-1, -1).unsqueeze(-1)),
    "column by column": over(lambda e: sum(e[..., j : j + 1] for j in range(5))),
    "unbound": over(lambda e: sum(e.unbind(-1)).unsqueeze(-1)),
    "two parts": over(
        lambda e: e[..., :2].sum(-1, keepdim=True) + e[..., 2:].sum(-1, keepdim=True)
    ),
    "online, one by one": online(1),
    "online, in parts": online(2),
    "minus one times": lambda a: torch.exp(a + (-1) * log_sum(a)),
    "negated": lambda a: torch.exp(-log_sum(a) + a),
    "copied": lambda a: torch.exp((a - log_sum(a)).clone()),
    "alpha": lambda a: torch.exp(torch.add(a, log_sum(a), alpha=-1)),
    "running logarithm": lambda a: torch.exp(a - a.logcumsumexp(-1)[..., -1:]),
    "inverse exponentials": lambda a: functional.normalize(1 / torch.exp(-a), 1, -1),
    "shift last": lambda a: (
        a - (a - a.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True).log()
        - a.amax(-1, keepdim=True)
    ).exp(),
}  # fmt: skip


def attention(attend):
    layers = {name: nn.Linear(4, 4) for name in "qkvo"}
    return Model(
        lambda m, x: x + m.o(attend(m.q(x) @ m.k(x).mT / 2, m.v(x))),
        **layers,
    ).eval()


@pytest.mark.parametrize("name", SOFTMAX)
def test_a_softmax_by_parts(name):
    scores = torch.randn(2, 5, 5)
    torch.testing.assert_close(SOFTMAX[name](scores), scores.softmax(-1))
    # a token's feature: itself, and by each of 4 values their 4 ways and 2 * 16 of the scores
    report = pathlen.measure(attention(lambda a, v: SOFTMAX[name](a) @ v), TOKENS, exact=True)
    assert (report.path_count, report.num_active) == (4 + 4 * 4 * (4 + 32), 0)
    assert report.status == "exact"


AFTER = {
    "keepdim": lambda e, v: (e @ v) / e.sum(-1, keepdim=True),
    "inverse": lambda e, v: (e @ v) * e.sum(-1, keepdim=True).reciprocal(),
    "einsum": lambda e, v: torch.einsum("bqk,bkd->bqd", e, v) / e.sum(-1)[..., None],
    "product with ones": lambda e, v: (e @ v) / (e @ torch.ones(5, 1)),
    "transposed": lambda e, v: ((v.mT @ e.mT) / e.sum(-1)[:, None]).mT,
    "bmm": lambda e, v: torch.bmm(e, v) / (e.sum(-1, keepdim=True) + 1e-12),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_softmax_that_is_divided_after_the_product(name):
    scores, values = torch.randn(2, 5, 5), torch.randn(2, 5, 4)
    torch.testing.assert_close(AFTER[name](scores.exp(), values), scores.softmax(-1) @ values)
    report = pathlen.measure(attention(lambda a, v: AFTER[name](a.exp(), v)), TOKENS, exact=True)
    assert (report.path_count, report.num_active) == (580, 0)


FIRST = torch.tensor([1.0, 1, 1, 0, 0])[:, None]  # the others are padding
POOLED = {
    "product and sum": (lambda e, v: (e * v).sum(1) / e.sum(1), 1.0),
    "values first": (lambda e, v: (v * e).sum(1) / e.sum(1), 1.0),
    "axes kept": (lambda e, v: ((e * v).sum(1, True) / e.sum(1, True))[:, 0], 1.0),
    "means": (lambda e, v: (e * v).mean(1) * e.mean(1).reciprocal(), 1.0),
    "new axes": (
        lambda e, v: ((v[..., None] * e[..., None]).sum(1) / e.sum(1)[..., None])[..., 0],
        1.0,
    ),
    "masked": (lambda e, v: (v * e * FIRST).sum(1) / (e * FIRST).sum(1), FIRST),
    "masked before": (lambda e, v: (lambda e: (e * v).sum(1) / e.sum(1))(e * FIRST), FIRST),
}


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("heads", [1, 4], ids=["one score", "a score a feature"])
def test_attention_pooling_by_product_and_sum(name, heads):
    pooled, mask = POOLED[name]
    scores, values = torch.randn(2, 5, heads), torch.randn(2, 5, 4)
    expected = ((scores + torch.as_tensor(mask).log()).softmax(1) * values).sum(1)
    torch.testing.assert_close(pooled(scores.exp(), values), expected)
    layers = {"s": nn.Linear(4, heads), "v": nn.Linear(4, 4), "o": nn.Linear(4, 3)}
    model = Model(lambda m, x: m.o(pooled(m.s(x).exp(), m.v(x))), **layers)
    report = pathlen.measure(model, TOKENS, exact=True)
    # a feature is a score times a value: 4 + 4 ways
    assert (report.path_count, report.num_active) == (4 * 8 * 3, 0)


def test_verify_divides_after_the_product_too():
    for attend in (
        AFTER["einsum"],
        lambda e, v: over(lambda e: sum(e.unbind(-1))[..., None])(e) @ v,
    ):
        verdict = pathlen.verify(attention(lambda a, v, f=attend: f(a.exp(), v)), TOKENS)
        assert verdict.ok, str(verdict)


def size(tensor):
    return tensor.norm(dim=-1, keepdim=True)


COSINES = {
    "before": lambda h, p: functional.normalize(h) @ functional.normalize(p).T,
    "after": lambda h, p: (h @ p.T) / (size(h) * p.norm(dim=-1)),
    "one after the other": lambda h, p: (h @ p.T) / size(h) / p.norm(dim=-1),
    "clamped": lambda h, p: (h @ p.T) / (size(h) * p.norm(dim=-1)).clamp_min(1e-8),
    "outer": lambda h, p: (h @ p.T) / torch.outer(h.norm(dim=1), p.norm(dim=1)),
    "linear": lambda h, p: functional.linear(h, functional.normalize(p)) / size(h),
    "product and sum": lambda h, p: (h[:, None] * functional.normalize(p)).sum(-1) / size(h),
    "cosine similarity": lambda h, p: functional.cosine_similarity(h[:, None], p[None], dim=-1),
}


@pytest.mark.parametrize("name", COSINES)
def test_a_cosine_classifier(name):
    h, p = torch.rand(2, 6), torch.randn(3, 6)
    torch.testing.assert_close(COSINES[name](h, p), COSINES["before"](h, p))
    model = Model(lambda m, x: COSINES[name](m.a(x).relu(), m.p), a=nn.Linear(4, 6))
    model.register_parameter("p", nn.Parameter(p))
    assert answer(model, ROWS) == (4 * 6 * 3, 1, 1)


def root_mean_square(squares):
    return (squares / 6 + 1e-6).sqrt()


def test_a_part_of_a_product_meets_another_tensor():
    # h and its 6 ways through the product, of which the first rows are taken
    model = Model(lambda m, x: (lambda h: (h @ m.p)[:2] * h[:2])(m.a(x)), a=nn.Linear(4, 6))
    model.register_parameter("p", nn.Parameter(torch.randn(6, 6)))
    assert answer(model, torch.randn(3, 4))[0] == 4 * 6 * (1 + 6)


NORMS = {
    "running sum": lambda h: h / root_mean_square((h * h).cumsum(-1)[..., -1:]),
    "unbound": lambda h: h / root_mean_square(sum(c * c for c in h.unbind(-1)))[..., None],
    "halves": lambda h: (
        h / root_mean_square(sum(half.pow(2).sum(-1, keepdim=True) for half in h.split(3, -1)))
    ),
    "distance to 0": lambda h: h / (torch.cdist(h, torch.zeros(1, 6)) / 6**0.5),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_by_parts(name):
    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 3)}
    model = Model(lambda m, x: (lambda h: m.c(h + m.b(NORMS[name](h).relu())))(m.a(x)), **layers)
    # each of 6 units reads itself and 6 active ones
    expected = (4 * 6 * 7 * 3, Fraction(6, 7), Fraction(1, 2))
    assert answer(model, TOKENS) == expected


def test_what_is_cumulated_along_positions_is_no_statistic():
    def running(m, x):
        h, total, parts = m.a(x).relu(), torch.zeros(2, 3), []
        for step in range(5):
            total = total + h[:, step]
            parts.append(h[:, step] / total)
        return m.c(torch.stack(parts, 1))

    model = Model(running, a=nn.Linear(4, 3), c=nn.Linear(3, 2))
    # four of the quotients are of two units, the first of one, which an activation makes 1
    assert pathlen.measure(model, TOKENS).path_count > 4 * 3 * 2


def test_windows_along_positions_are_no_statistics():
    def differences(m, x):
        h = m.a(x)
        return m.c(h[:, 1:] * (h[:, 1:] + h[:, :-1]).sigmoid())

    model = Model(differences, a=nn.Linear(4, 3), c=nn.Linear(3, 2))
    # a unit and what an activation makes of its sum with itself at another place
    assert pathlen.measure(model, TOKENS).num_active == 3


PRODUCTS = {
    "bmm": lambda one, other: torch.bmm(one.reshape(-1, 1, 1), other.reshape(-1, 1, 1)),
    "matmul": lambda one, other: one[..., None, None] @ other[..., None, None],
    "einsum": lambda one, other: torch.einsum(
        "bik,bjk->bij", one.reshape(-1, 1, 1), other.reshape(-1, 1, 1)
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_matrices_of_one_element(name):
    times = PRODUCTS[name]
    for activation in (
        lambda h: times(h, h).view_as(h),
        lambda h: times(h, h.sigmoid()).view_as(h),
    ):
        assert_plain(Residual(activation).eval(), ROWS, "exact")
