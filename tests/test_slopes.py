"""Slopes: a linear channel is an inactive unit, and each takes its share from the averages."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.training.resnet import CifarResNet, channelwise_prelu
from tests.constructs import Function, Model

few = settings(max_examples=15, deadline=None, derandomize=True)


def measure(model, *args):
    return pathlen.measure(model, args, exact=True)


def linear_channels(prelu: nn.PReLU, count: int) -> None:
    with torch.no_grad():
        prelu.weight[:count] = 1.0


@few
@given(st.data())
def test_k_of_n_linear_channels_take_k_nths_of_the_contribution(data):
    # In a chain all n units of a layer have the same chance 1/n, so k of them k/n of 1.
    widths = data.draw(st.lists(st.integers(1, 6), min_size=3, max_size=5))
    linear = [data.draw(st.integers(0, width)) for width in widths[1:]]
    layers = []
    for before, after, count in zip(widths, widths[1:], linear, strict=False):
        layers += [nn.Linear(before, after), nn.PReLU(after, init=0.0)]
        linear_channels(layers[-1], count)
    report = measure(nn.Sequential(*layers), torch.zeros(2, widths[0]))
    expected = sum(Fraction(w - k, w) for w, k in zip(widths[1:], linear, strict=True))
    assert report.average_path_length == expected
    assert report.normalized_average_path_length == expected
    assert report.num_active == sum(widths[1:]) - sum(linear)
    longest = sum(k < w for w, k in zip(widths[1:], linear, strict=True))
    assert (report.longest_path, report.shortest_path) == (longest, sum(k == 0 for k in linear))


@few
@given(st.data())
def test_in_a_residual_network_too(data):
    # Channels of one activation are alike there, so each has the same part of its contribution,
    # in both averages; the other layers keep theirs, because chances know no activities.
    torch.manual_seed(0)
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    image = torch.zeros(1, 3, 8, 8)
    before = measure(model, image)
    rows = {row.name: row for row in before.layers}
    prelus = {name: m for name, m in model.named_modules() if isinstance(m, nn.PReLU)}
    name = data.draw(st.sampled_from(sorted(prelus)))
    channels = prelus[name].num_parameters
    linear = data.draw(st.integers(0, channels))
    linear_channels(prelus[name], linear)
    after = measure(model, image)
    share = Fraction(linear, channels)
    assert after.path_count == before.path_count
    assert (
        before.normalized_average_path_length - after.normalized_average_path_length
        == share * rows[name].normalized_contribution
    )
    assert before.average_path_length - after.average_path_length == share * rows[name].contribution
    for row in after.layers:
        kept = 1 - share if row.name == name else 1
        assert row.normalized_contribution == kept * rows[row.name].normalized_contribution
        assert row.contribution == kept * rows[row.name].contribution


def test_activities_put_into_a_graph_do_the_same_as_slopes():
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    image = torch.zeros(1, 3, 8, 8)
    graph = pathlen.trace(model, image)
    linear_channels(model.stage2[0].activation1, 3)
    by_slopes = measure(model, image)
    set_by_hand = graph.with_activity({"stage2.0.activation1": [0.0, 0.0, 0.0, 1.0]})
    by_activity = pathlen.measure(set_by_hand, exact=True)
    assert by_activity.average_path_length == by_slopes.average_path_length
    assert by_activity.normalized_average_path_length == by_slopes.normalized_average_path_length


def test_a_fully_linear_network_has_length_0_and_the_same_paths():
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    image = torch.zeros(1, 3, 8, 8)
    before = measure(model, image)
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            linear_channels(module, module.num_parameters)
    after = measure(model, image)
    assert after.average_path_length == after.normalized_average_path_length == 0
    assert (after.longest_path, after.num_active, after.effective_width) == (0, 0, 0)
    assert after.path_count == before.path_count
    assert after.num_units == before.num_units


def between_layers(activation):
    return nn.Sequential(nn.Linear(2, 3), activation, nn.Linear(3, 1))


@pytest.mark.parametrize("by_channel", [True, False], ids=["by channel", "one slope"])
@pytest.mark.parametrize(
    ("slope", "active"),
    # |1 - slope| is at most 0.01 for a linear unit. 0.990001 is the float32 above 0.99.
    [(1.0, 0), (0.9901, 0), (1.0099, 0), (0.9899, 1), (1.0101, 1), (0.0, 1), (-1.0, 1), (2.0, 1)],
)
def test_the_threshold_of_one_hundredth_on_either_side(slope, active, by_channel):
    prelu = nn.PReLU(3 if by_channel else 1, init=slope)
    assert measure(between_layers(prelu), torch.zeros(2, 2)).average_path_length == active


@pytest.mark.parametrize(
    ("slope", "active"), [(1.0, 0), (0.9901, 0), (0.9899, 1), (0.01, 1), (0.0, 1)]
)
def test_leaky_relu_is_told_by_its_function(slope, active):
    for activation in (
        nn.LeakyReLU(slope),
        Function(lambda x: F.leaky_relu(x, slope)),
        Function(lambda x: torch.where(x > 0, x, slope * x)),
        Function(lambda x: slope * x + (1 - slope) * torch.relu(x)),
    ):
        report = measure(between_layers(activation), torch.zeros(2, 2))
        assert report.average_path_length == active
        assert report.path_count == 6


def test_the_tolerance_of_the_policy_is_the_threshold():
    model = between_layers(nn.PReLU(3, init=0.8))
    x = torch.zeros(2, 2)
    for tolerance, active in ((0.19, 1), (0.21, 0)):
        policy = pathlen.Policy(tolerance=tolerance)
        assert pathlen.measure(model, x, policy=policy).average_path_length == active


def test_one_slope_for_all_channels_makes_all_linear():
    prelu = nn.PReLU(init=1.0)
    assert measure(between_layers(prelu), torch.zeros(2, 2)).num_active == 0


ACTIVATIONS = {
    "ELU": nn.ELU(),
    "Hardshrink": nn.Hardshrink(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardtanh": nn.Hardtanh(),
    "Hardswish": nn.Hardswish(),
    "LeakyReLU": nn.LeakyReLU(),
    "LogSigmoid": nn.LogSigmoid(),
    "PReLU": nn.PReLU(),
    "PReLU by channel": nn.PReLU(3),
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "RReLU": nn.RReLU(),
    "SELU": nn.SELU(),
    "CELU": nn.CELU(),
    "GELU": nn.GELU(),
    "GELU by tanh": nn.GELU(approximate="tanh"),
    "Sigmoid": nn.Sigmoid(),
    "SiLU": nn.SiLU(),
    "Mish": nn.Mish(),
    "Softplus": nn.Softplus(),
    "Softshrink": nn.Softshrink(),
    "Softsign": nn.Softsign(),
    "Tanh": nn.Tanh(),
    "Tanhshrink": nn.Tanhshrink(),
    "Threshold": nn.Threshold(0.1, 20.0),
    "F.elu": F.elu,
    "F.hardshrink": F.hardshrink,
    "F.hardsigmoid": F.hardsigmoid,
    "F.hardtanh": F.hardtanh,
    "F.hardtanh_": F.hardtanh_,
    "F.hardswish": F.hardswish,
    "F.leaky_relu": F.leaky_relu,
    "F.leaky_relu_": F.leaky_relu_,
    "F.logsigmoid": F.logsigmoid,
    "F.prelu": lambda x: F.prelu(x, torch.tensor([0.25])),
    "F.relu": F.relu,
    "F.relu_": F.relu_,
    "F.relu6": F.relu6,
    "F.rrelu": F.rrelu,
    "F.selu": F.selu,
    "F.celu": F.celu,
    "F.gelu": F.gelu,
    "F.sigmoid": torch.sigmoid,
    "F.silu": F.silu,
    "F.silu in place": lambda x: F.silu(x, inplace=True),
    "F.mish": F.mish,
    "F.softplus": F.softplus,
    "F.softshrink": F.softshrink,
    "F.softsign": F.softsign,
    "F.tanh": torch.tanh,
    "F.tanhshrink": F.tanhshrink,
    "F.threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "exp": torch.exp,
    "sin": torch.sin,
    "erf": torch.erf,
    "sign": torch.sign,
    "round": torch.round,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "remainder": lambda x: x % 2,
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
def test_every_activation_is_one_active_unit_a_channel(activation):
    # 2 * 3 * 1 paths, each over one of the 3 units; some of these functions are written by several
    # operations, which make one unit all the same
    module = activation if isinstance(activation, nn.Module) else Function(activation)
    report = measure(between_layers(module), torch.zeros(4, 2))
    assert report.path_count == 6
    assert report.average_path_length == report.normalized_average_path_length == 1
    assert report.num_active == 3


def test_all_activation_classes_of_torch_are_covered():
    from torch.nn.modules import activation

    several_tensors_or_none = {
        "GLU",
        "MultiheadAttention",
        "Softmax",
        "Softmax2d",
        "Softmin",
        "LogSoftmax",
    }
    classes = set(activation.__all__) - several_tensors_or_none
    assert classes <= {type(module).__name__ for module in ACTIVATIONS.values()}


@pytest.mark.parametrize(
    ("activation", "active"),
    [
        (nn.Softplus(beta=1.0), 1),
        (nn.ELU(alpha=1.0), 1),
        (nn.Identity(), 0),
        (nn.Softmin(-1), 0),  # a softmax is no activation
        (nn.Softmax(-1), 0),
    ],
    ids=["softplus", "elu", "identity", "softmin", "softmax"],
)
def test_other_modules(activation, active):
    report = measure(between_layers(activation), torch.zeros(4, 2))
    assert (report.path_count, report.average_path_length) == (6, active)


class Blend(nn.Module):
    """alpha x + (1 - alpha) relu(x) with a slope of its own for each channel of an image."""

    def __init__(self, alpha):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha).view(-1, 1, 1))

    def forward(self, x):
        return self.alpha * x + (1 - self.alpha) * torch.relu(x)


def test_a_users_own_activation_is_told_by_its_function():
    # one of four channels is linear, on images
    model = nn.Sequential(nn.Conv2d(2, 4, 1), Blend([0.0, 1.0, 0.995, 0.5]), nn.Conv2d(4, 3, 1))
    report = measure(model, torch.zeros(1, 2, 3, 3))
    assert report.num_active == 2
    assert report.average_path_length == Fraction(1, 2)
    assert report.path_count == 2 * 4 * 3


@pytest.mark.parametrize(
    "brought",
    [
        lambda slope, x: slope.type_as(x),
        lambda slope, x: slope.view(-1, 1, 1).expand_as(x).movedim(1, -1)[0, 0, 0].view(-1),
        lambda slope, x: slope.view(2, 2).reshape_as(x[0, :, 0, 0]),
        lambda slope, x: slope.to(x),
    ],
    ids=["type_as", "expand_as", "reshape_as", "to"],
)
def test_slopes_brought_to_the_shape_or_type_of_the_input(brought):
    model = Model(
        lambda m, x: m.b(F.prelu(m.a(x), brought(m.slope, m.a(x)))),
        a=nn.Conv2d(2, 4, 1),
        b=nn.Conv2d(4, 3, 1),
        slope=nn.Parameter(torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)),
    )
    if brought(model.slope, torch.zeros(1, 4, 3, 3)).dtype == torch.float64:
        model.double()
    report = measure(model, torch.zeros(1, 2, 3, 3, dtype=model.a.weight.dtype))
    assert report.average_path_length == Fraction(1, 4)


def test_slopes_without_values_are_taken_as_active_and_this_is_said():
    with torch.device("meta"):
        model = between_layers(nn.PReLU(3, init=1.0))
    report = measure(model, torch.zeros(2, 2, device="meta"))
    assert report.num_active == 3
    assert any("prelu" in cause and "meta" in cause for cause in report.causes)


def test_bounds_without_values_are_unknown_also_after_a_cast():
    def forward(m, x):
        bound = m.bound.to(device=x.device, dtype=torch.float64)
        return torch.clamp(m.a(x), -bound.float(), bound.float())

    with torch.device("meta"):
        model, x = Model(forward, a=nn.Linear(2, 3)), torch.zeros(1, 2)
        model.register_buffer("bound", torch.tensor(float("inf")))
    report = pathlen.measure(model, x)
    assert report.average_path_length == 1
    assert "parameters without values" in report.causes[0]
