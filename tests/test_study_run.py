"""Studies on this machine: what they leave, and that nothing is lost or done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest
import yaml
from click.testing import CliRunner

from pathlen.cli.main import main
from pathlen.errors import StudyError
from pathlen.training.loop import train
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study import make_study, read_results, run_study
from pathlen.training.study.executors import Here
from pathlen.training.study.folder import StudyFolder
from pathlen.training.study.plan import plan_study
from pathlen.training.study.results import read_status
from pathlen.training.trained import load_run
from tests.processes import CONTEXT, PATIENCE, command_line
from tests.studies import (
    SHORT,
    attempts,
    check_each_done_once,
    held,
    logs,
    settings,
    under_way,
    wait_for,
)
from tests.training_runs import changed

ONE = {"grid": {"omega": [5.0]}, "seeds": [0]}
DYING = """
import os, signal
from pathlen.training import MLP

def Dying(num_classes):
    if os.path.exists({mark!r}):
        return MLP(64, num_classes, depth=1, width=4)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def alone(folder, **changes):
    """The rows of a run by `train`, with one thread as the studies have."""
    recipe = changed(SHORT, machine__threads=1, **changes)
    return train(make_recipe(recipe), folder).history


def check_like_alone(folder, record, epochs):
    """A run of a study gave what `train` gives by itself."""
    omega = record.labels["omega"]
    rows = alone(folder, train__epochs=epochs, linearize__prior__omega=omega, seed=record.seed)
    assert without_seconds(record.history) == without_seconds(rows)


def test_a_study_gives_the_rows_of_its_runs_and_does_them_once(tmp_path):
    said = []
    study, home = make_study(settings(workers=None)), tmp_path / "study"
    assert run_study(study, home, say=said.append) == {"done": 4}
    assert len(said) == 4
    assert said[-1].startswith("[4/4] omega=")
    results = read_results(home)
    for record in results.records:
        check_like_alone(tmp_path / record.key, record, epochs=1)
        assert "1 thread" in record.summary["machine"]
    assert [len(case.records) for case in results.cases] == [2, 2]
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/*/*")}
    assert run_study(study, home, say=said.append) == {"done": 4}
    assert len(said) == 4
    assert {path: path.stat().st_mtime_ns for path in home.glob("runs/*/*")} == before
    check_each_done_once(home, 4)
    assert not [*home.glob("commands/*"), *home.glob("**/.lock")]
    # a summary that is damaged is written anew from the checkpoint
    path = home / "runs" / results.records[0].key / "summary.json"
    path.write_text("{")
    assert run_study(study, home) == {"done": 4}
    assert without_seconds(read_results(home).records[0].history) == without_seconds(
        results.records[0].history
    )
    check_each_done_once(home, 4)


def test_failures_are_isolated_listed_and_retried_when_asked(tmp_path):
    (tmp_path / "dying.py").write_text(DYING.format(mark=str(tmp_path / "mark")))
    dying = {"name": f"{tmp_path / 'dying.py'}:Dying"}
    cases = [
        {"label": "well", "set": {}},
        {"label": "diverges", "set": {"optimizer.learning_rate": 1e30}},
        {"label": "no such data", "set": {"task": {"name": "cifar10", "folder": "nowhere"}}},
        {"label": "dies", "set": {"model": dying}},
    ]
    study, home = make_study(settings(cases=cases, grid={}, seeds=[0])), tmp_path / "study"
    said = []
    assert run_study(study, home, say=said.append) == {"done": 1, "failed": 3}
    assert sum("FAILED" in text for text in said) == 3
    status = read_status(home)
    assert status.counts == {"done": 1, "running": 0, "pending": 0, "failed": 3}
    failed = {one["name"]: one["error"] for one in status.failed}
    assert "the loss is not finite" in failed["case=diverges, seed 0"]
    assert "data_batch_1" in failed["case=no such data, seed 0"]
    assert "ended by SIGKILL" in failed["case=dies, seed 0"]
    (trace,) = (
        one["traceback"]
        for one in attempts(home).values()
        if one["error"] and one["error"].startswith("the loss")
    )
    assert trace.startswith("Traceback")
    assert "TrainingError" in trace
    # they stay failed until they are asked for
    assert run_study(study, home) == {"done": 1, "failed": 3}
    assert {one["number"] for one in attempts(home).values()} == {1}
    (tmp_path / "mark").touch()
    assert run_study(study, home, retry_failed=True) == {"done": 2, "failed": 2}
    numbers = sorted((one["error"] is None, one["number"]) for one in attempts(home).values())
    assert numbers == [(False, 2), (False, 2), (True, 1), (True, 2)]


@pytest.mark.slow
def test_the_command_is_stopped_and_goes_on(tmp_path, monkeypatch):
    """SIGTERM and Ctrl-C come to the same; a run that fails is listed at the end."""
    cases = [
        {"label": "well", "set": {"omega": 5.0}},
        {"label": "diverges", "set": {"train.epochs": 1, "optimizer.learning_rate": 1e30}},
    ]
    recipe, mark = held(tmp_path)
    study = settings(recipe=recipe, cases=cases, grid={}, seeds=[0], workers=1)
    home = tmp_path / "studies" / "small"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    arguments = (tmp_path, "study", "run", "study.yaml")
    process = CONTEXT.Process(target=command_line, args=arguments)
    process.start()
    wait_for(lambda: under_way(home), "a run under way")
    assert read_status(home).counts == {"done": 0, "running": 1, "pending": 1, "failed": 0}
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE)
    assert process.exitcode == 130
    assert "stopped; the same command goes on" in (tmp_path / "out").read_text()
    assert read_status(home).counts == {"done": 0, "running": 0, "pending": 2, "failed": 0}
    mark.touch()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["study", "run", "study.yaml"])
    assert result.exit_code == 1
    assert "1 runs are done, in studies/small" in result.stdout
    assert "1 runs failed (--retry-failed does them once more):" in result.stderr
    assert "the loss is not finite" in result.stderr
    (record,) = read_results(home).records
    assert "going on in phase" in logs(home)[record.key]


def interrupted_at(home, runs, sent):
    """Send Ctrl-C to this process once so many runs are under way."""
    wait_for(lambda: len(under_way(home)) == runs, f"{runs} runs under way")
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)


def test_a_study_that_is_interrupted_goes_on(tmp_path):
    recipe, mark = held(tmp_path)
    study = make_study(settings(recipe=recipe, **ONE | {"seeds": [0, 1, 2]}))
    home = tmp_path / "study"
    thread = threading.Thread(target=interrupted_at, args=(home, 2, []))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_study(study, home)
    thread.join()
    assert read_status(home).counts == {"done": 0, "running": 0, "pending": 3, "failed": 0}
    assert not [*home.glob("commands/*")]
    mark.touch()
    assert run_study(study, home) == {"done": 3}
    went_on = [key for key, text in logs(home).items() if "going on in phase" in text]
    assert len(went_on) == 2
    (record,) = (one for one in read_results(home).records if one.key == went_on[0])
    check_like_alone(tmp_path / "alone", record, epochs=40)
    check_each_done_once(home, 3)


def carry_out(settings, folder):
    """Carry out a study where a file of the current folder would hide a module."""
    (folder.parent / "torch.py").write_text("raise SystemExit('this is not torch')")
    os.chdir(folder.parent)
    run_study(make_study(settings), folder)


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_once_its_runs_have_ended(tmp_path):
    recipe, mark = held(tmp_path)
    study, home = settings(recipe=recipe, **ONE | {"seeds": [0, 1]}), tmp_path / "study"
    process = CONTEXT.Process(target=carry_out, args=(study, home))
    process.start()
    wait_for(lambda: len(under_way(home)) == 2, "two runs under way")
    process.kill()
    process.join(PATIENCE)
    mark.touch()
    assert run_study(make_study(study), home) == {"done": 2}
    assert [text.count("going on in phase") for text in logs(home).values()] == [1, 1]
    assert [one["number"] for one in attempts(home).values()] == [2, 2]
    check_each_done_once(home, 2)
    for record in read_results(home).records:
        check_like_alone(tmp_path / record.key, record, epochs=40)


def test_two_commands_at_once_both_finish_and_no_run_is_done_twice(tmp_path):
    study = make_study(settings(recipe=changed(SHORT, train__epochs=8), workers=1))
    ended = []
    both = [
        threading.Thread(target=lambda: ended.append(run_study(study, tmp_path / "study")))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(PATIENCE)
    assert ended == [{"done": 4}] * 2
    check_each_done_once(tmp_path / "study", 4)
    assert {one["number"] for one in attempts(tmp_path / "study").values()} == {1}


def test_shared_training(tmp_path):
    """The dense phase is the same to the last bit; what comes after it begins without momentum."""
    recipe = changed(SHORT, train__epochs=3, linearize__epochs=2)
    study, home = (
        make_study(settings(recipe=recipe, seeds=[0], share_training=True)),
        tmp_path / "s",
    )
    assert run_study(study, home) == {"done": 3}
    needs = {run.key: run.needs for run in plan_study(study).runs}
    for record in read_results(home).records:
        changes = {"linearize__epochs": 2, "linearize__prior__omega": record.labels["omega"]}
        rows = alone(tmp_path / record.key, train__epochs=3, **changes)
        assert without_seconds(record.history[:3]) == without_seconds(rows[:3])
        assert record.dense == record.history[2]
        assert [(row["epoch"], row["phase"], row["step"]) for row in record.history] == [
            (row["epoch"], row["phase"], row["step"]) for row in rows
        ]
        # exactly what a recipe with these weights gives
        weights = str(home / "runs" / needs[record.key])
        again = alone(tmp_path / f"{record.key}-again", train__epochs=0, weights=weights, **changes)
        metrics = ("test_loss", "test_accuracy", "napl", "active_units")
        assert [[row[name] for name in metrics] for row in record.history[3:]] == [
            [row[name] for name in metrics] for row in again
        ]
        assert load_run(home / "runs" / record.key).model is not None


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


def test_a_run_waits_for_its_dense_run_that_failed(tmp_path):
    """Those that need it fail with it, and are done when it is."""
    recipe = changed(SHORT, optimizer__learning_rate=1e30)
    study = make_study(settings(recipe=recipe, seeds=[0], share_training=True))
    assert run_study(study, tmp_path) == {"failed": 3}
    assert len(attempts(tmp_path)) == 1
    home = StudyFolder(tmp_path)
    for run in plan_study(study).runs:
        home.forget_failure(run)
    assert read_status(tmp_path).counts["pending"] == 3


def test_a_script_that_would_carry_itself_out_again_is_told(tmp_path, monkeypatch):
    """A process that is begun imports the script; what it begins at that is refused."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(StudyError, match="no process of a run can be begun here"):
        run_study(make_study(settings(**ONE)), tmp_path)
    assert read_status(tmp_path).counts["pending"] == 1


def test_a_run_whose_process_cannot_begin_stops_the_study(tmp_path):
    """That is no fault of the run, and would be the same for all others."""
    (tmp_path / "logs").write_text("this is no folder")
    message = r"ended with code 1 before it began: .*logs.* needs `if __name__ == \"__main__\":`"
    with pytest.raises(StudyError, match=message):
        run_study(make_study(settings()), tmp_path)
    assert read_status(tmp_path).counts["pending"] == 4


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="the folder of the study cannot be made"):
        run_study(make_study(settings()), tmp_path / "file")


def test_the_number_of_workers_is_that_of_the_cores(monkeypatch):
    from pathlen.training.study.machine import cores

    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr("pathlen.training.study.executors.cores", lambda: 8)
    for workers, threads, slots in [(None, 1, 8), (None, 3, 2), (None, 16, 1), (5, 4, 5)]:
        place = Here(workers, threads)
        assert place.slots() == slots
        place.close()
