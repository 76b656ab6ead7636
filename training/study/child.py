"""What the process of one run does: train, and say how it went."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from pathlen.errors import PathlenError
from pathlen.training.loop import train
from pathlen.training.progress import Lines
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study.jobs import GRACE, Job, Outcome
from pathlen.training.study.machine import machine_in_words


def live(job: Job, answers: int, parent: int) -> NoReturn:
    """Carry out a run in this process, which was forked for it, and end.

    Args:
        job: What to do.
        answers: File descriptor to write the outcome to, as JSON.
        parent: File descriptor that ends when the process that forked this one ends.
    """
    code = 1
    try:
        signal.signal(signal.SIGTERM, _stop)
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
        answer = json.dumps(outcome_of(job).plain()).encode()
        with os.fdopen(answers, "wb") as file:
            file.write(answer)
        code = 0
    except BaseException:
        traceback.print_exc()  # into the log of the run
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what the parent would do at its end is not done twice


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _die_with(parent: int) -> None:
    """End when the parent ends: nobody would get the outcome, and others may go on with the run."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def outcome_of(job: Job) -> Outcome:
    """Train, or go on; failures are told, not raised."""
    with _log(job):
        try:
            if job.cwd is not None and os.path.isdir(job.cwd):
                os.chdir(job.cwd)  # relative paths in a recipe are those of who began the study
            settings = dict(job.recipe)
            if job.needs is not None:
                settings["weights"] = str(job.runs / job.needs / "model.safetensors")
            recipe = make_recipe(settings, f"run {job.key}")
            # a study that was taken for dead, or a worker that lost its scheduler, may be at work
            watcher = Lines(Console(file=sys.stdout))
            result = train(recipe, job.runs / job.key, watcher, wait=True)
        except KeyboardInterrupt:
            return Outcome("stopped")
        except Exception as error:
            trace = traceback.format_exc()
            print(trace)
            name = "" if isinstance(error, PathlenError) else f"{type(error).__name__}: "
            return Outcome("failed", f"{name}{error}", trace)
        summary = _plain(result.summary) | {"machine": machine_in_words()}
        return Outcome("done", summary=summary, rows=_plain(result.history))


def _plain(part: Any) -> Any:
    """The same as JSON keeps it, which has text keys and lists only."""
    return json.loads(json.dumps(part if not isinstance(part, Mapping) else dict(part)))


@contextmanager
def _log(job: Job) -> Iterator[None]:
    """Send what is printed to the log of the run."""
    path = job.folder / "logs" / f"{job.key}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    yield
