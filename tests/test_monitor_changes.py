"""A monitor of a model whose graph changes, or that is no longer the one that was traced."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it
from torch.nn.utils import parametrize

import pathlen
from pathlen.errors import ActivityError, BackendError, ModelError, MonitorError
from tests.slopes import (
    DIRECT,
    EVALUATED,
    IMAGE,
    Blend,
    channels,
    follow,
    net,
    require_fresh,
    sites,
    slope,
)

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
    assert sites(follow(model, torch.zeros(1, 5, 3))) == (1, 0)


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
    parametrize.register_parametrization(model[1], "weight", nn.Identity())


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
    monitor = pathlen.DepthMonitor(model, torch.zeros(1, 3))
    monitor.update()
    change(model)
    with pytest.raises(MonitorError, match=f"{message}.*make a new DepthMonitor"):
        monitor.update()


def test_slopes_that_were_tied_and_are_not_any_more() -> None:
    model = two_prelus()
    model[3].weight = model[1].weight
    monitor = follow(model, torch.zeros(1, 3))
    shared = nn.Parameter(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    model[1].weight = model[3].weight = shared
    require_fresh(monitor, model, torch.zeros(1, 3))
    model[3].weight = nn.Parameter(torch.zeros(4))
    with pytest.raises(MonitorError, match=r"'1.weight' was one tensor in several places"):
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
    with pytest.raises(MonitorError, match=r"'rate' is 1.0 and was 0.5"):
        monitor.update()


@pytest.mark.parametrize("name", ["functional prelu", "blend", "difference"])
def test_slopes_that_are_no_numbers(name: str) -> None:
    forward, parameter = DIRECT[name]
    model = net(forward, slope=copy.deepcopy(parameter))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    with torch.no_grad():
        model.slope[2] = math.nan
    with pytest.raises(ActivityError, match="parameter 'slope' holds NaN"):
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
    with pytest.raises(ActivityError, match="holds NaN"):
        monitor.update()


def test_what_cannot_be_followed() -> None:
    with pytest.raises(MonitorError, match=r"follows a torch.nn.Module, not function"):
        pathlen.DepthMonitor(lambda x: x.relu(), IMAGE)

    def reads_values(m, x):
        return F.prelu(x, m.slope) if float(m.slope.sum()) > 1 else x.relu()

    model = net(reads_values, slope=slope(4))
    with pytest.raises(MonitorError, match=r"reads values.*call pathlen.measure instead"):
        pathlen.DepthMonitor(model, IMAGE)
    with pytest.raises(BackendError, match="no backend 'abacus'"):
        pathlen.DepthMonitor(two_prelus(), torch.zeros(1, 3), backend="abacus")
    with pytest.raises(ModelError):
        pathlen.DepthMonitor(two_prelus(), torch.zeros(1, 7))


def test_models_without_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 4), nn.PReLU(), Blend(1))
    x = torch.zeros(2, 3, device="meta")
    monitor = pathlen.DepthMonitor(model, x)
    assert monitor.update().num_active == pathlen.measure(model, x).num_active
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[1].weight[0] = 0.0
    require_fresh(monitor, model, torch.zeros(2, 3))
    model.to("meta")
    assert monitor.update().num_active == pathlen.measure(model, x).num_active
