"""Linearization down to a target: within 2 %, never below, or said not to be reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import PathlenError
from pathlen.training import (
    CifarResNet,
    SparsityPrior,
    Target,
    make_linearizable,
    parameter_groups,
    slopes_of,
)

IMAGE = torch.zeros(1, 3, 8, 8)


def linearizable(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return make_linearizable(CifarResNet(8, width=width), IMAGE)


def quantities(model: nn.Module) -> dict[str, float]:
    """Measured on the model itself: a slope that is not 1 makes its unit active."""
    report = pathlen.measure(model, IMAGE)
    calls = sum(
        own.positions * int((own.parameter != 1).sum()) for own in slopes_of(model) if own.positions
    )
    return {
        "napl": report.normalized_average_path_length,
        "units": report.num_active,
        "relu_calls": calls,
    }


@pytest.mark.parametrize("method", ["gradient", "proximal"])
@pytest.mark.parametrize("quantity", ["napl", "units", "relu_calls"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_it_is_reached_and_kept(method: Any, quantity: Any, share: float) -> None:
    model = linearizable()
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.uniform_(-0.5, 0.5)
    goal = share * quantities(model)[quantity]
    monitor = pathlen.DepthMonitor(model, IMAGE)
    prior = SparsityPrior(
        model, omega=2.0, method=method, monitor=monitor, target=Target(quantity, goal)
    )
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (prior.penalty() + 0 * sum(p.sum() for p in model.parameters())).backward()
        optimizer.step()
        prior.step(0.05)
    found = quantities(model)[quantity]
    assert prior.progress is not None
    assert prior.progress.value == pytest.approx(found, rel=1e-9, abs=1e-9)
    assert prior.progress.reached
    assert prior.progress.finished
    assert str(prior.progress).startswith("reached")
    assert 0.98 * goal <= found + 1e-9 <= 1.02 * goal + 1e-6
    assert prior.penalty() == 0
    assert pathlen.measure(model, IMAGE).num_active == prior.num_active


def test_many_at_once_do_not_overshoot() -> None:
    model = linearizable()
    units = quantities(model)["units"]
    prior = SparsityPrior(model, omega=1.0, target=Target("units", units / 2))
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.uniform_(0.991, 1.009)
    prior.step()
    assert quantities(model)["units"] == prior.num_active == pytest.approx(units / 2, rel=0.02)


def test_what_is_too_coarse_is_said_not_to_be_reached() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    make_linearizable(model, torch.zeros(1, 3))
    prior = SparsityPrior(model, omega=1.0, target=Target("units", 1.5))
    with torch.no_grad():
        slopes_of(model)[0].parameter.fill_(1)
    prior.step()
    assert prior.progress is not None
    assert prior.progress.value == 2
    assert not prior.progress.reached
    assert str(prior.progress).startswith("not reached, and nothing left to freeze")


def test_what_cannot_be_reached_is_refused() -> None:
    model = linearizable(4)
    with pytest.raises(PathlenError, match="more than the model has"):
        SparsityPrior(model, omega=1.0, target=Target("units", 1000))
    with pytest.raises(PathlenError, match="DepthMonitor"):
        SparsityPrior(model, omega=1.0, target=Target("napl", 1))
    with pytest.raises(PathlenError, match="below 0"):
        Target("napl", -1)
    with pytest.raises(PathlenError, match="choose 'napl'"):
        Target("depth", 1)
