"""How images lie in memory, and when and how a run is evaluated."""

from __future__ import annotations

import copy
import csv
import itertools

import pytest
import torch
from torch import nn

from pathlen.errors import SettingsError
from pathlen.figures import plot_training
from pathlen.training import load_run, renew_batch_norm
from pathlen.training.batches import train_batches
from pathlen.training.evaluate import inferring, sensible_batch
from pathlen.training.files import load_tree
from pathlen.training.loop import train
from pathlen.training.memory_format import chosen_format, laid_out, like_parameters
from pathlen.training.progress import watcher_for
from pathlen.training.recipe_file import make_recipe
from pathlen.training.run import Run
from pathlen.training.summary import summary_table
from tests.training_runs import TINY, changed, outcome, run

CPU = torch.device("cpu")
IMAGE = (torch.zeros(1, 3, 6, 6),)


class Viewing(nn.Module):
    """Flattens by `view`, which refuses channels that lie side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return x.view(len(x), -1)


# --- how images lie in memory ------------------------------------------------------------------


def test_channels_lie_last_where_the_model_takes_them_so():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).train()
    assert chosen_format(flat, IMAGE, None) is torch.channels_last
    assert flat.training
    viewing = Viewing()
    viewing.body[1].eval()
    assert chosen_format(viewing, IMAGE, None) is torch.contiguous_format
    assert viewing.training
    assert not viewing.body[1].training
    assert chosen_format(flat, IMAGE, False) is torch.contiguous_format
    assert chosen_format(viewing, IMAGE, True) is torch.channels_last  # as it was asked for
    assert chosen_format(nn.Linear(3, 2), (torch.zeros(1, 3),), None) is torch.contiguous_format
    with pytest.raises(SettingsError, match="no argument of the model is a batch of images"):
        chosen_format(nn.Linear(3, 2), (torch.zeros(1, 3),), True)


def test_only_images_are_laid_out():
    images, words = torch.arange(48.0).view(2, 2, 3, 4), torch.arange(4).view(1, 1, 2, 2)
    found = laid_out([images, words], torch.channels_last)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found[0], images)
    assert found[1] is words
    assert laid_out(found, torch.contiguous_format)[0].is_contiguous()


def test_a_loaded_optimizer_lies_in_memory_like_its_parameters():
    def steps(optimizer: torch.optim.Optimizer, layer: nn.Module) -> None:
        for seed in range(3):
            torch.manual_seed(seed)
            optimizer.zero_grad()
            layer(torch.randn(2, 3, 5, 5)).square().mean().backward()
            optimizer.step()

    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(layer.parameters())
    steps(optimizer, layer)
    before = [(n, s.clone()) for state in optimizer.state.values() for n, s in state.items()]
    loaded = optimizer.state_dict()
    for state in loaded["state"].values():
        state.update({n: s.contiguous() for n, s in state.items()})
    optimizer.load_state_dict(loaded)
    like_parameters(optimizer)
    after = [(n, s) for state in optimizer.state.values() for n, s in state.items()]
    for (name, one), (same, other) in zip(before, after, strict=True):
        assert name == same
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_a_resumed_model_lies_in_memory_as_it_did(tmp_path):
    settings = changed(TINY, model={"name": "resnet8", "width": 4}, linearize__distillation={})
    run(settings, tmp_path)
    recipe = make_recipe(settings)
    from pathlen.training.run import make_fabric
    from pathlen.training.tasks import build_task

    again = Run(recipe, make_fabric(recipe), build_task(recipe.task))
    again.load(load_tree(tmp_path / "checkpoint.safetensors"), tmp_path)
    assert again.teacher is not None
    convolutions = [
        module.weight
        for model in (again.model, again.teacher)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    wide = [weight for weight in convolutions if weight.shape[1] > 1 and weight.shape[2] > 1]
    assert wide
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
    moments = again.optimizer.state[wide[0]]["momentum_buffer"]
    assert moments.stride() == wide[0].stride()


def test_it_may_not_change_when_a_run_goes_on(tmp_path):
    run(TINY, tmp_path)
    with pytest.raises(SettingsError, match=r"machine\.channels_last"):
        run(changed(TINY, machine__channels_last=False), tmp_path)


# --- evaluation --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def now_and_then(tmp_path_factory):
    """A run of 3 + 2 + 1 epochs, every second of a phase evaluated, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return train(make_recipe(changed(TINY, train__epochs=3, evaluate_every=2)), folder), folder


def test_epochs_between_evaluations_have_no_test_columns(now_and_then, tmp_path):
    result, folder = now_and_then
    tested = ["test_accuracy" in row for row in result.history]
    assert tested == [False, True, True, False, True, True]
    assert tested == ["test_loss" in row for row in result.history]
    assert all("napl" in row and "train_loss" in row for row in result.history)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["test_accuracy"]) for row in rows] == tested
    every = run(changed(TINY, train__epochs=3), tmp_path).history
    for row, other in zip(result.history, every, strict=True):  # and nothing else is otherwise
        assert {**other, **row, "seconds": 0} == {**other, "seconds": 0}


def test_readers_of_rows_without_test_columns(now_and_then):
    from rich.console import Console

    result, folder = now_and_then
    console = Console(width=120, force_terminal=True, record=True)
    watcher = watcher_for(console)
    from pathlen.training.learning_rate import stages

    stage = stages(make_recipe(TINY))[0]
    watcher.begin(stage, 0, 5)
    for row in result.history[:3]:
        watcher.epoch(row)
    watcher.close()
    summary_table(result.summary)
    line, *_ = plot_training(folder).get_lines()
    assert line.get_xdata().tolist() == [2, 3, 5, 6]


def test_early_stops_count_evaluations(tmp_path):
    stop = {"patience": 1, "least_change": 1e9}  # the second evaluation is no fall
    settings = changed(TINY, train={"epochs": 9, "early_stop": stop}, evaluate_every=2)
    rows = run(settings, tmp_path).history
    assert sum(row["phase"] == "train" for row in rows) == 4


def test_evaluation_changes_nothing_of_a_run(tmp_path):
    """Not its batches, either: how many items are evaluated at once decides last digits only."""
    for name, changes in {"one": {}, "other": {"test_batch_size": 7}}.items():
        run(changed(TINY, **changes), tmp_path / name)
    one, other = outcome(tmp_path / "one"), outcome(tmp_path / "other")
    assert one["model"] == other["model"]
    for row, same in zip(one["rows"], other["rows"], strict=True):
        assert row["test_loss"] == pytest.approx(same["test_loss"], rel=1e-5)
        assert row["test_accuracy"] == same["test_accuracy"]


class Keeping(nn.Module):
    """Keeps tables that it makes when it first needs them, as models of text do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.table: torch.Tensor | None = None
        self.register_buffer("other", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table, self.other = torch.arange(4.0), torch.ones(4)
        return self.layer(x) * self.table * self.other


def test_what_a_model_keeps_of_an_evaluation_can_be_trained_with():
    model = Keeping()
    with inferring(model):
        assert not model.training
        assert model(torch.ones(1, 4)).is_inference()
    assert model.training
    model(torch.ones(1, 4)).sum().backward()
    assert model.layer.weight.grad is not None


@pytest.mark.parametrize(
    ("width", "side", "items"),
    [(16, 32, 128), (16, 64, 32), (64, 32, 32), (1, 8, 4096), (5, 32, 256)],
)
def test_a_sensible_batch(width, side, items):
    """8 MiB for the largest activation, float32 [items, width, side, side], on a CPU."""
    model = nn.Sequential(nn.Conv2d(3, width, 1), nn.AdaptiveAvgPool2d(1))
    assert sensible_batch(model, (torch.zeros(1, 3, side, side),), CPU) == items
    assert not model[0]._forward_hooks


def test_texts_are_of_any_length():
    assert sensible_batch(nn.Embedding(9, 4), (torch.zeros(1, 2, dtype=torch.long),), CPU) == 512


# --- statistics of batch norms -----------------------------------------------------------------


def normalizing() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 3),
        nn.BatchNorm1d(3),
        nn.Dropout(0.5),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3, momentum=None),
    )


def test_renewed_statistics_are_the_means_over_the_batches():
    model = normalizing()
    torch.manual_seed(1)
    batches = [torch.randn(8, 4) * (n + 1) for n in range(3)]
    model(torch.full((8, 4), 100.0) * torch.randn(8, 1))  # far off
    weights = [p.clone() for p in model.parameters()]
    model[2].eval()
    state = torch.get_rng_state()
    assert renew_batch_norm(model, ((batch,) for batch in batches)) == 3
    assert torch.equal(torch.get_rng_state(), state)
    inner = [model[0](batch) for batch in batches]
    mean = torch.stack([one.mean(0) for one in inner]).mean(0)
    variance = torch.stack([one.var(0) for one in inner]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert [model[1].momentum, model[4].momentum] == [0.1, None]
    assert [module.training for module in model] == [True, True, False, True, True]
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_statistics_stay_without_batches_and_after_errors():
    model = normalizing().eval()
    before = model[1].running_mean.clone()
    assert renew_batch_norm(model, []) == 0
    assert torch.equal(model[1].running_mean, before)
    with pytest.raises(RuntimeError):
        renew_batch_norm(model, [(torch.ones(8, 4),), (torch.ones(8, 5),)])
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_models_without_batch_norm_ask_for_no_batch():
    def never():
        raise AssertionError
        yield

    assert renew_batch_norm(nn.Linear(2, 2), never()) == 0


def test_a_run_renews_statistics_before_it_evaluates_linearization(tmp_path):
    settings = changed(
        TINY,
        model={"name": "resnet8", "width": 4},
        linearize__prior__omega=4.0,
        finetune__epochs=0,
        task__shift=1,
        task__classes=10,
    )
    lag = changed(settings, linearize__batch_norm_batches=0)
    renewed, lagging = run(settings, tmp_path / "renewed"), run(lag, tmp_path / "lagging")
    for row, other in zip(renewed.history, lagging.history, strict=True):
        same = row["test_loss"] == other["test_loss"]
        assert same == (row["phase"] == "train")
        assert row["train_loss"] == other["train_loss"]  # training does not read them
    one, other = (outcome(tmp_path / name)["model"] for name in ("renewed", "lagging"))
    changed_keys = {key for key in one if one[key] != other[key]}
    assert changed_keys
    assert all("running" in key or "num_batches" in key for key in changed_keys)
    found = load_run(tmp_path / "renewed")
    batches = train_batches(found.task, 48, 0, 3)
    model = copy.deepcopy(found.model)
    seen = renew_batch_norm(model, ((images,) for images, _ in itertools.islice(batches, 8)))
    assert seen == 8
    for key, value in found.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)
