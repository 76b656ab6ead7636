"""Finished runs as a text file: what it holds, and that a study does not repeat them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pathlen.cli.main import main
from pathlen.errors import SettingsError, StudyError
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study import load_study, make_study, read_results, run_study
from pathlen.training.study.contents import export
from pathlen.training.study.coordinator import Coordinator
from pathlen.training.study.finished import Finished, read_finished, write_finished
from pathlen.training.study.folder import StudyFolder
from pathlen.training.study.keys import run_key
from pathlen.training.study.plan import plan_study
from pathlen.training.study.results import read_status
from pathlen.training.study.settings import SHIPPED
from tests.studies import SHORT, fail, put, settings
from tests.training_runs import changed

IMAGES = {"name": "cifar10", "folder": "data/cifar-10-batches-bin", "image_size": 16}
TEXTS = {"name": "text_pairs", "train_source": "a/x"}


def row(epoch, phase, accuracy):
    return {"epoch": epoch, "phase": phase, "step": 5 * epoch, "test_accuracy": accuracy} | {
        "napl": 1.0,
        "active_units": 4,
        "seconds": 1.5 * epoch,
    }


ROWS = [row(1, "train", 0.9), row(2, "linearize", 0.12345678) | {"effective_width": 2.0}]
SUMMARY = {"metric": "accuracy", "seconds": 3.0, "machine": "a machine"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in a file, of whose four runs two are done."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(settings()))
    home, loaded = StudyFolder(Path("studies/small")), load_study("study.yaml")
    plan = plan_study(loaded)
    home.take_up(plan)
    for run in plan.runs[:2]:
        put(home, run, ROWS)
    return loaded


def done_by(folder, plan, finished):
    """Keys of runs that a command takes for done."""
    coordinator = Coordinator(plan, StudyFolder(folder), None, None, print)
    coordinator.skip_done(finished)
    return set(coordinator.over)


def call(*arguments):
    result = CliRunner().invoke(main, ["study", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_key_is_a_hash_of_what_differs_from_the_defaults():
    settings = {
        "task": {"name": "digits", "classes": 2},
        "model": {"name": "mlp", "width": 8, "depth": 2},
        "batch_size": 48,
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "train": {"epochs": 2},
    }
    schedule = {"schedule": {"name": "cosine"}}
    machine = {"machine": {"accelerator": "cpu", "threads": 1, "precision": "32-true"}}
    same = {"warmup": 0.0, "final": 0.0, "span": "phase"}
    recipe = make_recipe(settings | schedule | machine)
    assert run_key(recipe) == run_key(
        make_recipe(settings | {"schedule": same | {"name": "cosine"}})
    )
    whole = {"recipe": settings, "precision": "32-true", "needs": None}
    text = json.dumps(whole, sort_keys=True)
    assert run_key(recipe) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_alternatives_of_equal_values_have_other_keys():
    optimizers = [{"name": name, "learning_rate": 0.03} for name in ("sgd", "adamw")]
    keys = {run_key(make_recipe(changed(SHORT, optimizer=one))) for one in optimizers}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (IMAGES, IMAGES | {"folder": "/elsewhere/cifar"}, True),
        (IMAGES, IMAGES | {"image_size": 8}, False),
        ({"name": "imagefolder", "folder": "a/x"}, {"name": "imagefolder", "folder": "b/x"}, True),
        ({"name": "imagefolder", "folder": "a/x"}, {"name": "imagefolder", "folder": "a/y"}, False),
        ({"name": "imagefolder", "folder": "x"}, {"name": "imagefolder", "folder": "y"}, False),
        (TEXTS, TEXTS | {"train_source": "b/x"}, True),
        (TEXTS, TEXTS | {"train_source": "a/y"}, False),
    ],
)
def test_where_data_lie_is_not_in_a_key(one, other, same):
    keys = {run_key(make_recipe(SHORT | {"task": task})) for task in (one, other)}
    assert (len(keys) == 1) is same


def test_cases_that_differ_only_in_where_data_lie_are_refused():
    recipe = SHORT | {"task": IMAGES}
    with pytest.raises(SettingsError, match="differs from another case only in where data"):
        plan_study(make_study(settings(recipe=recipe, grid={"task.folder": ["a", "b"]})))
    plan_study(make_study(settings(recipe=recipe, grid={"task.image_size": [8, 16]})))


def test_a_file_gives_back_the_rows_without_weights_or_repetition(tmp_path):
    path = tmp_path / "a.jsonl"
    run = Finished("k", {"omega": 0.1}, 3, "pathlen study run a", 12.0, SUMMARY, ROWS)
    write_finished(path, [run])
    (line,) = path.read_text().splitlines()
    plain = json.loads(line)
    assert plain["metrics"]["test_accuracy"] == [0.9, 0.1234568]  # seven digits
    assert plain["metrics"]["effective_width"] == [None, 2.0]
    (found,) = read_finished(path).values()
    assert [dict(one) for one in found.rows] == [ROWS[0], ROWS[1] | {"test_accuracy": 0.1234568}]
    assert found.whole_summary["phases"]["train"] == ROWS[0]
    assert (found.labels, found.seed, found.took) == ({"omega": 0.1}, 3, 12.0)
    assert read_finished(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("line", ["no json", "[1]", "{}", '{"metrics": {}}', '{"metrics": [1]}'])
def test_what_is_no_file_of_results_is_refused(line, tmp_path):
    path = tmp_path / "a.jsonl"
    write_finished(path, [Finished("k", None, 0, "", None, SUMMARY, ROWS)])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(StudyError, match=r"a\.jsonl, line 2: this is no finished run"):
        read_finished(path)


def test_what_is_exported_is_shown_and_counted_without_the_folder(study):
    before = call("table", "study.yaml", "--csv")
    assert call("export", "study.yaml") == "2 finished runs are in study.jsonl\n"
    text = Path("study.jsonl").read_text()
    shutil.rmtree("studies")
    assert call("table", "study.yaml", "--csv") == before.replace("0.12345678", "0.1234568")
    assert call("status", "study.yaml") == "2 done, 0 running, 2 pending, 0 failed\n"
    call("plot", "study.yaml", "-o", "a.png")
    results = read_results("studies/small", study, Path("study.jsonl"))
    assert [record.summary["machine"] for record in results.records] == ["a machine"] * 2
    assert "pathlen study run small" in text


def test_lines_of_other_machines_are_kept_and_come_in_the_order_of_the_study(study):
    path, home = Path("study.jsonl"), Path("studies/small")
    keys = [member.key for member in plan_study(study).members]
    other = Finished("elsewhere", None, 0, "theirs", None, SUMMARY, ROWS)
    write_finished(path, [other, Finished(keys[1], {}, 1, "theirs", None, SUMMARY, ROWS)])
    assert export(study, home, path) == 3
    assert [*read_finished(path)] == [*keys[:2], "elsewhere"]
    assert [one.command for one in read_finished(path).values()] == [
        "pathlen study run small",
        "theirs",
        "theirs",
    ]
    # a folder that tells less than the file
    shutil.rmtree(home / "runs" / keys[0])
    fail(StudyFolder(home), plan_study(study).runs[0], "no memory")
    assert read_status(home).counts["failed"] == 1
    assert read_status(home, study, path).counts == {
        "done": 2,
        "running": 0,
        "pending": 2,
        "failed": 0,
    }


def test_runs_that_are_finished_in_the_file_are_not_repeated(study):
    call("export", "study.yaml")
    shutil.rmtree("studies")
    keys = [member.key for member in plan_study(study).members]
    assert done_by(Path(), plan_study(study), read_finished(Path("study.jsonl"))) == {*keys[:2]}


@pytest.mark.parametrize(("missing", "done"), [(0, {0, 1, 2}), (1, {1})])
def test_weights_of_dense_runs_are_not_in_the_file(missing, done, tmp_path):
    plan = plan_study(make_study(settings(share_training=True, seeds=[0])))
    keys = [run.key for run in plan.runs]
    assert [run.needs for run in plan.runs] == [None, keys[0], keys[0]]
    known = {
        key: Finished(key, None, 0, "", None, SUMMARY, ROWS) for key in keys[: len(keys) - missing]
    }
    assert done_by(tmp_path, plan, known) == {keys[number] for number in done}


@pytest.mark.slow
def test_a_study_on_a_new_machine_does_only_what_is_left(tmp_path):
    path = tmp_path / "results.jsonl"
    first = make_study(settings(seeds=[0], workers=1))
    run_study(first, tmp_path / "one")
    assert export(first, tmp_path / "one", path) == 2
    assert all("thread" in one.summary["machine"] for one in read_finished(path).values())
    said: list[str] = []
    more = make_study(settings(workers=1))
    assert run_study(more, tmp_path / "two", results=path, say=said.append) == {"done": 4}
    assert [text.partition(":")[0] for text in said] == [
        "[3/4] omega=0.1, seed 1",
        "[4/4] omega=5.0, seed 1",
    ]
    assert len([*(tmp_path / "two" / "runs").iterdir()]) == 2
    assert len(read_results(tmp_path / "two").records) == 4


def test_values_are_set_for_all_runs(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(settings(cases=[{"label": "a", "set": {"width": 4}}])))
    study = load_study(path, ["batch_size=24", "task.classes=3"])
    assert {run.recipe.batch_size for run in plan_study(study).runs} == {24}
    assert {run.recipe.task["classes"] for run in plan_study(study).runs} == {3}
    for key in ("width=3", "omega=1.0"):
        with pytest.raises(SettingsError, match="cannot be set for all runs"):
            load_study(path, [key])
    with pytest.raises(SettingsError, match="'width' is not an override"):
        load_study(path, ["width"])
    result = CliRunner().invoke(main, ["study", "run", str(path), "--set", "omega=1.0"])
    assert result.exit_code == 2
    assert "'omega' cannot be set for all runs: grid of the study sets it" in result.stderr


@pytest.mark.parametrize("path", [*SHIPPED.glob("*.jsonl")], ids=lambda path: path.stem)
def test_results_that_come_with_pathlen_are_found_by_their_studies(path):
    plan = plan_study(load_study(path.stem))
    labels = {member.key: dict(member.labels) for member in plan.members}
    found = read_finished(path)
    assert found
    for run in found.values():
        assert run.key in {one.key for one in plan.runs}
        assert run.labels == labels.get(run.key)
