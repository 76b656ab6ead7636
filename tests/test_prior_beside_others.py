"""A prior beside what it does not know of: other priors, optimizers around optimizers, new slopes.

Each of these counted something twice, or did nothing, without a word.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import MonitorError, PathlenError
from pathlen.training import (
    Plan,
    SparsityPrior,
    Target,
    copy_frozen_slopes,
    make_linearizable,
    parameter_groups,
    slopes_of,
)
from pathlen.training.baselines.chance import RandomUnits

EXAMPLE = torch.zeros(1, 4)
RATE, OMEGA = 0.1, 0.4


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


def network() -> nn.Module:
    return make_linearizable(plain(), EXAMPLE)


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameter_groups(model, 0.0), lr=RATE, **options)


def train(model: nn.Module, optimizer: Any, steps: int, sign: float = 1.0) -> None:
    torch.manual_seed(1)
    x, y = torch.randn(16, 4), torch.randint(0, 2, (16,))
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * nn.functional.cross_entropy(model(x), y)).backward()
        optimizer.step()


def active(model: nn.Module) -> int:
    return pathlen.measure(model, EXAMPLE).num_active


# ------------------------------------------------------------------ counted once


def test_a_second_prior_takes_the_place_of_the_first() -> None:
    """As where a cell of a notebook is run again: slopes at 0 move by RATE * OMEGA / 2 once."""
    model = network()
    optimizer = sgd(model)
    first = SparsityPrior(model, omega=OMEGA)
    first.attach(optimizer)
    second = SparsityPrior(model, omega=OMEGA)
    with pytest.warns(UserWarning, match="two penalties would add up"):
        second.attach(optimizer)
    assert not first.is_attached
    assert second.is_attached
    optimizer.step()
    for own in slopes_of(model):
        torch.testing.assert_close(
            own.parameter.detach(), torch.full_like(own.parameter, RATE * OMEGA / 2)
        )


@pytest.mark.parametrize("by_penalty", [True, False], ids=["in the loss", "by step"])
def test_a_prior_by_hand_takes_the_place_of_one_that_is_attached(by_penalty: bool) -> None:
    """As where the cell that is run again has a loop by hand: the penalty counts once."""
    model = network()
    optimizer = sgd(model)
    first = SparsityPrior(model, omega=OMEGA)
    first.attach(optimizer)
    second = SparsityPrior(model, omega=OMEGA)
    with torch.no_grad():
        second.penalty()  # to look at it takes no place
    assert first.is_attached
    use = second.penalty().backward if by_penalty else second.step
    with pytest.warns(UserWarning, match="used by hand now; it is detached"):
        use()
    assert not first.is_attached
    if not by_penalty:
        second.penalty().backward()
    optimizer.step()
    second.step()
    for own in slopes_of(model):
        torch.testing.assert_close(
            own.parameter.detach(), torch.full_like(own.parameter, RATE * OMEGA / 2)
        )


def test_what_is_attached_to_an_optimizer_that_is_gone_is_nothing_to_warn_of() -> None:
    model = network()
    optimizer = sgd(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # a cycle
    SparsityPrior(model, omega=OMEGA).attach(optimizer)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    SparsityPrior(copies[0], omega=OMEGA).step()
    SparsityPrior(copies[1], omega=OMEGA).step()
    del optimizer
    prior = SparsityPrior(model, omega=OMEGA)
    prior.penalty().backward()
    prior.step()


def test_priors_of_two_models_share_an_optimizer() -> None:
    models = [network(), network()]
    groups = [group for model in models for group in parameter_groups(model, 0.0)]
    optimizer = torch.optim.SGD(groups, lr=RATE)
    priors = [SparsityPrior(model, omega=OMEGA) for model in models]
    for prior in priors:
        prior.attach(optimizer)
    assert all(prior.is_attached for prior in priors)


@pytest.mark.parametrize("make", [SparsityPrior, RandomUnits], ids=["prior", "baseline"])
def test_a_step_by_hand_is_not_counted_beside_an_attached_one(make: Any) -> None:
    """The plan is half done after half of its steps, by hand or not."""
    plan = Plan(Target("units", 0), steps=12, end=1.0)
    model = network()
    linearizer = make(model, **({"omega": OMEGA} if make is SparsityPrior else {}), plan=plan)
    optimizer = sgd(model)
    linearizer.attach(optimizer)
    for _ in range(6):
        train(model, optimizer, 1)
        linearizer.step()
    assert linearizer.num_active == active(model) == 6
    assert linearizer.state_dict()["step"] == 6


def test_an_optimizer_that_goes_up() -> None:
    """The objective is maximized, and the penalty falls all the same."""
    models = [network(), network()]
    down, up = sgd(models[0]), sgd(models[1], maximize=True)
    for model, optimizer, sign in zip(models, (down, up), (1.0, -1.0), strict=True):
        SparsityPrior(model, omega=OMEGA).attach(optimizer)
        train(model, optimizer, 10, sign)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)
    first, second = (own.parameter for own in slopes_of(models[0]))
    groups = [{"params": [first]}, {"params": [second], "maximize": True}]
    SparsityPrior(models[0], omega=OMEGA).attach(mixed := torch.optim.SGD(groups, lr=RATE))
    with pytest.raises(PathlenError, match="put them into one group"):
        mixed.step()


# ------------------------------------------------------------------ optimizers around optimizers


class TwoSteps(torch.optim.Optimizer):
    """As SAM is mostly written: steps up, and back with the gradient from there."""

    def __init__(self, params: Any, radius: float = 0.05) -> None:
        super().__init__(params, {"lr": RATE})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=RATE)
        self.param_groups = self.base_optimizer.param_groups
        self._radius, self._old = radius, {}

    def _parameters(self) -> list[Any]:
        return [own for group in self.param_groups for own in group["params"]]

    @torch.no_grad()
    def first_step(self) -> None:
        for own in self._parameters():
            self._old[own] = own.data.clone()
            own.add_(own.grad, alpha=self._radius)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for own in self._parameters():
            own.data = self._old[own]
        self.base_optimizer.step()
        self.zero_grad()


def test_two_steps_in_one() -> None:
    """Slopes of a network that does not depend on them: the recurrence of gradient descent."""
    model = network()
    optimizer = TwoSteps(parameter_groups(model, 0.0))
    prior = SparsityPrior(model, omega=OMEGA)
    prior.attach(optimizer)
    expected = 0.0
    for _ in range(5):
        for step in (optimizer.first_step, optimizer.second_step):
            (0.0 * model(torch.ones(2, 4)).sum()).backward()
            step()
        expected += RATE * OMEGA / (2 * math.sqrt(1 - expected))
    for own in slopes_of(model):
        torch.testing.assert_close(own.parameter.detach(), torch.full_like(own.parameter, expected))


class Lookahead:
    """Every few steps, weights go back to the middle between two places."""

    def __init__(self, inner: torch.optim.Optimizer, by_data: bool) -> None:
        self.inner, self._count, self._by_data = inner, 0, by_data
        self._fast = [own for group in inner.param_groups for own in group["params"]]
        self._slow = [own.detach().clone() for own in self._fast]

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.inner.step()
        self._count += 1
        if self._count % 5:
            return
        for fast, slow in zip(self._fast, self._slow, strict=True):
            slow.lerp_(fast, 0.5)
            (fast.data if self._by_data else fast).copy_(slow)


@pytest.mark.parametrize("by_data", [False, True])
def test_lookahead_is_told_of_and_there_is_a_way(by_data: bool) -> None:
    model = network()
    optimizer = Lookahead(sgd(model), by_data)
    prior = SparsityPrior(model, omega=1.0)
    prior.attach(optimizer)
    with pytest.warns(UserWarning, match=r"moved slopes that are linear for good.*call step\(\)"):
        train(model, optimizer, 40)
    assert prior.num_active < active(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            train(model, optimizer, 1)
            prior.step()
    assert prior.num_active == active(model) < 12


def test_an_optimizer_that_makes_no_step_is_told() -> None:
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    idle, optimizer = sgd(model), sgd(model)
    prior.attach(idle)
    for _ in range(9):
        train(model, optimizer, 1)
        prior.step()
    with pytest.warns(UserWarning, match="has made no step"):
        prior.step()


def test_weight_decay_that_comes_with_a_state_is_told() -> None:
    model = network()
    optimizer = sgd(model)
    SparsityPrior(model, omega=OMEGA).attach(optimizer)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["weight_decay"] = 0.5
    with pytest.warns(UserWarning, match=r"weight decay pulls 2 slope\(s\)"):
        optimizer.load_state_dict(state)


def test_slopes_that_rest_on_purpose_are_nothing_to_warn_of() -> None:
    """Warnings are errors here: ten steps without a move, with a strength of 0, had one."""
    model = network()
    slopes = [own.parameter.requires_grad_(False) for own in slopes_of(model)]
    prior = SparsityPrior(model, omega=0.0)
    optimizer = sgd(model)
    prior.attach(optimizer)
    train(model, optimizer, 12)
    for slope in slopes:
        slope.requires_grad_(True)
    prior.omega = 1.0
    train(model, optimizer, 30)
    assert prior.num_active < 12


def test_slopes_without_values_are_told() -> None:
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    model.to("meta")
    for make in (prior.step, lambda: SparsityPrior(model, omega=OMEGA)):
        with pytest.raises(PathlenError, match="meta device"):
            make()


def test_averages_that_hold_the_model_itself() -> None:
    """As that of ema-pytorch does."""
    model = network()
    average = nn.ModuleDict({"online_model": model, "ema_model": copy.deepcopy(model)})
    slopes_of(model)[0].parameter.data.fill_(1.0)
    copy_frozen_slopes(model, average)
    first, second = (own.parameter for own in slopes_of(average["ema_model"]))
    assert first.eq(1).all()
    assert second.eq(0).all()
    for nothing in (None, [own.detach() for own in model.parameters()]):
        with pytest.raises(PathlenError, match="no average of the model"):
            copy_frozen_slopes(model, nothing)  # type: ignore[arg-type]


# ------------------------------------------------------------------ other slopes than before


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("part", ["the model", "a part of it"])
def test_slopes_that_are_added_later_are_told(attached: bool, part: str) -> None:
    model = nn.Sequential(plain(), nn.Linear(2, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 1)))
    first, second = (model, model) if part == "the model" else (model[0], model[2])
    make_linearizable(first, EXAMPLE, only="*1")
    monitor = pathlen.DepthMonitor(model, EXAMPLE)
    prior = SparsityPrior(model, omega=OMEGA)
    optimizer = sgd(model)
    if attached:
        prior.attach(optimizer)
    optimizer.step()
    make_linearizable(second, EXAMPLE)
    for step in (optimizer.step if attached else prior.step, prior.penalty):
        with pytest.raises(PathlenError, match=r"was given \d more parameters of slopes"):
            step()
    with pytest.raises(MonitorError, match="make_linearizable adds slopes"):
        monitor.update()


def test_other_parameters_may_come_and_go() -> None:
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    model.register_parameter("extra", nn.Parameter(torch.zeros(3)))
    prior.step()
    del model.extra
    prior.step()


def test_an_activation_that_was_replaced_is_told() -> None:
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    model[1] = nn.ReLU()
    with pytest.raises(PathlenError, match=r"no slopes 1\.slope any more"):
        prior.step()


# ------------------------------------------------------------------ what is no argument


@pytest.mark.parametrize(
    "options",
    [
        {"target": "50 %"},
        {"plan": Target("units", 3)},
        {"monitor": "napl", "weights": "napl"},
        {"omega": "1"},
        {"omega": None},
        {"omega": True},
        {"p": "0.5"},
        {"threshold": [0.1]},
    ],
    ids=str,
)
def test_no_arguments_of_a_prior(options: Any) -> None:
    with pytest.raises(PathlenError, match=f"{next(iter(options))}=.* is no "):
        SparsityPrior(network(), **{"omega": 1.0, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"steps": math.nan},
        {"steps": math.inf},
        {"steps": 1.5},
        {"steps": "3"},
        {"begin": "0"},
        {"seed": 1.5},
        {"seed": 2**70},
        {"target": "50 %"},
    ],
    ids=str,
)
def test_no_arguments_of_a_plan(options: Any) -> None:
    """A plan of NaN steps never came to its first."""
    with pytest.raises(PathlenError, match=f"{next(iter(options))}=.* is no "):
        Plan(**{"target": Target("units", 3), "steps": 10, **options})


@pytest.mark.parametrize("value", [None, [3], True])
def test_no_values_of_a_target(value: Any) -> None:
    with pytest.raises(PathlenError, match="is no number"):
        Target("units", value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("omega", "high"),
        ("omega", math.nan),
        ("step", -5),
        ("step", math.nan),
        ("frozen", [1, 2]),
        ("resting", 3),
    ],
)
def test_a_state_that_is_refused_changes_nothing(key: str, value: Any) -> None:
    model = network()
    optimizer = sgd(model)
    prior = SparsityPrior(model, omega=1.0)
    prior.attach(optimizer)
    train(model, optimizer, 30)
    assert prior.num_active < 12
    fresh = network()
    other = SparsityPrior(fresh, omega=0.25)
    before, weights = other.state_dict(), copy.deepcopy(fresh.state_dict())
    with pytest.raises(PathlenError, match="state"):
        other.load_state_dict({**prior.state_dict(), key: value})
    assert str(other.state_dict()) == str(before)
    assert str(fresh.state_dict()) == str(weights)
