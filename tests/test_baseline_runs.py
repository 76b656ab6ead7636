"""Runs with a baseline: recipes, targets, kills, several processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import distributed

from pathlen.errors import PathlenError, SettingsError
from pathlen.training import load_recipe, load_run, make_recipe, slopes_of
from pathlen.training.recipe_file import dump_recipe
from tests.processes import exit_code, together
from tests.training_runs import TINY, changed, killed_after_step, outcome, run

KILLED = -9


def with_baseline(**baseline: Any) -> dict[str, Any]:
    """Tiny runs: two layers of 8 units, unless the model is changed."""
    settings = changed(
        TINY, train__epochs=1, linearize__baseline=baseline, linearize__epochs=3, checkpoint_steps=2
    )
    del settings["linearize"]["prior"]
    return settings


RECIPES = {
    "random": with_baseline(name="random", target_units="50 %", train_slopes=False),
    "magnitude": with_baseline(name="magnitude", target_napl="50 %"),
    "snl": changed(
        with_baseline(name="snl", target_units=8, omega=1e-3, factor=1.5, threshold=0.3),
        linearize__distillation={},
    ),
    "layer_folding": changed(
        with_baseline(name="layer_folding", target_napl="70 %", end=0.5),
        optimizer={"name": "adamw", "learning_rate": 0.01},
    ),
    "entropy": changed(
        with_baseline(name="entropy", target_units="25 %", batches=2, train_slopes=True),
        task__shift=1,
    ),
    "greedy": changed(
        with_baseline(name="greedy", target_napl="25 %", first="smallest"),
        model={"name": "mlp", "width": 16, "depth": 3, "residual": True},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_killed_runs_end_as_others_at_their_target(name, tmp_path):
    settings = RECIPES[name]
    run(settings, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    folder = tmp_path / "killed"
    for phase, step in [("linearize", 7), ("finetune", 3)]:
        assert exit_code(killed_after_step, settings, folder, phase, step) == KILLED
    run(settings, folder)
    assert outcome(folder) == expected
    target = expected["summary"]["target"]
    assert target["reached"]
    assert target["value"] == pytest.approx(target["target"], rel=0.02)
    found = load_run(folder)
    assert found.recipe == make_recipe(settings)
    assert found.history[-1]["active_units"] == sum(
        int((own.parameter != 1).sum()) for own in slopes_of(found.model)
    )
    key = {"napl": "napl", "units": "active_units"}[target["quantity"]]
    assert found.history[-1][key] == pytest.approx(target["value"], rel=1e-6)


@pytest.mark.parametrize("name", ["entropy", "layer_folding"])
def test_two_processes_decide_as_one(name, tmp_path):
    settings = changed(RECIPES[name], machine__precision="64-true")
    alone = run(settings, tmp_path / "one").history
    histories = together(_in_a_process, 2, settings, tmp_path / "two")
    assert histories[0] == histories[1]
    for one, other in zip(histories[0], alone, strict=True):
        assert one["active_units"] == other["active_units"]
        assert one["test_loss"] == pytest.approx(other["test_loss"], abs=1e-5)
    checkpoints = [outcome(tmp_path / name)["checkpoint"]["prior"] for name in ("one", "two")]
    assert checkpoints[0].get("order") == checkpoints[1].get("order")
    assert checkpoints[0]["frozen"] == checkpoints[1]["frozen"]


def _in_a_process(settings: dict, folder: str) -> list[dict]:
    result = run(changed(settings, machine__devices=2), folder)
    distributed.destroy_process_group()
    return [{**row, "seconds": 0} for row in result.history]


def test_the_penalty_of_snl_grows_each_epoch(tmp_path):
    settings = changed(RECIPES["snl"], linearize__baseline__omega=1e-6)
    history = run(settings, tmp_path).history
    omegas = [row["omega"] for row in history if row["phase"] == "linearize"]
    assert omegas == pytest.approx([1e-6, 1.5e-6, 2.25e-6])
    assert history[-1]["active_units"] == 8


def test_recipes_are_written_and_read_alike(tmp_path):
    for settings in RECIPES.values():
        recipe = make_recipe(settings)
        path = tmp_path / "recipe.yaml"
        path.write_text(dump_recipe(recipe))
        assert load_recipe(path) == recipe
        assert recipe.linearize.prior is None
    overrides = ["linearize.prior=null", "linearize.baseline.name=random"]
    recipe = load_recipe("digits", [*overrides, "linearize.baseline.target_napl=25 %"])
    assert recipe.linearize.baseline.goal() == ("napl", 0.25, True)


RANDOM = {"name": "random", "target_units": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"linearize__baseline": RANDOM, "linearize__prior": {"omega": 1.0}},
            "linearize: prior and baseline are given; a run is linearized by one of them",
        ),
        ({"linearize__prior": None}, "linearize: prior is null, and there is no baseline"),
        ({"linearize__baseline": {"name": "random"}}, "linearize.baseline: a baseline needs a tar"),
        (
            {"linearize__baseline": {"name": "rando", "target_units": 4}},
            "linearize.baseline.name: there is no 'rando'; choose 'random', 'magnitude', 'snl'",
        ),
        ({"linearize__baseline": {"target_units": 4}}, "linearize.baseline: 'name' is missing"),
        (
            {"linearize__baseline": RANDOM | {"beginn": 0.1}},
            "linearize.baseline: there is no setting 'beginn'; did you mean 'begin'",
        ),
        (
            {"linearize__baseline": RANDOM | {"begin": 0.9}},
            "linearize.baseline: begin is 0.9 and end is 0.8; nothing lies between them",
        ),
        (
            {"linearize__baseline": RANDOM | {"target_napl": 1}},
            "linearize.baseline: target_napl and target_units are given; a run has one target",
        ),
        (
            {"linearize__baseline": RANDOM, "linearize__early_stop": {"patience": 1}},
            "linearize: early_stop would end a phase",
        ),
        (
            {
                "linearize__baseline": {"name": "entropy", "target_units": 1},
                "linearize__granularity": "layer",
            },
            "linearize: baseline 'entropy' needs a slope for each unit",
        ),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    settings = changed(TINY, **changes)
    if "linearize__prior" not in changes:
        del settings["linearize"]["prior"]
    with pytest.raises(SettingsError) as error:
        make_recipe(settings)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["snl", "layer_folding", "greedy"])
def test_targets_above_the_model_are_refused_before_training(name, tmp_path):
    with pytest.raises(PathlenError, match="more than the model has: 16"):
        run(with_baseline(name=name, target_units=17), tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_folder_keeps_its_baseline(tmp_path):
    run(RECIPES["random"], tmp_path)
    with pytest.raises(SettingsError, match=r"linearize\.baseline\.name: 'random' and 'magnitude'"):
        run(with_baseline(name="magnitude", target_units="50 %"), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["target"]["reached"]
