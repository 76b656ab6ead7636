"""Schedules of the learning rate and plans of phases, against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from pathlen.training.learning_rate import learning_rate, stages
from tests.training_runs import TINY, Recorder, changed, run, tiny


def rates(recipe, steps: int = 10) -> dict[str, list[float]]:
    """Learning rates at each tenth of an epoch, by phase."""
    return {
        stage.name: [
            learning_rate(recipe, stage, number / steps)
            for number in range(stage.epochs * steps + 1)
        ]
        for stage in stages(recipe)
    }


def test_a_constant():
    found = rates(tiny(schedule={"name": "constant"}, optimizer__learning_rate=0.3))
    assert found["train"] == [0.3] * 21
    assert set(found["linearize"]) == set(found["finetune"]) == {0.3}


def test_a_warmup_is_linear_in_each_phase():
    found = rates(tiny(schedule={"name": "constant", "warmup": 0.5}, optimizer__learning_rate=0.3))
    for own in found.values():
        assert own[:6] == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])
        assert set(own[5:]) == {0.3}


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_a_cosine_of_each_phase(final):
    recipe = tiny(schedule={"name": "cosine", "final": final}, linearize__learning_rate=0.02)
    found = rates(recipe)
    for phase, highest in {"train": 0.05, "linearize": 0.02, "finetune": 0.05}.items():
        own = found[phase]
        assert own[0] == highest
        assert own[-1] == pytest.approx(final * highest, abs=1e-18)
        middle = own[len(own) // 2]
        assert middle == pytest.approx(highest * (1 + final) / 2)
        for number, rate in enumerate(own):  # sin^2 + cos^2 = 1
            angle = math.pi * number / (len(own) - 1) / 2
            expected = highest * (final + (1 - final) * math.cos(angle) ** 2)
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-17)


def test_a_cosine_after_a_warmup():
    found = rates(tiny(schedule={"name": "cosine", "warmup": 1.0}))["train"]
    assert found[:11] == pytest.approx([0.05 * share / 10 for share in range(11)])
    assert found[10] == 0.05
    assert found[15] == pytest.approx(0.025)
    assert found[20] == pytest.approx(0, abs=1e-18)
    only_warmup = rates(tiny(schedule={"name": "cosine", "warmup": 2.0}))["train"]
    assert only_warmup[:20] == pytest.approx([0.05 * share / 20 for share in range(20)])


def test_one_cosine_over_the_run():
    """Five epochs: no jump where phases meet."""
    found = rates(tiny(schedule={"name": "cosine", "span": "run"}))
    for one, other in pairwise(found.values()):
        assert one[-1] == other[0]
    assert found["train"][0] == 0.05
    assert found["finetune"][-1] == pytest.approx(0, abs=1e-18)
    assert found["linearize"][5] == pytest.approx(0.025)  # after two and a half epochs


def test_steps():
    schedule = {"name": "step", "milestones": [0.5, 0.75], "factor": 0.1}
    found = rates(tiny(schedule=schedule, optimizer__learning_rate=1.0))
    assert found["train"] == pytest.approx([1.0] * 10 + [0.1] * 5 + [0.01] * 6)
    whole = rates(tiny(schedule=schedule | {"span": "run"}, optimizer__learning_rate=1.0))
    assert set(whole["train"]) == {1.0}
    assert whole["linearize"] == pytest.approx([1.0] * 5 + [0.1] * 13 + [0.01] * 3, rel=1e-9)
    assert whole["finetune"] == pytest.approx([0.01] * 11)


def test_a_phase_has_a_schedule_of_its_own():
    found = rates(tiny(finetune__schedule={"name": "constant"}, finetune__learning_rate=0.01))
    assert set(found["finetune"]) == {0.01}
    assert found["train"][-1] == pytest.approx(0, abs=1e-18)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("train", 0, 2), ("linearize", 2, 2), ("finetune", 4, 1)]),
        ({"train__epochs": 0}, [("linearize", 0, 2), ("finetune", 2, 1)]),
        (
            {"train__epochs": 7, "linearize__start": 3},
            [("train", 0, 3), ("linearize", 3, 2), ("finetune", 5, 1)],
        ),
        ({"linearize__start": 0}, [("linearize", 0, 2), ("finetune", 2, 1)]),
        ({"linearize__epochs": 0}, [("train", 0, 2), ("finetune", 2, 1)]),
        ({"finetune__epochs": 0}, [("train", 0, 2), ("linearize", 2, 2)]),
    ],
)
def test_plans(changes, expected):
    recipe = tiny(**changes)
    plan = stages(recipe)
    assert [(stage.name, stage.start, stage.epochs) for stage in plan] == expected
    assert {stage.total for stage in plan} == {sum(length for _, _, length in expected)}


@pytest.mark.parametrize(
    ("changes", "phases"),
    [
        ({"train__epochs": 0}, "LLF"),  # from scratch
        ({"train__epochs": 3, "linearize__start": 1}, "TLLF"),  # from epoch k
        ({}, "TTLLF"),  # after training
        ({"linearize__epochs": 0}, "TTF"),
    ],
)
def test_runs_follow_their_plans(changes, phases, tmp_path):
    recorder = Recorder()
    settings = changed(TINY, optimizer={"name": "sgd", "learning_rate": 0.1}, **changes)
    result = run(settings, tmp_path, recorder)
    assert "".join(row["phase"][0].upper() for row in result.history) == phases
    assert [row["epoch"] for row in result.history] == list(range(1, len(phases) + 1))
    assert [row["step"] for row in result.history] == [5 * n for n in range(1, len(phases) + 1)]
    for row in result.history:
        assert row["omega"] == (0.1 if row["phase"] == "linearize" else 0.0)
    # the rate of the last of 5 steps, with a cosine over the epochs of a phase
    for place, row in enumerate(result.history):
        length = phases.count(phases[place])
        done = place - phases.index(phases[place]) + 0.8
        assert row["learning_rate"] == pytest.approx(0.05 * (1 + math.cos(math.pi * done / length)))
    assert (tmp_path / "dense.safetensors").exists() == ("L" in phases)
