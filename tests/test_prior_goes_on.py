"""What a prior does when it meets another model than it left: linear, dense, or resumed."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import pathlen
from pathlen import DepthMonitor
from pathlen.errors import ActivityError, PathlenError
from pathlen.training import (
    Plan,
    Progress,
    SparsityPrior,
    Target,
    make_linearizable,
    parameter_groups,
    slopes_of,
)
from pathlen.training.baselines.chance import RandomUnits

EXAMPLE = torch.zeros(1, 4)


def network() -> nn.Module:
    """Two hidden layers: 8 + 6 units, all of them active."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 2))
    return make_linearizable(model, EXAMPLE)


def linearize(model: nn.Module, number: int, value: float = 1.0) -> nn.Module:
    """Make the first units linear."""
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter[: max(0, number)] = value
            number -= own.parameter.numel()
    return model


def active(model: nn.Module) -> int:
    return pathlen.measure(model, EXAMPLE).num_active


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# ------------------------------------------------------------------ linear models stay linear

GOALS: dict[str, dict[str, Any]] = {
    "none": {},
    "target": {"target": Target("units", 2)},
    "target above": {"target": Target("units", 8)},
    "target of depth": {"target": Target("napl", 0.25)},
    "plan": {"plan": Plan(Target("units", 2), steps=100)},
    "plan above": {"plan": Plan(Target("units", 8), steps=100, begin=0.5, end=0.9)},
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("value", [1.0, 0.995, 1.005])
@pytest.mark.parametrize("method", ["gradient", "proximal"])
def test_what_is_linear_stays_linear(goal: str, value: float, method: Any) -> None:
    model = linearize(network(), 11, value)
    assert active(model) == 3
    monitor = DepthMonitor(model, EXAMPLE)
    prior = SparsityPrior(model, omega=0.1, method=method, monitor=monitor, **GOALS[goal])
    assert active(model) == prior.num_active == 3
    if prior.progress is not None and prior.progress.target.quantity == "units":
        assert prior.progress.value == 3
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.05, momentum=0.9)
    prior.attach(optimizer)
    for _ in range(5):
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert active(model) == prior.num_active <= 3


@pytest.mark.parametrize("goal", ["none", "target", "plan above"])
@pytest.mark.parametrize("assign", [False, True])
def test_so_does_what_is_linear_in_weights_that_are_loaded(goal: str, assign: bool) -> None:
    model, linear = network(), linearize(network(), 11)
    prior = SparsityPrior(model, omega=0.1, **GOALS[goal])
    model.load_state_dict(state_of(linear), assign=assign)
    assert prior.num_active == 3  # at once
    prior.penalty()
    prior.step()
    assert active(model) == prior.num_active == 3


def test_baselines_count_what_is_linear_and_leave_it() -> None:
    model = linearize(network(), 11)
    baseline = RandomUnits(model, Plan(Target("units", 1), steps=10))
    assert baseline.num_active == baseline.progress.value == 3
    baseline.step()
    assert active(model) == 3


def test_units_that_are_held_off_are_active_for_whoever_measures() -> None:
    """Also where the threshold is smaller than what counts as linear, or rounding would hide it."""
    for dtype, threshold in ((torch.float32, 0.0), (torch.float16, 1e-5), (torch.bfloat16, 0.003)):
        model = network().to(dtype)
        prior = SparsityPrior(model, omega=0.1, threshold=threshold, target=Target("units", 7))
        linearize(model, 14)
        prior.step()
        slopes = torch.cat([own.parameter.detach() for own in slopes_of(model)]).float()
        assert int(((1 - slopes).abs() > 0.01).sum()) == prior.num_active == 7


# ------------------------------------------------------------------ weights that are not linear


def step(model: nn.Module, prior: SparsityPrior, how: str) -> None:
    """A step as the documentation has it: attached, with the penalty in the loss, or proximal."""
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.5)
    if how == "attached":
        prior.attach(optimizer)
    loss = model(torch.randn(3, 4)).sum()
    (loss + prior.penalty() if how == "in the loss" else loss).backward()
    optimizer.step()
    if how != "attached":
        prior.step(0.5)


@pytest.mark.parametrize("how", ["attached", "in the loss", "after the step"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_dense_weights_are_not_overwritten_without_a_word(how: str, wrapped: bool) -> None:
    model = network()
    dense = state_of(model)
    prior = SparsityPrior(linearize(model, 5), omega=0.001)
    assert prior.num_active == 9
    loads = nn.ModuleDict({"net": model}) if wrapped else model
    loads.load_state_dict({f"net.{k}" if wrapped else k: v for k, v in dense.items()})
    with pytest.raises(
        PathlenError, match=r"5 unit\(s\) are not linear.* 1\.slope\[0\] = 0, "
    ) as e:
        step(model, prior, how)
    for way in ("prior.load_state_dict", "new SparsityPrior"):
        assert way in str(e.value)


@pytest.mark.parametrize("how", ["attached", "in the loss", "after the step"])
def test_the_ways_out_that_the_error_names(how: str) -> None:
    model = network()
    prior = SparsityPrior(model, omega=0.001, threshold=0.0)
    dense, at_first = state_of(model), copy.deepcopy(prior.state_dict())
    linearize(model, 5)
    prior.step()
    for order in (0, 1):  # weights and the state that was saved with them, in either order
        for load in (model.load_state_dict, prior.load_state_dict)[:: 1 - 2 * order]:
            load(dense if load == model.load_state_dict else at_first)  # type: ignore[operator]
        step(model, prior, how)
        assert active(model) == prior.num_active == 14
        linearize(model, 5)
        prior.step()
    model.load_state_dict(dense)  # a new prior
    again = SparsityPrior(model, omega=0.001)
    step(model, again, how)
    assert active(model) == again.num_active == 14
    with pytest.raises(PathlenError, match=r"5 unit\(s\)"):
        prior.step()
    prior.load_state_dict(prior.state_dict())  # the same units in those weights
    step(model, prior, how)
    assert active(model) == prior.num_active == 9


def test_a_repr_and_numbers_are_there_while_weights_do_not_fit() -> None:
    model = network()
    dense = state_of(model)
    prior = SparsityPrior(linearize(model, 5), omega=0.001)
    model.load_state_dict(dense)
    assert "9 of 14 units active" in repr(prior)
    assert prior.num_active == 9


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weights_of_the_same_time_are_no_matter(momentum: float) -> None:
    """Also after a step so large that frozen slopes are far from 1 when the prior looks."""
    model = linearize(network(), 5)
    prior = SparsityPrior(model, omega=0.001, method="proximal")
    model.load_state_dict(state_of(model))
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=5.0, momentum=momentum)
    model(torch.randn(9, 4)).sum().backward()
    optimizer.step()
    assert float((1 - model[1].slope.detach()[:5]).abs().max()) > 0.05
    prior.step(5.0)
    assert prior.num_active == active(model) <= 9


def test_hooks_go_with_the_prior_and_copies_have_their_own() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.PReLU(8), nn.Linear(8, 2))
    dense = state_of(model)
    prior = SparsityPrior(linearize(model, 5), omega=0.001)
    other = copy.deepcopy(model)
    other.load_state_dict(dense)
    prior.step()  # it is of the first
    pickle.loads(pickle.dumps(model)).load_state_dict(dense)
    prior.step()
    number = len(model[1]._load_state_dict_post_hooks)
    del prior
    assert len(model[1]._load_state_dict_post_hooks) == number - 1 == 0


# ------------------------------------------------------------------ what switches a prior off


@pytest.mark.parametrize("part", ["model", "layer"])
def test_slopes_that_are_not_trained_are_told(part: str) -> None:
    model = network()
    prior = SparsityPrior(model, omega=0.1)
    (model if part == "model" else model[3]).requires_grad_(False)
    said = "2 of the slopes" if part == "model" else r"1 of the slopes .*\(3\.slope\)"
    with pytest.raises(PathlenError, match=rf"{said}.*do not require gradients|{said}"):
        prior.penalty()
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.1)
    prior.attach(optimizer)
    with pytest.raises(PathlenError, match="do not require gradients"):
        optimizer.step()
    prior.omega = 0.0  # resting on purpose
    assert prior.penalty() == 0
    prior.omega = 0.1
    linearize(model, 14)
    prior.step()
    assert prior.penalty() == 0  # nothing is left to be trained


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("goal", ["none", "target", "plan"])
def test_slopes_that_are_no_numbers_are_told_with_their_place(value: float, goal: str) -> None:
    model = network()
    prior = SparsityPrior(model, omega=0.1, **GOALS[goal])
    baseline = RandomUnits(model, Plan(Target("units", 1), steps=10))
    with torch.no_grad():
        model[3].slope[4] = value
    for one in (prior, baseline):
        with pytest.raises(ActivityError, match=rf"slopes are NaN.*3\.slope\[4\] = {value}"):
            one.step()
    with pytest.raises(ActivityError, match=r"3\.slope\[4\]"):
        SparsityPrior(model, omega=0.1)


def test_slopes_that_no_optimizer_moves_are_told() -> None:
    model = network()
    prior = SparsityPrior(model, omega=0.1)
    slopes = {id(own.parameter) for own in slopes_of(model)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in slopes]
    optimizer = torch.optim.SGD(rest, lr=0.1)

    def go(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            (model(torch.ones(1, 4)).sum() * 0 + prior.penalty()).backward()
            optimizer.step()
            prior.step()

    go(9)
    with pytest.warns(UserWarning, match="no optimizer has moved the slopes in the last 10 steps"):
        go(1)
    go(20)  # once is enough
    assert prior.num_active == 14
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # a warmup: the slopes are written
    again = prior = SparsityPrior(model, omega=0.1)
    go(20)
    for _ in range(20):  # nothing was asked for
        again.step()


class Squared(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def test_slopes_that_are_computed_are_refused() -> None:
    model = network()
    prior = SparsityPrior(model, omega=0.1)
    parametrize.register_parametrization(model[1], "slope", Squared())
    for ask in (
        prior.penalty,
        prior.step,
        lambda: SparsityPrior(model, omega=0.1),
        lambda: parameter_groups(model, 0.0),
    ):
        with pytest.raises(PathlenError, match=r"'1\.slope' are no parameter.*parametrize"):
            ask()
    parametrize.remove_parametrizations(model[1], "slope")
    prior.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(1, 70_000), nn.PReLU(70_000, init=0.0), nn.Linear(70_000, 1))
    model = model.to(dtype)
    penalty = SparsityPrior(model, omega=2.0).penalty()
    assert float(penalty.detach()) == 140_000
    penalty.backward()
    assert torch.equal(model[1].weight.grad, torch.full((70_000,), -1.0, dtype=dtype))


def test_a_model_in_another_precision_is_followed() -> None:
    model = linearize(network(), 5)
    prior = SparsityPrior(model, omega=0.1, target=Target("units", 4))
    model.to(torch.bfloat16)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.5)
    prior.attach(optimizer)
    optimizer.step()
    assert prior.num_active == 9
    assert all(bool(own.parameter.isfinite().all()) for own in slopes_of(model))


# ------------------------------------------------------------------ the whole state


def made(model: nn.Module, **options: Any) -> SparsityPrior:
    given = {"omega": 0.1, "monitor": DepthMonitor(model, EXAMPLE), **options}
    return SparsityPrior(model, **given)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "target_value": ({"target": Target("units", 7)}, {"target": Target("units", 4)}),
    "target": ({"target": Target("units", 1)}, {"target": Target("napl", 1)}),
    "target ": ({"target": Target("units", 7)}, {}),
    "plan_steps": (
        {"plan": Plan(Target("units", 7), 10)},
        {"plan": Plan(Target("units", 7), 20)},
    ),
    "plan_end": (
        {"plan": Plan(Target("units", 7), 10)},
        {"plan": Plan(Target("units", 7), 10, end=0.9)},
    ),
    "plan_seed": (
        {"plan": Plan(Target("units", 7), 10)},
        {"plan": Plan(Target("units", 7), 10, seed=1)},
    ),
    "plan_steps ": ({"plan": Plan(Target("units", 7), 10)}, {"target": Target("units", 7)}),
    "p": ({"p": 0.5}, {"p": 1.0}),
    "threshold": ({"threshold": 0.01}, {"threshold": 0.02}),
    "weights": ({"weights": "count"}, {"weights": "napl"}),
    "method": ({"method": "gradient"}, {"method": "proximal"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_another_prior_is_refused(name: str) -> None:
    one, other = OTHERS[name]
    state = made(network(), **one).state_dict()
    model = network()
    wrong = made(model, **other)
    with pytest.raises(PathlenError, match=rf"made in another way: .*{name.strip()} is "):
        wrong.load_state_dict(state)
    assert wrong.num_active == 14
    made(network(), **one).load_state_dict(state)


def test_a_state_without_what_it_needs_is_refused() -> None:
    prior = made(network())
    for state in ({}, {"omega": 0.1, "step": 3, "frozen": prior.state_dict()["frozen"]}):
        with pytest.raises(PathlenError, match=r"no state of a prior .*'settings'"):
            prior.load_state_dict(state)


def test_baselines_hold_their_target_too() -> None:
    state = RandomUnits(network(), Plan(Target("units", 7), 10)).state_dict()
    with pytest.raises(PathlenError, match=r"target_value is 5\.0 here and 7\.0 in the state"):
        RandomUnits(network(), Plan(Target("units", 5), 10)).load_state_dict(state)


@pytest.mark.parametrize("quantity", ["units", "napl", "relu_calls"])
def test_shares_are_of_the_network_with_all_units_active(quantity: Any) -> None:
    """However many are linear, and whenever the monitor was made."""
    whole = made(network(), target=Target(quantity, "100 %")).progress
    assert whole is not None
    report = pathlen.measure(network(), EXAMPLE)
    direct = {
        "units": report.num_active,
        "napl": report.normalized_average_path_length,
        "relu_calls": 14,
    }
    assert whole.target.value == pytest.approx(direct[quantity])
    for linear in (0, 3, 11):
        for text in ("50 %", "50%", " 50.0 % "):
            found = made(linearize(network(), linear), target=Target(quantity, text)).progress
            assert found is not None
            assert found.target.value == pytest.approx(direct[quantity] / 2)


def test_a_share_does_not_halve_again_on_resume() -> None:
    """The row of the issue: half of 14 units, stopped at 9, goes on to 7 and not to 4 or 5."""
    model = linearize(network(), 5)
    plan = Plan(Target("units", "50 %"), steps=10)
    prior = SparsityPrior(model, omega=0.1, plan=plan)
    weights, state = state_of(model), prior.state_dict()
    again = network()
    again.load_state_dict(weights)
    resumed = SparsityPrior(again, omega=0.1, plan=plan)
    resumed.load_state_dict(state)
    for _ in range(12):
        resumed.step()
    assert active(again) == resumed.num_active == 7
    half_of_what_is_left = SparsityPrior(again, omega=0.1, plan=Plan(Target("units", 3.5), 10))
    with pytest.raises(PathlenError, match=r"target_value is 3\.5 here and 7\.0 in the state"):
        half_of_what_is_left.load_state_dict(state)


@pytest.mark.parametrize("value", ["half", "50", "-50 %", "", math.inf, math.nan])
def test_no_targets(value: Any) -> None:
    with pytest.raises(PathlenError, match=r"share such as '50 %'|below 0"):
        Target("units", value)
    with pytest.raises(PathlenError, match="more than the model has"):
        SparsityPrior(network(), omega=1.0, target=Target("units", "150 %"))


@pytest.mark.parametrize("order", ["weights first", "state first"])
@pytest.mark.parametrize("stop", range(1, 30, 4))
def test_a_run_that_goes_on_is_the_same_bit_for_bit(order: str, stop: int) -> None:
    """With a plan that holds units off, momentum, and a loss that moves slopes back."""

    def begun() -> tuple[nn.Module, SparsityPrior, torch.optim.Optimizer]:
        model = linearize(network(), 2)
        plan = Plan(Target("units", "25 %"), steps=30, begin=0.1, end=0.8, ahead=0.5)
        prior = SparsityPrior(model, omega=0.05, plan=plan)
        optimizer = torch.optim.SGD(parameter_groups(model, 1e-3), lr=0.1, momentum=0.9)
        prior.attach(optimizer)
        return model, prior, optimizer

    def go(number: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(16, 4, generator=generator)
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
        optimizer.zero_grad()

    model, prior, optimizer = begun()
    saved: dict[str, Any] = {}
    for number in range(30):
        if number == stop:
            parts = {"model": model, "prior": prior, "optimizer": optimizer}
            saved = copy.deepcopy({name: part.state_dict() for name, part in parts.items()})
        go(number, model, optimizer)
    again, resumed, other = begun()
    names = ["model", "prior", "optimizer"]
    parts = {"model": again, "prior": resumed, "optimizer": other}
    for name in names if order == "weights first" else names[::-1]:
        parts[name].load_state_dict(saved[name])
    for number in range(stop, 30):
        go(number, again, other)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert prior.state_dict()["step"] == resumed.state_dict()["step"] == 30
    assert prior.num_active == resumed.num_active == active(model) < 14


# ------------------------------------------------------------------ what is said of a target


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7.25, "reached: napl 7.25, target 7.25"),
        (7.2, "reached: napl 7.2, target 7.25"),
        (7.375, "reached within 2 %: napl 7.375, target 7.25"),
    ],
)
def test_a_target_is_said_to_be_reached_as_near_as_it_is(value: float, said: str) -> None:
    assert str(Progress(Target("napl", 7.25), value, True, True)) == said
