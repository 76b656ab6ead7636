"""The folder of a study: what its files say of runs, who may write them, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import sqlite3
import time

import pytest
import yaml

from pathlen.errors import StudyError
from pathlen.training.folder_lock import FolderLock, is_locked
from pathlen.training.study import load_study, make_study, read_results
from pathlen.training.study.coordinator import Coordinator
from pathlen.training.study.folder import FILE, StudyFolder, new_attempt, read_attempt
from pathlen.training.study.plan import plan_study
from pathlen.training.study.results import read_status
from tests.processes import CONTEXT, PATIENCE
from tests.studies import SHORT, fail, put, settings

ROWS = [
    {"epoch": 1, "phase": "train", "step": 5, "seconds": 1.0, "test_accuracy": 0.9, "napl": 2.0},
    {"epoch": 2, "phase": "linearize", "step": 10, "seconds": 2.5, "test_accuracy": 0.8},
]


def plan(**changes):
    return plan_study(make_study(settings(**changes)))


@pytest.fixture
def home(tmp_path):
    made = StudyFolder(tmp_path / "study")
    made.take_up(plan())
    return made


def states(home):
    return [home.look(run).state for run in home.plan().runs]


def test_a_clock_that_was_set_back(home):
    """No run takes less than no time, and the rest of a study neither."""
    done, running, *_ = home.plan().runs
    put(home, done, ROWS)
    attempt = home.look(done).attempt
    home.note(done.key, attempt.model_copy(update={"begun": attempt.ended + 3600}))
    assert home.look(done).took is None
    home.of_run(running.key).mkdir()
    home.note(running.key, attempt.model_copy(update={"begun": time.time() + 3600, "ended": None}))
    with FolderLock(home.of_run(running.key)):
        status = read_status(home.path)
    assert [one["seconds"] for one in status.running] == [0.0]
    assert status.remaining is None


def test_what_files_say_of_runs(home):
    assert states(home) == ["pending"] * 4
    done, failed, running, _ = home.plan().runs
    put(home, done, ROWS)
    fail(home, failed, "no memory")
    home.of_run(running.key).mkdir()
    with FolderLock(home.of_run(running.key)):
        assert states(home) == ["done", "failed", "running", "pending"]
        assert home.look(running, mine=True).state == "pending"
    assert states(home) == ["done", "failed", "pending", "pending"]
    known = home.look(done)
    assert [dict(row) for row in known.rows] == ROWS
    assert known.summary["machine"] == "a machine"
    assert known.took == pytest.approx(12)
    assert home.look(failed).error == "no memory"
    assert read_status(home.path).counts == {"done": 1, "running": 0, "pending": 2, "failed": 1}


def hold(folder, pipe):
    with FolderLock(folder):
        pipe.send("locked")
        pipe.recv()


def test_a_folder_is_locked_as_long_as_its_process_lives(tmp_path):
    assert not is_locked(tmp_path)
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "locked"
    assert is_locked(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert (tmp_path / ".lock").exists()
    assert not is_locked(tmp_path)


def test_why_a_run_died_is_written_unless_another_command_has_it(home):
    run, other, done, _ = home.plan().runs
    home.of_run(other.key).mkdir()
    with FolderLock(home.of_run(other.key)):
        assert home.note_death(other, "killed").state == "running"
    assert home.look(other).state == "pending"
    assert home.note_death(run, "killed").state == "failed"
    assert home.note_death(run, "once more").error == "killed"
    put(home, done, ROWS)
    assert home.note_death(done, "killed").state == "done"
    assert states(home) == ["failed", "pending", "done", "pending"]


def test_a_failure_is_forgotten_and_its_number_kept(home):
    run, *_ = home.plan().runs
    fail(home, run, "no memory")
    home.forget_failure(run)
    assert home.look(run).state == "pending"
    second = new_attempt(home.look(run).attempt)
    assert second.number == 2
    home.note(run.key, second.model_copy(update={"ended": second.begun + 5}))
    assert home.look(run).took is None  # a part of what it took
    home.forget_failure(run)
    assert read_attempt(home.of_run(run.key)).number == 2


def test_a_run_that_others_begin_with_counts_for_them(home, tmp_path):
    shared = StudyFolder(tmp_path / "shared")
    shared.take_up(plan(share_training=True, seeds=[0]))
    dense, one, other = shared.plan().runs
    assert (one.needs, other.needs) == (dense.key, dense.key)
    put(shared, one, [ROWS[1] | {"epoch": 1, "step": 5}])
    assert read_status(shared.path).counts["pending"] == 3  # half of a run tells nothing
    put(shared, dense, ROWS[:1], parameters=7)
    (record,) = read_results(shared.path).records
    moved = ROWS[1] | {"step": 10, "seconds": 3.5}
    assert [dict(row) for row in record.history] == [ROWS[0], moved]
    assert record.summary["phases"] == {"train": ROWS[0], "linearize": moved}
    assert record.summary["dense_run"] == dense.key
    assert (record.summary["steps"], record.summary["seconds"]) == (10, 3.5)


def test_runs_fail_with_the_dense_run_that_they_begin_with(tmp_path):
    home = StudyFolder(tmp_path)
    home.take_up(plan(share_training=True))
    dense = home.plan().runs[0]
    fail(home, dense, "no memory")
    status = read_status(tmp_path)
    assert status.counts == {"done": 0, "running": 0, "pending": 3, "failed": 3}
    assert {one["error"] for one in status.failed} == {
        "no memory",
        f"the dense run {dense.key} that it begins with failed",
    }


def test_a_study_that_is_changed_keeps_what_is_done(home):
    put(home, home.plan().runs[0], ROWS)
    home.take_up(plan(grid={"omega": [0.1, 7.0]}))
    assert states(home) == ["done", "pending", "pending", "pending"]
    assert [one.labels["omega"] for one in home.plan().members] == [0.1, 0.1, 7.0, 7.0]


def test_a_plan_is_read_as_it_was_taken_up(tmp_path):
    for study in (load_study("example"), make_study(settings(recipe="digits", grid={}))):
        home = StudyFolder(tmp_path / study.name)
        home.take_up(plan_study(study))
        assert home.plan().runs == plan_study(study).runs
        assert home.plan().members == plan_study(study).members


def test_the_recipe_of_a_study_may_be_changed_or_moved(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    home, study = (
        StudyFolder(tmp_path / "a"),
        make_study(settings(recipe=str(tmp_path / "recipe.yaml"))),
    )
    home.take_up(plan_study(study))
    (tmp_path / "recipe.yaml").unlink()
    assert home.plan().runs == plan().runs


def test_a_study_of_another_name_is_refused(home):
    with pytest.raises(StudyError, match="folder of the study 'small', not of 'other'"):
        home.take_up(plan(name="other"))


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 7}, r"study\.json was written by another pathlen \(its format is 7"),
        ({"format": None}, "update pathlen, or use another folder"),
        ({"study": []}, r"study\.json is of no study, or damaged"),
        ({"study": settings(grid=3)}, r"damaged: .*study\.json: study:\n  grid"),
        ({"study": settings(recipe={"task": 3})}, "is of no study, or damaged"),
        ({"study": settings(recipe="digits")}, "damaged: its recipe is 'digits', and no settings"),
        ({"study": settings(grid={f"model.{i}": [*range(99)] for i in range(9)})}, "at most 100,0"),
    ],
)
def test_plans_of_others_are_refused(entries, message, home):
    change(home.path / FILE, **entries)
    with pytest.raises(StudyError, match=message):
        read_results(home.path)
    with pytest.raises(StudyError, match=message):
        home.take_up(plan())


def test_files_that_are_no_plan_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"holds no study: study\.json is not there"):
        read_results(tmp_path)
    (tmp_path / FILE).write_text("these are words")
    with pytest.raises(StudyError, match=r"study\.json: this is no JSON"):
        read_results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="the folder of the study cannot be made"):
        StudyFolder(tmp_path / "file").take_up(plan())


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "attempt.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"metric": NaN}\n'])
def test_damaged_files_of_a_run_are_named_and_the_run_is_done_again(name, text, home):
    run = home.plan().runs[0]
    put(home, run, ROWS)
    (home.of_run(run.key) / name).write_text(text)
    with pytest.raises(StudyError, match=re.escape(name)):
        read_results(home.path)
    coordinator = Coordinator(home.plan(), home, None, None, print)
    coordinator.skip_done(())
    assert coordinator.over == {}


def test_a_summary_of_another_run_is_refused(home):
    first, second, *_ = home.plan().runs
    put(home, first, ROWS)
    os.rename(home.of_run(first.key), home.of_run(second.key))
    with pytest.raises(StudyError, match=r"summary\.json is of another run"):
        read_results(home.path)


def test_runs_of_an_earlier_version_are_found(tmp_path, home):
    """It kept a database beside the folders of the runs, which have no attempt.json."""
    study = make_study(settings())
    put(home, home.plan().runs[2], ROWS)
    (home.of_run(home.plan().runs[2].key) / "attempt.json").unlink()
    (home.path / FILE).unlink()
    sqlite3.connect(home.path / "study.sqlite").close()
    assert read_status(home.path, study).counts["done"] == 1
    assert "machine" not in read_results(home.path, study).records[0].summary
    with pytest.raises(StudyError, match="give the study in place of its folder"):
        read_results(home.path)


def test_where_folders_cannot_be_locked_that_is_said(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    home, said = StudyFolder(tmp_path), []
    home.take_up(plan(), said.append)
    assert "cannot be locked here (no locks): see to it that no other process" in said[0]
    assert states(home) == ["pending"] * 4
