"""`edges="weights"`: one function, one weighted graph, however it is written.

Numbers of paths and sums of their weights are those of explicit matrix products.
"""

from __future__ import annotations

import warnings
from random import Random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model
from tests.spelling.grammar import draw
from tests.spelling.network import example, parameters, spelled
from tests.test_traced_weights import masses

ROWS, TOKENS = torch.randn(2, 3), torch.randn(2, 5, 3)
W = torch.tensor([[1.0, 0.0, -2.0], [0.5, 0.25, 0.0], [0.0, -3.0, 1.0], [4.0, 0.0, 0.0]])
V = torch.tensor([[2.0, -1.0, 1.0, 0.5], [0.0, 1.0, 3.0, 1.0]])


def measured(function, *example, **modules):
    """Number of paths, the sum of their weights, average length, active units and all units."""
    model = Model(function, **modules).eval()
    report = pathlen.measure(model, example, edges="weights", exact=True)
    graph = report.graph
    return (
        report.path_count,
        pytest.approx(masses(graph)[0], rel=1e-12),
        report.average_path_length,
        report.normalized_average_path_length,
        report.num_active,
        graph.num_units,
    )


LINEAR = {
    "linear": F.linear,
    "matmul": lambda x, w: x @ w.t(),
    "matmul from the left": lambda x, w: (w @ x.t()).t(),
    "bmm": lambda x, w: torch.bmm(x[:, None], w.t().expand(2, 3, 4))[:, 0],
    "bmm from the left": lambda x, w: torch.bmm(w.expand(2, 4, 3), x[:, :, None])[:, :, 0],
    "addmm": lambda x, w: torch.addmm(torch.zeros(4), x, w.t()),
    "einsum": lambda x, w: torch.einsum("bi,oi->bo", x, w),
    "einsum, turned": lambda x, w: torch.einsum("oi,bi->ob", w, x).t(),
    "tensordot": lambda x, w: torch.tensordot(x, w, ([1], [1])),
    "inner": lambda x, w: torch.inner(x, w),
    "vecdot": lambda x, w: torch.linalg.vecdot(x[:, None], w),
    "convolution": lambda x, w: F.conv1d(x[..., None], w[..., None])[..., 0],
    "transposed convolution": lambda x, w: F.conv_transpose1d(x[..., None], w.t()[..., None])[
        ..., 0
    ],
    "bilinear": lambda x, w: F.bilinear(x, torch.full((2, 1), -2.0), w[:, :, None] / 2),
    "bilinear, second input": lambda x, w: F.bilinear(
        torch.ones(2, 2), x, torch.stack([w / 4, 3 * w / 4], 1)
    ),
    "product and sum": lambda x, w: (x[:, None] * w).sum(-1),
    "product and sum, kept": lambda x, w: (x[:, None] * w).sum(-1, keepdim=True)[..., 0],
    "product and sum, middle": lambda x, w: (x[:, :, None] * w.t()).sum(1),
    "product and sum, first": lambda x, w: (x.t()[:, :, None] * w.t()[:, None]).sum(0),
    "product and mean": lambda x, w: (w * x[:, None]).mean(-1) * 3,
    "product, scaled": lambda x, w: (x[:, None] * (w * 4) / -2 * 0.5).sum(-1),
    "product of repeats": lambda x, w: (x[:, None].repeat(1, 4, 1) * w).sum(-1),
    "product laid out flat": lambda x, w: (x.repeat(1, 4) * w.reshape(-1)).view(2, 4, 3).sum(-1),
    "product, masked": lambda x, w: (torch.where(w != 0, x[:, None], 0.0) * w).sum(-1),
    "rows": lambda x, w: torch.stack([(x * row).sum(-1) for row in w], -1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_map_has_an_edge_for_each_weight(name):
    found = measured(lambda m, x: m.out(F.relu(LINEAR[name](x, W))), ROWS, out=last(V))
    shares = (V != 0).double() @ (W != 0).double()
    weight = float((V.abs() @ W.abs()).sum())
    assert found[:4] == (int(shares.sum()), weight, 1, 1)
    units = 4 + 4 + 2  # the layer, its activation, the outputs
    assert found[4:] == (4, units - 4 if name == "rows" else units)


def last(weight):
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


MIXING = torch.tensor([[1.0, 2, 0, 0, 1], [0, 1, 1, 1, 0]])


@pytest.mark.parametrize(
    "mixed",
    [
        lambda h: MIXING @ h,
        lambda h: torch.einsum("st,btc->bsc", MIXING, h),
        lambda h: (h[:, None] * MIXING[..., None]).sum(2),
        lambda h: (h.mT[:, :, None] * MIXING).sum(-1).mT,
    ],
)
def test_maps_of_positions_weigh_the_largest_sum_of_a_row(mixed):
    found = measured(lambda m, x: mixed(m.a(x)).relu(), TOKENS, a=last(W))
    assert found[:2] == (np.count_nonzero(W), 4 * float(W.abs().sum()))


SHARES = torch.tensor([1.0, 0.5, 0.0])
FUNCTIONS = {
    "one by one": lambda h: torch.cat([(h * share).sin() for share in SHARES], -1),
    "copies": lambda h: torch.cat([h, h * 0.5, h * 0.0], -1).sin(),
    "a new axis": lambda h: (h[..., None] * SHARES).sin().mT.flatten(-2),
    "repeats": lambda h: (h.repeat(1, 3) * SHARES.repeat_interleave(4)).sin(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_of_a_unit_has_its_own_factor(name):
    out = torch.arange(24.0).view(2, 12) + 1
    found = measured(lambda m, x: m.out(FUNCTIONS[name](m.a(x))), ROWS, a=last(W), out=last(out))
    factors = SHARES.repeat_interleave(4)[:, None] * W.repeat(3, 1)
    assert found[1] == float((out @ factors.abs()).sum())
    assert found[0] == 2 * int((factors != 0).sum())
    assert found[4] == 8


STACKED = {
    "sum": lambda a, b, x: a + 2 * b + 3 * x,
    "stack and sum": lambda a, b, x: torch.stack([a, 2 * b, 3 * x]).sum(0),
    "stack and mean": lambda a, b, x: torch.stack([3 * a, 6 * b, 9 * x], 1).mean(1),
    "stack, product and sum": lambda a, b, x: (
        torch.stack([a, b, x], -1) * torch.tensor([1.0, 2, 3])
    ).sum(-1),
    "stack and matmul": lambda a, b, x: torch.stack([a, b, x], -1) @ torch.tensor([1.0, 2, 3]),
    "nested": lambda a, b, x: 2 * (b + x) + (a + x),
}


@pytest.mark.parametrize("name", STACKED)
def test_sums_of_stacked_tensors_weigh_what_these_are_multiplied_by(name):
    square = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [3.0, 0.0, 0.0]])

    def model(m, x):
        return x + STACKED[name](m.a(x).relu(), m.b(x), x)

    found = measured(model, ROWS, a=last(square), b=last(square.t()))
    weight = float((square + 2 * square.t()).sum()) + 3 * 4
    assert found[:2] == (2 * 5 + 3, weight)
    assert found[4] == 3


SIDE_BY_SIDE = {
    "cat": lambda h: torch.cat([h, -0.5 * h], -1),
    "sum of padded": lambda h: F.pad(h, (0, 4)) - 0.5 * F.pad(h, (4, 0)),
    "padded after": lambda h: F.pad(h, (0, 4)) + F.pad(-0.5 * h, (4, 0)),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_parts_that_are_added_side_by_side_keep_their_factors(name):
    out = torch.arange(16.0).view(2, 8) + 1
    found = measured(lambda m, x: m.out(SIDE_BY_SIDE[name](m.a(x))), ROWS, a=last(W), out=last(out))
    weight = out[:, :4] + out[:, 4:] * (0.5 if name == "cat" else 1.0)  # else the largest factor
    assert found[:2] == (2 * int((W != 0).sum()), float((weight @ W.abs()).sum()))


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_functions_of_parts_that_are_added_side_by_side(name):
    out = torch.arange(16.0).view(2, 8) + 1

    def model(m, x):
        return m.out(SIDE_BY_SIDE[name](m.a(x)).relu())

    found = measured(model, ROWS, a=last(W), out=last(out))
    weight = out[:, :4] + out[:, 4:] * 0.5
    assert found[:2] == (4 * int((W != 0).sum()), float((weight @ W.abs()).sum()))


def test_networks_of_the_grammar_have_the_paths_of_connections():
    for seed in range(6):
        program = draw(Random(seed).choice)
        for network in spelled(program, parameters(program, seed), 2, Random(seed)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the random operations themselves
                plain, weighted = (
                    pathlen.measure(
                        network.eval(), example(network.program), edges=edges, exact=True
                    )
                    for edges in ("connections", "weights")
                )
            numbers = [
                (r.path_count, r.average_path_length, r.num_active, r.graph.num_units)
                for r in (plain, weighted)
            ]
            assert numbers[0] == numbers[1], program
