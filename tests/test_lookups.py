"""Step functions: integers made from an element read a table, or are a value themselves.

A step function is an activation wherever its value flows on; as a factor it only chooses.
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

SLOPES = torch.tensor([0.25, 1.0])
ROWS = torch.randn(2, 4)


def places(h):
    return (h > 0).long()


def two(h, axis=-1):
    return torch.stack([h * 0.25, h], axis)


LEAKY = {
    "a table": lambda h: SLOPES[places(h)] * h,
    "take": lambda h: torch.take(SLOPES, places(h)) * h,
    "index_select": lambda h: SLOPES.index_select(0, places(h).flatten()).view_as(h) * h,
    "an embedding": lambda h: functional.embedding(places(h), SLOPES[:, None])[..., 0] * h,
    "one-hot vectors": lambda h: (functional.one_hot(places(h), 2).float() @ SLOPES) * h,
    "a sum over one-hot vectors": lambda h: (functional.one_hot(places(h), 2) * SLOPES).sum(-1) * h,
    "a table for each channel": lambda h: SLOPES.repeat(5, 1)[torch.arange(5), places(h)] * h,
    "gather from both": lambda h: two(h).gather(-1, places(h)[..., None])[..., 0],
    "gather from a table": lambda h: (
        SLOPES.expand(2, 5, 2).gather(-1, places(h)[..., None]).squeeze(-1) * h
    ),
    "take_along_dim": lambda h: torch.take_along_dim(two(h), places(h)[..., None], -1)[..., 0],
    "an index of three": lambda h: two(h, 0)[places(h), torch.arange(2)[:, None], torch.arange(5)],
    "where with an integer": lambda h: torch.where((h > 0).int() == 1, h, h * 0.25),
}
SIGNS = {
    "sign": torch.sign,
    "heaviside": lambda h: torch.heaviside(h, torch.tensor(0.5)) * 2 - 1,
    "where": lambda h: torch.where(h > 0, 1.0, torch.where(h < 0, -1.0, 0.0)),
    "two comparisons": lambda h: (h > 0).float() - (h < 0).float(),
    "a cast": lambda h: (h > 0).to(h.dtype) * 2 - 1,
    "a mask times a number": lambda h: (h > 0) * 2.0 - 1,
    "masked fill": lambda h: torch.full_like(h, -1.0).masked_fill(h > 0, 1.0),
    "a table": lambda h: torch.tensor([-1.0, 1.0])[places(h)],
    "buckets": lambda h: torch.tensor([-1.0, 1.0])[torch.bucketize(h, torch.zeros(1))],
}


@pytest.mark.parametrize("name", LEAKY)
def test_a_table_read_where_a_mask_says(name):
    h = torch.randn(2, 5)
    torch.testing.assert_close(LEAKY[name](h), functional.leaky_relu(h, 0.25))
    assert_plain(Residual(LEAKY[name]).eval(), ROWS, "exact")


@pytest.mark.parametrize("name", SIGNS)
def test_a_step_function_is_an_activation(name):
    h = torch.randn(2, 5)
    torch.testing.assert_close(SIGNS[name](h), h.sign())
    assert_plain(Residual(SIGNS[name]).eval(), ROWS, "exact")


@pytest.mark.parametrize(
    ("functions", "name"),
    [
        (LEAKY, "gather from both"),
        (LEAKY, "a sum over one-hot vectors"),
        (SIGNS, "two comparisons"),
        (LEAKY, "an embedding"),
    ],
)
def test_verify_takes_no_offence(functions, name):
    verdict = pathlen.verify(Residual(functions[name]).eval(), ROWS)
    assert verdict.ok, str(verdict)


CHOICES = {
    "where": lambda g, h: torch.where(h > 0, g, 0.0),
    "masked fill": lambda g, h: g.masked_fill(h <= 0, 0.0),
    "a mask": lambda g, h: g * (h > 0),
    "a cast": lambda g, h: g * (h > 0).float(),
    "heaviside": lambda g, h: g * torch.heaviside(h, torch.tensor(0.0)),
    "a table": lambda g, h: g * torch.tensor([0.0, 1.0])[places(h)],
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_step_function_beside_another_factor_only_chooses(name):
    layers = {"a": nn.Linear(4, 10), "c": nn.Linear(5, 3)}
    model = Model(lambda m, x: m.c(CHOICES[name](*m.a(x).chunk(2, -1))), **layers)
    assert answer(model, ROWS) == (4 * 5 * 3, 0, 0)


def test_what_integers_choose_between_meets():
    def between(choose):
        layers = {"a": nn.Linear(4, 10), "c": nn.Linear(5, 3)}
        return answer(Model(lambda m, x: m.c(choose(*m.a(x).chunk(2, -1))), **layers), ROWS)

    expected = between(lambda g, h: torch.where(h > 0, g, h.tanh()))
    assert expected == (2 * 4 * 5 * 3, Fraction(1, 2), Fraction(1, 2))
    assert expected == between(
        lambda g, h: torch.stack([h.tanh(), g], -1).gather(-1, places(h)[..., None])[..., 0]
    )


class Buckets(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.table, self.last = nn.Parameter(torch.randn(4, 3)), nn.Linear(12, 2)
        self.read = read

    def forward(self, x):
        buckets = torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]))
        return self.last(self.read(buckets, self.table).flatten(1))


@pytest.mark.parametrize(
    "read",
    [
        lambda buckets, table: functional.embedding(buckets, table),
        lambda buckets, table: table[buckets],
        lambda buckets, table: functional.one_hot(buckets, 4).float() @ table,
    ],
)
def test_numbers_in_buckets_are_embedded(read):
    # 4 numbers, of each 3 functions, which 2 outputs read
    report = pathlen.measure(Buckets(read).eval(), ROWS, exact=True)
    assert (report.path_count, report.average_path_length, report.num_active) == (24, 1, 12)
    assert report.status == "exact"


def test_ranks_and_integer_inputs_have_no_path():
    def chosen(_, x, ids):
        ranks = torch.tensor([[0.0], [1.0], [2.0], [3.0]])[x.argmax(-1)]
        return x + ranks + (ids > 0).float()

    report = pathlen.measure(Model(chosen), (ROWS, torch.ones(2, 4, dtype=torch.long)))
    assert (report.path_count, report.num_active) == (4, 0)


@pytest.mark.parametrize(
    "operands",
    ["be,eio,bi->bo", "bi,be,eio->bo", "bi,eio,be->bo"],
)
def test_experts_by_an_einsum_in_any_order(operands):
    def routed(m, x):
        chosen = functional.one_hot(m.gate(x).argmax(-1), 3).float()
        named = {"be": chosen, "bi": x, "eio": m.experts}
        return m.c(torch.einsum(operands, *[named[o] for o in operands[:-4].split(",")]).relu())

    layers = {"gate": nn.Linear(4, 3), "c": nn.Linear(5, 2)}
    model = Model(routed, **layers)
    model.register_parameter("experts", nn.Parameter(torch.randn(3, 4, 5)))
    assert answer(model, ROWS) == (4 * 5 * 2, 1, 1)
