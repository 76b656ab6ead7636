"""One process at a time works in the folder of a run, and whoever dies leaves it free."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time

import pytest

from pathlen.errors import CheckpointError, SettingsError
from pathlen.training import folder_lock as locks
from pathlen.training import load_run, make_recipe, train
from pathlen.training.folder_lock import FolderLock
from pathlen.training.watch import Watcher
from tests.processes import CONTEXT, PATIENCE
from tests.training_runs import TINY, Recorder, changed, outcome, run

SHORT = changed(TINY, train__epochs=1, linearize__epochs=1, finetune__epochs=0)


class Holding(Watcher):
    """Tells that a run is under way, then waits."""

    def __init__(self, pipe):
        self._pipe = pipe

    def step(self, batch, numbers):
        if self._pipe is not None:
            self._pipe.send("under way")
            self._pipe.recv()
            self._pipe = None


def hold(settings, folder, pipe):
    """Train in a process of its own, which stops in the first step until it is told to go on."""
    train(make_recipe(settings), folder, Holding(pipe))


def lock_and_fork(folder, pipe):
    """Lock a folder, and start a process that lives for a second and inherits what is open."""
    FolderLock(folder).take()
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    pipe.send("locked")
    pipe.recv()


def begun(function, *arguments):
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=function, args=(*arguments, theirs))
    process.start()
    assert ours.poll(PATIENCE)
    ours.recv()
    return process, ours


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    folder = tmp_path / "run"
    process, pipe = begun(hold, SHORT, folder)
    try:
        message = rf"run is in use by process {process.pid} on \S+, since .*\. Wait until it ends"
        with pytest.raises(CheckpointError, match=message):
            run(SHORT, folder)
        with pytest.raises(SettingsError, match="holds a run of another recipe"):
            run(changed(SHORT, seed=1), folder)
        with pytest.raises(CheckpointError, match=r"summary\.json, model\.safetensors is missing"):
            load_run(folder)  # reading needs no lock
        recorder = Recorder()
        later = threading.Timer(1, pipe.send, ["go on"])
        later.start()
        result = train(make_recipe(SHORT), folder, recorder, wait=True)
        later.join()
        assert f"waiting for process {process.pid} on" in recorder.said[0]
        assert "this run ended before" in recorder.said[1]
        assert [row["epoch"] for row in result.history] == [1, 2]
    finally:
        process.join(PATIENCE)
        process.kill()
    assert process.exitcode == 0
    run(SHORT, tmp_path / "alone")
    assert outcome(folder) == outcome(tmp_path / "alone")
    assert not (folder / ".lock").exists()


def test_a_process_that_was_killed_leaves_the_folder_free(tmp_path):
    folder = tmp_path / "run"
    process, _ = begun(hold, SHORT, folder)
    process.kill()
    process.join(PATIENCE)
    assert (folder / ".lock").exists()
    run(SHORT, folder)
    assert not (folder / ".lock").exists()


def test_children_of_a_dead_process_are_waited_for(tmp_path):
    process, _ = begun(lock_and_fork, tmp_path)
    with pytest.raises(CheckpointError, match=f"in use by process {process.pid}"):
        FolderLock(tmp_path).take()
    process.kill()
    process.join(PATIENCE)
    one = FolderLock(tmp_path)
    one.take()  # once its child has ended
    one.release()


def test_two_runs_of_one_process(tmp_path):
    class Second(Watcher):
        told = ""

        def step(self, batch, numbers):
            if not self.told:
                with pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} ") as e:
                    run(SHORT, tmp_path / "run")
                self.told = str(e.value)

    second = Second()
    run(SHORT, tmp_path / "run", second)
    assert second.told


def test_who_began_another_run_meanwhile_is_noticed(tmp_path, monkeypatch):
    """Both find an empty folder; the second to lock it sees the recipe of the first."""
    real = FolderLock.take

    def take(lock, *arguments):
        monkeypatch.setattr(FolderLock, "take", real)
        run(SHORT, tmp_path / "run")
        real(lock, *arguments)

    monkeypatch.setattr(FolderLock, "take", take)
    with pytest.raises(SettingsError, match=r"holds a run of another recipe .*\n  seed: 0 and 1"):
        run(changed(SHORT, seed=1), tmp_path / "run")
    assert load_run(tmp_path / "run").recipe.seed == 0


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, None])
def test_a_machine_without_locks_says_so(code, tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    if code is None:
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", flock)
    recorder = Recorder()
    run(SHORT, tmp_path / "run", recorder)
    assert re.search(r"run cannot be locked here \(.+\): see to it that no other", recorder.said[0])
    assert load_run(tmp_path / "run").history


def test_what_is_planted_in_place_of_the_lock(tmp_path):
    victim = tmp_path / "victim"
    for plant in (
        lambda path: path.symlink_to(victim),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ):
        folder = tmp_path / f"run{len(os.listdir(tmp_path))}"
        folder.mkdir()
        plant(folder / ".lock")
        with pytest.raises(CheckpointError, match=r"\.lock (cannot be opened|is no ordinary file)"):
            run(SHORT, folder)
    assert not victim.exists()
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / ".lock").write_bytes(b"\x1b[31m\xff" * 1000)
    with (folder / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match=r"in use by \\x1b\[31m") as caught:
            run(SHORT, folder)
    assert len(str(caught.value)) < 1000
    run(SHORT, folder)
