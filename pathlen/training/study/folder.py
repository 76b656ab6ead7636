"""The folder of a study: all that is known of it is in there.

study.json             the study, which says what runs there are
runs/KEY/              the folder of a run, which `pathlen.training.train` writes and locks
runs/KEY/attempt.json  who carried the run out last, and how that ended
logs/KEY.log           what it printed
finished.jsonl         runs that were finished elsewhere, and are not repeated
commands/              a file for each command that works on the study; its runs end when it goes

What became of a run is written nowhere else. It is done if its summary is there and is that of its
recipe, running while its folder is locked, failed if its last attempt says so, and else pending.
Files are replaced as wholes, and who changes what is in the folder of a run has it locked, so any
number of commands may work on one study.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pathlen.errors import CheckpointError, PathlenError, SettingsError, StudyError
from pathlen.json_text import read_json_object
from pathlen.printable import shown
from pathlen.training.files import write_text
from pathlen.training.folder_lock import FolderInUse, FolderLock, is_locked
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import validated
from pathlen.training.records import SUMMARY, read_records
from pathlen.training.run_folder import ATTEMPT
from pathlen.training.settings import Count, Settings
from pathlen.training.study.keys import run_key
from pathlen.training.study.plan import Plan, PlannedRun, base_recipe, plan_study
from pathlen.training.study.settings import make_study
from pathlen.whole_files import is_file

FILE = "study.json"
FORMAT = 1
"""Of that file: raised whenever an older program could not read it."""

METRICS = {"accuracy": "test_accuracy", "bleu": "bleu"}
"""The column of the metric that a task is judged by."""


class Attempt(Settings):
    """What attempt.json holds.

    Attributes:
        number: How many times the run was begun.
        begun: When it was begun last, in seconds since 1970.
        host: Where.
        process: Its number there.
        machine: The same in words.
        ended: When it ended; None of one that is under way, or was stopped or killed.
        error: Why it failed.
        traceback: Where.
    """

    number: Count
    begun: float
    host: str
    process: int
    machine: str = ""
    ended: float | None = None
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a run.

    Attributes:
        state: Of it; a "damaged" run has files that tell nothing, and is done once more.
        summary: How it ended, if it is done, with the machine in words.
        rows: Of metrics, one an epoch, if it is done.
        error: Why it failed, or what is damaged.
        attempt: The last one, if there was one.
        took: Seconds from its beginning to its end, None if it was interrupted.
    """

    state: Literal["done", "running", "failed", "pending", "damaged"]
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    attempt: Attempt | None = None
    took: float | None = None


class StudyFolder:
    """The folder of a study.

    Args:
        path: It need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.runs = self.path / "runs"
        self.finished = self.path / "finished.jsonl"

    # ------------------------------------------------------------------ the plan

    def take_up(self, plan: Plan, say: Callable[[str], None] = lambda text: None) -> None:
        """Make the folder, and the plan what it shows; runs of other plans are kept.

        Args:
            plan: What to do.
            say: Is told if folders cannot be locked here.

        Raises:
            StudyError: The folder cannot be made, or is that of a study of another name.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.path)
            lock.take(True, say)
            with lock:
                known = self.plan()
                if known is not None and known.study.name != plan.study.name:
                    raise StudyError(
                        f"{self.path} is the folder of the study {shown(known.study.name)}, not of"
                        f" {plan.study.name!r}; use another folder"
                    )
                study = plan.study.model_copy(update={"recipe": base_recipe(plan.study)})
                plain = {"format": FORMAT, "study": study.model_dump(mode="json")}
                write_text(self.path / FILE, json.dumps(plain, indent=2) + "\n")
        except (OSError, CheckpointError) as error:
            raise StudyError(f"the folder of the study cannot be made: {error}") from error

    def plan(self) -> Plan | None:
        """What was taken up last, None if nothing was.

        Raises:
            StudyError: The file was written by a newer version, or is damaged.
        """
        path = self.path / FILE
        if not is_file(path):
            return None
        plain = read_json_object(path, StudyError)
        if plain.get("format") != FORMAT:
            raise StudyError(
                f"{path} was written by another pathlen (its format is"
                f" {shown(plain.get('format'))}, and this one reads {FORMAT}): update pathlen, or"
                " use another folder"
            )
        try:
            study = make_study(plain.get("study", {}), f"{path}: study")
            if isinstance(study.recipe, str):  # no file is read that was not asked for
                raise SettingsError(f"its recipe is {shown(study.recipe)}, and no settings")
            return plan_study(study)
        except (SettingsError, TypeError) as error:
            raise StudyError(f"{path} is of no study, or damaged: {error}") from error

    @contextmanager
    def command(self) -> Iterator[Path]:
        """Say that a command carries out the study, by a file that is there until it ends."""
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
        path = self.path / "commands" / name
        try:
            path.parent.mkdir(exist_ok=True)
            write_text(path, "")
        except OSError as error:
            raise StudyError(f"the folder of the study cannot be written to: {error}") from error
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ runs

    def of_run(self, key: str) -> Path:
        """The folder of a run."""
        return self.runs / key

    def log(self, key: str) -> Path:
        """What a run printed."""
        return self.path / "logs" / f"{key}.log"

    def recipe(self, run: PlannedRun) -> Recipe:
        """The recipe of a run as a whole: with the weights of the dense run that it begins with."""
        if run.needs is None:
            return run.recipe
        return run.recipe.with_weights_file(str(self.of_run(run.needs) / "model.safetensors"))

    def look(self, run: PlannedRun, mine: bool = False) -> Known:
        """See what became of a run.

        Args:
            run: Of a plan.
            mine: Whether the caller has locked its folder.
        """
        folder, attempt, problem = self.of_run(run.key), None, ""
        try:
            attempt = read_attempt(folder)
            if is_file(folder / SUMMARY):
                return self._done(run, attempt)
        except PathlenError as error:
            problem = str(error)
        if not mine and is_locked(folder):
            return Known("running", attempt=attempt)
        if attempt is not None and attempt.error is not None:
            return Known("failed", error=attempt.error, attempt=attempt)
        if problem:
            return Known("damaged", error=problem, attempt=attempt)
        return Known("pending", attempt=attempt)

    def _done(self, run: PlannedRun, attempt: Attempt | None) -> Known:
        folder = self.of_run(run.key)
        summary, rows = read_records(folder, run_key(self.recipe(run)))
        if not rows or summary["metric"] not in METRICS:
            raise StudyError(f"{folder / SUMMARY} is damaged: metric {shown(summary['metric'])}")
        took = None
        if attempt is not None:
            summary |= {"machine": attempt.machine} if attempt.machine else {}
            if attempt.ended is not None and attempt.number == 1:
                # nothing is known of it where the clock was set back meanwhile
                took = attempt.ended - attempt.begun if attempt.ended >= attempt.begun else None
        return Known("done", summary, rows, attempt=attempt, took=took)

    def note(self, key: str, attempt: Attempt) -> None:
        """Write how it stands with a run, whose folder is locked."""
        write_text(self.of_run(key) / ATTEMPT, attempt.model_dump_json(indent=2) + "\n")

    def note_death(self, run: PlannedRun, error: str) -> Known:
        """Write why a run failed that could not say so itself; what is known of it then.

        Nothing is written if it did, or if another command has gone on with it.
        """
        folder = self.of_run(run.key)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(folder):
                known = self.look(run, mine=True)
                if known.state in ("done", "failed"):
                    return known
                attempt = known.attempt or new_attempt(None)
                failed = {"ended": time.time(), "error": error}
                self.note(run.key, attempt.model_copy(update=failed))
                return self.look(run, mine=True)
        except FolderInUse:
            return Known("running")

    def forget_failure(self, run: PlannedRun) -> None:
        """Make a run that failed one that is to be done."""
        known = self.look(run)
        if known.state != "failed" or known.attempt is None:
            return
        with contextlib.suppress(FolderInUse), FolderLock(self.of_run(run.key)):
            forgotten = {"ended": None, "error": None, "traceback": ""}
            self.note(run.key, known.attempt.model_copy(update=forgotten))


def new_attempt(before: Attempt | None, machine: str = "") -> Attempt:
    """An attempt that this process begins."""
    return Attempt(
        number=1 if before is None else before.number + 1,
        begun=time.time(),
        host=socket.gethostname(),
        process=os.getpid(),
        machine=machine,
    )


def read_attempt(folder: Path) -> Attempt | None:
    """The last attempt at a run, None if there was none.

    Raises:
        PathlenError: The file cannot be read.
    """
    path = folder / ATTEMPT
    if not is_file(path):
        return None
    return validated(Attempt, read_json_object(path, StudyError), str(path))
