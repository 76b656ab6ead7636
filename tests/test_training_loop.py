"""The loop against a plain one written by hand, and what it stops for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import pathlen
from pathlen.errors import TrainingError
from pathlen.training import build_task, load_run, make_linearizable, train
from pathlen.training.batches import seed_step, train_batches
from pathlen.training.files import load_tree
from pathlen.training.make_model import make_model
from pathlen.training.recipe import Linearize
from pathlen.training.slopes import slopes_of
from tests.training_runs import TINY, TRANSLATION, Recorder, changed, run, tiny

STEPS = 5


class Losses(Recorder):
    """Loss of each step, from the means of an epoch so far."""

    def losses(self) -> list[float]:
        found, before = [], 0.0
        for batch, numbers in self.steps:
            total = numbers["train_loss"] * batch
            found.append(total if batch == 1 else total - before)
            before = total
        return found


def plain_loop(settings, penalize: bool) -> tuple[list[float], nn.Module]:
    """Five steps of a phase with torch alone, with the cosine and the prior written out."""
    recipe = tiny(**settings)
    task = build_task(recipe.task)
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, task)
    slopes = [own.parameter for own in slopes_of(model)]
    others = [p for p in model.parameters() if all(p is not slope for slope in slopes)]
    groups = [{"params": others, "weight_decay": 5e-4}, {"params": slopes, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    losses = []
    for step, (images, classes) in enumerate(train_batches(task, 48, recipe.seed, 0)):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + torch.cos(torch.tensor(torch.pi * step / STEPS)).item()) / 2
        loss = functional.cross_entropy(model(images), classes)
        losses.append(loss.item())
        if penalize:
            loss = loss + 0.1 * sum((1 - slope).abs().sqrt().sum() for slope in slopes)
        optimizer.zero_grad()
        loss.backward()
        if not penalize:
            for slope in slopes:
                slope.grad = None
        optimizer.step()
    return losses, model


@pytest.mark.parametrize("phase", ["train", "linearize"])
@pytest.mark.parametrize("model", [TINY["model"], {"name": "resnet8", "width": 4}])
def test_against_a_plain_loop(phase, model, tmp_path):
    epochs = {"train__epochs": int(phase == "train"), "finetune__epochs": 0}
    settings = {**epochs, "linearize__epochs": 1, "model": model, "task__shift": 1}
    settings["linearize__batch_norm_batches"] = 0  # statistics as the steps left them
    expected, ours = plain_loop(settings, penalize=phase == "linearize")
    watcher = Losses()
    run(changed(TINY, **settings), tmp_path, watcher)
    assert watcher.losses()[:STEPS] == pytest.approx(expected, abs=1e-6)
    name = "dense" if phase == "train" else "model"
    found = load_run(tmp_path, weights=name).model
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_batches_are_those_of_the_seed_and_the_epoch():
    task = build_task({"name": "digits", "classes": 2, "shift": 1})
    first = list(train_batches(task, 48, seed=1, epoch=0))
    assert len(first) == STEPS
    seen = torch.cat([images.flatten(1) for images, _ in first])
    assert len(seen.unique(dim=0)) == len(seen)  # each image once
    for images, other in zip(first[3:], train_batches(task, 48, 1, 0, first=3), strict=True):
        assert torch.equal(images[0], other[0])
    shares = [list(train_batches(task, 48, 1, 0, rank=rank, processes=2)) for rank in (0, 1)]
    for whole, *parts in zip(first, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(whole[0][rank::2], part[0])
    other_epoch = next(iter(train_batches(task, 48, seed=1, epoch=1)))
    other_seed = next(iter(train_batches(task, 48, seed=2, epoch=0)))
    again = next(iter(train_batches(task, 48, seed=1, epoch=0)))
    assert not torch.equal(other_epoch[1], first[0][1])
    assert not torch.equal(other_seed[1], first[0][1])
    assert torch.equal(again[0], first[0][0])


def test_workers_load_the_same_batches(tmp_path):
    changes = {"task__shift": 1, "train__epochs": 2, "linearize__epochs": 0, "finetune__epochs": 0}
    alone = train(tiny(**changes), tmp_path / "alone")
    helped = train(tiny(**changes, machine__workers=1), tmp_path / "helped")
    for one, other in zip(alone.history, helped.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_randomness_is_that_of_the_step():
    def draw(*place: int) -> list[float]:
        seed_step(*place)
        return torch.rand(3).tolist()

    assert draw(0, 1, 0) == draw(0, 1, 0)
    draws = [draw(*place) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]]
    assert len({tuple(one) for one in draws}) == len(draws)


def test_the_callers_random_numbers_stay(tmp_path):
    run(TINY, tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    load_run(tmp_path)
    assert torch.equal(torch.rand(2), expected)


# --- what a run leaves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        changed(TINY, model={"name": "resnet8", "width": 4}, linearize__prior__omega=4.0),
        TRANSLATION,
    ],
    ids=["images", "texts"],
)
def test_a_run_read_back_is_what_its_last_row_says(settings, tmp_path):
    run(settings, tmp_path)
    found = load_run(tmp_path)
    last = found.history[-1]
    assert found.summary["phases"]["finetune"] == last
    assert not found.model.training
    total = right = items = 0.0
    with torch.no_grad():
        for index in range(found.task.test_size):  # one by one: no batch of the loop's
            item = [found.task.test[index]]
            collate = found.task.collate or torch.utils.data.default_collate
            batch = tuple(collate(item))
            output = found.model(*found.task.inputs(batch))
            correct, count = found.task.counts(output, batch)
            total += found.task.loss(output, batch, 0.0).item() * int(count)
            right, items = right + int(correct), items + int(count)
    assert total / items == pytest.approx(last["test_loss"], abs=1e-5)
    assert right / items == last["test_accuracy"]
    report = pathlen.measure(found.model, found.task.example)
    assert report.normalized_average_path_length == pytest.approx(last["napl"], rel=1e-12)
    assert report.average_path_length == pytest.approx(last["apl"], rel=1e-12)
    assert report.num_active == last["active_units"]
    assert float(report.effective_width) == last["effective_width"]
    dense = load_run(tmp_path, weights="dense").model
    assert all(not own.parameter.any() for own in slopes_of(dense))
    assert any(own.parameter.any() for own in slopes_of(found.model))
    if found.task.decode is not None:
        scores = found.task.decode(found.model, found.task.test, torch.device("cpu"))
        assert scores == {"bleu": last["bleu"], "exact": last["exact"]}


def test_weights_of_a_run_begin_another(tmp_path):
    dense = changed(TINY, linearize__epochs=0, finetune__epochs=0)
    before = run(dense, tmp_path / "dense")
    settings = changed(
        TINY, train__epochs=0, weights=str(tmp_path / "dense"), linearize__distillation={}
    )
    settings["optimizer"]["learning_rate"] = 1e-12  # so that the epoch changes nothing
    after = run(settings, tmp_path / "late")
    assert after.history[0]["test_loss"] == pytest.approx(before.history[-1]["test_loss"], abs=1e-6)


@pytest.mark.parametrize("omega", [0.0, 20.0])
def test_targets_are_reached_or_said_not_to_be(omega, tmp_path):
    settings = changed(
        TINY, linearize__prior={"omega": omega, "method": "proximal", "target_napl": "50 %"}
    )
    recorder = Recorder()
    result = run(settings, tmp_path, recorder)
    target = result.summary["target"]
    assert (target["quantity"], target["target"]) == ("napl", 1.0)
    assert target["reached"] == (omega > 0)
    assert target["value"] == pytest.approx(1.0 if omega else 2.0, rel=0.02)
    expected = "target reached: napl" if omega else "target not reached: napl 2, target 1"
    assert any(said.startswith(expected) for said in recorder.said)


def test_distillation_keeps_to_the_teacher(tmp_path):
    """With all weight on a teacher, the linearized network stays nearer to it than without."""
    apart = []
    for weight in (0.0, 1.0):
        settings = changed(TINY, linearize__distillation={"weight": weight, "temperature": 1.0})
        settings["task"]["classes"] = 5
        run(settings, tmp_path / str(weight))
        model, dense = (load_run(tmp_path / str(weight), name).model for name in ("model", "dense"))
        images = torch.stack([image for image, _ in load_run(tmp_path / str(weight)).task.test])
        with torch.no_grad():
            teacher, student = dense(images).softmax(1), model(images).softmax(1)
        apart.append((teacher - student).abs().mean().item())
    assert apart[1] < 0.5 * apart[0]


# --- when it goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("clip", [None, 1e30])
def test_a_loss_that_is_not_finite(steps, clip, tmp_path):
    settings = changed(
        TINY, model={"name": "mlp", "depth": 4, "width": 8}, checkpoint_steps=steps, clip_norm=clip
    )
    settings["linearize"]["learning_rate"] = 1e12
    with pytest.raises(TrainingError) as caught:
        run(settings, tmp_path)
    text = str(caught.value)
    assert "at step 1" in text  # 11 or a little later
    assert "phase linearize, learning rate " in text
    assert "omega 0.1" in text
    kept = load_tree(tmp_path / "checkpoint.safetensors")
    assert f"the checkpoint of step {kept['position']['step']} is kept" in text
    assert kept["position"]["step"] == 10 or steps
    weights = [*kept["model"].values()]
    assert all(bool(weight.isfinite().all()) for weight in weights)


def test_a_loss_that_is_not_finite_before_the_first_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"phase train, .*; there is no checkpoint yet"):
        run(changed(TINY, train__learning_rate=1e30), tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_slopes_are_the_only_change_of_a_model_made_linearizable():
    """What `plain_loop` takes from the package is the user's model with slopes of 0."""
    recipe = tiny()
    task = build_task(recipe.task)
    model = make_model(recipe.model_copy(update={"linearize": Linearize()}), task)
    own = make_linearizable(copy.deepcopy(model), task.example)
    assert torch.equal(own(*task.example), model(*task.example))
    same = make_model(recipe, task).state_dict()
    assert all(torch.equal(same[key], value) for key, value in model.state_dict().items())
