"""Carrying out a study: runs that are left to do are handed to workers until none is.

Whoever does this may be killed at any moment, and others may do the same beside it: what became of
the runs is in their folders, and who works in one has it locked.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any

from pathlen.errors import StudyError
from pathlen.training.study.executors import Cluster, Here
from pathlen.training.study.finished import read_finished, require_same_runs, write_finished
from pathlen.training.study.folder import StudyFolder
from pathlen.training.study.job import GRACE, Job
from pathlen.training.study.plan import Plan, PlannedRun, plan_study
from pathlen.training.study.processes import LOOK, Outcome
from pathlen.training.study.settings import Study
from pathlen.training.watch import shown
from pathlen.whole_files import is_file

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

    A script that calls it does so under `if __name__ == "__main__":`, as for any processes.

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
        StudyError: The folder, the file of finished runs or the scheduler cannot be used, or the
            scheduler is gone.
        KeyboardInterrupt: Runs under way were stopped, and are saved.
    """
    plan = plan_study(study)
    finished = read_finished(results)
    if results is not None:
        require_same_runs(finished, {run.key: run.recipe.seed for run in plan.runs}, results)
    home = StudyFolder(Path(folder))
    home.take_up(plan, say)
    if results is not None and is_file(results):
        own = [finished[run.key] for run in plan.runs if run.key in finished]
        write_finished(home.finished, own)
    if retry_failed:
        for run in plan.runs:
            home.forget_failure(run)
    with home.command() as command:
        if scheduler is None:
            place: Here | Cluster = Here(workers or study.workers, study.threads)
        else:
            place = Cluster(scheduler, home.path, command, say)
        coordinator = Coordinator(plan, home, place, command, say)
        coordinator.skip_done(read_finished(home.finished))
        try:
            coordinator.work()
        finally:
            coordinator.leave()
            place.close()
    return dict(Counter(coordinator.over.values()))


class Coordinator:
    """Runs that are under way, and what is to be done with them.

    Args:
        plan: What to do.
        home: Folder of the study, which has taken up the plan.
        place: Where runs are carried out.
        command: The file whose disappearance stops the runs.
        say: Is told of each run that ends.

    Attributes:
        over: The states of runs that are done or failed, by their keys.
    """

    def __init__(
        self, plan: Plan, home: StudyFolder, place: Here | Cluster, command: Path, say: Say
    ) -> None:
        self._plan, self._home, self._place = plan, home, place
        self._command, self._say = command, say
        self._under_way: dict[Future[Outcome], PlannedRun] = {}
        self._names = plan.names
        self.over: dict[str, str] = {}

    def skip_done(self, finished: Collection[str]) -> None:
        """Look which runs are done, here or elsewhere.

        Args:
            finished: Keys of runs that are done elsewhere. A dense run that others still have to
                begin with is done again: its weights are not kept.
        """
        needed = set()
        for run in reversed(self._plan.runs):  # runs before those that they need
            state = self._home.look(run).state
            if state == "done" or (run.key in finished and run.key not in needed):
                self.over[run.key] = "done"
            else:
                needed.add(run.needs)

    def work(self) -> None:
        """Go on until no run of the plan is left to do, by this command or another one.

        Raises:
            StudyError: Workers do not see the folder, or the scheduler is gone.
        """
        while True:
            self._fill()
            if self._under_way:
                done, _ = wait(self._under_way, LOOK, FIRST_COMPLETED)
                for future in done:
                    self._take(future)
            elif len(self.over) == len(self._plan.runs):
                return
            else:
                time.sleep(LOOK)  # another command carries out what is left

    def _fill(self) -> None:
        """Hand over runs while there is room for them."""
        slots = self._place.slots()
        mine = {run.key for run in self._under_way.values()}
        for run in self._plan.runs:
            if len(self._under_way) >= slots:
                return
            if run.key in self.over or run.key in mine:
                continue
            first = None if run.needs is None else self.over.get(run.needs)
            if first == "failed":
                self.over[run.key] = first
            elif run.needs is None or first == "done":
                self._begin(run)

    def _begin(self, run: PlannedRun) -> None:
        """Hand over a run, unless another command has it, or is done with it."""
        state = self._home.look(run).state
        if state in ("done", "failed"):
            self.over[run.key] = state
        elif state != "running":
            threads = self._plan.study.threads
            job = Job(run, self._home.path, self._command, threads, os.getcwd())
            self._under_way[self._place.submit(job)] = run

    def _take(self, future: Future[Outcome]) -> None:
        """See what a run came to."""
        run = self._under_way.pop(future)
        outcome = self._outcome(future, run)
        if outcome.state == "unreachable":
            raise StudyError(
                f"a worker cannot use the folder of the study: {outcome.error}; all workers need it"
                " under the same path, shared by a network file system"
            )
        if outcome.state not in ("done", "failed"):
            return  # it was stopped, or another command works on it: that is looked at later
        self.over[run.key] = outcome.state
        what = _in_short(outcome.row)
        if outcome.state == "failed":
            what = f"FAILED: {outcome.error.splitlines()[0]}"
        self._say(f"[{len(self.over)}/{len(self._plan.runs)}] {self._names[run.key]}: {what}")

    def _outcome(self, future: Future[Outcome], run: PlannedRun) -> Outcome:
        """What a future gives; the cluster may have failed in place of the run."""
        try:
            return future.result()
        except CancelledError as error:
            raise StudyError(
                "the scheduler is gone, or has dropped a run; nothing is lost: the same command"
                " goes on"
            ) from error
        except StudyError:
            raise
        except Exception as error:  # Dask's own, as KilledWorker
            known = self._home.note_death(run, f"{type(error).__name__}: {error}")
            return Outcome(known.state, known.error)

    def leave(self) -> None:
        """Stop runs that are under way, which saves them."""
        self._command.unlink(missing_ok=True)
        wait(self._under_way, GRACE + 10)


def _in_short(row: Any) -> str:
    columns = ("test_accuracy", "bleu", "napl", "active_units")
    parts = shown({name: row.get(name) for name in columns})
    return ", ".join(f"{name} {text}" for name, text in parts.items())
