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
from tests.slopes import Blend, with_slopes
from tests.vision import import_torchvision


def require_fresh(monitor: pathlen.DepthMonitor, model: nn.Module, args, **options) -> None:
    """A reading has the numbers of `pathlen.measure`, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    reading = monitor.update()
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict(keep_vars=True)
    assert all(
        torch.equal(
            after[key],
            value,
        )
        for key, value in before.items()
    )
    report = pathlen.measure(model, args, **options)
    for name in ("average_path_length", "normalized_average_path_length"):
        ours, wanted = getattr(reading, name), getattr(report, name)
        assert math.isclose(ours, wanted, rel_tol=1e-12, abs_tol=1e-12), name
    assert reading.num_active == report.num_active
    listed = {row.name: row.active for row in report.activation_layers}
    assert {name: reading.active_units[name] for name in listed} == listed
    assert sum(reading.active_units.values()) == report.num_active


def scatter(model: nn.Module, seed: int) -> None:
    """Other values for everything that may be a slope: many linear, some near the tolerance."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.9901, 0.9899, 1.0099, 1.0105, -0.5, 3.0])
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "slope" in name or "relu" in name or "activation" in name:
                chosen = torch.randint(len(values), tensor.shape, generator=generator)
                tensor.copy_(values[chosen])


def follow(model: nn.Module, args, times: int = 6, **options) -> pathlen.DepthMonitor:
    """Scatter the slopes again and again, in train and eval mode, and compare."""
    monitor = pathlen.DepthMonitor(model, args, **options)
    for seed in range(times):
        model.train(seed % 2 == 0)
        scatter(model, seed)
        require_fresh(monitor, model, args, **options)
    return monitor


def sites(monitor: pathlen.DepthMonitor) -> tuple[int, int]:
    """How many call sites are read directly, and how many evaluated."""
    words = repr(monitor).split()
    return int(words[1]), int(words[words.index("evaluated,") - 1])


IMAGE = torch.randn(2, 3, 8, 8)


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
    assert sites(follow(model, torch.empty(1, 3, 32, 32), times=2)) == (49, 0)


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


def net(forward, **members) -> Model:
    """A convolution to four channels, an activation `forward(model, x)`, and another one."""

    def whole(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model.second(forward(model, model.first(x)))

    return Model(whole, first=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 2, 1), **members)


def slope(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def channels(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1, 1, 1)


DIRECT = {
    "functional prelu": (lambda m, x: F.prelu(x, m.slope), slope(4)),
    "prelu, one slope": (lambda m, x: F.prelu(x, m.slope), slope(1)),
    "prelu, other shape": (lambda m, x: F.prelu(x, m.slope.view(-1)), slope(2, 2)),
    "blend": (lambda m, x: channels(m.slope) * x + (1 - channels(m.slope)) * x.relu(), slope(4)),
    "blend with silu": (lambda m, x: m.slope * x + (1 - m.slope) * F.silu(x), slope(4, 1, 1)),
    "blend with tanh": (lambda m, x: m.slope * x + (1 - m.slope) * x.tanh(), slope(4, 1, 1)),
    "blend, one slope": (lambda m, x: m.slope * x + (1 - m.slope) * F.relu(x), slope()),
    "difference": (lambda m, x: x.relu() + m.slope * (x - x.relu()), slope(4, 1, 1)),
    "lerp": (lambda m, x: torch.lerp(x.relu(), x, channels(m.slope)), slope(4)),
    "where": (lambda m, x: torch.where(x > 0, x, m.slope * x), slope(4, 1, 1)),
    "masks": (lambda m, x: x * (x > 0) + m.slope * x * (x <= 0), slope(4, 1, 1)),
    "minimum": (lambda m, x: x.clamp(min=0) + m.slope * x.clamp(max=0), slope(4, 1, 1)),
    "other precision": (
        lambda m, x: (m.slope * x + (1 - m.slope) * x.relu()).float(),
        slope(4, 1, 1, dtype=torch.float64),
    ),
    "addcmul": (
        lambda m, x: torch.addcmul(x.relu(), m.slope.expand_as(x), x - x.relu()),
        slope(4, 1, 1),
    ),
}
EVALUATED = {
    "turned round": (
        lambda m, x: channels(m.slope).flip(0) * x + (1 - channels(m.slope.flip(0))) * x.relu(),
        slope(4),
    ),
    "clamped": (
        lambda m, x: m.slope.clamp(0, 1) * x + (1 - m.slope.clamp(0, 1)) * x.relu(),
        slope(4, 1, 1),
    ),
    "through a sigmoid": (
        lambda m, x: torch.lerp(x.relu(), x, 5 * torch.sigmoid(m.slope)),
        slope(4, 1, 1),
    ),
    "prelu of a function": (lambda m, x: F.prelu(x, m.slope**2), slope(4)),
    "prelu of half of them": (lambda m, x: F.prelu(x, m.slope[::2]), slope(8)),
    "prelu turned round": (lambda m, x: F.prelu(x, m.slope.flip(0)), slope(4)),
    "two slopes mixed": (
        lambda m, x: m.slope * x + (1 - m.slope.flip(0)) * x.relu(),
        slope(4, 1, 1),
    ),
    "sum of two": (
        lambda m, x: (
            (m.slope + m.slope.flip(0)) / 2 * x + (1 - (m.slope + m.slope.flip(0)) / 2) * x.relu()
        ),
        slope(4, 1, 1),
    ),
    "small ones dropped": (
        lambda m, x: (
            m.slope * (m.slope.abs() > 0.6) * x + (1 - m.slope * (m.slope.abs() > 0.6)) * x.relu()
        ),
        slope(4, 1, 1),
    ),
    "squared": (lambda m, x: torch.lerp(x.relu(), x, m.slope * m.slope), slope(4, 1, 1)),
    "leaky part scaled": (lambda m, x: F.relu(x) + m.slope * torch.sin(x), slope(4, 1, 1)),
    "low precision": (
        lambda m, x: m.slope.float() * x + (1 - m.slope.float()) * x.relu(),
        slope(4, 1, 1, dtype=torch.bfloat16),
    ),
    "written in place": (
        lambda m, x: torch.lerp(x.relu(), x, m.slope.clone().mul_(2).div_(2)),
        slope(4, 1, 1),
    ),
}


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
    follow(recurrent, torch.empty(3, 1, 3), times=2)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    policy = pathlen.Policy(count={"softmax", "normalization"}, attention="value")
    follow(encoder, torch.empty(1, 5, 8), times=2, policy=policy)


def test_arguments_of_trace() -> None:
    model = Model(
        lambda m, x: {"a": m.relu_a(m.first(x)), "b": m.relu_b(m.second(x))},
        first=nn.Linear(3, 4),
        second=nn.Linear(3, 5),
        relu_a=nn.PReLU(4),
        relu_b=nn.PReLU(5),
    )
    follow(model, torch.empty(2, 3), outputs="b", input_axis=0)


def test_other_backends() -> None:
    model = CifarResNet(8, width=2, activation=channelwise_prelu)
    for backend in ("exact", "scipy", "torch"):
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
    monitor = pathlen.DepthMonitor(model, torch.empty(1, 3))
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


# Parameters on which the graph itself depends.


def test_a_slope_for_each_position_makes_units_where_it_varies() -> None:
    model = net(lambda m, x: m.slope * x + (1 - m.slope) * x.relu(), slope=slope(4, 8, 8))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    require_fresh(monitor, model, IMAGE)
    with torch.no_grad():
        model.slope[:, 3] = 1.0
    require_fresh(monitor, model, IMAGE)  # two units a channel
    assert monitor.graph.num_units == pathlen.trace(model, IMAGE).num_units
    with torch.no_grad():
        model.slope[:, 3] = 0.5
        model.slope[2] = 1.0
    require_fresh(monitor, model, IMAGE)
    with torch.no_grad():
        model.slope.fill_(0.25)
    require_fresh(monitor, model, IMAGE)  # and one again


def test_a_prelu_over_tokens() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(5), nn.Linear(4, 2))
    model[1].register_parameter("slope", model[1].weight)  # two names for it
    assert sites(follow(model, torch.empty(1, 5, 3))) == (1, 0)


class Masked(nn.Module):
    """Channels with a mask stay linear; an index says in which order they go on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([True, False, False, True]).view(4, 1, 1))
        self.register_buffer("index", torch.tensor([0, 1, 2, 3]))
        self.relu = nn.PReLU(4)
        self.second = nn.Conv2d(4, 4, 1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.where(self.mask, x, self.relu(x))
        return self.second(y[:, self.index])


def test_masks_and_indices() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Masked(), nn.Conv2d(4, 2, 1, groups=2))
    monitor = follow(model, IMAGE)
    graph = monitor.graph
    model[1].mask[1] = True  # makes a channel linear, as a slope of 1 would
    require_fresh(monitor, model, IMAGE)
    assert monitor.graph is graph
    model[1].index = torch.tensor([0, 0, 2, 2])
    require_fresh(monitor, model, IMAGE)
    assert monitor.graph is not graph
    model[1].index.copy_(torch.tensor([0, 2, 1, 3]))
    require_fresh(monitor, model, IMAGE)
    graph = monitor.graph
    follow_again = [monitor.update() for _ in range(2)]
    assert monitor.graph is graph
    assert follow_again[0] == follow_again[1]


def test_what_a_mask_is_computed_from_may_change_if_the_mask_does_not() -> None:
    def forward(m, x):
        return torch.where(channels(m.score) > 0, m.other(x), F.prelu(x, m.slope))

    other = nn.Conv2d(4, 4, 1, groups=4)
    model = net(
        forward,
        slope=slope(4),
        other=other,
        score=nn.Parameter(torch.tensor([1.0, -1.0, 2.0, -2.0])),
    )
    monitor = pathlen.DepthMonitor(model, IMAGE)
    graph = monitor.graph
    with torch.no_grad():
        model.score.mul_(0.5)
        model.slope[:2] = 1.0
    require_fresh(monitor, model, IMAGE)
    assert monitor.graph is graph
    with torch.no_grad():
        model.score.mul_(-1)
    require_fresh(monitor, model, IMAGE)
    assert monitor.graph is not graph


def test_operators_of_ones_own() -> None:
    library = torch.library.Library("pathlen_monitor", "DEF")
    library.define("bent(Tensor x, Tensor slope) -> Tensor")
    library.define("like_prelu(Tensor x, Tensor slope) -> Tensor")
    for device in ("CPU", "Meta"):
        library.impl("bent", lambda x, slope: torch.where(x > 0, x, slope * x), device)
        library.impl("like_prelu", lambda x, slope: torch.where(x > 0, x, slope * x), device)
    pathlen.register_rule("pathlen_monitor::like_prelu", like=lambda x, s: F.prelu(x, s.view(-1)))
    probed = net(lambda m, x: torch.ops.pathlen_monitor.bent(x, m.slope), slope=slope(4, 1, 1))
    follow(probed, IMAGE[:1, :, :2, :2])
    decomposed = net(
        lambda m, x: torch.ops.pathlen_monitor.like_prelu(x, m.slope), slope=slope(4, 1, 1)
    )
    assert sites(follow(decomposed, IMAGE)) == (1, 0)


# Slopes that are neither parameters nor buffers.


class Plain(nn.Module):
    """Slopes in plain attributes, in a list, and behind `.data`."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.zeros(4)
        self.listed = [torch.zeros(1), torch.zeros(4)]
        self.slope = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.prelu(x, self.plain) + 1
        x = F.prelu(x, self.listed[1]) + 1
        return F.prelu(x, self.slope.data)


def test_plain_tensors_are_followed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Plain(), nn.Conv2d(4, 2, 1))
    monitor = follow(model, IMAGE)
    assert sites(monitor) == (3, 0)
    plain = model[1]
    plain.plain = torch.tensor([1.0, 1.0, 0.0, 0.0])
    require_fresh(monitor, model, IMAGE)
    plain.listed[1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    require_fresh(monitor, model, IMAGE)
    plain.slope = nn.Parameter(torch.ones(4))
    require_fresh(monitor, model, IMAGE)
    plain.plain[3] = 1.0
    require_fresh(monitor, model, IMAGE)


# What is no longer the model that was traced.


def two_prelus() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 4), nn.PReLU(4), nn.LeakyReLU(0.5), Blend(1)
    )


def more_slopes(model):
    model[1].weight = nn.Parameter(torch.zeros(5))


def no_slope(model):
    model[1].weight = None


def slope_deleted(model):
    del model[1].weight


def other_module(model):
    model[3] = nn.ReLU()


def another_module(model):
    model.append(nn.ReLU())


def other_number(model):
    model[4].negative_slope = 1.0


def parametrized(model):
    parametrize.register_parametrization(model[1], "weight", Squared())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more_slopes, r"'1.weight' has shape \(5,\) and had \(4,\)"),
        (no_slope, "'1.weight' is no tensor of the model any more"),
        (slope_deleted, "'1.weight' is no tensor of the model any more"),
        (other_module, "module '3' was replaced, a PReLU by a ReLU"),
        (another_module, "the model has 7 modules and had 6"),
        (other_number, "'4.negative_slope' is 1.0 and was 0.5"),
        (parametrized, "'1.weight' is no tensor of the model any more"),
    ],
)
def test_another_architecture_is_refused(change, message) -> None:
    model = two_prelus()
    monitor = pathlen.DepthMonitor(model, torch.empty(1, 3))
    monitor.update()
    change(model)
    with pytest.raises(pathlen.MonitorError, match=f"{message}.*make a new DepthMonitor"):
        monitor.update()


def test_slopes_that_were_tied_and_are_not_any_more() -> None:
    model = two_prelus()
    model[3].weight = model[1].weight
    monitor = follow(model, torch.empty(1, 3))
    shared = nn.Parameter(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    model[1].weight = model[3].weight = shared
    require_fresh(monitor, model, torch.empty(1, 3))
    model[3].weight = nn.Parameter(torch.zeros(4))
    with pytest.raises(pathlen.MonitorError, match=r"'1.weight' was one tensor in several places"):
        monitor.update()


def test_a_number_of_ones_own_module() -> None:
    def forward(m, x):
        m.calls += 1  # no number that an activation could be made of
        return m.rate * x + (1 - m.rate) * x.relu()

    model = net(forward)
    model.rate, model.calls = 0.5, 0
    monitor = pathlen.DepthMonitor(model, IMAGE)
    model(IMAGE)
    require_fresh(monitor, model, IMAGE)
    model.rate = 1.0
    with pytest.raises(pathlen.MonitorError, match=r"'rate' is 1.0 and was 0.5"):
        monitor.update()


@pytest.mark.parametrize("name", ["functional prelu", "blend", "difference"])
def test_slopes_that_are_no_numbers(name: str) -> None:
    forward, parameter = DIRECT[name]
    model = net(forward, slope=copy.deepcopy(parameter))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    with torch.no_grad():
        model.slope[2] = math.nan
    with pytest.raises(pathlen.ActivityError, match="parameter 'slope' holds NaN"):
        monitor.update()
    with torch.no_grad():
        model.slope[2] = 1.0
    require_fresh(monitor, model, IMAGE)


def test_evaluated_slopes_that_are_no_numbers() -> None:
    forward, parameter = EVALUATED["clamped"]
    model = net(forward, slope=copy.deepcopy(parameter))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    with torch.no_grad():
        model.slope[2] = math.nan
    with pytest.raises(pathlen.ActivityError, match="holds NaN"):
        monitor.update()


def test_what_cannot_be_followed() -> None:
    with pytest.raises(pathlen.MonitorError, match=r"follows a torch.nn.Module, not function"):
        pathlen.DepthMonitor(lambda x: x.relu(), IMAGE)

    def reads_values(m, x):
        return F.prelu(x, m.slope) if float(m.slope.sum()) > 1 else x.relu()

    model = net(reads_values, slope=slope(4))
    with pytest.raises(pathlen.MonitorError, match=r"reads values.*call pathlen.measure instead"):
        pathlen.DepthMonitor(model, IMAGE)
    with pytest.raises(pathlen.BackendError, match="no backend 'abacus'"):
        pathlen.DepthMonitor(two_prelus(), torch.empty(1, 3), backend="abacus")
    with pytest.raises(pathlen.ModelError):
        pathlen.DepthMonitor(two_prelus(), torch.empty(1, 7))


def test_models_without_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 4), nn.PReLU(), Blend(1))
    x = torch.empty(2, 3, device="meta")
    monitor = pathlen.DepthMonitor(model, x)
    assert monitor.update().num_active == pathlen.measure(model, x).num_active
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[1].weight[0] = 0.0
    require_fresh(monitor, model, torch.empty(2, 3))
    model.to("meta")
    assert monitor.update().num_active == pathlen.measure(model, x).num_active
