"""The process of a run, seen from outside: begun, waited for, stopped.

A run needs a process of its own: random numbers, threads and deterministic algorithms are those of
a process, and one that dies of lack of memory takes no other run with it. Loading torch takes
seconds and forking takes milliseconds, so processes come from the fork server of `multiprocessing`,
which loads it once for all of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Literal

from pathlen.errors import StudyError
from pathlen.training.study.folder import StudyFolder
from pathlen.training.study.job import BUSY, GRACE, STOPPED, Job
from pathlen.training.tasks import TASKS
from pathlen.whole_files import is_file, is_folder

LOOK = 0.5
"""Seconds between looks whether a run is to stop."""

LIBRARIES = {
    "digits": ("sklearn.datasets",),
    "number_words": ("num2words", "tokenizers", "sacrebleu"),
    "text_pairs": ("tokenizers", "sacrebleu"),
}
"""What tasks import when they are made, which for some takes longer than a short run."""

_CONTEXT = multiprocessing.get_context("forkserver")
_lock = threading.Lock()
"""Threads begin processes, and ask how they ended, one after another."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went.

    Attributes:
        state: As of `Known`, "stopped" (it can go on), or "unreachable" (there is no such folder
            where the worker is).
        error: What went wrong, in a line or some.
        row: The last one, if the run is done.
    """

    state: Literal["done", "running", "failed", "pending", "damaged", "stopped", "unreachable"]
    error: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


def carry_out(job: Job) -> Outcome:
    """Carry out a run, or go on with it: in a thread of the study's process, or of a Dask worker.

    Raises:
        StudyError: Processes cannot be begun here.
    """
    problem = unreachable(job.home, job.command)
    if problem:
        return Outcome("unreachable", problem)
    process, asked = _begun(job), None
    while not connection.wait([process.sentinel], LOOK):
        if asked is None and _is_gone(job.command):
            asked = time.monotonic()
            _send(process, signal.SIGTERM)
        if asked is not None and time.monotonic() > asked + GRACE:
            _send(process, signal.SIGKILL)
    with _lock:  # the code is told once, to whoever reads it first
        process.join()
    code = process.exitcode or 0
    if code == STOPPED or (asked is not None and code != 0):
        return Outcome("stopped")
    return Outcome("running") if code == BUSY else _settled(job, process.pid, code)


def _settled(job: Job, process: int | None, code: int) -> Outcome:
    """What is to be said of a run whose process ended by itself, or was killed."""
    home = StudyFolder(job.home)
    known = home.look(job.run, mine=True)
    began = known.attempt is not None and known.attempt.process == process
    if code > 0 and not began:
        raise StudyError(
            f"the process of a run ended with code {code} before it began:"
            f" {home.log(job.run.key)} or standard error says why. A script that carries out a"
            ' study needs `if __name__ == "__main__":` around what it does'
        )
    if code > 0:
        known = home.note_death(job.run, f"the process of the run ended with code {code}")
    elif code < 0:
        memory = "; a machine out of memory does that" if code == -signal.SIGKILL else ""
        name = signal.Signals(-code).name
        known = home.note_death(job.run, f"the process of the run was ended by {name}{memory}")
    return Outcome(known.state, known.error, known.rows[-1] if known.rows else {})


def unreachable(home: Path, command: Path) -> str:
    """Why the folder of a study cannot be used here, "" if it can."""
    here = socket.gethostname()
    if not is_folder(home):
        return f"{here} cannot read {home}"
    if not is_file(command):
        return f"{home} is another folder on {here} than where the study began"
    if not os.access(home, os.W_OK):
        return f"{home} cannot be written to on {here}"
    return ""


def _is_gone(path: Path) -> bool:
    """Whether a file is surely not there; where a file system fails for a moment, nothing stops."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _begun(job: Job) -> multiprocessing.context.ForkServerProcess:
    """A process that carries out a run.

    It is a daemon here, so that it is asked to stop when this process ends.

    Raises:
        StudyError: This process is itself still being begun by another one.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {
        **dict.fromkeys(names, str(job.threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONSAFEPATH": "1",  # no file of the current folder hides a module
    }
    task = str(job.run.recipe.task["name"])
    loaded = ["pathlen.training.study.preload", TASKS[task], *LIBRARIES.get(task, ())]
    process = _CONTEXT.Process(target=_live, args=(job,), daemon=True)
    try:
        with _lock, _allowed_children():
            _CONTEXT.set_forkserver_preload(loaded)
            with _environ(environment):
                forkserver.ensure_running()
            process.start()
    except RuntimeError as error:
        raise StudyError(f"no process of a run can be begun here: {error}") from error
    return process


def _live(job: Job) -> None:
    """What the process of a run does."""
    from pathlen.training.study.child import live

    multiprocessing.current_process().daemon = False  # so that it may load data in others
    os.setsid()  # Ctrl-C in a terminal reaches whole groups of processes
    parent = multiprocessing.parent_process()
    assert parent is not None
    sys.exit(live(job, parent.join))


def _send(process: multiprocessing.context.ForkServerProcess, number: int) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        os.kill(process.pid, number)


@contextmanager
def _allowed_children() -> Iterator[None]:
    """Let a worker of Dask have children, which is a daemon; for a moment."""
    own = multiprocessing.current_process()
    daemon = own.daemon
    if daemon:
        own.daemon = False
    try:
        yield
    finally:
        if daemon:
            own.daemon = True


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    """Have other environment variables for a moment, which a process that is begun inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
