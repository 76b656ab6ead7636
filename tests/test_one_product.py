"""Products, maxima and minima are flat: one set of numbers in any order, nesting and spelling."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model
from tests.test_one_function import ROWS, numbers


def model(function):
    """A function of three linear maps of one input, behind which there is another."""
    layers = {name: nn.Linear(4, 4) for name in "abc"}
    return Model(lambda m, x: m.d(function(m.a(x), m.b(x), m.c(x))), d=nn.Linear(4, 2), **layers)


def turned(a, b, c):
    """A larger one chosen twice."""
    larger = torch.where(a > b, a, b)
    return torch.where(larger >= c, larger, c)


# each result has the units a_i, b_i and c_i before it, and reads 4 inputs by each: 4 * 3 * 4 * 2
# ways, and none of them holds an activation
OF_THREE = {
    "product": lambda a, b, c: a * b * c,
    "product from the right": lambda a, b, c: a * (b * c),
    "product of a stack": lambda a, b, c: torch.stack([a, b, c]).prod(0),
    "product by einsum": lambda a, b, c: torch.einsum("bi,bi,bi->bi", a, b, c),
    "product through views": lambda a, b, c: ((a * b).T.flip(0) * c.T.flip(0)).flip(0).T,
    "product in place": lambda a, b, c: (a * b).mul_(c),
    "product, scaled in between": lambda a, b, c: -(a * b) / 4 * (2 * c),
    "product, one added and taken away": lambda a, b, c: (a * b + 1 - 1) * c,
    "quotient": lambda a, b, c: a / b / c,
    "quotient by a product": lambda a, b, c: a / (b * c),
    "product with reciprocals": lambda a, b, c: (1 / b) * a * c.reciprocal(),
    "product with a power": lambda a, b, c: a * (b * c) ** -1,
    "product divided by a reciprocal": lambda a, b, c: b * a / (1 / c),
    "product with the reciprocal of a column": lambda a, b, c: (
        (a * b)[:, :, None] * (1 / c)[:, :, None]
    )[..., 0],
    "maximum": lambda a, b, c: torch.maximum(torch.maximum(a, b), c),
    "maximum from the right": lambda a, b, c: torch.max(a, torch.fmax(b, c)),
    "maximum of a stack": lambda a, b, c: torch.stack([a, b, c], 1).max(1).values,
    "maximum, one in a stack": lambda a, b, c: torch.stack([a, b.maximum(c)]).amax(0),
    "maximum of negatives": lambda a, b, c: -torch.minimum(-a, torch.minimum(-b, -c)),
    "maximum of a minimum, negated": lambda a, b, c: a.maximum(-torch.minimum(-b, -c)),
    "maximum, scaled and shifted": lambda a, b, c: torch.maximum((2 * a).maximum(2 * b) + 1, c),
    "maximum chosen": turned,
    "maximum by clamp": lambda a, b, c: a.clamp(min=b).clamp(min=c),
}


@pytest.mark.parametrize("name", OF_THREE)
def test_three_tensors_that_meet_are_one_merge(name):
    assert numbers(model(OF_THREE[name]), ROWS) == (96, 0, 0, 0)
    # with one of them bent, a third of the walk passes it
    bent = model(lambda a, b, c: OF_THREE[name](a, b, c.sigmoid()))
    assert numbers(bent, ROWS) == (96, Fraction(1, 3), Fraction(1, 3), 4)
    bent = model(lambda a, b, c: OF_THREE[name](a.sigmoid(), b, c))
    assert numbers(bent, ROWS) == (96, Fraction(1, 3), Fraction(1, 3), 4)


# a function of a beside b: 4 * 2 * 4 * 2 ways, half of them through the activation
OF_ONE_FIRST = {
    "silu": lambda a, b: F.silu(a) * b,
    "gate last": lambda a, b: a * b * a.sigmoid(),
    "gate first": lambda a, b: a.sigmoid() * b * a,
    "gate from the right": lambda a, b: a * (b * a.sigmoid()),
    "gate in a stack": lambda a, b: torch.stack([a, b, a.sigmoid()]).prod(0),
    "gate of a moved tensor": lambda a, b: ((a * b).T * a.T.sigmoid()).T,
    "square": lambda a, b: a * b * a,
    "square of a divisor": lambda a, b: b / a / a,
    "quotient": lambda a, b: b / a.exp() * a,
    "mask": lambda a, b: (a > 0) * b * a,
    "mask as a number": lambda a, b: a * (b * (a > 0).float()),
    "larger of both signs": lambda a, b: torch.maximum(torch.maximum(a, b), -a),
    "smaller of both signs": lambda a, b: -torch.maximum(a, torch.maximum(-b, -a)),
}


@pytest.mark.parametrize("name", OF_ONE_FIRST)
def test_functions_of_one_tensor_meet_first(name):
    found = numbers(model(lambda a, b, c: OF_ONE_FIRST[name](a, b)), ROWS)
    assert found == (64, Fraction(1, 2), Fraction(1, 2), 4)


def test_normalizations_and_softmax_meet_first():
    # a over its norm passes a; exp(a) over its sum passes a, without an activation
    norm = model(lambda a, b, c: a * b / a.norm(dim=-1, keepdim=True))
    softmax = model(lambda a, b, c: a.exp() * b / a.exp().sum(-1, keepdim=True))
    assert numbers(norm, ROWS) == numbers(softmax, ROWS) == (64, 0, 0, 0)


def test_what_something_else_reads_is_a_unit():
    def read_twice(a, b, c):
        inner = a * b
        return inner * c + inner.abs()  # inner is before the product and before its absolute value

    # inner: 2 * 4 ways; the product 2 * 4 + 4, the sum 5 * 4, for each of 4 features and 2 outputs
    assert numbers(model(read_twice), ROWS)[0] == 4 * 5 * 4 * 2
    apart = model(lambda a, b, c: a * (1 / b) + (1 / b).abs())
    assert numbers(apart, ROWS)[3] == 4  # the second one is no factor

    def shared(a, b, c):
        reciprocal = 1 / b
        return a * reciprocal + torch.maximum(reciprocal, c)

    assert numbers(model(shared), ROWS)[3] == 4
    assert numbers(model(lambda a, b, c: a / b + torch.maximum(b, c)), ROWS)[3] == 0


NESTED = {
    "one added": lambda a, b, c: (a * b + 1) * c,
    "a maximum in a product": lambda a, b, c: torch.maximum(a, b) * c,
    "a minimum in a maximum": lambda a, b, c: torch.maximum(torch.minimum(a, b), c),
    "a product, rounded": lambda a, b, c: torch.div(a * b, 2, rounding_mode="floor") * c,
}


@pytest.mark.parametrize("name", NESTED)
def test_other_operations_in_between_nest(name):
    # half of the walk to c, half to the merge of a and b: a quarter to a
    found = numbers(model(lambda a, b, c: NESTED[name](a.sigmoid(), b, c)), ROWS)
    rounded = "rounded" in name  # an activation of the merge
    walk = Fraction(1, 4) + rounded * Fraction(1, 2)
    assert found == (96, Fraction(1 + 2 * rounded, 3), walk, 4 + 4 * rounded)


def test_a_constant_mask_leaves_what_it_leaves():
    mask = torch.tensor([True, False, False, False])
    masked = {
        meet: model(lambda a, b, c, m=meet: m(m(a, b.relu()).masked_fill(mask, 0), c))
        for meet in (torch.add, torch.mul)
    }
    # feature 0 is c alone in the sum, and 0 in the product; the others merge a, relu(b) and c
    walk = Fraction(3, 4) * Fraction(1, 3)
    assert numbers(masked[torch.add], ROWS) == (2 * (4 + 3 * 12), Fraction(12, 40), walk, 3)
    third = Fraction(1, 3)
    assert numbers(masked[torch.mul], ROWS) == (2 * 3 * 12, third, third, 3)


def test_all_functions_of_one_tensor_are_evaluated():
    # relu(p) - relu(-p) is p; with two other features of the same layer beside it
    def total(m, x):
        h = m.a(x)
        p, q = h[:, :2], h[:, 2:]
        return q - F.relu(-p) + F.relu(p) + q.tanh() - q.tanh()

    body = Model(total, a=nn.Linear(4, 4))
    assert numbers(body, ROWS)[:2] == (16, 0)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_halves_of_one_tensor_are_no_statistic_of_it(order):
    # p + relu(p), or relu(p), is a function of p, which meets q: 2 outputs of 2 * 4 ways
    for meet in (torch.add, torch.maximum):

        def total(m, x, meet=meet):
            p, q = m.a(x).chunk(2, 1)
            one, other, third = ((p, q, p.relu())[place] for place in order)
            return meet(meet(one, other), third)

        found = numbers(Model(total, a=nn.Linear(4, 4)), ROWS)
        assert found == (16, Fraction(1, 2), Fraction(1, 2), 2)


def test_products_with_weights_have_the_paths_of_products():
    for function in ("product", "quotient by a product", "maximum from the right"):
        report = pathlen.measure(model(OF_THREE[function]), ROWS, edges="weights")
        assert report.path_count == 96
