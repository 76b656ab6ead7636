"""Reading elements, adding to them and writing them back is adding at places."""

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

import pathlen
from tests.constructs import HALF, Model

X = torch.tensor([[1.0, 2, 3, 4], [-1, 2, 3, 4], [5, 2, 3, 4]])


def spread(b, y):
    return b[:, None].expand_as(y)


def step_by_step(out, b, y):
    read = out[b]
    read += y
    out[b] = read
    return out


def in_place(out, b, y):
    out[b] += y
    return out


def written_out(out, b, y):
    out[b, :] = y + out[b, :]
    return out


ADDED = {
    "index_add": lambda out, b, y: out.index_add(0, b, y),
    "index_add_": lambda out, b, y: out.index_add_(0, b, y),
    "index_put": lambda out, b, y: out.index_put((b,), y, accumulate=True),
    "scatter_add": lambda out, b, y: out.scatter_add(0, spread(b, y), y),
    "scatter_reduce": lambda out, b, y: out.scatter_reduce(0, spread(b, y), y, "sum"),
    "+=": in_place,
    "= +": written_out,
    "steps": step_by_step,
    "index_put of a sum": lambda out, b, y: out.index_put((b,), out[b] + y),
    "scatter of a sum": lambda out, b, y: out.scatter(
        0, spread(b, y), out.gather(0, spread(b, y)) + y
    ),
    "index_copy": lambda out, b, y: out.index_copy(0, b, out.index_select(0, b) + y),
}


def model(add, *, threshold=0.0):
    def forward(m, x):
        (b,) = torch.where(x[:, 0] > threshold)
        return add(m.a(x), b, torch.relu(m.b(x[b])))

    return Model(forward, a=nn.Linear(4, 3), b=nn.Linear(4, 3))


def numbers(report):
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
    )


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize("threshold", [-5.0, 0.0, 3.0])  # of three rows that it picks, or two, one
@pytest.mark.parametrize("name", ADDED)
def test_a_sum_at_some_places(name, threshold, edges):
    # each of 3 outputs is the sum of a unit and a ReLU, each over a hub from 4 inputs
    report = pathlen.measure(model(ADDED[name], threshold=threshold), X, exact=True, edges=edges)
    assert report.path_count == 3 * (4 + 4)
    if edges == "connections":
        assert numbers(report) == (24, HALF, HALF)


@pytest.mark.parametrize("name", ADDED)
def test_several_experts(name):
    # What is sent to experts (ReLU networks of width 5) by the sign of an input is added up: each
    # of 4 outputs has 4 paths over the skip, and 4 * 5 over each expert, which comes last in 1/2
    # of the walks, or one before in 1/4.
    def forward(m, x):
        out = x @ torch.ones(4, 4)
        for expert, sign in ((m.a, 1), (m.b, -1)):
            (b,) = torch.where(x[:, 0] * sign > 0)
            out = ADDED[name](out, b, expert(x[b]))
        return out

    def expert():
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))

    report = pathlen.measure(Model(forward, a=expert(), b=expert()), X, exact=True)
    paths = 4 * (4 + 2 * 4 * 5)
    assert numbers(report) == (paths, Fraction(4 * 2 * 4 * 5, paths), Fraction(3, 4))


def test_two_summands_meet_before_they_are_added():
    def forward(m, x, add):
        (b,) = torch.where(x[:, 0] > 0)
        return add(m.a(x), b, 2 * torch.relu(m.b(x[b])) + m.a(x[b]))

    layers = {name: nn.Linear(4, 3) for name in "ab"}
    found = [
        numbers(
            pathlen.measure(
                Model(lambda m, x, add=add: forward(m, x, add), **layers), X, exact=True
            )
        )
        for add in (ADDED["index_add"], ADDED["+="])
    ]
    assert found[0] == found[1] == (3 * (4 + 4 + 4), Fraction(1, 3), Fraction(1, 4))


OTHERS = {
    "other places": lambda out, b, y: out.index_put((b,), out[b.flip(0)] + y),
    "another tensor": lambda out, b, y: out.index_put((b,), (2 * out)[b] + y),
    "scaled": lambda out, b, y: out.index_put((b,), functional.relu6(out)[b] + y),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_sum_at_places(name):
    """What is written is a unit of its own, with what stood elsewhere as a predecessor."""
    report = pathlen.measure(model(OTHERS[name]), X, exact=True)
    assert report.path_count == 3 * (4 + (4 + 4))
