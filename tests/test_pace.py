"""The prior with a plan: what is drawn to 1, what is frozen, and when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pathlen
from pathlen import DepthMonitor
from pathlen.errors import PathlenError
from pathlen.training import CifarResNet, Plan, SparsityPrior, Target, make_linearizable, slopes_of

IMAGE = torch.zeros(1, 3, 8, 8)
STEPS = 60


def slopes(model: nn.Module) -> list[nn.Parameter]:
    return [own.parameter for own in slopes_of(model)]


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([slope.detach().reshape(-1) for slope in slopes(model)])


def model_with(seed: int = 1, width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    model = make_linearizable(CifarResNet(8, width=width), IMAGE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for slope in slopes(model):
            slope.uniform_(-0.3, 0.3, generator=generator)
    return model


def paced(
    model: nn.Module, target: Target, method: Any = "proximal", **given: float
) -> SparsityPrior:
    monitor = DepthMonitor(model, IMAGE)
    plan = Plan(target, STEPS, **given)  # type: ignore[arg-type]
    return SparsityPrior(model, omega=20.0, method=method, monitor=monitor, plan=plan)


def descend(model: nn.Module, prior: SparsityPrior) -> None:
    """A step of gradient descent on the penalty alone."""
    for slope in slopes(model):
        slope.grad = None
    penalty = prior.penalty()
    if penalty.requires_grad:
        penalty.backward()
        with torch.no_grad():
            for slope in slopes(model):
                slope -= 0.02 * slope.grad
    prior.step(0.02)


@pytest.mark.parametrize("quantity", ["napl", "units"])
def test_the_quantity_comes_down_on_the_line_and_never_below_it(quantity: str) -> None:
    model = model_with()
    measured = {
        "napl": lambda: pathlen.measure(model, IMAGE).normalized_average_path_length,
        "units": lambda: pathlen.measure(model, IMAGE).num_active,
    }[quantity]
    whole = measured()
    goal = 0.3 * whole
    prior = paced(model, Target(quantity, goal), begin=0.2, end=0.8, ahead=0.3)  # type: ignore[arg-type]
    found = []
    for step in range(1, STEPS + 1):
        descend(model, prior)
        found.append(measured())
        share = min(1.0, max(0.0, (step / STEPS - 0.2) / 0.6))
        spare = 0.02 * goal if share == 1 else 1e-6 * whole  # a target is met within 2 %
        assert found[-1] >= whole - share * (whole - goal) - spare
    assert found[STEPS // 5 - 1] == pytest.approx(whole)
    assert abs(found[STEPS // 2 - 1] - (whole + goal) / 2) < 0.1 * whole
    assert found[-1] == pytest.approx(goal, rel=0.02)
    assert prior.progress is not None
    assert prior.progress.reached
    assert prior.penalty() == 0


def test_only_the_slopes_that_are_due_soon_are_drawn() -> None:
    model = model_with()
    target = Target("units", 20)
    prior = paced(model, target, "gradient", begin=0.0, end=1.0, ahead=0.25)
    prior.penalty().backward()
    gradient = torch.cat([slope.grad.reshape(-1) for slope in slopes(model)])
    values = flat(model)
    soon = int((len(values) - 20) * 0.25)
    nearest = sorted(range(len(values)), key=lambda unit: -float(values[unit]))[:soon]
    assert gradient.nonzero().squeeze(1).tolist() == sorted(nearest)
    expected = 20.0 * (1 - values[nearest]).sqrt().sum()
    torch.testing.assert_close(prior.penalty().detach(), expected)


def test_slopes_that_are_near_before_they_are_due_wait() -> None:
    model = model_with()
    prior = paced(model, Target("units", 0), end=1.0)
    with torch.no_grad():
        for slope in slopes(model):
            slope.fill_(1.0)
    assert prior.num_active == prior.num_units
    for step in range(1, STEPS + 1):
        prior.step()
        due = int(prior.num_units * step / STEPS + 1e-9)
        assert prior.num_active == prior.num_units - due
    assert pathlen.measure(model, IMAGE).normalized_average_path_length == 0


def test_the_state_goes_on_with_the_plan() -> None:
    one, other = model_with(), model_with()
    first = paced(one, Target("napl", 1.0))
    for _ in range(20):
        descend(one, first)
    state, weights = first.state_dict(), {k: v.clone() for k, v in one.state_dict().items()}
    other.load_state_dict(weights)
    second = paced(other, Target("napl", 1.0))
    other.load_state_dict(weights)
    second.load_state_dict(state)
    for _ in range(20):
        descend(one, first)
        descend(other, second)
        assert torch.equal(flat(one), flat(other))
    assert first.num_active == second.num_active < first.num_units


def test_a_plan_and_a_target_are_one_too_many() -> None:
    model = model_with()
    target = Target("units", 4)
    with pytest.raises(PathlenError, match="give one of target and plan"):
        SparsityPrior(model, omega=1.0, target=target, plan=Plan(target, 10))
    for wrong in ({"steps": 0}, {"begin": 0.9}, {"ahead": -0.1}):
        with pytest.raises(PathlenError):
            Plan(**{"target": target, "steps": 10} | wrong)  # type: ignore[arg-type]


def test_a_prior_that_goes_on_freezes_no_more_than_it_had() -> None:
    """A target is reached within 2 %; then nothing is frozen, by a prior of that state either."""
    model = model_with(width=16)
    target = Target("units", 200)  # of 240
    prior = paced(model, target)
    while not (prior.progress and prior.progress.reached):
        descend(model, prior)
    assert prior.progress.value > target.value  # so that there was room for more
    with torch.no_grad():
        for slope in slopes(model):
            slope[slope != 1] = 0.0
    for _ in range(STEPS):  # as in a phase after this one, where slopes stay away from 1
        prior.step()
    before, active = flat(model), prior.num_active
    again = paced(model, target)
    again.load_state_dict(prior.state_dict())
    assert again.num_active == active
    assert torch.equal(flat(model), before)
