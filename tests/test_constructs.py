"""Activations, normalizations and sums as models write them, worked out by hand.

`answer` gives (path count, average path length, normalized average path length), all exact.
"Ways" of a unit are the paths from the inputs to it. A dense layer multiplies ways by the number of
units it reads; a merge adds the ways of the tensors it merges. The walk goes backward and takes
each predecessor of a node with the same chance.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen import Policy
from tests.constructs import ALPHA, HALF, IMAGE, X2, Model, answer, pointwise

# --- activations in residual blocks -------------------------------------------------------------

RELUS = {
    "shared module": lambda m, x: m.relu(x),
    "shared in-place module": lambda m, x: m.relu_in_place(x),
    "F.relu": lambda m, x: F.relu(x),
    "F.relu in place": lambda m, x: F.relu(x, inplace=True),
    "torch.relu": lambda m, x: torch.relu(x),
    "relu_": lambda m, x: x.relu_(),
    "clamp": lambda m, x: x.clamp(min=0),
    "clamp_": lambda m, x: x.clamp_min_(0),
    "maximum with zeros": lambda m, x: torch.maximum(x, torch.zeros_like(x)),
}


def block(relu, width=4, hidden=3):
    """Torchvision's basic block: one activation called twice, the second after the sum."""

    def forward(m, x):
        out = relu(m, m.bn1(m.conv1(x)))
        out = m.bn2(m.conv2(out))
        out += x
        return relu(m, out)

    return Model(
        forward,
        conv1=nn.Conv2d(width, hidden, 3, padding=1),
        bn1=nn.BatchNorm2d(hidden),
        conv2=nn.Conv2d(hidden, width, 3, padding=1),
        bn2=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        relu_in_place=nn.ReLU(inplace=True),
    )


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_each_call_of_an_activation_is_a_site_of_its_own(relu):
    # an output unit: 4 * 3 ways through the branch of length 2, 1 past it of length 1
    model = block(relu)
    assert answer(model, torch.zeros(1, 4, 5, 5)) == (4 * 13, Fraction(25, 13), Fraction(3, 2))
    report = pathlen.measure(model, torch.zeros(1, 4, 5, 5))
    active = [row for row in report.layers if row.active]
    assert [row.active for row in active] == [3, 4]
    assert len({row.name for row in report.layers}) == len(report.layers)


def test_names_of_calls_of_one_module_start_with_its_path():
    report = pathlen.measure(block(RELUS["shared module"]), torch.zeros(1, 4, 5, 5))
    names = [row.name for row in report.layers if row.active]
    assert all(name.startswith("relu") for name in names)


# --- scalar functions: one unit, however they are written ---------------------------------------

SCALAR_FUNCTIONS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "silu with a slope": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu with tanh": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))
    ),
    "gelu with erf": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "blend": lambda x: 0.3 * x + (1 - 0.3) * torch.relu(x),
    "blend by channel": lambda x: ALPHA * x + (1 - ALPHA) * torch.relu(x),
    "prelu with where": lambda x: torch.where(x > 0, x, 0.25 * x),
    "prelu with where by channel": lambda x: torch.where(x > 0, x, ALPHA * x),
    "prelu from two relus": lambda x: torch.relu(x) - 0.25 * torch.relu(-x),
    "leaky relu as a maximum": lambda x: torch.maximum(x, 0.1 * x),
    "mask times x": lambda x: (x > 0) * x,
    "mask as float times x": lambda x: (x > 0).float() * x,
    "masked fill": lambda x: x.masked_fill(x < 0, 0.0),
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "hard swish": lambda x: x * F.relu6(x + 3) / 6,
    "x + relu(x)": lambda x: x + torch.relu(x),
    "square": lambda x: x * x,
    "power": lambda x: x**2,
    "absolute value": lambda x: x.abs(),
    "double application": lambda x: (x + torch.sigmoid(x)) * torch.tanh(x),
    "in place": lambda x: x.mul_(torch.sigmoid(x)),
    "soft sign": lambda x: x / (1 + x.abs()),
    "dead zone": lambda x: x - x.clamp(-1, 1),
}


@pytest.mark.parametrize("function", SCALAR_FUNCTIONS.values(), ids=SCALAR_FUNCTIONS.keys())
def test_a_scalar_function_is_one_active_unit_a_channel(function):
    model = pointwise(function)
    assert answer(model, X2) == (6, 1, 1)
    assert pathlen.trace(model, X2).num_active == 3


LINEAR_FUNCTIONS = {
    "identity": lambda x: x,
    "x + x": lambda x: x + x,
    "x - x / 2": lambda x: x - x / 2,
    "scaling": lambda x: 3 * x,
    "scaling by channel": lambda x: x * ALPHA + 1,
    "adding a constant": lambda x: x + ALPHA,
    "cast": lambda x: x.double().float(),
    "dropout in eval mode": lambda x: F.dropout(x, 0.5, training=False),
    "clone": lambda x: x.clone().contiguous(),
    "minus": lambda x: -x,
    "where with a constant mask": lambda x: torch.where(ALPHA > 0.1, x, 2 * x),
}


@pytest.mark.parametrize("function", LINEAR_FUNCTIONS.values(), ids=LINEAR_FUNCTIONS.keys())
def test_an_affine_function_of_one_tensor_is_no_nonlinearity(function):
    assert answer(pointwise(function), X2) == (6, 0, 0)


def test_x_plus_x_adds_no_path_and_no_unit():
    # predecessors are counted once each: the sum of a tensor with itself is that tensor
    doubled = pathlen.trace(pointwise(lambda x: x + x), X2)
    assert doubled.num_nodes == pathlen.trace(pointwise(lambda x: x), X2).num_nodes


@pytest.mark.parametrize("slope", [1.0, torch.ones(3)], ids=["number", "by channel"])
def test_a_blend_that_is_all_linear_is_an_inactive_unit(slope):
    model = pointwise(lambda x: slope * x + (1 - slope) * torch.relu(x))
    assert answer(model, X2) == (6, 0, 0)


def test_a_blend_by_channel_is_active_where_its_slope_is_not_1():
    # 3 channels with 2 ways each, and one of them is linear
    alpha = torch.tensor([0.0, 1.0, 0.5])
    model = pointwise(lambda x: alpha * x + (1 - alpha) * torch.relu(x))
    assert answer(model, X2) == (6, Fraction(2, 3), Fraction(2, 3))


# --- normalizations: no unit --------------------------------------------------------------------


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * ALPHA + 1


def softmax_safe(x):
    e = torch.exp(x - x.max(dim=-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


def standardize(x):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def grn(x):
    """Global response normalization (ConvNeXt V2)."""
    norm = torch.linalg.vector_norm(x, dim=0, keepdim=True)
    return x + ALPHA * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + 1


NORMALIZATIONS = {
    "nn.LayerNorm": nn.LayerNorm(3),
    "nn.RMSNorm": nn.RMSNorm(3),
    "nn.BatchNorm1d": nn.BatchNorm1d(3),
    "nn.GroupNorm": nn.GroupNorm(3, 3),
    "LayerNorm written out": layer_norm,
    "standardized": standardize,
    "RMSNorm written out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "F.normalize": lambda x: F.normalize(x, dim=-1),
    "over its norm": lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6),
    "minus its mean": lambda x: x - x.mean(-1, keepdim=True),
    "global response": grn,
    "F.softmax": lambda x: F.softmax(x, -1),
    "F.log_softmax": lambda x: F.log_softmax(x, -1),
    "softmax written out": lambda x: (e := torch.exp(x)) / e.sum(-1, keepdim=True),
    "softmax with its maximum": softmax_safe,
    "log softmax written out": lambda x: x - torch.logsumexp(x, -1, keepdim=True),
}


@pytest.mark.parametrize("function", NORMALIZATIONS.values(), ids=NORMALIZATIONS.keys())
def test_a_normalization_passes_each_unit_to_itself(function):
    assert answer(pointwise(function), X2) == (6, 0, 0)


def test_a_nonlinearity_between_norm_and_sum_counts_once():
    # x + relu(x / |x|): one scalar function of x, the norm held fixed
    model = pointwise(lambda x: x + torch.relu(F.normalize(x, dim=-1)))
    assert answer(model, X2) == (6, 1, 1)


# --- sums -----------------------------------------------------------------------------------------


def three_tensors(combine):
    """a = x, b = dense(x), c = dense(relu(dense(x))), all of width 2."""

    def forward(m, x):
        return combine(x, m.b(x), m.c(x))

    return Model(
        forward,
        b=nn.Linear(2, 2),
        c=nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
    )


SUMS_OF_THREE = {
    "(a + b) + c": lambda a, b, c: (a + b) + c,
    "a + (b + c)": lambda a, b, c: a + (b + c),
    "(c + b) + a": lambda a, b, c: (c + b) + a,
    "sum of a list": lambda a, b, c: sum([a, b, c]),
    "in place": lambda a, b, c: b.add_(c).add_(a),
    "a - b + c": lambda a, b, c: a - b + c,
    "stacked": lambda a, b, c: torch.stack([a, b, c]).sum(0),
}


@pytest.mark.parametrize("combine", SUMS_OF_THREE.values(), ids=SUMS_OF_THREE.keys())
def test_a_nested_sum_is_one_merge(combine):
    # a unit: 1 way over a, 2 over b, 2 * 2 over c with one ReLU: 7 ways, 2 units; the walk takes
    # each of the three tensors with chance 1/3
    assert answer(three_tensors(combine), X2) == (14, Fraction(4, 7), Fraction(1, 3))


def test_a_nested_sum_with_another_reader_is_two_merges():
    # outputs (a + b) + c and a + b: 2 * 7 and 2 * 3 paths, 2 * 4 of them with a ReLU; the walk from
    # the first takes c half the time, the other output has no ReLU
    def combine(a, b, c):
        inner = a + b
        return inner + c, inner

    assert answer(three_tensors(combine), X2) == (20, Fraction(8, 20), Fraction(1, 4))


def test_an_inner_sum_read_twice_is_a_merge_of_its_own():
    # inner = a + b with 3 ways; out = (inner + c) + dense(inner): three tensors, inner among them:
    # 3 + 4 + 2 * 3 ways, 2 units, and ReLU only on the 4 of c
    def forward(m, x):
        inner = x + m.b(x)
        return inner + m.c(x) + m.d(inner)

    model = Model(
        forward,
        b=nn.Linear(2, 2),
        c=nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
        d=nn.Linear(2, 2),
    )
    assert answer(model, X2) == (26, Fraction(8, 26), Fraction(1, 3))


def test_skip_and_layer_of_one_unit_are_two_predecessors():
    # width 1: x + relu(w x): the unit of the sum reads x and the ReLU
    model = Model(lambda m, x: x + torch.relu(m.a(x)), a=nn.Linear(1, 1))
    assert answer(model, torch.zeros(2, 1)) == (2, HALF, HALF)


@pytest.mark.parametrize(
    "combine",
    [torch.mul, torch.div, torch.maximum, torch.minimum, torch.sub, torch.atan2],
)
def test_other_functions_of_two_tensors_merge_too(combine):
    # a unit: 2 ways over the one layer, 2 with a ReLU over the other
    model = Model(
        lambda m, x: combine(m.a(x), torch.relu(m.b(x))), a=nn.Linear(2, 3), b=nn.Linear(2, 3)
    )
    assert answer(model, X2) == (12, HALF, HALF)


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        # a + c * (b - a): a has 2 ways, the product 2 of c, which are active, and 4 of b - a
        (lambda a, b, c: torch.lerp(a, b, torch.sigmoid(c)), (16, Fraction(1, 4))),
        # a + b * c: 2 ways of each
        (lambda a, b, c: torch.addcmul(a, b, torch.sigmoid(c)), (12, Fraction(1, 3))),
        (lambda a, b, c: torch.addcdiv(a, b, torch.sigmoid(c)), (12, Fraction(1, 3))),
    ],
    ids=["lerp", "addcmul", "addcdiv"],
)
def test_functions_of_three_tensors(combine, expected):
    # half of the walks go to the product, and half of these to the sigmoid
    model = Model(
        lambda m, x: combine(m.a(x), m.b(x), m.c(x)),
        a=nn.Linear(2, 2),
        b=nn.Linear(2, 2),
        c=nn.Linear(2, 2),
    )
    assert answer(model, X2) == (*expected, Fraction(1, 4))


# --- policies and modes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("softmax", lambda x: F.softmax(x, -1)),
        ("softmax", NORMALIZATIONS["softmax written out"]),
        ("softmax", softmax_safe),
        ("normalization", nn.LayerNorm(3)),
        ("normalization", nn.RMSNorm(3)),
        ("product", lambda x: x * ALPHA.flip(0)),
        ("activation", torch.relu),
    ],
)
def test_only_what_the_policy_names_counts(kind, function):
    model = pointwise(function)
    expected = 0 if kind == "product" else 1  # a product with a constant is a scaling
    everything = {"activation", "softmax", "normalization", "pooling", "product"}
    assert answer(model, X2, policy=Policy(count={kind})) == (6, expected, expected)
    assert answer(model, X2, policy=Policy(count=everything - {kind})) == (6, 0, 0)
    assert answer(model, X2, policy=Policy(count=everything)) == (6, expected, expected)


def test_batch_norm_is_affine_and_never_a_nonlinearity():
    model = pointwise(nn.BatchNorm1d(3))
    assert answer(model, X2, policy=Policy(count={"normalization"})) == (6, 0, 0)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1)])
def test_counting_pooling(pool):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), pool, nn.Conv2d(2, 5, 1))
    assert answer(model, IMAGE) == (30, 0, 0)
    assert answer(model, IMAGE, policy=Policy(count={"pooling"})) == (30, 1, 1)


def test_counting_products_of_two_tensors():
    # the product is on every path, the sigmoid is not counted
    model = Model(lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), a=nn.Linear(2, 3), b=nn.Linear(2, 3))
    assert answer(model, X2, policy=Policy(count={"product"})) == (12, 1, 1)
    assert answer(model, X2, policy=Policy(count={"product", "activation"})) == (
        12,
        Fraction(3, 2),
        Fraction(3, 2),
    )


def test_a_model_in_training_mode_is_measured_in_eval_mode():
    # dropout and batch norm pass; in training mode dropout would multiply by a random mask
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.ReLU())
    model.train()
    model[1].eval()
    assert answer(model, X2) == (6, 1, 1)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


def test_a_matrix_for_each_position_is_one_layer():
    # relative positions: every query position h has its own table of k offsets; the units are the
    # 4 offsets, not one for each pair of positions
    table = torch.randn(5, 4, 3)
    model = Model(lambda m, x: torch.einsum("bhc,hkc->bhk", m.a(x), table), a=nn.Linear(2, 3))
    assert answer(model, torch.zeros(1, 5, 2)) == (2 * 3 * 4, 0, 0)
