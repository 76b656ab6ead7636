"""The sparsity prior and its proximal steps, against brute force and autograd."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen.errors import ActivityError, PathlenError
from pathlen.training import (
    CifarResNet,
    GrowUntilFalling,
    SparsityPrior,
    make_linearizable,
    parameter_groups,
    slopes_of,
    warn_of_decay,
)
from pathlen.training.omega import constant, ramp
from pathlen.training.proximal import prox

IMAGE = torch.zeros(1, 3, 8, 8)


def linearizable() -> nn.Module:
    torch.manual_seed(0)
    return make_linearizable(CifarResNet(8, width=4), IMAGE)


def set_slopes(model: nn.Module, low: float, high: float) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.uniform_(low, high)
    return torch.cat([own.parameter.detach().reshape(-1) for own in slopes_of(model)])


@settings(deadline=None, max_examples=200)
@given(
    x=st.floats(-3, 3),
    strength=st.floats(1e-4, 2),
    p=st.sampled_from([0.5, 1.0]),
)
def test_the_proximal_step_is_the_minimizer(x: float, strength: float, p: float) -> None:
    grid = np.linspace(-4, 4, 80_001)
    grid = np.append(grid, 0.0)

    def cost(t: Any) -> Any:
        return (t - x) ** 2 / 2 + strength * np.abs(t) ** p

    found = prox(torch.tensor([x], dtype=torch.float64), torch.tensor(strength), p).item()
    assert cost(found) <= cost(grid).min() + 1e-12
    assert found * x >= 0


def test_other_powers_have_no_proximal_step() -> None:
    with pytest.raises(ValueError, match=r"p = 0\.5 and p = 1"):
        prox(torch.zeros(1), torch.ones(1), 0.7)


@pytest.mark.parametrize("p", [0.5, 0.8, 1.0])
def test_the_penalty_is_the_sum(p: float) -> None:
    model = linearizable()
    flat = set_slopes(model, -0.2, 0.9)
    prior = SparsityPrior(model, omega=0.3, p=p)
    expected = 0.3 * ((1 - flat).abs() ** p).sum()
    torch.testing.assert_close(prior.penalty(), expected)
    assert prior.num_active == prior.num_units == len(flat)


@pytest.mark.parametrize("gradients", ["there", "not yet there"])
def test_an_attached_prior_adds_its_gradient_site_by_site(gradients: str) -> None:
    model = linearizable()
    flat = set_slopes(model, -0.2, 0.9)
    doubled, resting, *others = (own.parameter for own in slopes_of(model))
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=1.0)
    doubled.register_hook(lambda gradient: 2 * gradient)
    nn.init.ones_(resting.requires_grad_(False))
    SparsityPrior(model, omega=0.3).attach(optimizer)
    before = 0.5 if gradients == "there" else 0.0
    if before:
        for slope in (doubled, *others):
            slope.grad = torch.full_like(slope, before)
    expected = -0.5 * 0.3 * (1 - flat).rsqrt() + before  # all slopes are below 1
    expected[: doubled.numel()] += expected[: doubled.numel()] - before
    optimizer.step()
    parts = expected.split([own.parameter.numel() for own in slopes_of(model)])
    assert resting.grad is None
    for slope, part in zip((doubled, *others), (parts[0], *parts[2:]), strict=True):
        torch.testing.assert_close(slope.grad, part)


def test_frozen_slopes_stay_1_for_good_and_have_no_gradient() -> None:
    model = linearizable()
    set_slopes(model, 0.0, 0.5)
    slopes = [own.parameter for own in slopes_of(model)]
    prior = SparsityPrior(model, omega=1.0)
    with torch.no_grad():
        slopes[0][1] = 0.991
        slopes[1][0] = 1.009
        slopes[2][2] = 0.985
    prior.step()
    assert (slopes[0][1], slopes[1][0]) == (1, 1)
    assert slopes[2][2] == torch.tensor(0.985)
    assert prior.num_active == prior.num_units - 2
    with torch.no_grad():
        slopes[0][1] = 0.2  # an optimizer's momentum
        slopes[2][3] = 1.0  # by chance, not frozen yet
    gradients = torch.autograd.grad(prior.penalty(), slopes)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][1] == 0
    prior.step()
    assert slopes[0][1] == 1
    assert pathlen.measure(model, IMAGE).num_active == prior.num_active


@pytest.mark.parametrize("method", ["gradient", "proximal"])
@pytest.mark.parametrize("weights", ["count", "napl", "relu_calls"])
def test_it_linearizes(method: Any, weights: Any) -> None:
    model = linearizable()
    monitor = pathlen.DepthMonitor(model, IMAGE)
    prior = SparsityPrior(model, omega=1.0, weights=weights, method=method, monitor=monitor)
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-4), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = prior.penalty() + 0 * model(torch.ones(1, 3, 8, 8).repeat(2, 1, 1, 1)).sum()
        loss.backward()
        optimizer.step()
        prior.step(0.05)
    assert prior.num_active == 0
    assert monitor.update().normalized_average_path_length == 0


def test_weights_are_centralities_or_positions() -> None:
    model = linearizable()
    set_slopes(model, 0, 0)
    report = pathlen.measure(model, IMAGE)
    monitor = pathlen.DepthMonitor(model, IMAGE)
    shares = monitor.slope_centrality()
    for own in slopes_of(model):
        units = report.graph.units_of(own.name)
        np.testing.assert_allclose(
            shares[own.parameter_name].numpy(), report.centrality("normalized")[units]
        )
    slopes = [own.parameter for own in slopes_of(model)]
    for weights, expected in (
        ("napl", torch.cat([shares[own.parameter_name] for own in slopes_of(model)])),
        (
            "relu_calls",
            torch.cat([torch.full((len(o.parameter),), o.positions) for o in slopes_of(model)]),
        ),
    ):
        prior = SparsityPrior(model, omega=1.0, p=1.0, weights=weights, monitor=monitor)
        gradient = torch.cat(torch.autograd.grad(prior.penalty(), slopes))
        scaled = expected.double() / expected.double().mean()
        torch.testing.assert_close(-gradient.double(), scaled, rtol=1e-6, atol=1e-6)


def test_the_state_continues_where_it_was() -> None:
    model = linearizable()
    set_slopes(model, 0.0, 1.1)
    prior = SparsityPrior(model, omega=0.2, threshold=0.2)
    other = SparsityPrior(copy.deepcopy(model), omega=0.7, threshold=0.2)
    other.load_state_dict(prior.state_dict())
    assert other.num_active == prior.num_active < prior.num_units
    assert other.omega == 0.2
    small = SparsityPrior(make_linearizable(CifarResNet(14, width=4), IMAGE), omega=1)
    with pytest.raises(PathlenError, match="other slopes"):
        small.load_state_dict(prior.state_dict())


def test_active_relu_calls() -> None:
    model = linearizable()
    prior = SparsityPrior(model, omega=1.0)
    assert prior.active_relu_calls == 4 * 64 * 3 + 8 * 16 * 2 + 16 * 4 * 2
    with torch.no_grad():
        slopes_of(model)[0].parameter[0] = 1
    prior.step()
    assert prior.active_relu_calls == 4 * 64 * 3 + 8 * 16 * 2 + 16 * 4 * 2 - 64


def test_groups_keep_slopes_from_decaying() -> None:
    model = linearizable()
    rest, slopes = parameter_groups(model, 5e-4, slope_learning_rate=0.1)
    assert (rest["weight_decay"], slopes["weight_decay"], slopes["lr"]) == (5e-4, 0.0, 0.1)
    every = [id(p) for p in (*rest["params"], *slopes["params"])]
    assert sorted(every) == sorted(id(p) for p in model.parameters())
    with pytest.warns(UserWarning, match=r"activation\.slope"):
        warn_of_decay(model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_decay(model, torch.optim.AdamW(parameter_groups(model, 1e-2)))


def test_schedules() -> None:
    assert constant(0.3)(7, 5) == 0.3
    rising = ramp(1.0, 4)
    assert [rising(step, 9) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    grow = GrowUntilFalling(1.0, factor=2.0, patience=3)
    found = [grow(step, active) for step, active in enumerate([9, 9, 9, 9, 9, 8, 8, 8, 8])]
    assert found == [1, 1, 1, 2, 2, 2, 2, 2, 4]
    other = GrowUntilFalling(1.0, factor=2.0, patience=3)
    other.load_state_dict(grow.state_dict())
    assert other(9, 8) == grow(9, 8)
    for wrong in ((0.0, 2.0, 3), (1.0, 1.0, 3), (1.0, 2.0, 0)):
        with pytest.raises(PathlenError):
            GrowUntilFalling(*wrong)
    with pytest.raises(PathlenError):
        ramp(1.0, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"omega": -1}, "omega"),
        ({"omega": float("nan")}, "omega"),
        ({"p": 2}, "p=2"),
        ({"threshold": 1}, "threshold"),
        ({"weights": "flops"}, "weights"),
        ({"method": "adam"}, "method"),
        ({"method": "proximal", "p": 0.7}, "proximal"),
        ({"weights": "napl"}, "DepthMonitor"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(PathlenError, match=said):
        SparsityPrior(linearizable(), **{"omega": 1.0, **given})


def test_models_without_slopes_and_slopes_without_values_are_refused() -> None:
    with pytest.raises(PathlenError, match="make_linearizable"):
        SparsityPrior(CifarResNet(8, width=4), omega=1.0)
    model = linearizable()
    prior = SparsityPrior(model, omega=1.0)
    with torch.no_grad():
        slopes_of(model)[1].parameter[0] = float("nan")
    with pytest.raises(ActivityError, match=r"activation1\.slope"):
        prior.step()
