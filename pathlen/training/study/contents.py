"""What is known of a study: from its folder, if there is one, and the file of its finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pathlen.errors import StudyError
from pathlen.training.study.finished import (
    Finished,
    read_finished,
    require_same_runs,
    write_finished,
)
from pathlen.training.study.folder import FILE, Known, StudyFolder
from pathlen.training.study.plan import Plan, PlannedRun, plan_study
from pathlen.training.study.settings import Study
from pathlen.whole_files import is_folder


@dataclass(frozen=True, slots=True)
class Contents:
    """The runs of a study and what came out of them.

    Attributes:
        plan: The study, its runs and the places of its grid.
        known: What became of each run, by its key.
    """

    plan: Plan
    known: Mapping[str, Known]


def read_contents(
    folder: Path, study: Study | None = None, results: Path | None = None
) -> Contents:
    """Read what is known of a study.

    Args:
        folder: Of the study.
        study: Its settings, for a study whose folder does not tell its plan.
        results: The file of its finished runs.

    Raises:
        StudyError: The folder holds no study, and no finished runs are known; or one of the two
            cannot be read.
    """
    home = StudyFolder(folder)
    finished = {**read_finished(home.finished), **read_finished(results)}
    plan = home.plan()
    if plan is None:
        if study is None or not (finished or is_folder(home.runs)):
            raise _no_study(folder)
        plan = plan_study(study)
    if results is not None:
        require_same_runs(finished, {run.key: run.recipe.seed for run in plan.runs}, results)
    return Contents(plan, _known(plan, home, finished))


def _no_study(folder: Path) -> StudyError:
    what = "begin with: pathlen study run"
    if is_folder(folder / "runs"):
        what = "give the study in place of its folder, whose runs are then found"
    return StudyError(f"{folder} holds no study: {FILE} is not there; {what}")


def _known(plan: Plan, home: StudyFolder, finished: Mapping[str, Finished]) -> dict[str, Known]:
    """What became of the runs of a plan.

    Raises:
        StudyError: Files of a run are damaged, and it is not among the finished ones.
    """
    found: dict[str, Known] = {}
    for run in plan.runs:  # dense runs before those that begin with them
        known, kept = home.look(run), finished.get(run.key)
        if known.state != "done" and kept is not None:
            known = Known("done", kept.whole_summary, kept.rows, took=kept.took)
        elif known.state == "damaged":
            raise StudyError(f"{known.error}; or see whether `pathlen study run` can mend it")
        elif run.needs is not None:
            known = _with_dense(known, run, found[run.needs])
        found[run.key] = known
    return found


def _with_dense(known: Known, run: PlannedRun, dense: Known) -> Known:
    """What is known of a run, its rows after those of the dense run that it begins with."""
    if known.state == "done" and dense.state == "done":
        before = dense.rows[-1]
        moved = [
            {**row, **{name: row[name] + before[name] for name in ("epoch", "step", "seconds")}}
            for row in known.rows
        ]
        last = {row["phase"]: row for row in moved}
        summary = {
            **known.summary,
            "phases": {**dense.summary["phases"], **last},
            "steps": moved[-1]["step"],
            "seconds": moved[-1]["seconds"],
            "dense_run": run.needs,
        }
        return replace(known, summary=summary, rows=[*dense.rows, *moved])
    if known.state == "done":  # without the rows of the dense run it tells half
        return Known("pending", attempt=known.attempt)
    if dense.state == "failed":
        error = f"the dense run {run.needs} that it begins with failed"
        return Known("failed", error=error, attempt=known.attempt)
    return known


def export(study: Study, folder: Path, results: Path) -> int:
    """Add the finished runs of a study to the file of its results; how many that has then.

    Args:
        study: What is asked for; other runs that the folder holds are left out.
        folder: Of the study.
        results: The file. Runs that it has are kept as they are.

    Raises:
        StudyError: The folder holds no study, or the file is something else.
        CheckpointError: The file cannot be written.
    """
    home, kept, plan = StudyFolder(folder), read_finished(results), plan_study(study)
    if not is_folder(home.runs):
        raise _no_study(folder)
    found = _known(plan, home, kept)
    labels = {member.key: member.labels for member in plan.members}
    in_order: dict[str, Finished] = {}
    for run in plan.runs:
        known = found[run.key]
        if run.key in kept:
            in_order[run.key] = kept[run.key]
        elif known.state == "done":
            in_order[run.key] = Finished(
                key=run.key,
                labels=labels.get(run.key),
                seed=run.recipe.seed,
                command=f"pathlen study run {study.name}",
                took=known.took,
                summary=known.summary,
                rows=known.rows,
            )
    whole = {**in_order, **kept}
    write_finished(results, whole.values())
    return len(whole)
