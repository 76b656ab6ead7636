"""Studies on a Dask cluster: schedulers and workers of this machine, in processes or threads."""

from __future__ import annotations

import multiprocessing
import re
import resource
import socket
import threading
import time

import pytest

from pathlen.errors import StudyError
from pathlen.training.study import make_study, read_results, run_study
from pathlen.training.study.address import check_address
from pathlen.training.study.executors import Cluster
from pathlen.training.study.processes import unreachable
from pathlen.training.study.results import read_status
from tests.processes import CONTEXT, PATIENCE
from tests.studies import (
    SHORT,
    begin,
    check_each_done_once,
    cluster,
    finished,
    held,
    logs,
    settings,
    under_way,
    wait_for,
)
from tests.test_study_run import check_like_alone
from tests.training_runs import changed

distributed = pytest.importorskip("distributed")


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def address():
    """A scheduler and a worker with two threads, all in this process."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
    ) as made:
        yield made.scheduler_address


def killer(process, home, runs, mark):
    """Kill a process once so many runs are under way, which go on quickly then."""
    wait_for(lambda: len(under_way(home)) == runs, "runs under way")
    process.kill()
    mark.touch()


@pytest.mark.slow
def test_workers_and_schedulers_that_are_killed_lose_nothing(tmp_path, port):
    recipe, mark = held(tmp_path)
    study = make_study(settings(recipe=recipe, grid={"omega": [5.0]}, seeds=[0, 1, 2]))
    where = f"tcp://127.0.0.1:{port}"
    with cluster(tmp_path, port) as (scheduler, doomed, _):
        home = tmp_path / "worker"
        threading.Thread(target=killer, args=(doomed, home, 2, mark)).start()
        assert run_study(study, home, scheduler=where) == {"done": 3}
        # the run of the dead worker went on from its checkpoint, on the other one
        (key,) = (key for key, text in logs(home).items() if "going on in phase" in text)
        check_each_done_once(home, 3)
        (record,) = (one for one in read_results(home).records if one.key == key)
        check_like_alone(tmp_path / "alone", record, epochs=40)

        mark.unlink()
        home = tmp_path / "scheduler"
        threading.Thread(target=killer, args=(scheduler, home, 1, mark)).start()
        with pytest.raises(StudyError, match="the same command goes on"):
            run_study(study, home, scheduler=where)
    wait_for(lambda: read_status(home).counts["running"] == 0, "an end of the runs")
    assert read_status(home).counts["failed"] == 0
    assert run_study(study, home) == {"done": 3}
    check_each_done_once(home, 3)


def test_failures_on_a_cluster_are_those_of_the_runs(tmp_path, address):
    cases = [
        {"label": "well", "set": {}},
        {"label": "diverges", "set": {"optimizer.learning_rate": 1e30}},
    ]
    study = settings(cases=cases, grid={}, seeds=[0], recipe=changed(SHORT, train__epochs=2))
    said = []
    counts = run_study(make_study(study), tmp_path, scheduler=address, say=said.append)
    assert counts == {"done": 1, "failed": 1}
    (failed,) = read_status(tmp_path).failed
    assert "the loss is not finite" in failed["error"]
    assert sum("FAILED: the loss is not finite" in text for text in said) == 1


def test_workers_that_do_not_see_the_folder_are_refused(tmp_path, address):
    """The file of the command is what tells that folder from another one of its name."""
    with pytest.raises(StudyError) as caught:
        Cluster(address, tmp_path, tmp_path / "commands" / "elsewhere", print)
    assert "cannot carry out this study" in str(caught.value)
    assert "is another folder on" in str(caught.value)
    assert "shared by a network file system" in str(caught.value)


def test_why_a_worker_cannot_use_a_folder(tmp_path):
    (tmp_path / "here").touch()
    assert "cannot read" in unreachable(tmp_path / "none", tmp_path / "here")
    assert unreachable(tmp_path, tmp_path / "here") == ""
    assert "is another folder on" in unreachable(tmp_path, tmp_path / "there")


def as_a_daemon(settings, folder):
    """What a worker of Dask does that has a nanny: it is a daemon."""
    assert multiprocessing.current_process().daemon
    assert run_study(make_study(settings), folder) == {"done": 1}
    assert multiprocessing.current_process().daemon


@pytest.mark.slow
def test_daemons_carry_out_runs_that_load_data_in_other_processes(tmp_path):
    recipe = changed(SHORT, machine__workers=1)
    study = settings(recipe=recipe, grid={"omega": [5.0]}, seeds=[0])
    process = CONTEXT.Process(target=as_a_daemon, args=(study, tmp_path), daemon=True)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0


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


def test_something_that_is_no_scheduler():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        message = f"there is no Dask scheduler at '{address}' (timed out)"
        with pytest.raises(StudyError, match=re.escape(message)):
            check_address(address)
