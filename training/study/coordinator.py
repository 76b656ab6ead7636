"""Carrying out a study: runs are claimed, handed to workers, and what they return is written.

The process that does this alone opens the store. It may be killed at any moment: what its workers
have done is in the folders of the runs, and the next study takes up the runs that it had claimed.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any

from pathlen.errors import CheckpointError, StudyError
from pathlen.training.files import write_text
from pathlen.training.study.executors import Cluster, Here, Place
from pathlen.training.study.finished import read_finished, require_same_runs
from pathlen.training.study.jobs import GRACE, Job, Outcome, stop_file
from pathlen.training.study.owners import new_owner
from pathlen.training.study.plan import Plan, plan_study
from pathlen.training.study.settings import Study
from pathlen.training.study.store import Claim, Store
from pathlen.training.watch import shown

BEAT = 5.0
"""Seconds between signs of life."""

LOOK = 0.5
"""Seconds between looks for runs to claim, and for workers that came."""

Say = Callable[[str], None]


def run_study(
    study: Study,
    folder: Path | str,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    results: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, int]:
    """Carry out a study, or go on where an earlier call stopped.

    Args:
        study: What to do.
        folder: Of the study; on a cluster all workers must share it.
        scheduler: Address of a Dask scheduler; runs are carried out on this machine if not given.
        workers: Runs at a time on this machine, in place of the study's.
        retry_failed: Whether runs that failed before are done again.
        results: A file of finished runs, which are not repeated; see
            :mod:`pathlen.training.study.finished`.
        say: Is told of each run that ends.

    Returns:
        How many runs are in each state: all are "done" or "failed".

    Raises:
        SettingsError: A recipe of the study is not valid.
        StudyError: The store, the file of finished runs or the scheduler cannot be used, or the
            scheduler is gone.
        KeyboardInterrupt: Runs under way were stopped, and are saved.
    """
    plan = plan_study(study)
    finished = read_finished(results)
    if results is not None:
        require_same_runs(finished, {run.key: run.recipe.seed for run in plan.runs}, results)
    home = Path(folder).absolute()
    token = _prepare(home)
    with Store(home, create=True) as store, store.telling():
        store.take_up(plan)
        store.adopt(finished)
        if retry_failed:
            store.retry_failed()
        store.fail_dependent()
        if scheduler is None:
            place: Place = Here(workers or study.workers, study.threads)
        else:
            place = Cluster(scheduler, str(home), token, say)
        coordinator = Coordinator(plan, store, place, home, token, say)
        try:
            coordinator.work()
        finally:
            coordinator.leave()
            place.close()
        return store.counts()


def _prepare(home: Path) -> str:
    """Make the folder of the study; what its file `token` holds."""
    path = home / "token"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_text(path, secrets.token_hex(8))
        return path.read_text(encoding="utf-8")
    except (OSError, CheckpointError) as error:
        raise StudyError(f"the folder of the study cannot be made: {error}") from error


class Coordinator:
    """Runs that are under way, and what is to be done with them.

    Args:
        plan: What to do.
        store: Its store, which has taken up the plan.
        place: Where runs are carried out.
        home: Folder of the study.
        token: What its file `token` holds.
        say: Is told of each run that ends.
    """

    def __init__(
        self, plan: Plan, store: Store, place: Place, home: Path, token: str, say: Say
    ) -> None:
        self._plan, self._store, self._place = plan, store, place
        self._home, self._token, self._say = home, token, say
        self._owner = new_owner()
        self._under_way: dict[Future[dict[str, Any]], Claim] = {}
        self._names = {run.key: f"dense, seed {run.recipe.seed}" for run in plan.runs}
        for member in plan.members:
            labels = ", ".join(f"{name}={value}" for name, value in member.labels.items())
            self._names[member.key] = f"{labels or plan.study.name}, seed {member.seed}"
        self._beaten = time.monotonic()

    def work(self) -> None:
        """Go on until no run of the plan is left to do, by this study or another one.

        Raises:
            StudyError: Workers do not see the folder, or the scheduler is gone.
        """
        while True:
            self._fill()
            if not self._under_way and not self._left():
                return
            if self._under_way:
                done, _ = wait(self._under_way, LOOK, FIRST_COMPLETED)
                for future in done:
                    self._take(future)
            else:
                time.sleep(LOOK)  # runs of another study, or runs that wait for them
            if time.monotonic() - self._beaten > BEAT:
                self._store.beat(self._owner)
                self._beaten = time.monotonic()

    def _left(self) -> int:
        counts = self._store.counts()
        return counts.get("pending", 0) + counts.get("running", 0)

    def _fill(self) -> None:
        """Claim runs while there is room for them."""
        slots = self._place.slots()
        while len(self._under_way) < slots:
            claim = self._store.claim(self._owner)
            if claim is None:
                return
            job = Job(
                key=claim.key,
                recipe=claim.recipe,
                needs=claim.needs,
                home=str(self._home),
                token=self._token,
                owner=self._owner,
                threads=self._plan.study.threads,
                cwd=os.getcwd(),
            )
            self._under_way[self._place.submit(job)] = claim

    def _take(self, future: Future[dict[str, Any]]) -> None:
        """Write what a run came to."""
        claim = self._under_way.pop(future)
        outcome = self._outcome(future)
        if outcome.state == "unreachable":
            self._store.release(self._owner, [claim.key])
            raise StudyError(
                f"a worker cannot use the folder of the study: {outcome.error}; all workers need it"
                " under the same path, shared by a network file system"
            )
        name = self._names[claim.key]
        if outcome.state == "stopped":
            self._store.release(self._owner, [claim.key])
        elif outcome.state == "failed":
            self._store.fail(claim.key, self._owner, outcome.host, outcome.error, outcome.traceback)
            self._say(f"{self._progress()} {name}: FAILED: {outcome.error.splitlines()[0]}")
        else:
            summary, rows = self._with_dense(claim, outcome)
            self._store.finish(claim.key, self._owner, outcome.host, summary, rows)
            self._say(f"{self._progress()} {name}: {_in_short(rows[-1])}")

    def _outcome(self, future: Future[dict[str, Any]]) -> Outcome:
        """What a future gives; the cluster may have failed in place of the run."""
        try:
            return Outcome.of(future.result())
        except CancelledError as error:
            raise StudyError(
                "the scheduler is gone, or has dropped a run; nothing is lost: the same command"
                " goes on"
            ) from error
        except Exception as error:  # Dask's own, as KilledWorker
            return Outcome("failed", f"{type(error).__name__}: {error}")

    def _with_dense(self, claim: Claim, outcome: Outcome) -> tuple[dict[str, Any], list[Any]]:
        """Put the rows of the dense run that was shared before those of a run."""
        if claim.needs is None:
            return outcome.summary, outcome.rows
        before = self._store.rows(claim.needs)
        dense = self._store.summary(claim.needs)
        assert dense is not None  # else the run could not have been claimed
        moved = [
            row | {name: row[name] + before[-1][name] for name in ("epoch", "step", "seconds")}
            for row in outcome.rows
        ]
        last = {row["phase"]: row for row in moved}
        summary = outcome.summary | {
            "phases": dense["phases"] | last,
            "steps": moved[-1]["step"],
            "seconds": moved[-1]["seconds"],
            "dense_run": claim.needs,
        }
        return summary, before + moved

    def _progress(self) -> str:
        counts = self._store.counts()
        over = counts.get("done", 0) + counts.get("failed", 0)
        return f"[{over}/{len(self._plan.runs)}]"

    def leave(self) -> None:
        """Stop runs that are under way, which saves them, and give them back."""
        try:
            if self._under_way:
                path = stop_file(self._home, self._owner)
                path.parent.mkdir(exist_ok=True)
                path.touch()
                done, _ = wait(self._under_way, GRACE + 10)
                for future in done:
                    if not future.cancelled() and future.exception() is None:
                        self._take(future)
        finally:
            self._store.release(self._owner)


def _in_short(row: dict[str, Any]) -> str:
    columns = ("test_accuracy", "bleu", "napl", "active_units")
    parts = shown({name: row.get(name) for name in columns})
    return ", ".join(f"{name} {text}" for name, text in parts.items())
