"""Studies on this machine: what they leave, and that nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import signal

import pytest

from pathlen.errors import StudyError
from pathlen.training.loop import train
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study import make_study, read_results, run_study
from pathlen.training.study.results import read_status
from pathlen.training.study.store import Store
from pathlen.training.trained import load_run
from tests.studies import (
    LONG,
    SHORT,
    begin,
    check_each_done_once,
    finished,
    kill_group,
    logs,
    settings,
    under_way,
    wait_for,
)
from tests.training_runs import changed

pytestmark = pytest.mark.slow
ONE = {"grid": {"omega": [5.0]}, "seeds": [0]}


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def alone(folder, **changes):
    """The rows of a run by `train`, with one thread as the studies have."""
    recipe = changed(SHORT, machine__threads=1, **changes)
    return train(make_recipe(recipe), folder).history


def test_a_study_gives_the_rows_of_its_runs_and_does_them_once(tmp_path):
    said = []
    study = make_study(settings(workers=None))
    assert run_study(study, tmp_path / "study", say=said.append) == {"done": 4}
    assert len(said) == 4
    assert said[-1].startswith("[4/4] omega=")
    results = read_results(tmp_path / "study")
    for record in results.records:
        omega = record.labels["omega"]
        rows = alone(tmp_path / record.key, linearize__prior__omega=omega, seed=record.seed)
        assert without_seconds(record.history) == without_seconds(rows)
    assert [len(case.records) for case in results.cases] == [2, 2]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("study/runs/*/*")}
    assert run_study(study, tmp_path / "study", say=said.append) == {"done": 4}
    assert len(said) == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("study/runs/*/*")} == before
    check_each_done_once(tmp_path / "study", 4)


def test_failures_are_isolated_listed_and_retried_when_asked(tmp_path):
    cases = [
        {"label": "well", "set": {}},
        {"label": "diverges", "set": {"optimizer.learning_rate": 1e30}},
        {"label": "no such data", "set": {"task": {"name": "cifar10", "folder": "nowhere"}}},
        {"label": "dies", "set": {"model": {"name": "dying.py:Dying"}}},
    ]
    dying = "import os, signal\ndef Dying(num_classes):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "dying.py").write_text(dying)
    study = settings(cases=cases, grid={}, seeds=[0])
    code, out, errors = finished(begin(tmp_path, study))
    assert code == 1, errors
    assert "1 runs are done" in out
    assert "3 runs failed (--retry-failed does them once more):" in errors
    home = tmp_path / "studies" / "small"
    status = read_status(home)
    assert status.counts == {"done": 1, "running": 0, "pending": 0, "failed": 3}
    failed = {one["name"]: one["error"] for one in status.failed}
    assert "the loss is not finite" in failed["case=diverges, seed 0"]
    assert "data_batch_1" in failed["case=no such data, seed 0"]
    assert "ended by SIGKILL" in failed["case=dies, seed 0"]
    with Store(home) as store:
        traces = {run["error"][:8]: run["traceback"] for run in store.runs() if run["error"]}
    assert "Traceback" in traces["the loss"]
    assert "TrainingError" in traces["the loss"]
    # they stay failed until they are asked for
    assert finished(begin(tmp_path, study))[0] == 1
    with Store(home) as store:
        assert {run["attempts"] for run in store.runs()} == {1}
    (tmp_path / "dying.py").write_text(
        "from pathlen.training import MLP\n"
        "def Dying(num_classes):\n    return MLP(64, num_classes, depth=1, width=4)\n"
    )
    code, out, _ = finished(begin(tmp_path, study, "--retry-failed"))
    assert code == 1
    assert "2 runs are done" in out
    with Store(home) as store:
        attempts = [(run["state"], run["attempts"]) for run in store.runs()]
    assert sorted(attempts) == [("done", 1), ("done", 2), ("failed", 2), ("failed", 2)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_stopped_or_killed_goes_on(number, tmp_path):
    study = settings(recipe=LONG, **ONE | {"seeds": [0, 1, 2]})
    home = tmp_path / "studies" / "small"
    process = begin(tmp_path, study)
    wait_for(lambda: len(under_way(home)) == 2, "two runs under way")
    process.send_signal(number)
    code, out, errors = finished(process)
    assert code == {signal.SIGKILL: -9}.get(number, 130), errors
    if number != signal.SIGKILL:
        assert "stopped; the same command goes on" in out
        assert read_status(home).counts == {"done": 0, "running": 0, "pending": 3, "failed": 0}
    else:
        assert [one["alive"] for one in read_status(home).running] == [False, False]
    code, out, errors = finished(begin(tmp_path, study))
    assert code == 0, errors
    assert sum("going on in phase" in text for text in logs(home).values()) == 2
    (key, *_) = (key for key, text in logs(home).items() if "going on in phase" in text)
    (record,) = (one for one in read_results(home).records if one.key == key)
    seed = record.seed
    rows = alone(tmp_path / "alone", train__epochs=40, linearize__prior__omega=5.0, seed=seed)
    assert without_seconds(record.history) == without_seconds(rows)


def test_two_studies_at_once_on_one_store_both_finish_and_no_run_is_done_twice(tmp_path):
    study = settings(recipe=changed(SHORT, train__epochs=20), seeds=[0, 1, 2], workers=1)
    both = [begin(tmp_path, study) for _ in range(2)]
    for process in both:
        code, out, errors = finished(process)
        assert code == 0, errors
        assert "6 runs are done" in out
    home = tmp_path / "studies" / "small"
    check_each_done_once(home, 6)
    with Store(home) as store:
        assert {run["attempts"] for run in store.runs()} == {1}


def test_a_run_waits_for_who_still_works_in_its_folder(tmp_path):
    """As a study that was taken for dead may; what it did is then read, and not done again."""
    study = settings(recipe=LONG, **ONE)
    home = tmp_path / "studies" / "small"
    first = begin(tmp_path, study)
    wait_for(lambda: under_way(home), "a run under way")
    with Store(home) as store:  # as if its lease had ended
        store._database.execute("UPDATE runs SET owner = 'elsewhere/1/x', heartbeat = 0")
    second = begin(tmp_path, study)
    for process in (first, second):
        code, _, errors = finished(process)
        assert code == 0, errors
    (text,) = logs(home).values()
    assert "this run ended before" in text
    check_each_done_once(home, 1)


def test_shared_training(tmp_path):
    """The dense phase is the same to the last bit; what comes after it begins without momentum."""
    recipe = changed(SHORT, train__epochs=3, linearize__epochs=2)
    study = make_study(settings(recipe=recipe, seeds=[0], share_training=True))
    assert run_study(study, tmp_path / "study") == {"done": 3}
    for record in read_results(tmp_path / "study").records:
        omega = record.labels["omega"]
        rows = alone(
            tmp_path / record.key,
            train__epochs=3,
            linearize__epochs=2,
            linearize__prior__omega=omega,
        )
        assert without_seconds(record.history[:3]) == without_seconds(rows[:3])
        assert record.dense == record.history[2]
        assert [(row["epoch"], row["phase"], row["step"]) for row in record.history] == [
            (row["epoch"], row["phase"], row["step"]) for row in rows
        ]
        # exactly what a recipe with these weights gives
        with Store(tmp_path / "study") as store:
            (needs,) = {run["needs"] for run in store.runs() if run["key"] == record.key}
        weights = tmp_path / "study" / "runs" / needs
        again = alone(
            tmp_path / f"{record.key}-again",
            train__epochs=0,
            linearize__epochs=2,
            linearize__prior__omega=omega,
            weights=str(weights),
        )
        metrics = ("test_loss", "test_accuracy", "napl", "active_units")
        assert [[row[name] for name in metrics] for row in record.history[3:]] == [
            [row[name] for name in metrics] for row in again
        ]
        assert load_run(tmp_path / "study" / "runs" / record.key).model is not None


def test_shared_training_without_momentum_is_as_if_nothing_was_shared(tmp_path):
    """On one batch an epoch and without momentum nothing is left to differ but the order of items.

    The order within a batch changes sums in their last digits only.
    """
    plain = changed(
        SHORT,
        train__epochs=3,
        linearize__epochs=2,
        batch_size=270,
        optimizer__momentum=0.0,
        linearize__prior__omega=5.0,
    )
    study = make_study(settings(recipe=plain, share_training=True, **ONE))
    run_study(study, tmp_path / "study")
    (record,) = read_results(tmp_path / "study").records
    rows = train(make_recipe(changed(plain, machine__threads=1)), tmp_path / "alone").history
    for ours, theirs in zip(record.history, rows, strict=True):
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-5)
        assert ours["active_units"] == theirs["active_units"]


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="the folder of the study cannot be made"):
        run_study(make_study(settings()), tmp_path / "file")


def test_a_store_of_a_newer_version_is_told_by_the_command(tmp_path):
    home = tmp_path / "studies" / "small"
    home.mkdir(parents=True)
    with Store(home, create=True) as store:
        store._database.execute("PRAGMA user_version = 2")
    code, _, errors = finished(begin(tmp_path, settings()))
    assert code == 2
    assert errors.startswith("Error: ")
    assert "was written by a newer pathlen" in errors
    assert not (home / "runs").exists()


def test_nothing_is_left_behind_by_a_kill(tmp_path):
    home = tmp_path / "studies" / "small"
    process = begin(tmp_path, settings(recipe=LONG, **ONE))
    (key,) = wait_for(lambda: under_way(home), "a run under way")
    kill_group(process)
    rows = home / "runs" / key / "metrics.jsonl"

    def stands_still():
        before = rows.read_text()
        return wait_for(lambda: True, "") and before == _later(rows)

    wait_for(stands_still, "the end of the run's process")
    assert not (home / "runs" / key / "summary.json").exists()
    assert json.loads(rows.read_text().splitlines()[-1])["epoch"] < 40


def _later(path):
    import time

    time.sleep(1.5)
    return path.read_text()


def test_the_number_of_workers_is_that_of_the_cores(monkeypatch):
    from pathlen.training.study.executors import Here
    from pathlen.training.study.worker import cores

    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr("pathlen.training.study.worker.cores", lambda: 8)
    for workers, threads, slots in [(None, 1, 8), (None, 3, 2), (None, 16, 1), (5, 4, 5)]:
        place = Here(workers, threads)
        assert place.slots() == slots
        place.close()
