"""Baselines: what they choose, that they reach their budget, and that it stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen.errors import ActivityError, PathlenError
from pathlen.training import (
    MLP,
    CifarResNet,
    SparsityPrior,
    Target,
    make_linearizable,
    parameter_groups,
    slopes_of,
)
from pathlen.training.baselines.base import Baseline
from pathlen.training.baselines.chance import RandomUnits
from pathlen.training.baselines.entropy import LowestEntropy, entropies
from pathlen.training.baselines.greedy import ByCentrality
from pathlen.training.baselines.layer_folding import FoldedLayers
from pathlen.training.baselines.magnitude import SmallestDistance
from pathlen.training.baselines.signs import SignCounter
from pathlen.training.baselines.snl import SelectiveLinearization
from pathlen.training.linearizer import Linearizer
from pathlen.training.targets import Plan, Quantity, ranked

IMAGE = torch.zeros(1, 3, 8, 8)
STEPS = 20


def resnet(granularity: Any = "channel") -> nn.Module:
    torch.manual_seed(0)
    return make_linearizable(CifarResNet(8, width=8), IMAGE, granularity=granularity)


def mlp(granularity: Any = "channel") -> nn.Module:
    torch.manual_seed(0)
    return make_linearizable(MLP(6, 4, width=8), torch.zeros(1, 6), granularity=granularity)


def counted(model: nn.Module, data: Tensor) -> Callable[[], Tensor]:
    def count() -> Tensor:
        counter = SignCounter(model)
        with torch.no_grad(), counter:
            model(data)
        return counter.counts

    return count


def entropy(model: nn.Module, plan: Plan, monitor: Any, **options: Any) -> LowestEntropy:
    count = counted(model, torch.randn(8, 3, 8, 8))
    return LowestEntropy(model, plan, monitor, count_signs=count, **options)


METHODS: dict[str, Callable[..., Baseline]] = {
    "random": RandomUnits,
    "magnitude": SmallestDistance,
    "snl": SelectiveLinearization,
    "layer_folding": FoldedLayers,
    "entropy": entropy,
    "greedy": ByCentrality,
}


def flat(model: nn.Module) -> Tensor:
    return torch.cat([own.parameter.detach().reshape(-1) for own in slopes_of(model)])


def quantity_of(model: nn.Module, quantity: Quantity, example: Tensor = IMAGE) -> float:
    """Measured on the model itself: a slope that is not 1 makes its unit active."""
    report = pathlen.measure(model, example)
    if quantity == "napl":
        return report.normalized_average_path_length
    if quantity == "units":
        return report.num_active
    return sum(own.positions * int((own.parameter != 1).sum()) for own in slopes_of(model))


def train(
    model: nn.Module, linearizer: Linearizer, steps: int, data: Tensor, lr: float = 0.05
) -> None:
    """Steps on labels that depend on the inputs."""
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-4), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(data)
        labels = data.flatten(1)[:, : output.shape[1]].argmax(1)
        (functional.cross_entropy(output, labels) + linearizer.penalty()).backward()
        optimizer.step()
        linearizer.step(lr)


CASES = [(name, "napl", 0.25) for name in METHODS]
CASES += zip(METHODS, 3 * ["units", "relu_calls"], [0.5, 0.5, 0, 0, 1, 0.9], strict=True)


@pytest.mark.parametrize(("name", "quantity", "share"), CASES)
def test_the_budget_is_reached_and_kept(name: str, quantity: Quantity, share: float) -> None:
    model = resnet()
    goal = share * quantity_of(model, quantity)
    monitor = pathlen.DepthMonitor(model, IMAGE)
    baseline = METHODS[name](model, Plan(Target(quantity, goal), STEPS), monitor)
    data = torch.randn(8, 3, 8, 8)
    train(model, baseline, round(0.8 * STEPS), data)
    linear = flat(model) == 1
    found = quantity_of(model, quantity)
    assert baseline.progress.value == pytest.approx(found, rel=1e-9, abs=1e-9)
    assert 0.98 * goal - 1e-9 <= found <= 1.02 * goal + 1e-9
    assert baseline.progress.reached
    train(model, baseline, 6, data)  # the rest of the phase and finetuning change nothing of it
    assert torch.equal(flat(model) == 1, linear)
    assert baseline.num_active == int((~linear).sum()) > share - 1
    assert baseline.penalty() == 0


@pytest.mark.parametrize("name", ["random", "magnitude", "entropy", "greedy"])
def test_orders_freeze_evenly_between_begin_and_end(name: str) -> None:
    model = resnet()
    monitor = pathlen.DepthMonitor(model, IMAGE)
    whole = quantity_of(model, "napl")
    target = 0.3 * whole
    plan = Plan(Target("napl", target), 40, begin=0.25, end=0.75)
    baseline = METHODS[name](model, plan, monitor)
    largest = max(float(c.max()) for c in monitor.slope_centrality().values())
    data = torch.randn(4, 3, 8, 8)
    for step in range(1, 41):
        train(model, baseline, 1, data)
        expected = whole - (whole - target) * min(1, max(0, (step - 10) / 20))
        value = baseline.progress.value
        if value > 1.02 * target:
            assert expected - 1e-9 <= value <= expected + largest, step
        else:
            assert step >= 28
    assert baseline.progress.reached


def test_random_units_depend_on_the_seed_alone() -> None:
    found = []
    for seed in (0, 0, 1):
        model = mlp()
        baseline = RandomUnits(model, Plan(Target("units", 12), 10, seed=seed))
        train(model, baseline, 8, torch.randn(16, 6))
        found.append(flat(model) == 1)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert 0 < int(found[0][:8].sum()) < 8  # not layer after layer


def test_slopes_that_are_not_trained_stay_as_they_are() -> None:
    model = mlp()
    baseline = RandomUnits(model, Plan(Target("units", 12), 10), train_slopes=False)
    train(model, baseline, 10, torch.randn(16, 6))
    assert sorted(set(flat(model).tolist())) == [0, 1]
    model = mlp()
    train(model, RandomUnits(model, Plan(Target("units", 12), 10)), 10, torch.randn(16, 6))
    assert len(set(flat(model).tolist())) == 13


def test_magnitude_takes_the_slopes_nearest_to_1() -> None:
    model = mlp()
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.copy_(0.5 + torch.randn(8))
    distance = (1 - flat(model)).abs()
    baseline = SmallestDistance(model, Plan(Target("units", 10), 4))
    for step, expected in enumerate([4, 8, 13, 14], start=1):
        baseline.step()
        nearest = torch.zeros(24, dtype=torch.bool)
        nearest[distance.argsort()[: 24 - baseline.num_active]] = True
        assert torch.equal(flat(model) == 1, nearest), step
        assert 24 - baseline.num_active == expected


def test_equal_slopes_come_in_no_order_of_layers() -> None:
    order = ranked(torch.zeros(100), 0)
    assert sorted(order.tolist()) == list(range(100))
    assert 20 < int((order[:50] < 50).sum()) < 40
    assert ranked(torch.tensor([3.0, 1.0, 2.0]), 7).tolist() == [1, 2, 0]


def test_greedy_needs_the_fewest_units_or_the_most() -> None:
    left = {}
    for first in ("largest", "smallest"):
        model = resnet()
        target = 0.5 * quantity_of(model, "napl")
        graph = pathlen.trace(model, IMAGE)
        monitor = pathlen.DepthMonitor(model, IMAGE)
        plan = Plan(Target("napl", target), 1, end=1.0)
        baseline = ByCentrality(model, plan, monitor, first=first)  # type: ignore[arg-type]
        baseline.step()
        left[first] = baseline.num_active
        if first == "largest":
            fewest = len(pathlen.greedy_linearization(graph, baseline.progress.value).units)
            assert baseline.num_units - baseline.num_active == fewest
    plan = Plan(Target("napl", target), 1, end=1.0)
    model = resnet()
    chance = RandomUnits(model, plan, pathlen.DepthMonitor(model, IMAGE))
    chance.step()
    assert left["largest"] > chance.num_active > left["smallest"]


# --- entropy -------------------------------------------------------------------------------------


class Several(nn.Module):
    """Activations as functions, in place, in several calls, as PReLU, over axes of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.own = nn.Conv2d(2, 3, 3), nn.PReLU(3)
        self.line, self.out = nn.Linear(3, 5), nn.Linear(5, 2)
        self.act = nn.ReLU(inplace=True)
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.inputs.append(x.detach().clone())
        x = self.own(x).flatten(2).transpose(1, 2)  # [batch, positions, 3]
        x = self.line(x)
        self.inputs.append(x.detach().clone())
        x = self.act(x)
        self.inputs.append(x.detach().clone() - 0.2)
        x = functional.gelu(x - 0.2)
        return self.out(x).mean(1)


@pytest.mark.parametrize("granularity", ["channel", "position"])
def test_signs_are_counted_for_each_slope(granularity: Any) -> None:
    torch.manual_seed(1)
    model = Several()
    make_linearizable(model, torch.randn(1, 2, 5, 5), granularity=granularity)
    model.inputs.clear()
    data = torch.randn(7, 2, 5, 5)
    data[0] = 0
    found = counted(model, data)()
    inputs = dict(zip(["own", "act", "gelu"], model.inputs, strict=True))
    names = ["gelu" if "gelu" in own.name else own.name for own in slopes_of(model)]
    parts = found.split([own.parameter.numel() for own in slopes_of(model)])
    assert sorted(names) == ["act", "gelu", "own"]
    for name, part in zip(names, parts, strict=True):
        x = inputs[name]
        if granularity == "position":
            by_slope = x.flatten(1)
        else:
            by_slope = (x if name == "own" else x.transpose(1, 2)).transpose(0, 1).flatten(1).T
        expected = [[(c > 0).sum().item(), (c < 0).sum().item()] for c in by_slope.T]
        assert part.tolist() == expected, name
    assert model.inputs == [] or found.sum() > 0
    model(data)
    assert torch.equal(found, counted(model, data)())  # nothing is left that counts on


def test_a_prelu_of_the_users_own_is_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.PReLU(3), nn.Linear(3, 3), nn.PReLU())
    data = torch.randn(50, 2)
    found = counted(model, data)()
    before = model[0](data)
    assert found[:3].tolist() == [[int((c > 0).sum()), int((c < 0).sum())] for c in before.T]
    assert found[3].sum() == 150


def test_entropies_are_those_of_scipy() -> None:
    counts = torch.tensor([[1, 3], [5, 5], [0, 7], [7, 0], [0, 0]])
    expected = [scipy.stats.entropy(row, base=2) if sum(row) else 0.0 for row in counts.tolist()]
    assert entropies(counts).tolist() == pytest.approx(expected, abs=1e-15)
    assert expected[1:] == [1, 0, 0, 0]


def test_layers_of_low_entropy_are_completed_first_and_measured_anew() -> None:
    model = mlp()
    measured = []
    tables = [[0.6, 0.3, 0.9], [0.9, 0.0, 0.2], [0.5, 0.0, 0.0]]  # the last choice is layer 0

    def count() -> Tensor:
        shares = tables[len(measured)]
        measured.append(int((flat(model) == 1).sum()))
        # the units of a layer differ, and the last of it has the lowest entropy
        rows = [
            [round(500 * s) + 8 - unit, 1000 - round(500 * s)] for s in shares for unit in range(8)
        ]
        return torch.tensor(rows)

    baseline = LowestEntropy(model, Plan(Target("units", 4), 20, end=1.0), count_signs=count)
    frozen = []
    for _ in range(20):
        baseline.step()
        frozen.append([int((part == 1).sum()) for part in flat(model).split(8)])
    assert frozen[7] == [0, 8, 0]
    assert [8, 8] in [[middle, last] for _, middle, last in frozen]
    assert frozen[-1] == [4, 8, 8]
    assert measured == [0, 8, 16]
    assert (flat(model)[:8] == 1).tolist() == 4 * [False] + 4 * [True]


# --- SNL -----------------------------------------------------------------------------------------


def test_snl_ends_when_the_count_is_within_the_budget_and_makes_slopes_0_or_1() -> None:
    model = mlp()
    plan = Plan(Target("units", 12), 1000)
    baseline = SelectiveLinearization(model, plan, omega=0.5, threshold=0.1)
    loss = 0.5 * sum((1 - own.parameter).abs().sum() for own in slopes_of(model))
    assert torch.equal(baseline.penalty(), loss)
    with torch.no_grad():
        for place, own in enumerate(slopes_of(model)):
            own.parameter.copy_(torch.linspace(0.5 + 0.1 * place, 1.0, 8))
    before = flat(model)
    assert baseline.num_active == int((before < 0.9).sum()) == 17
    baseline.step()
    assert torch.equal(flat(model), before)  # too many are nonlinear: nothing is fixed
    with torch.no_grad():
        model.get_parameter(slopes_of(model)[0].parameter_name)[:5] = 0.95
    before = flat(model)
    baseline.step()
    expected = torch.zeros(24)
    expected[before.argsort(descending=True, stable=True)[:12]] = 1
    assert torch.equal(flat(model), expected)
    assert baseline.penalty() == 0
    train(model, baseline, 3, torch.randn(16, 6))
    assert torch.equal(flat(model), expected)


def test_snl_by_the_penalty_alone() -> None:
    """The penalty draws slopes to 1, so that the budget is met before the end."""
    model = mlp()
    baseline = SelectiveLinearization(model, Plan(Target("units", 12), 10_000), omega=0.1)
    data = torch.randn(64, 6)
    for _ in range(40):
        if baseline.progress.reached:
            break
        train(model, baseline, 10, data)
    assert baseline.progress.reached
    assert baseline.num_active == 12


# --- Layer Folding -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_tied_slopes_are_trained_as_one(kind: Any) -> None:
    results = []
    for granularity in ("channel", "layer"):
        model = mlp(granularity).double()
        baseline = FoldedLayers(model, Plan(Target("units", 0), 1000), omega=0.02)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        optimizer = kind(parameter_groups(model, 1e-3), lr=0.01, **options)
        torch.manual_seed(3)
        for _ in range(30):
            data = torch.randn(16, 6, dtype=torch.float64)
            optimizer.zero_grad()
            output = model(data)
            loss = functional.cross_entropy(output, data[:, :3].argmax(1))
            (loss + baseline.penalty()).backward()
            optimizer.step()
            baseline.step()
        weights = [w for w in model.state_dict().values() if w.ndim == 2]
        alphas = [own.parameter.detach() for own in slopes_of(model)]
        results.append((torch.stack([a[0] for a in alphas]), weights))
        assert all(bool((a == a[0]).all()) for a in alphas)
    (one, weights), (other, others) = results
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert float(one.max()) > 1e-3
    for weight, same in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, same, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("granularity", "expected"), [("channel", [0, 3, 8]), ("layer", [0, 0, 1])]
)
def test_layers_of_the_largest_slopes_become_linear(granularity: Any, expected: list[int]) -> None:
    model = mlp(granularity)
    target = Target("napl", 13 / 8) if granularity == "channel" else Target("units", 2)
    monitor = pathlen.DepthMonitor(model, torch.zeros(1, 6))
    baseline = FoldedLayers(model, Plan(target, 10, end=0.5), monitor, p=3)
    with torch.no_grad():
        for own, alpha in zip(slopes_of(model), [0.1, 0.4, 0.7], strict=True):
            own.parameter.fill_(alpha)
    loss = sum(abs(1 - alpha**3) for alpha in (0.1, 0.4, 0.7))
    assert baseline.penalty().item() == pytest.approx(0.25 * loss, rel=1e-6)
    for _ in range(4):
        baseline.step()
    assert baseline.num_active == len(flat(model))
    baseline.step()
    parts = [own.parameter for own in slopes_of(model)]
    assert [int((part == 1).sum()) for part in parts] == expected
    before = flat(model)
    train(model, baseline, 3, torch.randn(16, 6))
    assert torch.equal(flat(model), before)  # slopes of other layers are fixed where they were
    assert before[0] == pytest.approx(0.1)


def test_slopes_of_layers_stay_at_0_or_above() -> None:
    model = mlp()
    baseline = FoldedLayers(model, Plan(Target("units", 0), 10))
    with torch.no_grad():
        slopes_of(model)[1].parameter.fill_(-0.3)
    baseline.step()
    assert float(flat(model).min()) == 0
    assert FoldedLayers(mlp(), Plan(Target("units", 0), 9), p=0.5).penalty().item() < 0.75


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_states_go_on_where_they_were(name: str) -> None:
    def made() -> tuple[nn.Module, Baseline]:
        model = resnet()
        plan = Plan(Target("units", 0.5 * quantity_of(model, "units")), 10)
        torch.manual_seed(5)
        return model, METHODS[name](model, plan, pathlen.DepthMonitor(model, IMAGE))

    data = torch.randn(4, 3, 8, 8)
    model, baseline = made()
    train(model, baseline, 6, data)
    again, other = made()
    again.load_state_dict(model.state_dict())
    other.load_state_dict(baseline.state_dict())
    assert repr(other) == repr(baseline)
    for one, own in ((model, baseline), (again, other)):
        train(one, own, 6, data)
    assert torch.equal(flat(model), flat(again))
    assert baseline.progress.reached
    assert other.progress == baseline.progress
    with pytest.raises(PathlenError, match=f"no state of {type(baseline).__name__}"):
        other.load_state_dict(SparsityPrior(model, omega=1.0).state_dict())
    small = mlp()
    with pytest.raises(PathlenError, match="other slopes"):
        RandomUnits(small, Plan(Target("units", 0), 1)).load_state_dict(
            {key: baseline.state_dict()[key] for key in ("omega", "step", "frozen", "kept")}
        )


def test_slopes_that_are_nan_are_told() -> None:
    model = mlp()
    baseline = RandomUnits(model, Plan(Target("units", 12), 10))
    name = slopes_of(model)[1].parameter_name
    with torch.no_grad():
        model.get_parameter(name)[2] = float("nan")
    with pytest.raises(ActivityError, match=f"slopes are NaN: {name}"):
        baseline.step()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomUnits(nn.Linear(2, 2), Plan(Target("units", 0), 1)), "has no slopes"),
        (lambda: RandomUnits(mlp(), Plan(Target("units", 99), 1)), "more than the model has"),
        (lambda: RandomUnits(mlp(), Plan(Target("napl", 1), 1)), "needs monitor"),
        (lambda: Plan(Target("units", 0), 0), "at least one step"),
        (lambda: Plan(Target("units", 0), 5, begin=0.8), "0 <= begin < end <= 1"),
        (
            lambda: SelectiveLinearization(mlp(), Plan(Target("units", 0), 1), threshold=1.5),
            r"threshold=1.5 must lie in \[0, 1\)",
        ),
        (lambda: FoldedLayers(mlp(), Plan(Target("units", 0), 1), p=0), "p=0 must be above 0"),
    ],
)
def test_wrong_arguments_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(PathlenError, match=message):
        build()
