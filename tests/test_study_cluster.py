"""Studies on a Dask cluster: a real scheduler and real workers, on this machine."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
import time

import pytest

from pathlen.errors import StudyError
from pathlen.training.study import read_results
from pathlen.training.study.address import check_address
from pathlen.training.study.results import read_status
from pathlen.training.study.store import Store
from pathlen.training.study.worker import unreachable
from tests.studies import (
    LONG,
    SHORT,
    begin,
    check_each_done_once,
    cluster,
    environment,
    finished,
    logs,
    settings,
    under_way,
    wait_for,
)
from tests.test_study_run import alone, without_seconds
from tests.training_runs import changed

pytest.importorskip("distributed")


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path, port):
    study = settings(recipe=LONG, grid={"omega": [5.0]}, seeds=[0, 1, 2])
    home = tmp_path / "studies" / "small"
    with cluster(tmp_path, port) as (_, doomed, _):
        process = begin(tmp_path, study, "--scheduler", f"tcp://127.0.0.1:{port}")
        wait_for(lambda: len(under_way(home)) == 2, "two runs under way")
        doomed.kill()
        code, out, errors = finished(process)
    assert code == 0, errors
    assert "3 runs are done" in out
    check_each_done_once(home, 3)
    # the run of the dead worker went on from its checkpoint, on the other one
    assert sum("going on in phase" in text for text in logs(home).values()) == 1
    (key, *_) = (key for key, text in logs(home).items() if "going on in phase" in text)
    (record,) = (one for one in read_results(home).records if one.key == key)
    seed = record.seed
    rows = alone(tmp_path / "alone", train__epochs=40, linearize__prior__omega=5.0, seed=seed)
    assert without_seconds(record.history) == without_seconds(rows)


@pytest.mark.slow
def test_a_scheduler_that_dies_is_told_and_the_study_goes_on_without_it(tmp_path, port):
    study = settings(recipe=LONG, grid={"omega": [5.0]}, seeds=[0, 1, 2])
    home = tmp_path / "studies" / "small"
    with cluster(tmp_path, port) as (scheduler, *_):
        process = begin(tmp_path, study, "--scheduler", f"tcp://127.0.0.1:{port}")
        wait_for(lambda: len(under_way(home)) == 2, "two runs under way")
        scheduler.kill()
        code, _, errors = finished(process)
        assert code == 2, errors
        assert "the same command goes on" in errors.splitlines()[-1]
    counts = read_status(home).counts
    assert counts["running"] == counts["failed"] == 0
    code, _, errors = finished(begin(tmp_path, study))
    assert code == 0, errors
    check_each_done_once(home, 3)


@pytest.mark.slow
def test_failures_on_a_cluster_are_those_of_the_runs(tmp_path, port):
    cases = [
        {"label": "well", "set": {}},
        {"label": "diverges", "set": {"optimizer.learning_rate": 1e30}},
    ]
    study = settings(cases=cases, grid={}, seeds=[0], recipe=changed(SHORT, train__epochs=2))
    with cluster(tmp_path, port):
        code, _, errors = finished(begin(tmp_path, study, "--scheduler", f"tcp://127.0.0.1:{port}"))
    assert code == 1
    assert "the loss is not finite" in errors
    with Store(tmp_path / "studies" / "small") as store:
        assert [run["state"] for run in store.runs()] == ["done", "failed"]


@pytest.mark.slow
def test_workers_that_do_not_see_the_folder_are_refused(tmp_path, port, monkeypatch):
    """Workers of another file system read another token, which is what tells them apart."""
    import pathlen.training.study.coordinator as coordinator
    from pathlen.training.study import make_study, run_study

    monkeypatch.setattr(coordinator, "_prepare", lambda home: _other_token(home))
    address = f"tcp://127.0.0.1:{port}"
    with cluster(tmp_path, port), pytest.raises(StudyError) as caught:
        run_study(make_study(settings()), tmp_path / "study", scheduler=address)
    assert "cannot carry out this study" in str(caught.value)
    assert "is another folder on" in str(caught.value)
    assert "shared by a network file system" in str(caught.value)
    assert not (tmp_path / "study" / "runs").exists()


def _other_token(home):
    home.mkdir(parents=True)
    (home / "token").write_text("there")
    return "here"


def test_a_folder_that_is_not_there_is_told_by_the_worker(tmp_path):
    assert "cannot read" in unreachable(str(tmp_path / "none"), "x")
    (tmp_path / "token").write_text("x")
    assert unreachable(str(tmp_path), "x") == ""
    assert "is another folder on" in unreachable(str(tmp_path), "y")


def test_a_scheduler_that_is_not_there_is_told_within_ten_seconds(tmp_path, port):
    """Ten seconds on a core of its own: other tests may use this one as well."""
    address = f"tcp://127.0.0.1:{port}"
    message = f"there is no Dask scheduler at '{address}'"
    begun = time.monotonic()
    with pytest.raises(StudyError, match=re.escape(message)):
        check_address(address)
    waited = time.monotonic() - begun
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, _, errors = finished(begin(tmp_path, settings(), "--scheduler", address))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert waited + computed < 10
    assert code == 2
    assert message in errors
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "tcp://host:port", "http://a:1"])
def test_addresses_that_are_none(address):
    with pytest.raises(StudyError, match="is no address of a Dask scheduler"):
        check_address(address)


@pytest.mark.slow
def test_something_that_is_no_scheduler(tmp_path):
    silent = "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\n"
    silent += "print(s.getsockname()[1], flush=True)\ntime.sleep(600)\n"
    with subprocess.Popen(
        [sys.executable, "-c", silent], stdout=subprocess.PIPE, text=True, env=environment()
    ) as server:
        address = f"tcp://127.0.0.1:{server.stdout.readline().strip()}"
        code, _, errors = finished(begin(tmp_path, settings(), "--scheduler", address))
        server.kill()
    assert code == 2
    assert f"there is no Dask scheduler at '{address}' (timed out)" in errors
