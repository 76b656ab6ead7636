"""Carrying out one run: called in a thread of the study's own process, or of a worker of Dask's."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathlen.training.study.jobs import Job, Outcome

LOOK = 0.5
"""Seconds between looks whether a run is to stop."""

_idle: dict[int, list[Nursery]] = {}
_lock = threading.Lock()


def carry_out(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a run, or go on with it.

    Args:
        plain: A :class:`Job` as plain values.

    Returns:
        An :class:`Outcome` as plain values. Whatever goes wrong is told by it, not raised.
    """
    job = Job.of(plain)
    problem = unreachable(job.home, job.token)
    if problem:
        outcome = Outcome("unreachable", problem)
    elif job.stop.exists():
        outcome = Outcome("stopped")
    else:
        nursery = _take(job.threads)
        outcome = nursery.carry_out(job)
        _give_back(nursery)
    return outcome.plain() | {"host": socket.gethostname()}


def unreachable(home: str, token: str) -> str:
    """Why a folder of a study cannot be used here, "" if it can."""
    try:
        found = (Path(home) / "token").read_text(encoding="utf-8")
    except OSError as error:
        return f"{socket.gethostname()} cannot read {error.filename}: {error.strerror}"
    if found != token:
        return f"{home} is another folder on {socket.gethostname()} than where the study began"
    if not os.access(home, os.W_OK):
        return f"{home} cannot be written to on {socket.gethostname()}"
    return ""


class Nursery:
    """A process of `pathlen.training.study.nursery`, which carries out one run at a time.

    Args:
        threads: Of the process.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            # -P: no file of the current folder hides a module
            [sys.executable, "-P", "-m", "pathlen.training.study.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(names, str(threads)), **path},
            start_new_session=True,  # Ctrl-C in a terminal reaches whole groups of processes
        )

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None

    def carry_out(self, job: Job) -> Outcome:
        """Hand over a job, and wait for its outcome."""
        try:
            self._send(json.dumps(job.plain()).encode() + b"\n")
            answer = self._wait(job)
        except OSError:
            answer = b""
        if not answer:
            code = self._process.wait()
            return Outcome("failed", f"the process that begins runs ended with code {code}")
        return Outcome.of(json.loads(answer))

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _wait(self, job: Job) -> bytes:
        """Read a line, and meanwhile look whether the run is to stop."""
        assert self._process.stdout is not None
        descriptor, data, asked = self._process.stdout.fileno(), b"", False
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if selector.select(LOOK):
                    part = os.read(descriptor, 1 << 16)
                    if not part:
                        return b""
                    data += part
                elif not asked and job.stop.exists():
                    self._send(b"\n")
                    asked = True
        return data

    def close(self) -> None:
        """End the process, which carries out no run."""
        with self._process:
            self._process.terminate()


def workers_here(workers: int | None, threads: int) -> int:
    """Runs at a time on this machine: as many as this process may use cores if not given."""
    return workers or max(1, cores() // threads)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(number: int, threads: int) -> None:
    """Have some idle processes, which load what runs need while the caller does something else."""
    with _lock:
        waiting = _idle.setdefault(threads, [])
        waiting += [Nursery(threads) for _ in range(number - len(waiting))]


def _take(threads: int) -> Nursery:
    """A process that is idle, or a new one."""
    with _lock:
        waiting = _idle.get(threads, [])
        while waiting:
            nursery = waiting.pop()
            if nursery.alive:
                return nursery
            nursery.close()
    return Nursery(threads)


def _give_back(nursery: Nursery) -> None:
    if not nursery.alive:
        nursery.close()
        return
    with _lock:
        _idle.setdefault(nursery.threads, []).append(nursery)


def close_idle() -> None:
    """End the processes that wait for runs."""
    with _lock:
        waiting = [nursery for part in _idle.values() for nursery in part]
        _idle.clear()
    for nursery in waiting:
        nursery.close()
