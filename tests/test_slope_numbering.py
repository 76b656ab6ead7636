"""Slope i is channel i where labels do not ascend along the channels, and in files of before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen.errors import PathlenError
from pathlen.training import (
    CifarResNet,
    SparsityPrior,
    make_linearizable,
    slopes_of,
)
from pathlen.training.baselines.entropy import LowestEntropy
from pathlen.training.files import save_tree
from pathlen.training.make_model import load_given_weights
from pathlen.training.slope_numbering import number_units
from pathlen.training.slope_vector import SlopeVector
from pathlen.training.targets import Plan, Target
from tests.constructs import Model
from tests.slopes import require_fresh

IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def padded(x: Tensor, before: int = 1, after: int = 1) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, before, after))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


LAYOUTS: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "padded shortcut": (lambda m, x: m.wide(x) + padded(m.first(x)), 6),
    "padded shortcut of two": (lambda m, x: m.wide(x) + padded(m.first(x), 0, 2), 6),
    "flipped": (lambda m, x: m.first(x).flip(1), 4),
    "shuffled": (lambda m, x: functional.channel_shuffle(m.first(x), 2), 4),
    "rolled": (lambda m, x: m.first(x).roll(1, 1), 4),
    "newer in front of older": (lambda m, x: newer_first(m, m.first(x)), 8),
    "by an index": (lambda m, x: m.first(x)[:, [2, 0, 3, 1]], 4),
    "halves swapped": (lambda m, x: torch.cat(m.first(x).chunk(2, 1)[::-1], 1), 4),
    "as it is": (lambda m, x: m.first(x), 4),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "formula": lambda x: x * torch.sigmoid(x),
}


def newer_first(model: Any, h: Tensor) -> Tensor:
    return torch.cat([model.second(h), h], 1)


class Last(nn.Module):
    """An activation of a tensor that is laid out in some way, and a layer behind it.

    Args:
        linear: A channel that the program itself leaves as it is.
    """

    def __init__(self, name: str, phi: str, linear: int | None = None) -> None:
        super().__init__()
        self.layout, width = LAYOUTS[name]
        self.first, self.second, self.wide = conv(3, 4), conv(4, 4), conv(3, 6)
        self.head, self.phi, self.linear = conv(width, 2), ACTIVATIONS[phi], linear

    def forward(self, x: Tensor) -> Tensor:
        self.before = self.layout(self, x)
        if self.linear is None:
            self.after = self.phi(self.before)
        else:
            parts = self.before.split([self.linear, 1, self.before.shape[1] - self.linear - 1], 1)
            kept = [self.phi(parts[0]), parts[1], self.phi(parts[2])]
            self.after = torch.cat([part for part in kept if part.shape[1]], 1)
        return self.head(self.after)


@pytest.mark.parametrize("phi", ACTIVATIONS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_slope_i_is_channel_i(name: str, phi: str) -> None:
    torch.manual_seed(0)
    model = make_linearizable(Last(name, phi), IMAGE)
    (slopes,) = slopes_of(model)
    monitor = pathlen.DepthMonitor(model, IMAGE)
    shares = monitor.slope_centrality()[slopes.parameter_name]
    width = LAYOUTS[name][1]
    assert slopes.parameter.numel() == width
    for channel in range(width):
        with torch.no_grad():
            slopes.parameter.zero_()[channel] = 1
            model(IMAGE)
        kept = [
            torch.allclose(model.before[:, c], model.after[:, c], atol=1e-6) for c in range(width)
        ]
        assert kept == [c == channel for c in range(width)]
        written_out = pathlen.measure(Last(name, phi, channel), IMAGE)
        report = pathlen.measure(model, IMAGE)
        assert report.path_count == written_out.path_count
        assert report.average_path_length == pytest.approx(written_out.average_path_length)
        normalized = written_out.normalized_average_path_length
        assert report.normalized_average_path_length == pytest.approx(normalized)
        assert 1 - float(shares[channel]) == pytest.approx(normalized)
        assert report.num_active == width - 1
    require_fresh(monitor, model, IMAGE)


REPEATED: dict[str, tuple[Callable[[Any, Tensor], Tensor], int, int]] = {
    "channels twice": (lambda m, x: torch.cat([m.first(x)] * 2, 1), 8, 4),
    "some channels twice": (lambda m, x: torch.cat([m.first(x), m.first(x)[:, :2]], 1), 6, 6),
    "a channel again": (lambda m, x: (lambda h: h[:, [3, 0, 3, 1, 2]])(m.first(x)), 5, 4),
    "zeros around": (lambda m, x: padded(m.first(x)), 6, 4),
    "pixel shuffle": (lambda m, x: functional.pixel_shuffle(m.wide(x)[:, :4], 2), 1, 4),
    "a row of its own": (
        lambda m, x: torch.cat([m.second(m.first(x))[:, :, :1], m.first(x)], 2),
        4,
        8,
    ),
}


@pytest.mark.parametrize("phi", ACTIVATIONS)
@pytest.mark.parametrize("name", REPEATED)
def test_units_that_lie_in_several_places_have_one_slope_and_stay_one_unit(
    name: str, phi: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, width, units = REPEATED[name]
    monkeypatch.setitem(LAYOUTS, name, (layout, width))
    torch.manual_seed(0)
    before = pathlen.measure(Last(name, phi), IMAGE)
    model = make_linearizable(Last(name, phi), IMAGE)
    (slopes,) = slopes_of(model)
    assert slopes.parameter.numel() == units == before.num_active
    monitor = pathlen.DepthMonitor(model, IMAGE)
    for values in (torch.linspace(0, 0.9, units), torch.arange(units) % 2):
        with torch.no_grad():
            slopes.parameter.copy_(values)
        report = pathlen.measure(model, IMAGE)
        assert report.path_count == before.path_count
        assert report.num_active == int((values < 1).sum())
        require_fresh(monitor, model, IMAGE)
    shares = monitor.slope_centrality()[slopes.parameter_name]
    assert float(shares.sum()) == pytest.approx(before.normalized_average_path_length)


def test_a_monitor_sees_that_indices_of_slopes_change() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        return model.second(functional.prelu(model.first(x), model.slope[model.places]))

    model = Model(forward, first=conv(3, 4), second=conv(4, 2), slope=nn.Parameter(torch.zeros(3)))
    model.register_buffer("places", torch.tensor([0, 1, 2, 2]))
    monitor = pathlen.DepthMonitor(model, IMAGE)
    for places, linear in (([0, 1, 2, 2], 2), ([0, 2, 1, 1], 1), ([2, 2, 2, 1], 3)):
        model.places.copy_(torch.tensor(places))
        require_fresh(monitor, model, IMAGE)  # all slopes equal: nothing else tells
        with torch.no_grad():
            model.slope.copy_(torch.tensor([0.0, 0.0, 1.0]))
        assert monitor.update().num_active == 4 - linear
        require_fresh(monitor, model, IMAGE)
        with torch.no_grad():
            model.slope.zero_()


# --- networks -------------------------------------------------------------------------------


def option_a() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return CifarResNet(8, width=4, shortcut="identity"), torch.randn(2, 3, 8, 8)


def test_option_a_is_measured_followed_and_brought_to_a_target() -> None:
    model, image = option_a()
    make_linearizable(model, image)
    monitor = pathlen.DepthMonitor(model, image)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.copy_(torch.arange(own.parameter.numel()) % 2)
    require_fresh(monitor, model, image)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.uniform_(0.0, 0.5)
    goal = monitor.update().normalized_average_path_length / 2
    prior = SparsityPrior(
        model,
        omega=1.0,
        method="proximal",
        weights="napl",
        monitor=monitor,
        target=Target("napl", goal),
    )
    for _ in range(200):
        prior.step(0.02)
    assert prior.progress is not None
    assert prior.progress.reached
    found = pathlen.measure(model, image).normalized_average_path_length
    assert found == pytest.approx(prior.progress.value)
    assert abs(found - goal) <= 0.02 * goal


# --- files of before ------------------------------------------------------------------------


def by_label(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state as earlier releases wrote it, for `option_a` of width 4.

    Channels of the shortcut lie in the middle; of the units in front of the last activation of a
    block the padded ones came first.
    """
    old = {key: value.clone() for key, value in state.items() if not key.endswith("_version")}
    for stage, width in ((2, 8), (3, 16)):
        key = f"stage{stage}.0.activation2.slope"
        quarter = width // 4
        outside = [*range(quarter), *range(width - quarter, width)]
        middle = range(quarter, width - quarter)
        old[key] = old[key][[*outside, *middle]]
    return old


def filled(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.copy_(torch.rand(own.parameter.shape, generator=generator))
    return model.eval()


def test_labels_are_numbered_as_they_appear() -> None:
    numbers, count, former = number_units(np.array([7, -1, 3, 7, 5]))
    assert (numbers.tolist(), count) == ([0, 3, 1, 0, 2], 3)
    assert former is not None
    assert former.tolist() == [2, 0, 1]  # by label: 3, 5, 7
    assert number_units(np.array([[2, 2], [4, 9]]))[2] is None


def test_only_modules_whose_order_differs_say_so() -> None:
    model, image = option_a()
    make_linearizable(model, image)
    assert [key for key in model.state_dict() if key.endswith("_version")] == [
        "stage2.0.activation2.slope_version",
        "stage3.0.activation2.slope_version",
    ]
    plain = make_linearizable(CifarResNet(8, width=4), image)
    assert not [key for key in plain.state_dict() if key.endswith("_version")]


@pytest.mark.parametrize("assign", [False, True])
def test_files_of_before_are_put_in_order(assign: bool, tmp_path: Any) -> None:
    model, image = option_a()
    make_linearizable(model, image)
    other, third = copy.deepcopy(model), copy.deepcopy(model)
    filled(model, 1)
    with torch.no_grad():
        wanted = model(image)
        save_file(by_label(model, model.state_dict()), tmp_path / "old.safetensors")
        save_file(model.state_dict(), tmp_path / "new.safetensors")
        for target, name in ((other, "old"), (third, "new")):
            state = load_file(tmp_path / f"{name}.safetensors")
            kept = {key: value.clone() for key, value in state.items()}
            target.load_state_dict(state, assign=assign)
            assert torch.equal(target.eval()(image), wanted)
            assert state.keys() == kept.keys()
            assert all(torch.equal(state[key], kept[key]) for key in kept)
            again = target.state_dict()
            assert all(torch.equal(again[key], model.state_dict()[key]) for key in again)


def test_weights_without_slopes_still_load() -> None:
    model, image = option_a()
    dense = copy.deepcopy(model).state_dict()
    filled(make_linearizable(model, image), 1)
    before = [own.parameter.clone() for own in slopes_of(model)]
    model.load_state_dict(dense)
    assert all(torch.equal(b, o.parameter) for b, o in zip(before, slopes_of(model), strict=True))


def test_slopes_that_a_newer_release_has_numbered_are_refused() -> None:
    model, image = option_a()
    make_linearizable(model, image)
    state = model.state_dict()
    state["stage2.0.activation2.slope_version"] = torch.tensor(3)
    with pytest.raises(RuntimeError, match=r"slope_version is 3: a newer pathlen has numbered"):
        model.load_state_dict(state)


def test_states_of_priors_of_before_are_put_in_order() -> None:
    model, image = option_a()
    make_linearizable(model, image)
    prior = SparsityPrior(model, omega=0.1)
    names = [own.parameter_name for own in slopes_of(model)]
    filled(model, 1)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter[own.parameter > 0.6] = 1
    prior.step()
    now = prior.state_dict()
    old = copy.deepcopy(now)
    old["frozen"] = by_label(model, now["frozen"])
    assert old["frozen"].keys() == set(names)
    for state in (now, old):
        again = SparsityPrior(copy.deepcopy(model), omega=0.1)
        again.load_state_dict(state)
        found = again.state_dict()["frozen"]
        assert all(torch.equal(found[name], now["frozen"][name]) for name in names)
    vector = SlopeVector(model)
    former = vector.former_numbers(old["frozen"])
    assert vector.former_numbers(now["frozen"]) is None
    assert former is not None
    assert sorted(former.tolist()) == list(range(len(vector)))


def test_weights_of_runs_of_before_are_put_in_order(tmp_path: Any) -> None:
    model, image = option_a()
    dense = copy.deepcopy(model)
    filled(make_linearizable(model, image), 1)
    save_tree(tmp_path / "model.safetensors", by_label(model, model.state_dict()))
    other = make_linearizable(dense, image)
    load_given_weights(other, str(tmp_path))
    with torch.no_grad():
        assert torch.equal(other.eval()(image), model(image))


def test_an_order_of_entropies_of_before_is_put_in_order() -> None:
    model, image = option_a()
    make_linearizable(model, image)
    count = len(SlopeVector(model))
    seen = torch.stack([torch.arange(count), 100 + torch.arange(count)], 1)
    plan = Plan(Target("units", 4), steps=10)
    baseline = LowestEntropy(model, plan, count_signs=lambda: seen)
    baseline.step()
    now = baseline.state_dict()
    names = [own.parameter_name for own in slopes_of(model)]
    numbers = SlopeVector(model).by_name(torch.arange(count))
    former = by_label(model, numbers)  # of each slope in the order of before, its number now
    before = torch.cat([former[name] for name in names]).argsort()
    old = now | {
        "frozen": by_label(model, now["frozen"]),
        "kept": by_label(model, now["kept"]) if now["kept"] is not None else None,
        "by_entropy": before[now["by_entropy"]],
    }
    assert not torch.equal(old["by_entropy"], now["by_entropy"])
    baseline.load_state_dict(old)
    assert torch.equal(baseline.state_dict()["by_entropy"], now["by_entropy"])


def test_what_has_no_centrality_is_told_with_the_reason() -> None:
    model, image = option_a()
    by_position = make_linearizable(copy.deepcopy(model), image, granularity="position")
    early = pathlen.DepthMonitor(model, image)
    make_linearizable(model, image)
    late = pathlen.DepthMonitor(by_position, image)
    for target, monitor, reason in (
        (model, early, "the monitor does not know the slopes .* made before make_linearizable"),
        (by_position, late, "one of the slopes .* alone .*granularity='channel' or 'layer'"),
    ):
        with pytest.raises(PathlenError, match=reason):
            SparsityPrior(target, omega=0.1, weights="napl", monitor=monitor)
