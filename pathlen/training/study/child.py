"""What the process of one run does: train, and leave in the folder of the run how it went."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

from pathlen.errors import PathlenError
from pathlen.training.folder_lock import FolderInUse, FolderLock
from pathlen.training.loop import train
from pathlen.training.progress import Lines
from pathlen.training.study.folder import StudyFolder, new_attempt
from pathlen.training.study.job import BUSY, GRACE, STOPPED, Job
from pathlen.training.study.machine import machine_in_words


def live(job: Job, parent_ends: Callable[[], object]) -> int:
    """Carry out a run in this process, which was begun for it.

    Args:
        job: What to do.
        parent_ends: Returns once the process that waits for the run has ended.

    Returns:
        The code to end with: `BUSY`, `STOPPED`, or 0 if the folder of the run tells the rest.
    """
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with, args=(parent_ends,), daemon=True).start()
    home = StudyFolder(job.home)
    try:
        _print_to_log(home.log(job.run.key))
        if os.path.isdir(job.cwd):
            os.chdir(job.cwd)  # relative paths in a recipe are those of who began the study
        folder = home.of_run(job.run.key)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
        lock.take(say=print)
        with lock:
            _carry_out(home, job, lock)
    except FolderInUse:
        return BUSY
    except KeyboardInterrupt:
        return STOPPED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with(parent_ends: Callable[[], object]) -> None:
    """End when the parent does, and save: others are to go on with the run."""
    parent_ends()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _print_to_log(path: Path) -> None:
    """Send what is printed to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)


def _carry_out(home: StudyFolder, job: Job, lock: FolderLock) -> None:
    """Train, or go on; how it ended is written before the folder is free."""
    run = job.run
    known = home.look(run, mine=True)
    if known.state in ("done", "failed"):  # by another command, since this one looked
        return
    torch.set_num_threads(job.threads)
    attempt = new_attempt(known.attempt, machine_in_words())
    home.note(run.key, attempt)
    ended: dict[str, object] = {}
    try:
        train(home.recipe(run), home.of_run(run.key), Lines(Console(file=sys.stdout)), lock=lock)
    except Exception as error:
        trace = traceback.format_exc()
        print(trace)
        name = "" if isinstance(error, PathlenError) else f"{type(error).__name__}: "
        ended = {"error": f"{name}{error}", "traceback": trace}
    home.note(run.key, attempt.model_copy(update={"ended": time.time(), **ended}))
