"""The store: runs are claimed once, dead owners lose them, other versions are refused."""

from __future__ import annotations

import os
import sqlite3
import time

import pytest

from pathlen.errors import StudyError
from pathlen.training.study import make_study
from pathlen.training.study.database import FILE
from pathlen.training.study.owners import is_dead, new_owner
from pathlen.training.study.plan import plan_study
from pathlen.training.study.store import LEASE, Store
from tests.processes import CONTEXT
from tests.studies import settings


def plan(**changes):
    return plan_study(make_study(settings(**changes)))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path, create=True) as opened:
        opened.take_up(plan())
        yield opened


def other(tmp_path, **changes):
    opened = Store(tmp_path, create=True)
    opened.take_up(plan(**changes))
    return opened


def claim_all(folder, results):
    """Claim until nothing is left, and say what was got."""
    found = []
    with other(folder, seeds=list(range(40))) as store:
        owner = new_owner()
        while (claim := store.claim(owner)) is not None:
            found.append(claim.key)
            store.finish(claim.key, owner, "here", {}, [{"epoch": 1, "phase": "train"}])
    results.send(found)


def test_processes_that_claim_at_once_never_get_the_same_run(tmp_path):
    pipes, processes = [], []
    for _ in range(4):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        processes.append(CONTEXT.Process(target=claim_all, args=(tmp_path, sender)))
        processes[-1].start()
        pipes.append(receiver)
    got = [pipe.recv() if pipe.poll(120) else None for pipe in pipes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    keys = [key for part in got for key in part]
    assert len(keys) == len(set(keys)) == 80
    with Store(tmp_path) as store:
        assert {run["state"] for run in store.runs()} == {"done"}
        assert {run["attempts"] for run in store.runs()} == {1}


def test_runs_are_claimed_in_order_until_none_is_left(store):
    keys = [run.key for run in plan().runs]
    assert [store.claim("a/1/x").key for _ in keys] == keys
    assert store.claim("a/1/x") is None
    assert store.counts() == {"running": 4}
    store.release("a/1/x", keys[1:2])
    assert store.claim("a/1/x").key == keys[1]
    store.release("a/1/x")
    assert store.counts() == {"pending": 4}


def test_a_run_without_signs_of_life_is_taken_over(store, tmp_path, monkeypatch):
    first, *_ = (store.claim("elsewhere/1/x") for _ in range(4))
    second = other(tmp_path)
    assert second.claim("elsewhere/2/y") is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEASE - 1)
    store.beat("elsewhere/1/x")
    monkeypatch.setattr(time, "time", lambda: now + LEASE + 1)
    assert second.claim("elsewhere/2/y") is None  # it gave a sign meanwhile
    monkeypatch.setattr(time, "time", lambda: now + 3 * LEASE)
    assert second.claim("elsewhere/2/y").key == first.key
    rows = [{"epoch": 1, "phase": "train"}]
    assert not store.finish(first.key, "elsewhere/1/x", "a", {"of": "first"}, rows)
    assert not store.fail(first.key, "elsewhere/1/x", "a", "wrong", "")
    assert second.finish(first.key, "elsewhere/2/y", "b", {"of": "second"}, rows)
    assert store.summary(first.key) == {"of": "second"}
    second.close()


def test_runs_of_a_process_that_is_gone_are_taken_over_at_once(store, tmp_path):
    process = CONTEXT.Process(target=os.getpid)
    process.start()
    process.join()
    host = new_owner().split("/")[0]
    dead = f"{host}/{process.pid}/x"
    assert is_dead(dead)
    assert not is_dead(new_owner())
    assert not is_dead(f"elsewhere/{process.pid}/x")
    claim = store.claim(dead)
    assert store.claim(new_owner()).key == claim.key


def test_a_failed_dense_run_fails_those_that_need_it_until_it_is_retried(tmp_path):
    with other(tmp_path, share_training=True) as store:
        dense = [store.claim("a/1/x") for _ in range(2)]
        assert store.claim("a/1/x") is None  # the others wait for them
        store.fail(dense[0].key, "a/1/x", "here", "no memory", "trace")
        assert store.counts() == {"failed": 3, "running": 1, "pending": 2}
        errors = {run["error"] for run in store.runs() if run["state"] == "failed"}
        assert errors == {
            "no memory",
            f"the dense run {dense[0].key} that it begins with failed",
        }
        assert store.retry_failed() == 3
        assert store.claim("a/1/x").key == dense[0].key


def test_a_store_of_a_newer_version_is_refused(store, tmp_path):
    store._database.execute("PRAGMA user_version = 7")
    with pytest.raises(StudyError, match=r"newer pathlen \(version 7 of the store, and this one"):
        Store(tmp_path, create=True)
    with pytest.raises(StudyError, match="update pathlen"):
        Store(tmp_path)


def test_files_that_are_no_store_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"holds no study: study\.sqlite is not there"):
        Store(tmp_path)
    (tmp_path / FILE).write_text("these are words, and no database at all" * 100)
    with pytest.raises(StudyError, match="cannot be used as the store: file is not a database"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("CREATE TABLE songs (name TEXT)")
    database.close()
    with pytest.raises(StudyError, match="database of another program"):
        Store(tmp_path, create=True)


def test_a_study_of_another_name_is_refused(store, tmp_path):
    with pytest.raises(StudyError, match="store of the study 'small', not of 'other'"):
        other(tmp_path, name="other")


def test_a_study_that_is_changed_keeps_what_is_done(store, tmp_path):
    owner = new_owner()
    claim = store.claim(owner)
    store.finish(claim.key, owner, "here", {"a": 1}, [{"epoch": 1, "phase": "train"}])
    with other(tmp_path, grid={"omega": [0.1, 7.0]}) as changed:
        assert changed.counts() == {"done": 1, "pending": 3}
        assert [one["labels"]["omega"] for one in changed.members()] == [0.1, 0.1, 7.0, 7.0]
