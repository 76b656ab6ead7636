"""A monitor reads what a fresh measurement of the model would give, whatever happened to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it
from torch.nn.utils import parametrize

import pathlen
from pathlen.training.resnet import CifarResNet, channelwise_prelu
from tests.constructs import Model
from tests.slopes import (
    DIRECT,
    EVALUATED,
    IMAGE,
    Blend,
    follow,
    net,
    require_fresh,
    scatter,
    sites,
    slope,
    with_slopes,
)
from tests.vision import import_torchvision


def test_resnet_with_prelus() -> None:
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    assert sites(follow(model, IMAGE)) == (7, 0)


@pytest.mark.parametrize(
    "activation",
    [nn.PReLU, lambda channels: nn.PReLU(), Blend, lambda n: Blend(n, F.gelu)],
    ids=["prelu", "one slope", "blend", "gelu"],
)
def test_resnet50(activation: Callable[[int], nn.Module]) -> None:
    model = with_slopes(import_torchvision().models.resnet50(num_classes=5), activation)
    assert sites(follow(model, torch.zeros(1, 3, 32, 32), times=2)) == (49, 0)


class Shared(nn.Module):
    """One PReLU at three call sites, one of which nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(*sizes, 1) for sizes in ((3, 4), (4, 4), (4, 2)))
        self.relu = nn.PReLU(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.a(x))
        self.relu(self.b(y) + 1)
        return self.c(y + self.relu(self.b(y)))


def test_a_shared_prelu() -> None:
    assert sites(follow(Shared(), IMAGE)) == (2, 0)


@pytest.mark.parametrize("name", DIRECT)
def test_what_is_read_directly(name: str) -> None:
    forward, parameter = DIRECT[name]
    assert sites(follow(net(forward, slope=copy.deepcopy(parameter)), IMAGE)) == (1, 0)


@pytest.mark.parametrize("name", EVALUATED)
def test_what_is_evaluated(name: str) -> None:
    forward, parameter = EVALUATED[name]
    assert sites(follow(net(forward, slope=copy.deepcopy(parameter)), IMAGE)) == (0, 1)


@settings(deadline=None, max_examples=60)
@given(
    start=st.sampled_from([0.99, 1.01, 1 + 0.01 / 0.99, 1 - 0.01 / 1.01, 1.0, 0.98, 1.02]),
    steps=st.lists(st.integers(-40, 40), min_size=4, max_size=4),
    double=st.booleans(),
    phi=st.sampled_from([torch.relu, F.gelu, F.silu, torch.tanh, F.relu6, F.elu]),
)
def test_blends_at_the_tolerance(start, steps, double, phi) -> None:
    # neighbouring floats around the bounds; the bounds of other functions than ReLU lie close by
    dtype = np.float64 if double else np.float32
    values = dtype(start) + np.spacing(dtype(start)) * np.array(steps, dtype)
    parameter = slope(4, 1, 1, dtype=torch.float64 if double else torch.float32)
    model = net(lambda m, x: (m.slope * x + (1 - m.slope) * phi(x)).float(), slope=parameter)
    monitor = pathlen.DepthMonitor(model, IMAGE)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values).view(4, 1, 1))
    require_fresh(monitor, model, IMAGE)


@settings(deadline=None, max_examples=60)
@given(
    alpha=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    tolerance=st.sampled_from([0.0, 1e-6, 0.01, 0.1, 0.3, 0.6]),
    phi=st.sampled_from([torch.relu, F.gelu, F.silu, torch.tanh, F.softplus, torch.abs]),
)
def test_blends_of_all_kinds(alpha, tolerance, phi) -> None:
    model = net(lambda m, x: m.slope * x + (1 - m.slope) * phi(x), slope=slope(4, 1, 1))
    policy = pathlen.Policy(tolerance=tolerance)
    monitor = pathlen.DepthMonitor(model, IMAGE, policy=policy)
    with torch.no_grad():
        model.slope.copy_(torch.tensor(alpha).view(4, 1, 1))
    require_fresh(monitor, model, IMAGE, policy=policy)


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", ["functional prelu", "blend"])
def test_slopes_without_bounds(name: str, value: float) -> None:
    forward, parameter = DIRECT[name]
    model = net(forward, slope=copy.deepcopy(parameter))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    with torch.no_grad():
        model.slope[1:3] = value
        model.slope[0] = 1.0
    require_fresh(monitor, model, IMAGE)


class Squared(nn.Module):
    """A parametrization."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * weight


def test_a_parametrized_slope() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.Conv2d(4, 2, 1))
    model.add_module("relu", model[1])
    parametrize.register_parametrization(model[1], "weight", Squared())
    assert sites(follow(nn.Sequential(*[model[n] for n in (0, 1, 2)]), IMAGE)) == (0, 1)


class TwoSlopes(nn.Module):
    """Parameters on both sides, and running statistics within."""

    def __init__(self) -> None:
        super().__init__()
        self.slope_left = nn.Parameter(torch.zeros(4, 1, 1))
        self.slope_right = nn.Parameter(torch.ones(4, 1, 1))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.where(x > 0, self.slope_right * x, self.slope_left * x))


class NormInside(nn.Module):
    """x + gelu(norm(x)): affine where the norm's scale is nearly 0."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.movedim(1, -1)
        return (x + F.gelu(self.slope(x))).movedim(-1, 1)


@pytest.mark.parametrize("activation", [TwoSlopes, NormInside])
def test_several_parameters(activation) -> None:
    follow(nn.Sequential(nn.Conv2d(3, 4, 1), activation(), nn.Conv2d(4, 2, 1)), IMAGE)


def test_models_without_slopes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert sites(follow(model, IMAGE, times=2)) == (0, 0)
    recurrent = Model(lambda m, x: m.lstm(x)[0], lstm=nn.LSTM(3, 4, num_layers=2))
    follow(recurrent, torch.zeros(3, 1, 3), times=2)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    policy = pathlen.Policy(count={"softmax", "normalization"}, attention="value")
    follow(encoder, torch.zeros(1, 5, 8), times=2, policy=policy)


def test_arguments_of_trace() -> None:
    model = Model(
        lambda m, x: {"a": m.relu_a(m.first(x)), "b": m.relu_b(m.second(x))},
        first=nn.Linear(3, 4),
        second=nn.Linear(3, 5),
        relu_a=nn.PReLU(4),
        relu_b=nn.PReLU(5),
    )
    follow(model, torch.zeros(2, 3), outputs="b", input_axis=0)


def test_other_backends() -> None:
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    for backend in ("exact", "scipy", "igraph"):
        scatter(model, 1)
        require_fresh(pathlen.DepthMonitor(model, IMAGE, backend=backend), model, IMAGE)


@pytest.mark.parametrize("kind", [channelwise_prelu, Blend])
def test_slopes_may_be_replaced_moved_and_loaded(kind) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4), nn.Conv2d(4, 5, 1), kind(5))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    activation, shape = model[1], model[1].weight.shape
    activation.weight = nn.Parameter(torch.tensor([1.0, 1.0, 0.0, 0.5]).view(shape))
    require_fresh(monitor, model, IMAGE)
    activation.weight.data = torch.ones(shape)
    require_fresh(monitor, model, IMAGE)
    activation.weight.data[1] = 0.25
    require_fresh(monitor, model, IMAGE)
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32):
        model.to(dtype)
        require_fresh(monitor, model, IMAGE.to(dtype))
    state = copy.deepcopy(model.state_dict())
    state["1.weight"].fill_(0.5)
    model.load_state_dict(state)
    require_fresh(monitor, model, IMAGE)
    model.load_state_dict(
        {key: 1 - value for key, value in model.state_dict().items()}, assign=True
    )
    require_fresh(monitor, model, IMAGE)


def test_slopes_of_several_precisions() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.Conv2d(4, 5, 1), Blend(5), nn.PReLU(), Blend(5)
    )
    monitor = pathlen.DepthMonitor(model, IMAGE)
    for seed in range(3):
        with torch.no_grad():
            for module in model[1:]:
                if hasattr(module, "weight"):
                    module.weight.copy_(torch.rand(module.weight.shape).round())
        before = monitor.update().average_path_length
        for module in (model[1], model[3], model[5])[: seed + 1]:
            module.double()  # 0 and 1 in any precision: the numbers stay
        assert monitor.update().average_path_length == pytest.approx(before, rel=1e-12)


def test_nothing_is_run_again() -> None:
    calls = []
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    model.register_forward_hook(lambda *_: calls.append(1))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    assert calls == [1]
    state = torch.get_rng_state()
    for seed in range(3):
        scatter(model, seed)
        monitor.update()
    assert calls == [1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_reading_is_plain_and_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4, init=0.0), nn.Linear(4, 2))
    monitor = pathlen.DepthMonitor(model, torch.zeros(1, 3))
    with torch.no_grad():
        model[1].weight[:3] = 1.0
    reading = monitor.update()
    assert reading == pathlen.DepthReading(0.25, 0.25, 1, {"1": 1})
    assert type(reading.average_path_length) is float
    with pytest.raises(AttributeError):
        reading.num_active = 3
    with pytest.raises(TypeError):
        reading.active_units["1"] = 2
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    assert monitor.update() == pathlen.DepthReading(0.0, 0.0, 0, {"1": 0})
