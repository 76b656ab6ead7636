"""Calls that write to their operand: what they compute, and where else it shows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.lowering.operations import OnCopy, functional
from tests.constructs import Model, answer

X = torch.randn(5, 3)
DROPOUTS = {
    "dropout": F.dropout,
    "of features": F.feature_alpha_dropout,
    "of channels": torch.feature_dropout,
    "alpha": F.alpha_dropout,
}


def between(function):
    """A function of a tensor between dense layers 3 -> 5 and 5 -> 1, and a second 3 -> 5."""
    return Model(
        lambda m, x: m.c(function(m, m.a(x), x)),
        a=nn.Linear(3, 5),
        b=nn.Linear(3, 5),
        c=nn.Linear(5, 1),
    )


def write_to_result(dropout):
    def function(m, h, x):
        dropped = dropout(h, 0.5, False)
        dropped += m.b(x)
        return h

    return function


def write_to_part_of_result(dropout):
    def function(m, h, x):
        dropout(h, 0.5, False)[:, :2].add_(m.b(x)[:, :2])
        return h

    return function


def write_to_operand(dropout):
    def function(m, h, x):
        dropped = dropout(h, 0.5, False)
        h.mul_(m.b(x))
        return dropped

    return function


@pytest.mark.parametrize("dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize(
    ("write", "paths"),  # each of 5 features reads 3 inputs, those written to twice
    [(write_to_result, 30), (write_to_part_of_result, 21), (write_to_operand, 30)],
)
def test_an_inactive_dropout_returns_its_input(write, paths, dropout):
    model = between(write(dropout))
    assert answer(model, X) == (paths, 0, 0)
    # In core ATen an inactive dropout returns a copy: that is another function, and not compared.
    assert pathlen.verify(model, X).ok


def test_an_active_dropout_returns_a_copy():
    def function(m, h, x):
        dropped = torch.dropout(h, 0.5, True)
        dropped += m.b(x)
        return h

    assert answer(between(function), X) == (15, 0, 0)


@pytest.mark.parametrize(
    ("function", "paths"),
    [
        (lambda m, h, x: h.fill_diagonal_(0.0), 15),
        # element by element: h and b, but nothing on the diagonal; all meet in the last layer
        (lambda m, h, x: (h + m.b(x)).fill_diagonal_(1.0), 30),
        (lambda m, h, x: h.view(1, 5, 5)[0].fill_diagonal_(0.0) + m.b(x), 45),
    ],
)
def test_a_filled_diagonal_is_constant(function, paths):
    model = between(function)
    count, *lengths = answer(model, X)
    assert (count, lengths) == (paths, [0, 0])
    assert pathlen.verify(model, X).ok


def test_a_filled_diagonal_cuts_what_stood_there():
    # of the one element on each diagonal nothing is left: 3 ways to each of 4 features, at 1 row
    model = Model(lambda m, x: m.a(x).fill_diagonal_(0.0), a=nn.Linear(3, 5))
    assert answer(model, torch.randn(1, 3)) == (12, 0, 0)


@pytest.mark.parametrize(
    ("function", "length"),
    [
        (lambda h: h.pow_(2), 1),
        (lambda h: h.pow_(1), 0),
        (lambda h: h.double().float_power_(2).float(), 1),
        (lambda h: h.polygamma_(1), 1),
        (lambda h: F.dropout(h, 0.5, False, inplace=True).sigmoid() * h, 1),
    ],
    ids=["pow", "pow 1", "float_power", "polygamma", "dropout"],
)
def test_the_function_that_is_computed_in_place_is_evaluated(function, length):
    assert answer(between(lambda m, h, x: function(h)), X) == (15, length, length)


def test_every_in_place_operator_has_a_function_of_the_same_arguments():
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::")]
    checked = 0
    for name in names:
        base, _, overload = name.removeprefix("aten::").partition(".")
        func = getattr(getattr(torch.ops.aten, base), overload or "default")
        if func._schema.is_mutable and base.endswith("_") and not base.startswith("_foreach"):
            found = functional(func)
            assert isinstance(found, OnCopy) or not found._schema.is_mutable, name
            types = [str(argument.type) for argument in found._schema.arguments]
            assert types == [str(argument.type) for argument in func._schema.arguments], name
            checked += 1
    assert checked > 100


def test_an_operator_on_a_copy_leaves_its_argument_alone():
    x = torch.ones(3, 3)
    filled = functional(torch.ops.aten.fill_diagonal_.default)(x, 0.0)
    assert torch.equal(x, torch.ones(3, 3))
    assert torch.equal(filled, 1 - torch.eye(3))
