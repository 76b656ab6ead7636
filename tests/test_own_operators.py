"""Operators of the user's own: probed, or lowered by a rule that the user registers."""

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import pathlen
from pathlen.errors import PathlenError, UnsupportedOperation
from pathlen.lowering.decompose import EQUIVALENTS
from pathlen.lowering.rules import _RULES


def of(dtype, x):
    """What a kernel does that was written for one dtype."""
    if x.dtype != dtype:
        raise RuntimeError(f"expected {dtype} but found {x.dtype}")
    return x


def bend(x):
    x.relu_()


def of_three_axes(x):
    if x.ndim != 3:
        raise RuntimeError(f"expected 3 axes but found {x.ndim}")
    return x


OPERATORS = {
    "swish": ("(Tensor x) -> Tensor", lambda x: x * torch.sigmoid(x)),
    "double": ("(Tensor x) -> Tensor", lambda x: 2 * x),
    "dense": ("(Tensor x, Tensor w) -> Tensor", lambda x, w: x @ w.T),
    "mlp": ("(Tensor x, Tensor w) -> Tensor", lambda x, w: torch.relu(x @ w.T) @ w),
    "backwards": ("(Tensor x) -> Tensor", lambda x: x.flip(-1)),
    "narrow_swish": ("(Tensor x) -> Tensor", lambda x: of(torch.float32, x) * torch.sigmoid(x)),
    "narrow_double": ("(Tensor x) -> Tensor", lambda x: 2 * of(torch.float32, x) + 3),
    "half_swish": ("(Tensor x) -> Tensor", lambda x: of(torch.bfloat16, x) * torch.sigmoid(x)),
    "half_double": ("(Tensor x) -> Tensor", lambda x: 2.7 * of(torch.bfloat16, x) + 0.3),
    "matrices_only": ("(Tensor x) -> Tensor", lambda x: of_three_axes(x).relu()),
    "bend": ("(Tensor(a!) x) -> ()", bend),
    "unit_norm": ("(Tensor x) -> Tensor", lambda x: x / x.norm(dim=-1, keepdim=True)),
}


@pytest.fixture(scope="module")
def operators():
    library = torch.library.Library("pathlen_own", "DEF")
    for name, (schema, function) in OPERATORS.items():
        library.define(name + schema)
        library.impl(name, function, "CPU")
        library.impl(name, function, "Meta")
    yield torch.ops.pathlen_own
    library._destroy()


@pytest.fixture(autouse=True)
def no_rule_stays():
    rules, equivalents = dict(_RULES), dict(EQUIVALENTS)
    yield
    for table, before in ((_RULES, rules), (EQUIVALENTS, equivalents)):
        table.clear()
        table.update(before)


class Between(nn.Module):
    """Linear(3, 4), an operator on the last axis, Linear(., 1)."""

    def __init__(self, function, width=4):
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(3, 4), nn.Linear(width, 1)
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return self.last(self.function(self.first(x), self.weight))


def measured(function, width=4):
    report = pathlen.measure(Between(function, width), torch.randn(2, 6, 3), exact=True)
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
        report.status,
    )


def test_an_unknown_activation_is_found_by_probing(operators):
    # 3 inputs * 4 channels, each with one active unit
    assert measured(lambda x, w: operators.swish(x)) == (12, 1, 1, "bound")


def test_an_unknown_linear_function_of_each_channel_is_not_active(operators):
    assert measured(lambda x, w: operators.double(x)) == (12, 0, 0, "bound")


def test_an_unknown_layer_is_found_by_probing(operators):
    # 3 * 4 * 5: five features, each reads four channels
    assert measured(operators.dense, 5) == (60, 0, 0, "bound")


def test_an_unknown_movement_is_found_by_probing(operators):
    assert measured(lambda x, w: operators.backwards(x)) == (12, 0, 0, "bound")


def test_a_probed_operator_is_named_in_the_report(operators):
    report = pathlen.measure(
        Between(lambda x, w: operators.swish(x)), torch.randn(2, 6, 3), exact=True
    )
    assert any("pathlen_own.swish" in cause for cause in report.causes)


@pytest.mark.parametrize("name", ["pathlen_own::swish", "pathlen_own.swish"])
def test_a_registered_elementwise_operator_is_exact(operators, name):
    pathlen.register_rule(name, "elementwise")
    assert measured(lambda x, w: operators.swish(x)) == (12, 1, 1, "exact")


def test_a_registered_movement_and_normalization_add_no_units(operators):
    pathlen.register_rule(operators.backwards, "movement")
    pathlen.register_rule(operators.unit_norm, "normalization")
    both = measured(lambda x, w: operators.backwards(operators.unit_norm(x)))
    assert both == (12, 0, 0, "exact")


def test_an_equivalent_in_torch_is_lowered_in_place_of_the_operator(operators):
    pathlen.register_rule(operators.mlp, like=lambda x, w: linear(torch.relu(linear(x, w)), w.T))
    # 3 * 4 * 5 * 4 paths, all through one of five ReLUs
    assert measured(operators.mlp) == (240, 1, 1, "exact")


def test_a_rule_may_be_a_function(operators):
    def to_half(call, lowering):
        """Every feature reads the first two channels."""
        lowering.layer(call)
        first = call["x"].labels[..., :2].unique().numpy()
        hub = lowering.builder.hub(first)
        units = lowering.builder.units([hub] * call.shape[-1])
        labels = torch.from_numpy(units).expand(call.shape)
        return lowering.result(call, labels)

    pathlen.register_rule(operators.dense, to_half)
    # 3 inputs * 2 channels that are read * 5 features
    assert measured(operators.dense, 5) == (30, 0, Fraction(0), "exact")


@pytest.mark.parametrize(
    ("name", "dtype", "length"),
    [
        ("narrow_swish", torch.float32, 1),
        ("narrow_double", torch.float32, 0),
        ("half_swish", torch.bfloat16, 1),
        ("half_double", torch.bfloat16, 0),
    ],
)
def test_an_elementwise_operator_of_one_dtype_is_evaluated_in_that(operators, name, dtype, length):
    pathlen.register_rule(f"pathlen_own::{name}", "elementwise")
    model = Between(lambda x, w: getattr(operators, name)(x)).to(dtype)
    report = pathlen.measure(model, torch.randn(2, 6, 3, dtype=dtype), exact=True)
    assert (report.path_count, report.average_path_length, report.status) == (12, length, "exact")


def test_an_operator_that_cannot_be_evaluated_is_refused_by_name(operators):
    pathlen.register_rule("pathlen_own::matrices_only", "elementwise")
    with pytest.raises(
        UnsupportedOperation,
        match=r"pathlen_own\.matrices_only cannot be evaluated at points .*expected 3 axes",
    ):
        measured(lambda x, w: operators.matrices_only(x))


def test_an_operator_that_writes_and_returns_nothing_is_refused(operators):
    def bent(x, w):
        operators.bend(x)
        return x

    with pytest.raises(UnsupportedOperation, match="writes to 'x' and returns nothing"):
        measured(bent)


def test_wrong_registrations_are_refused(operators):
    with pytest.raises(PathlenError, match="either a rule or like="):
        pathlen.register_rule("pathlen_own::swish")
    with pytest.raises(PathlenError, match="either a rule or like="):
        pathlen.register_rule("pathlen_own::swish", "elementwise", like=torch.relu)
    with pytest.raises(PathlenError, match=r"'pointwise' is unknown.*elementwise"):
        pathlen.register_rule("pathlen_own::swish", "pointwise")
    with pytest.raises(PathlenError, match="keep their rules"):
        pathlen.register_rule("aten::relu", "movement")


def test_an_operator_too_large_to_probe_is_refused(operators):
    class Wide(nn.Module):
        def forward(self, x):
            return operators.swish(linear(x, torch.ones(2000, 3)))

    with pytest.raises(UnsupportedOperation, match="too large to be probed"):
        pathlen.measure(Wide(), torch.randn(2, 3))
