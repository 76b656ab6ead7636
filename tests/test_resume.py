"""A run that is killed at any moment and goes on ends, bit for bit, as one that was not."""

from __future__ import annotations

import json

import pytest

from tests.processes import exit_code
from tests.training_runs import (
    TINY,
    TRANSLATION,
    changed,
    killed_after_step,
    killed_in_write,
    outcome,
    run,
)

KILLED = -9

RECIPES = {
    "sgd, shifts, early stop": changed(
        TINY,
        task__shift=1,
        task__classes=5,
        batch_size=128,
        optimizer__nesterov=True,
        linearize__epochs=4,
        linearize__early_stop={"patience": 1, "least_change": 0.2},
        linearize__prior__omega=1.0,
        checkpoint_steps=3,
    ),
    "adamw, teacher, growing prior, target": changed(
        TINY,
        optimizer={"name": "adamw", "learning_rate": 0.01, "slope_learning_rate": 0.2},
        linearize__prior__schedule={"name": "grow", "factor": 2.0, "patience": 2},
        linearize__prior__target_units="50 %",
        linearize__distillation={"weight": 0.5, "temperature": 2.0},
        finetune__distillation={"weight": 0.9},
        checkpoint_steps=2,
    ),
    "batch norm, proximal steps": changed(
        TINY,
        model={"name": "resnet8", "width": 4},
        linearize__prior={"omega": 4.0, "method": "proximal", "weights": "napl"},
        clip_norm=1.0,
        label_smoothing=0.1,
        schedule={"name": "cosine", "span": "run", "warmup": 0.5},
        checkpoint_steps=3,
    ),
    "transformer, tied, dropout, ramp": changed(
        TRANSLATION,
        optimizer__slope_learning_rate=0.2,
        linearize__prior__schedule={"name": "ramp", "epochs": 1.0},
        checkpoint_steps=2,
    ),
    "64 bits, step schedule, epochs only": changed(
        TINY,
        linearize__prior__omega=4.0,
        machine__precision="64-true",
        schedule={"name": "step"},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_killed_after_steps(name, tmp_path):
    settings = RECIPES[name]
    run(settings, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    folder = tmp_path / "killed"
    # in the first epoch, at its end, the first step of a phase, in its middle, in the last phase
    for phase, step in [("train", 4), ("train", 5), ("linearize", 1), ("linearize", 8)]:
        assert exit_code(killed_after_step, settings, folder, phase, step) == KILLED
        assert not (folder / "summary.json").exists()
    assert exit_code(killed_after_step, settings, folder, "finetune", 3) == KILLED
    run(settings, folder)
    assert outcome(folder) == expected
    frozen = expected["checkpoint"]["prior"]["frozen"].values()
    assert any(any(part[2]) for part in frozen)  # something became linear, so there was a choice


def test_the_recipes_do_what_their_names_say(tmp_path):
    """Else equal ends would prove nothing of early stops, growth and targets."""
    run(RECIPES["sgd, shifts, early stop"], tmp_path / "early")
    rows = outcome(tmp_path / "early")["rows"]
    assert 1 < sum(row["phase"] == "linearize" for row in rows) < 4
    run(RECIPES["adamw, teacher, growing prior, target"], tmp_path / "grown")
    found = outcome(tmp_path / "grown")
    assert found["checkpoint"]["omega"]["omega"] > 0.1
    assert found["checkpoint"]["teacher"] is not None
    assert found["summary"]["target"] == {
        "quantity": "units",
        "target": 8.0,
        "value": 8.0,
        "reached": True,
        "within": 0.02,
    }


WRITES = [
    "recipe",
    *["checkpoint of training", "rows", "table"],
    "dense weights",
    *["checkpoint of linearization", "rows", "table"],
    *["last checkpoint", "rows", "table"],
    "weights",
    "summary",
]
# together they see all writes, and each moment at a checkpoint
MOMENTS = {"half": [2, 5, 8, 11], "unsynced": [3, 6, 12], "renamed": [1, 4, 7, 9, 10, 13]}
SHORT = changed(TINY, train__epochs=1, linearize__epochs=1, batch_size=128)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_each_write(moment, tmp_path):
    run(SHORT, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    for number in MOMENTS[moment]:
        folder = tmp_path / str(number)
        assert exit_code(killed_in_write, SHORT, folder, number, moment) == KILLED
        unfinished = list(folder.glob("*.unfinished"))
        assert len(unfinished) == (moment != "renamed")
        result = run(SHORT, folder)
        assert outcome(folder) == expected, f"{moment}: {number}, {WRITES[number - 1]}"
        assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert exit_code(killed_in_write, SHORT, tmp_path / "none", len(WRITES) + 1, moment) == 0


def test_a_crash_in_the_midst_of_a_checkpoint_of_an_epoch(tmp_path):
    settings = changed(TINY, checkpoint_steps=2)
    run(settings, tmp_path / "whole")
    folder = tmp_path / "killed"
    # each attempt gets one checkpoint further, then dies in the middle of the next
    for number in (5, 6, 7, 8):
        assert exit_code(killed_in_write, settings, folder, number, "half") == KILLED
    run(settings, folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_another_seed_is_another_run(tmp_path):
    """The comparison sees a difference in the last digits."""
    run(SHORT, tmp_path / "one")
    run(changed(SHORT, seed=1), tmp_path / "two")
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert one["model"] != two["model"]
    assert one["rows"] != two["rows"]
    assert json.dumps(one["summary"]) != json.dumps(two["summary"])
