"""Sums are flat: one set of numbers, whatever adds up and whatever moves in between."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model
from tests.test_one_function import ROWS, numbers

SUMS = {
    "other order": lambda h, d: d + h + h.relu(),
    "nested lerp": lambda h, d: torch.lerp(torch.lerp(h.relu(), d, 0.5), h, 0.5),
    "addcmul": lambda h, d: torch.addcmul(h.relu() + d, h, torch.ones(4)),
    "in place": lambda h, d: (h.relu() + d).add_(h),
    "into zeros": lambda h, d: torch.zeros(2, 4).add_(h.relu()).add_(d).add_(h),
    "stack and sum": lambda h, d: torch.stack([h.relu(), d, h]).sum(0),
    "stack and mean": lambda h, d: torch.stack([h.relu(), d]).mean(0) + h,
    "cat and sum": lambda h, d: torch.cat([h.relu(), d, h], 1).view(2, 3, 4).sum(1),
    "einsum": lambda h, d: torch.einsum("kbc,k->bc", torch.stack([h.relu(), d]), torch.ones(2)) + h,
    "transposed twice": lambda h, d: (h.relu() + d).T.T + h,
    "chunks joined": lambda h, d: torch.cat((h.relu() + d).chunk(2, 1), 1) + h,
    "flipped": lambda h, d: ((h.relu() + d).flip(1) + h.flip(1)).flip(1),
    "transposed": lambda h, d: ((h.relu() + d).T + h.T).T,
    "in pieces": lambda h, d: torch.cat(
        [a + b for a, b in zip((h.relu() + d).chunk(2, 1), h.chunk(2, 1), strict=True)], 1
    ),
    "a nested sum by einsum": lambda h, d: torch.einsum(
        "bck,k->bc", torch.stack([h.relu() + d, h], -1), torch.ones(2)
    ),
    "half and half": lambda h, d: 0.5 * (s := h.relu() + d) + 0.5 * s + h,
    "copied over what was added": lambda h, d: (y := d.clone()).copy_(y + h.relu()) + h,
    "assigned to all elements": lambda h, d: assigned(d.clone(), h.relu()) + h,
    "written in a loop": lambda h, d: in_a_loop(h.relu() + d) + h,
}


def assigned(total, other):
    total[:] = total + other
    return total


def in_a_loop(h):
    out = torch.empty_like(h)
    for place in range(h.shape[1]):
        out[:, place] = h[:, place]
    return out


@pytest.mark.parametrize("name", SUMS)
def test_functions_of_one_tensor_meet_first(name):
    def model(total):
        layers = {"a": nn.Linear(4, 4), "d": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
        return Model(lambda m, x: m.c(total(m.a(x), m.d(x))), **layers)

    # relu(h) + h is one activation of h, which meets d: 4 * (4 + 4) * 3 paths
    expected = (96, Fraction(1, 2), Fraction(1, 2), 4)
    assert numbers(model(lambda h, d: h.relu() + h + d), ROWS) == expected
    assert numbers(model(SUMS[name]), ROWS) == expected


PRODUCTS_IN_SUMS = {
    "addcmul": (
        lambda h, d, e: torch.addcmul(e, h, (h > 0).float()) + d,
        lambda h, d, e: F.relu(h) + d + e,
    ),
    "addcmul by a gate": (
        lambda h, d, e: torch.addcmul(e, h, d.sigmoid(), value=2),
        lambda h, d, e: e + 2 * (h * d.sigmoid()),
    ),
    "addcdiv": (lambda h, d, e: torch.addcdiv(e, h, d.exp()), lambda h, d, e: e + h / d.exp()),
    "lerp": (
        lambda h, d, e: torch.lerp(h, d, e.sigmoid()),
        lambda h, d, e: h + e.sigmoid() * (d - h),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS_IN_SUMS)
def test_a_product_that_is_added_is_one_written_apart(name):
    one, other = (
        Model(lambda m, x, f=f: f(m.a(x), m.b(x), m.c(x)), **{n: nn.Linear(4, 4) for n in "abc"})
        for f in PRODUCTS_IN_SUMS[name]
    )
    assert numbers(one, ROWS) == numbers(other, ROWS)


def test_a_matrix_product_that_is_added_to_is_a_sum_of_three():
    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(5, 4, bias=False), "c": nn.Linear(4, 3)}

    def fused(m, x):
        return m.c(torch.addmm(x + m.d(x), F.relu(m.a(x)), m.b.weight.t()))

    def apart(m, x):
        return m.c(x + m.d(x) + m.b(F.relu(m.a(x))))

    models = [Model(f, d=nn.Linear(4, 4), **layers) for f in (fused, apart)]
    assert numbers(models[0], ROWS) == numbers(models[1], ROWS)


SIGNED = {
    "less": lambda h, d: F.relu(h) + d - F.relu(-h),
    "less, nested": lambda h, d: d - (F.relu(-h) + 0.5 * d) + F.relu(h),
    "scaled": lambda h, d: (F.relu(h) + d) * 2 - 2 * F.relu(-h),
    "scaled, a factor each": lambda h, d: (F.relu(h) + d) * GAIN - GAIN * F.relu(-h),
    "stacked": lambda h, d: torch.stack([d, -F.relu(-h), F.relu(h)]).sum(0),
    "weighted": lambda h, d: torch.stack([d, F.relu(-h), F.relu(h)], -1) @ SIGNS,
}
GAIN, SIGNS = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, -1, 1])


@pytest.mark.parametrize("name", SIGNED)
def test_functions_of_one_tensor_meet_with_their_signs(name):
    body = Model(lambda m, x: SIGNED[name](m.a(x), x), a=nn.Linear(4, 4))
    assert numbers(body, ROWS) == (4 * 4 + 4, 0, 0, 0)  # relu(h) - relu(-h) is h
    body.function = lambda m, x: F.relu(m.a(x)) + x + F.relu(-m.a(x))
    assert numbers(body, ROWS)[3] == 8  # separate calls of a layer are separate


WEIGHTS = torch.tensor([2.0, 3.0])


def in_memory(a, b):
    both = torch.empty(*a.shape, 2)
    both[..., 0] = a
    both[..., 1] = b
    return (both * WEIGHTS).sum(-1)


WEIGHTED = {
    "product and sum": lambda a, b: (torch.stack([a, b], -1) * WEIGHTS).sum(-1),
    "matmul": lambda a, b: torch.stack([a, b], -1) @ WEIGHTS,
    "matmul of what was scaled": lambda a, b: 0.5 * torch.stack([a, b], -1) @ (2 * WEIGHTS),
    "einsum": lambda a, b: torch.einsum("bck,k->bc", torch.stack([a, b], -1), WEIGHTS),
    "tensordot": lambda a, b: torch.tensordot(WEIGHTS, torch.stack([a, b]), 1),
    "written to memory": in_memory,
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_sums_of_stacked_tensors_are_flat(name):
    def model(total):
        layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
        return Model(lambda m, x: x + total(m.a(x).relu(), m.b(x)), **layers)

    # x_c, relu and b: 4 * (1 + 4 + 4) paths
    expected = (36, Fraction(16, 36), Fraction(1, 3), 4)
    assert numbers(model(lambda a, b: 2 * a + 3 * b), ROWS) == expected
    assert numbers(model(WEIGHTED[name]), ROWS) == expected


def running(total, rows):
    totals = []
    for row in rows:
        total = row if total is None else total + row
        totals.append(total)
    return torch.stack(totals, 1)


RUNNING = {
    "slices": lambda h: running(None, [h[:, t] for t in range(3)]),
    "rows": lambda h: running(None, h.unbind(1)),
    "rows, from zeros": lambda h: running(torch.zeros(4), h.unbind(1)),
    "parts of one row": lambda h: running(None, [row[:, 0] for row in h.split(1, 1)]),
    "parts of one row, from zeros": lambda h: running(0.0, [r[:, 0] for r in h.chunk(3, 1)]),
}


@pytest.mark.parametrize("name", RUNNING)
def test_rows_of_a_sum_that_meet_are_of_that_sum(name):
    """Elements of one tensor meet before anything else, though no call reads the tensor again."""

    def model(scan):
        layers = {"a": nn.Linear(4, 4), "d": nn.Linear(4, 4)}
        return Model(lambda m, x: scan(x + m.a(x).relu() + m.d(x)), **layers)

    # x_c, relu and d at each place, as behind cumsum: 4 * (1 + 4 + 4) paths
    expected = (36, Fraction(16, 36), Fraction(1, 3), 4)
    tokens = torch.randn(2, 3, 4)
    assert numbers(model(lambda h: h.cumsum(1)), tokens) == expected
    assert numbers(model(RUNNING[name]), tokens) == expected


READ_AGAIN = {
    "flat": lambda a, m, c, d: a + 0.9 * m + 0.4 * c + 0.4 * d,
    "twice": lambda a, m, c, d: (lambda b: a + 0.9 * (m + b) - 0.5 * b)(c + d),
    "another order": lambda a, m, c, d: (lambda b: 0.9 * (b + m) + (a - 0.5 * b))(c + d),
    "the larger sum last": lambda a, m, c, d: (lambda b: (a - 0.5 * b) + 0.9 * m + 0.9 * b)(c + d),
    "viewed": lambda a, m, c, d: (lambda b: a + 0.9 * (m + b.view(8).view(2, 4)) - 0.5 * b)(c + d),
    "transposed": lambda a, m, c, d: (lambda b: a + 0.9 * (m.T + b.T).T - 0.5 * b)(c + d),
    "scaled, then read again": lambda a, m, c, d: (lambda b: a + 0.9 * m + (b + 0.2 * b) - 0.8 * b)(
        1 * (c + d)
    ),
    "lerp": lambda a, m, c, d: (lambda b: a + 0.9 * m + torch.lerp(0.9 * b, 0.5 * b, 1.25))(c + d),
    "in place": lambda a, m, c, d: (lambda b: ((m + b) * 0.9).add_(b, alpha=-0.5).add_(a))(c + d),
    "stacked": lambda a, m, c, d: (lambda b: torch.stack([a + 0.9 * m, 0.9 * b, -0.5 * b]).sum(0))(
        c + d
    ),
    "sums of it read twice": lambda a, m, c, d: (
        lambda b: (lambda s: a + 0.45 * s + 0.45 * s - 0.5 * b)(m + b)
    )(c + d),
    "what cancels": lambda a, m, c, d: (lambda b: a + 0.9 * (m + b) - 0.9 * b + 0.4 * c + 0.4 * d)(
        c + d
    ),
}


@pytest.mark.parametrize("name", READ_AGAIN)
def test_a_sum_that_only_one_larger_sum_reads_is_part_of_it(name):
    model = Model(
        lambda n, x: n.o(READ_AGAIN[name](n.a(x).relu(), n.m(x), n.c(x).relu(), x)),
        **{k: nn.Linear(4, 4) for k in "amc"},
        o=nn.Linear(4, 3),
    )
    # a channel of the sum has relu(a), m, relu(c) and x: 4 + 4 + 4 + 1 ways, two of them active
    expected = (4 * 13 * 3, Fraction(8, 13), Fraction(1, 2), 8)
    assert numbers(model, ROWS) == expected


@pytest.mark.parametrize("again", [torch.relu, lambda b: 2 * b, lambda b: b.mean(0)])
def test_a_sum_that_something_else_reads_is_a_tensor_of_its_own(again):
    """The stream of a residual network, and a sum that two sums read."""

    def model(m, x):
        b = m.c(x).relu() + x
        return m.o(m.a(x) + b), again(b)

    model = Model(model, **{k: nn.Linear(4, 4) for k in "ac"}, o=nn.Linear(4, 3))
    # a and b meet: 4 + (4 + 1) ways, half of the walks go to b and half of these to relu
    paths, _, normalized, _ = numbers(model, ROWS)
    active = again is torch.relu
    assert paths == 4 * 9 * 3 + 4 * 5
    assert normalized == (Fraction(1, 4) + Fraction(1, 2) + active) / 2


RECOMPUTED = {
    "a product": lambda p, h, d: (d.tanh().view(2, 4, 1) + p().view(2, 4, 1)).view(2, 4) + p() / 2,
    "less one of its factors": lambda p, h, d: (
        (d.T + (p() - d).T).T + 0.5 * (p() - d) + 0.5 * d + d.tanh()
    ),
}


@pytest.mark.parametrize("name", RECOMPUTED)
def test_a_product_that_is_computed_twice_is_one(name):
    def model(h, d):
        return RECOMPUTED[name](lambda: h * d, h, d)

    layers = {"h": nn.Linear(4, 4), "d": nn.Linear(4, 4), "o": nn.Linear(4, 3)}
    # tanh(d) and 1.5 h d: 4 + (4 + 4) ways
    expected = (4 * 12 * 3, Fraction(1, 3), Fraction(1, 2), 4)
    found = Model(lambda m, x: m.o(model(m.h(x), m.d(x))), **layers)
    assert numbers(found, ROWS) == expected


def in_slices(h, p):
    y = h.clone()
    y[:, :2] += p[:, :2]
    y[:, 2:] += p[:, 2:]
    return y


def in_a_buffer(h, p):
    y = torch.empty(2, 4)
    y[:, :2] = h[:, :2] + p[:, :2]
    y[:, 2:].copy_(p[:, 2:] + h[:, 2:])
    return y


SIDE_BY_SIDE = {
    "slices in place": in_slices,
    "written to a buffer": in_a_buffer,
    "cat": lambda h, p: torch.cat([h[:, :2] + p[:, :2], p[:, 2:] + h[:, 2:]], 1),
    "stack": lambda h, p: torch.stack([h[:, i] + p[:, i] for i in range(4)], 1),
    "scaled": lambda h, p: 2 * torch.cat([h[:, :2] + p[:, :2], h[:, 2:] + p[:, 2:]], 1) / 2,
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_sums_side_by_side_are_sums_of_tensors_side_by_side(name):
    layers = {"h": nn.Linear(4, 4), "p": nn.Linear(4, 4), "q": nn.Linear(4, 4)}
    put = SIDE_BY_SIDE[name]
    model = Model(
        lambda m, x: m.c(put(m.h(x), m.p(x).relu()) + m.q(x)), c=nn.Linear(4, 3), **layers
    )
    # a channel has h, relu and q: 3 * 4 ways
    assert numbers(model, ROWS) == (4 * 12 * 3, Fraction(1, 3), Fraction(1, 3), 4)
    # relu(h) + h is one activation, which meets p
    model.function = lambda m, x: m.c(put(F.relu(h := m.h(x)), m.p(x)) + h)
    assert numbers(model, ROWS) == (4 * 8 * 3, Fraction(1, 2), Fraction(1, 2), 4)


def test_a_sum_in_some_slices():
    layers = {"h": nn.Linear(4, 4), "p": nn.Linear(4, 4), "q": nn.Linear(4, 4)}

    def some(m, x):
        y = m.h(x).clone()
        y[:, :2] += m.p(x).relu()[:, :2]
        return y + m.q(x)

    # two channels of three summands, two of two: walks 2 / 3 + 2 / 2 ... of relu 1 / 3 and none
    expected = (4 * (2 * 3 + 2 * 2), Fraction(2, 10), Fraction(1, 6), 2)
    assert numbers(Model(some, **layers), ROWS) == expected


def in_a_loop_of_tokens(h, p):
    y = h.clone()
    for t in range(h.shape[1]):
        y[:, t] += p[:, t]
    return y


TOKEN_BY_TOKEN = {
    "in place": in_a_loop_of_tokens,
    "stack": lambda h, p: torch.stack([h[:, t] + p[:, t] for t in range(h.shape[1])], 1),
    "cat": lambda h, p: torch.cat([h[:, :1] + p[:, :1], h[:, 1:] + p[:, 1:]], 1),
}


@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("name", TOKEN_BY_TOKEN)
def test_one_sum_at_many_places_has_one_unit_a_feature(name, tokens):
    layers = {"h": nn.Linear(4, 4), "p": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    put, x = TOKEN_BY_TOKEN[name], torch.randn(2, tokens, 4)
    model = Model(lambda m, x: m.c(put(m.h(x), m.p(x).relu())), **layers)
    assert numbers(model, x) == (4 * 8 * 3, Fraction(1, 2), Fraction(1, 2), 4)


def test_two_sums_of_the_same_tensors_are_two():
    layers = {"h": nn.Linear(4, 4), "p": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    x = torch.randn(2, 6, 4)
    ways = {
        "another sign": lambda h, p: torch.cat([h[:, :3] + p[:, :3], h[:, 3:] - p[:, 3:]], 1),
        "the same elements": lambda h, p: torch.cat([h + p, h + p], 1),
    }
    for put in ways.values():
        model = Model(lambda m, x, put=put: m.c(put(m.h(x), m.p(x).relu())), **layers)
        assert numbers(model, x) == (4 * 16 * 3, Fraction(1, 2), Fraction(1, 2), 4)


def test_a_running_sum_in_place_behind_padding_is_cumsum():
    def in_place(h):
        for t in range(1, h.shape[1]):
            h[:, t] += h[:, t - 1]
        return h

    x = torch.randn(2, 3, 3)
    for run in (lambda h: h.cumsum(1), in_place):
        layers = {"h": nn.Linear(3, 2), "c": nn.Linear(2, 3)}
        model = Model(lambda m, x, run=run: m.c(run(m.h(F.pad(x, (0, 0, 1, 0))))), **layers)
        assert numbers(model, x) == (3 * 2 * 3, 0, 0, 0)


class Ghost(nn.Module):
    """Half of the channels are a sum that others read, the other half one that nobody else does."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.ModuleList(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)) for _ in "ab")
        self.two = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in "ab")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one[0](x) + self.one[1](x)
        second = self.two[0](first) + self.two[1](first)
        return torch.cat([first, second], 1) + x


def test_sums_side_by_side_need_no_values_of_parameters() -> None:
    """And are compared in time that grows with the blocks, though each is read several times."""
    blocks = nn.Sequential(*(Ghost() for _ in range(16))).eval()
    expected = pathlen.measure(blocks, torch.zeros(1, 4), exact=True)
    with torch.device("meta"):
        found = pathlen.measure(
            nn.Sequential(*(Ghost() for _ in range(16))).eval(), torch.zeros(1, 4), exact=True
        )
    assert found.path_count == expected.path_count
    assert found.graph.num_edges == expected.graph.num_edges
