"""Runs a function on many tasks, each in a process of its own with limits on time and memory.

The processes are forks of this one, which has imported the libraries already, so that a task costs
what it does and no import. Each result is appended to a file of JSON lines as soon as it is there;
a sweep that is started again goes on where the file ends.
"""

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one task may use.

    Attributes:
        seconds: of processor time; wall-clock time may be four times that on a busy machine.
        memory: MiB of data beyond what the parent has.
    """

    seconds: int = 60
    memory: int = 8192


@dataclass(frozen=True)
class _Child:
    task: tuple[str, ...]
    pid: int
    pipe: int
    start: float


def read_records(path: Path) -> list[Record]:
    """The records of a file of JSON lines; of two for one task the later one stands."""
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return list({tuple(record["task"]): record for record in records}.values())


def sweep(
    tasks: Iterable[tuple[str, ...]],
    function: Callable[..., Record],
    results: Path,
    *,
    workers: int,
    limits: Limits,
    again: bool = False,
) -> None:
    """Run `function(*task)` for every task that has no record yet, or `again` for all."""
    finished = {tuple(record["task"]) for record in read_records(results) if not again}
    waiting = [task for task in tasks if task not in finished]
    running: list[_Child] = []
    gc.freeze()  # collections in the children would touch, and so copy, all that they share
    with results.open("a") as file:
        for number, task in enumerate(waiting, start=1):
            while len(running) >= workers:
                running = _collect(running, file, limits)
            running.append(_start(task, function, limits))
            print(f"{number}/{len(waiting)} {' '.join(task)}", flush=True)
        while running:
            running = _collect(running, file, limits)


def _start(task: tuple[str, ...], function: Callable[..., Record], limits: Limits) -> _Child:
    """Fork a process that runs one task and writes its record to a pipe."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside idle threads
        pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(task, pid, reading, time.monotonic())
    try:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 5))
        data = _used_data() + limits.memory * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        os.write(writing, json.dumps(_record(task, function)).encode())
    finally:
        os._exit(0)  # whatever happened: the rest of the program is the parent's


def _record(task: tuple[str, ...], function: Callable[..., Record]) -> Record:
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        record = function(*task)
    except MemoryError:
        record = {"failure": "memory limit"}
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        listed = lines[1:2] if lines[0].endswith(":") else []  # "3 operations ...:", and the first
        first = " ".join([lines[0], *(line.strip() for line in listed)])
        record = {"failure": f"{type(error).__name__}: {first}"[:400]}
        record["traceback"] = "".join(traceback.format_exception(error))[-4000:]
    after = resource.getrusage(resource.RUSAGE_SELF)
    record["peak_mb"] = (after.ru_maxrss - before.ru_maxrss) / 1024
    record["process_seconds"] = after.ru_utime + after.ru_stime
    return record


def _collect(running: list[_Child], file: Any, limits: Limits) -> list[_Child]:
    """Write the records of children that ended, end those that take too long; who still runs."""
    time.sleep(0.02)
    still = []
    for child in running:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if not pid and time.monotonic() - child.start > 4 * limits.seconds:
            os.kill(child.pid, signal.SIGKILL)
            pid, status = os.waitpid(child.pid, 0)
        if not pid:
            still.append(child)
            continue
        with os.fdopen(child.pipe, "rb") as pipe:
            written = pipe.read()
        record = json.loads(written) if written else {"failure": _cause(status, limits)}
        file.write(json.dumps({"task": child.task, **record}) + "\n")
        file.flush()
    return still


def _cause(status: int, limits: Limits) -> str:
    """Why a process ended that wrote nothing."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return f"time limit ({limits.seconds} s)"
    return f"ended with status {status}"


def _used_data() -> int:
    """Bytes of data that this process has mapped already."""
    data_pages = int(Path("/proc/self/statm").read_text().split()[5])
    return data_pages * resource.getpagesize()
