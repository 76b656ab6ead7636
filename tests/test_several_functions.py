"""Constants along a new axis make several functions of what is read, wherever it is added up.

A broadcast product that is added up is a linear layer, by whatever operator it is; so are sums of
outer products. Values are those of the layer, or of the functions written one by one.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.errors import UnsupportedOperation
from tests.constructs import Model, answer
from tests.test_traced_weights import masses

X, TOKENS = torch.randn(2, 4), torch.randn(2, 6, 4)
W, V = torch.randn(5, 4), torch.randn(4, 3)


def numbers(function, *example, **modules):
    model = Model(function, **modules)
    report = pathlen.measure(model, example, exact=True)
    return *answer(model, *example), report.num_active


def in_place(x):
    y = torch.zeros(2, 5)
    for i in range(4):
        y.add_(x[:, i, None] * W[:, i])
    return y


LAYERS = {
    "outer products, added up": lambda x: sum(x[:, i, None] * W[:, i] for i in range(4)),
    "torch.outer": lambda x: sum(torch.outer(x[:, i], W[:, i]) for i in range(4)),
    "outer products in place": in_place,
    "outer products by addcmul": lambda x: torch.addcmul(
        sum(x[:, i, None] * W[:, i] for i in range(3)), x[:, 3:], W[:, 3].expand(2, 5)
    ),
    "two halves": lambda x: x[:, :2] @ W[:, :2].T + (x[:, 2:, None] * W[:, 2:].T).sum(1),
    "a product with ones": lambda x: (x[:, None] * W) @ torch.ones(4),
    "linear with ones": lambda x: F.linear(x[:, None] * W, torch.ones(1, 4))[..., 0],
    "bmm with ones": lambda x: torch.bmm(x[:, None] * W, torch.ones(2, 4, 1))[..., 0],
    "the last of a running sum": lambda x: (x[:, None] * W).cumsum(-1)[..., -1],
    "pooling of the whole": lambda x: 4 * F.avg_pool1d(x[:, None] * W, 4)[..., 0],
    "adaptive pooling": lambda x: 4 * F.adaptive_avg_pool1d(x[:, None] * W, 1)[..., 0],
    "pooling of rows": lambda x: 4 * F.avg_pool2d((x[:, None] * W)[:, None], (1, 4))[:, 0, :, 0],
    "pooling in steps": lambda x: (2 * F.avg_pool1d(x[:, None] * W, 2)).sum(-1),
    "unbind": lambda x: sum((x[:, None] * W).unbind(-1)),
    "repeated": lambda x: (x.repeat(1, 5) * W.flatten()).view(2, 5, 4).sum(-1),
    "embedding bags": lambda x: F.embedding_bag(
        torch.arange(4).expand(2, 4), W.T.contiguous(), per_sample_weights=x, mode="sum"
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_broadcast_product_that_is_added_up_is_a_layer(name):
    torch.testing.assert_close(LAYERS[name](X), X @ W.T, rtol=1e-4, atol=1e-5)
    # 4 features, 5 units, 2 outputs
    found = numbers(lambda m, x: m.o(LAYERS[name](x).relu()), X, o=nn.Linear(5, 2))
    assert found == (4 * 5 * 2, 1, 1, 5)


@pytest.mark.parametrize("name", [*LAYERS][:-1])
def test_a_layer_has_the_weights_of_a_matrix(name):
    read = Model(lambda m, x: LAYERS[name](m.a(x)), a=nn.Linear(4, 4))
    total = masses(pathlen.trace(read, X, edges="weights"))[0]
    assert total == pytest.approx(float((W.abs() @ read.a.weight.detach().abs()).sum()), rel=1e-5)


def test_bags_of_several_sizes_are_refused():
    def function(m, x):
        bags = torch.tensor([0, 3])
        return F.embedding_bag(
            torch.arange(4), m.w.weight, bags, per_sample_weights=x[0], mode="sum"
        )

    with pytest.raises(UnsupportedOperation, match="bags are of several sizes"):
        pathlen.measure(Model(function, w=nn.Embedding(4, 5)), X)


OUTER = {
    "einsum": lambda x: torch.einsum("bi,oi,ij->boj", x, W, V),
    "matmul": lambda x: (x[:, None] * W) @ V,
    "linear": lambda x: F.linear(x[:, None] * W, V.T),
    "tensordot": lambda x: torch.tensordot(x[:, None] * W, V, 1),
    "convolution": lambda x: F.conv1d((x[:, None] * W).mT, V.T[..., None]).mT,
    "row by row": lambda x: torch.stack([(x * row) @ V for row in W], 1),
    "product and sum": lambda x: (x[:, None, :, None] * W[:, :, None] * V).sum(2),
    "outer products": lambda x: sum((x[:, i, None] * W[:, i])[..., None] * V[i] for i in range(4)),
}


@pytest.mark.parametrize("name", OUTER)
def test_a_layer_on_an_outer_product_is_one_for_each_row(name):
    torch.testing.assert_close(OUTER[name](X), OUTER["einsum"](X), rtol=1e-4, atol=1e-5)
    found = numbers(lambda m, x: m.o(OUTER[name](x).relu().flatten(1)), X, o=nn.Linear(15, 2))
    assert found == (4 * 15 * 2, 1, 1, 15)


@pytest.mark.parametrize("name", ["matmul", "linear", "convolution"])
def test_a_layer_for_each_row_has_its_weights(name):
    read = Model(lambda m, x: OUTER[name](m.a(x)), a=nn.Linear(4, 4))
    total = masses(pathlen.trace(read, X, edges="weights"))[0]
    matrix = (W[:, :, None] * V).abs().sum((0, 2)) @ read.a.weight.detach().abs()
    assert total == pytest.approx(float(matrix.sum()), rel=1e-5)


C, D = torch.rand(5) + 0.5, torch.rand(5) + 0.5
MERGES = {  # of h and d, on a new axis
    "scaled apart": (
        lambda h, d: h[..., None] * C + d[..., None] * D,
        lambda h, d: torch.stack([h * C[k] + d * D[k] for k in range(5)], -1),
    ),
    "scaled alike": (
        lambda h, d: h[..., None] * C + d[..., None] * C,
        lambda h, d: (h + d)[..., None] * C,
    ),
    "shifted": (
        lambda h, d: (h[..., None] + C) + d[..., None],
        lambda h, d: (h + d)[..., None] + C,
    ),
    "a product of scaled tensors": (
        lambda h, d: (h[..., None] * C) * d[..., None],
        lambda h, d: (h * d)[..., None] * C,
    ),
    "a product of a shifted tensor": (
        lambda h, d: (h[..., None] + C) * d[..., None],
        lambda h, d: torch.stack([(h + C[k]) * d for k in range(5)], -1),
    ),
    "a quotient of a shifted tensor": (
        lambda h, d: d[..., None] / (h[..., None] + C),
        lambda h, d: torch.stack([d / (h + C[k]) for k in range(5)], -1),
    ),
    "a maximum of shifted tensors": (
        lambda h, d: torch.maximum(h[..., None] + C, d[..., None] + C),
        lambda h, d: torch.maximum(h, d)[..., None] + C,
    ),
    "repeated before": (
        lambda h, d: h[..., None].expand(2, 3, 5) + d[..., None].expand(2, 3, 5) + C,
        lambda h, d: (h + d)[..., None] + C,
    ),
    "side by side": (
        lambda h, d: torch.cat([h, -h], 1) + torch.cat([d, d], 1),
        lambda h, d: torch.cat([h + d, d - h], 1),
    ),
}


@pytest.mark.parametrize("after", ["nothing", "relu"])
@pytest.mark.parametrize("name", MERGES)
def test_what_meets_along_a_new_axis(name, after):
    then = (lambda t: t) if after == "nothing" else torch.relu
    found = []
    for form in MERGES[name]:
        wide = form(torch.randn(2, 3), torch.randn(2, 3)).flatten(1).shape[1]
        layers = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), "o": nn.Linear(wide, 2)}
        found.append(
            numbers(lambda m, x, f=form: m.o(then(f(m.a(x), m.b(x))).flatten(1)), X, **layers)
        )
    assert found[0] == found[1]


POSITIONS = {
    "last": lambda h, d, p: h + d + p,
    "between": lambda h, d, p: h + p + d,
    "scaled": lambda h, d, p: h * p + d,
}


@pytest.mark.parametrize("name", POSITIONS)
def test_constants_along_positions_split_nothing(name):
    p = torch.randn(6, 3)
    layers = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    found = numbers(lambda m, x: POSITIONS[name](m.a(x), m.b(x), p).relu(), TOKENS, **layers)
    assert found == (2 * 4 * 3, 1, 1, 3)


def test_a_tensor_that_meets_positions_has_positions():
    """One is repeated along tokens, the other has them: no constant makes several functions."""
    p = torch.randn(6, 3)
    layers = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    found = numbers(lambda m, x, t: (m.a(t)[:, None] * p + m.b(x)).relu(), TOKENS, X, **layers)
    assert found == (2 * 4 * 3, 1, 1, 3)


REPEATED = {
    "behind the layer": lambda m, x, p: m.a(x)[:, None] + p,
    "before the layer": lambda m, x, p: m.a(x[:, None].expand(2, 5, 4)) + p,
    "by an einsum": lambda m, x, p: (
        torch.einsum("boi,ci->boc", x[:, None].expand(2, 5, 4), m.a.weight) + p
    ),
    "in the layer": lambda m, x, p: F.linear(x[:, None] + p @ m.a.weight.pinverse().T, m.a.weight),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_layer_of_repeated_rows_repeats_its_own(name):
    p = torch.randn(5, 3)
    layers = {"a": nn.Linear(4, 3), "o": nn.Linear(15, 2)}
    found = numbers(lambda m, x: m.o(REPEATED[name](m, x, p).relu().flatten(1)), X, **layers)
    assert found == (4 * 15 * 2, 1, 1, 15)


FREQUENCIES = torch.rand(3) + 0.5
FOURIER = {
    "product": lambda h: h[..., None] * FREQUENCIES,
    "matmul": lambda h: h[..., None] @ FREQUENCIES[None],
    "bmm": lambda h: torch.bmm(h[..., None], FREQUENCIES.expand(2, 1, 3)),
    "linear": lambda h: F.linear(h[..., None], FREQUENCIES[:, None]),
    "einsum": lambda h: torch.einsum("bci,ik->bck", h[..., None], FREQUENCIES[None]),
    "kron": lambda h: torch.kron(h, FREQUENCIES[None]),
}


@pytest.mark.parametrize("name", FOURIER)
def test_a_contraction_of_a_new_axis_adds_up_nothing(name):
    layers = {"a": nn.Linear(4, 5), "o": nn.Linear(15, 2)}
    found = numbers(lambda m, x: m.o(FOURIER[name](m.a(x)).sin().flatten(1)), X, **layers)
    assert found == (4 * 15 * 2, 1, 1, 15)


def test_a_layer_of_one_feature_stays_a_layer():
    one = nn.Linear(1, 3, bias=False)
    layers = {"a": nn.Linear(4, 1), "b": one, "o": nn.Linear(3, 2)}
    for form in (lambda m, h: m.b(h), lambda m, h: h @ m.b.weight.T):
        found = numbers(lambda m, x, f=form: m.o(f(m, m.a(x))), TOKENS, **layers)
        assert found == (4 * 3 * 2, 0, 0, 0)


def test_distances_of_one_feature():
    centres = torch.randn(5, 3)

    def distances(m, x):
        h = m.a(x)
        columns = [torch.cdist(h[:, j : j + 1], centres[j][:, None]) for j in range(5)]
        return m.o(torch.exp(-(torch.cat(columns, 1) ** 2)))

    layers = {"a": nn.Linear(4, 5), "o": nn.Linear(15, 2)}
    assert numbers(distances, X, **layers) == (4 * 15 * 2, 1, 1, 15)


def test_a_vector_of_numbers_in_an_einsum_adds_up_positions():
    whole = torch.full((6,), 1 / 6)
    found = numbers(
        lambda m, x: m.o(torch.einsum("btc,t,co->bo", x, whole, m.w.weight.T).relu()),
        TOKENS,
        w=nn.Linear(4, 5),
        o=nn.Linear(5, 2),
    )
    assert found == (4 * 5 * 2, 1, 1, 5)


# --- tables, experts, stacks ----------------------------------------------------------------------

TABLES = {
    "index": lambda w, e: w[e],
    "embedding": lambda w, e: F.embedding(e, w.flatten(1)).view(2, 4, 5),
    "index_select": lambda w, e: w.index_select(0, e),
    "gather": lambda w, e: w.gather(0, e[:, None, None].expand(2, 4, 5)),
    "another axis": lambda w, e: w.permute(1, 2, 0)[..., e].permute(2, 0, 1),
}


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize("name", TABLES)
def test_all_axes_of_a_table_that_are_read_whole_are_features(name, edges):
    w = nn.Parameter(torch.randn(3, 4, 5))
    model = Model(lambda m, e: m.o(TABLES[name](w, e).relu().flatten(1)), o=nn.Linear(20, 2))
    model.w = w
    report = pathlen.measure(model, torch.tensor([0, 2]), exact=True, edges=edges)
    assert (report.path_count, report.num_active) == (20 * 2, 20)
    if edges == "weights":  # of each feature the largest in any row
        largest = w.detach().abs().amax(0).flatten()
        total = float((model.o.weight.detach().abs() @ largest).sum())
        assert masses(report.graph)[0] == pytest.approx(total, rel=1e-5)


def test_a_matrix_for_each_of_some_numbers():
    w = nn.Parameter(torch.randn(3, 4, 5))
    forms = {
        "bmm": lambda x, e: torch.bmm(x[:, None], w[e])[:, 0],
        "einsum": lambda x, e: torch.einsum("bi,bio->bo", x, w[e]),
        "product and sum": lambda x, e: (x[..., None] * w[e]).sum(1),
    }
    for form in forms.values():  # a unit has a hub of 4 inputs and one over 4 entries of the table
        model = Model(lambda m, x, e, f=form: m.o(f(x, e).relu()), o=nn.Linear(5, 2))
        model.w = w
        assert answer(model, X, torch.tensor([0, 2])) == (5 * (4 + 4) * 2, 1, 1)


GATED = {
    "product and sum": lambda v, x, w: (v[..., None] * torch.einsum("bi,bkio->bko", x, w)).sum(1),
    "einsum": lambda v, x, w: torch.einsum("bk,bko->bo", v, torch.einsum("bi,bkio->bko", x, w)),
    "matmul": lambda v, x, w: (v[:, None] @ (x[:, None, None] @ w)[:, :, 0])[:, 0],
    "three": lambda v, x, w: torch.einsum("bi,bk,bkio->bo", x, v, w),
    "three, gates first": lambda v, x, w: torch.einsum("bk,bi,bkio->bo", v, x, w),
    "one by one": lambda v, x, w: sum(
        v[:, k, None] * (x[:, None] @ w[:, k])[:, 0] for k in range(w.shape[1])
    ),
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", GATED)
def test_the_experts_that_score_highest(name, count):
    w = nn.Parameter(torch.randn(3, 4, 5))

    def function(m, x):
        values, places = m.g(x).softmax(-1).topk(count, -1)
        return m.o(GATED[name](values, x, w[places]).relu())

    model = Model(function, g=nn.Linear(4, 3), o=nn.Linear(5, 2))
    model.w = w
    # of each expert 4 ways of x, and 4 * 3 of the gate
    assert answer(model, X) == (5 * count * (4 + 12) * 2, 1, 1)


STACKS = {
    "one by one": lambda a, b, c: a * c + b * c,
    "stacked": lambda a, b, c: (torch.stack([a, b]) * c).sum(0),
    "stacked on the last axis": lambda a, b, c: (torch.stack([a, b], -1) * c[..., None]).sum(-1),
    "products joined": lambda a, b, c: torch.cat([a * c, b * c], 1).view(2, 2, 3).sum(1),
    "einsum": lambda a, b, c: torch.einsum("nbf,bf->bf", torch.stack([a, b]), c),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacked_tensors_times_one_are_a_product_of_a_sum(name):
    layers = {n: nn.Linear(4, 3) for n in "abc"}
    # (a + b) * c: 4 ways each
    found = numbers(lambda m, x: STACKS[name](m.a(x), m.b(x), m.c(x)), X, **layers)
    assert found == (3 * 12, 0, 0, 0)


def test_a_gate_before_a_sum_is_one_behind_it():
    forms = [
        lambda g, h: (g[..., None] * h).sum(1),
        lambda g, h: g * h.sum(1),
        lambda g, h: torch.einsum("bk,bko->bo", g.expand(2, 3), h),
    ]
    for form in forms:  # a unit: 4 ways of the gate, 3 * 4 of the sum
        found = numbers(
            lambda m, x, f=form: f(m.g(x).sigmoid(), m.h(x).relu().view(2, 3, 4)),
            X,
            g=nn.Linear(4, 1),
            h=nn.Linear(4, 12),
        )
        assert found[0] == 4 * (4 + 12)


SCALED = {
    "einsum": lambda a, b, w: torch.einsum("bck,k->bc", 0.5 * torch.stack([a, b], -1), w),
    "einsum, stacked first": lambda a, b, w: torch.einsum("kbc,k->bc", torch.stack([a, b]) / 2, w),
    "negated": lambda a, b, w: torch.einsum("bck,k->bc", -torch.stack([a, b], -1), w),
    "matmul": lambda a, b, w: (0.5 * torch.stack([a, b], -1)) @ w,
    "tensordot": lambda a, b, w: torch.tensordot(0.5 * torch.stack([a, b], -1), w, 1),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_sum_of_scaled_stacked_tensors_is_a_sum_of_them(name):
    layers = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), "o": nn.Linear(3, 2)}
    w = torch.rand(2) + 0.5
    found = numbers(lambda m, x: m.o(SCALED[name](m.a(x), m.b(x), w).relu()), X, **layers)
    assert found == (3 * (4 + 4) * 2, 1, 1, 3)


LOWER = torch.randn(4, 4).tril() + 4 * torch.eye(4)
SOLVED = {
    "from the left": (
        lambda h: torch.linalg.solve_triangular(LOWER, h.mT, upper=False).mT,
        lambda h: h @ LOWER.inverse().T,
    ),
    "from the right": (
        lambda h: torch.linalg.solve_triangular(LOWER.T, h, upper=True, left=False),
        lambda h: h @ LOWER.T.inverse(),
    ),
    "ones on the diagonal": (
        lambda h: torch.linalg.solve_triangular(
            LOWER, h, upper=False, left=False, unitriangular=True
        ),
        lambda h: h @ (LOWER.tril(-1) + torch.eye(4)).inverse(),
    ),
}


@pytest.mark.parametrize("name", SOLVED)
def test_a_triangular_system_of_constants_is_a_layer(name):
    solved, written = SOLVED[name]
    torch.testing.assert_close(solved(X), written(X), rtol=1e-4, atol=1e-4)
    layers = {"a": nn.Linear(4, 4), "o": nn.Linear(4, 2)}
    found = numbers(lambda m, x: m.o(solved(m.a(x)).relu()), X, **layers)
    assert found == (4 * 4 * 4 * 2, 1, 1, 4)


def test_a_triangular_system_of_the_input_is_its_inverse_times_that():
    def matrix(m, x):
        k = m.k(x)
        return (k @ k.mT).tril(-1) + torch.eye(6)

    forms = [
        lambda m, x: torch.linalg.solve_triangular(
            matrix(m, x), m.a(x), upper=False, unitriangular=True
        ),
        lambda m, x: torch.linalg.inv(matrix(m, x)) @ m.a(x),
    ]
    found = [
        answer(Model(form, a=nn.Linear(4, 3), k=nn.Linear(4, 2)), TOKENS, status="bound")
        for form in forms
    ]
    assert found[0] == found[1]


def test_windows_of_a_product_by_a_convolution_of_ones():
    ones = torch.ones(1, 1, 4)
    forms = [
        lambda x: F.conv1d((x[:, None] * W).view(10, 1, 4), ones).view(2, 5),
        lambda x: F.conv2d((x[:, None] * W)[:, None], ones[None])[:, 0, :, 0],
    ]
    for form in forms:
        torch.testing.assert_close(form(X), X @ W.T, rtol=1e-4, atol=1e-5)
        layers = {"a": nn.Linear(4, 4), "o": nn.Linear(5, 2)}
        found = numbers(lambda m, x, f=form: m.o(f(m.a(x)).relu()), X, **layers)
        assert found == (4 * 4 * 5 * 2, 1, 1, 5)
