"""What is known of a study: its store, if there is one, and the file of its finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathlen.errors import StudyError
from pathlen.printable import shown
from pathlen.training.records import check_rows
from pathlen.training.study.database import FILE
from pathlen.training.study.finished import (
    Finished,
    read_finished,
    require_same_runs,
    write_finished,
)
from pathlen.training.study.plan import plan_study
from pathlen.training.study.settings import Study
from pathlen.training.study.store import Store
from pathlen.whole_files import is_file

METRICS = {"accuracy": "test_accuracy", "bleu": "bleu"}
"""The column of the metric that a task is judged by."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The runs of a study and what came out of them.

    Attributes:
        study: The settings of the study.
        runs: key, recipe, needs, state, summary, and if they were begun started, ended, owner,
            heartbeat, attempts, error.
        members: labels, seed and key of each place in the grid.
        history: The rows of finished runs, by their keys.
    """

    study: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    members: Sequence[Mapping[str, Any]]
    history: Mapping[str, Sequence[Mapping[str, Any]]]


def read_contents(
    folder: Path, study: Study | None = None, results: Path | None = None
) -> Contents:
    """Read what is known of a study.

    Args:
        folder: Of the study.
        study: Its settings, for a study whose finished runs are known, but which has no folder.
        results: The file of its finished runs.

    Raises:
        StudyError: The folder holds no study, and no finished runs are known; or one of the two
            cannot be read.
    """
    finished = read_finished(results)
    if study is not None and finished and not is_file(folder / FILE):
        own = _planned(study)
    else:
        own = _stored(folder)
    history = dict(own.history)
    runs = []
    if results is not None:
        seeds = {run["key"]: run["recipe"]["seed"] for run in own.runs}
        require_same_runs(finished, seeds, results)
    for run in own.runs:
        known = finished.get(run["key"])
        if known is not None and run["state"] != "done":
            run = {**run, "state": "done", "summary": known.whole_summary, "error": None}
            history[known.key] = known.rows
        runs.append(run)
    return Contents(own.study, runs, own.members, history)


def _stored(folder: Path) -> Contents:
    with Store(folder) as store, store.telling():
        try:
            runs = store.runs()
            history = {run["key"]: store.rows(run["key"]) for run in runs if run["state"] == "done"}
            found = Contents(store.facts["study"], runs, store.members(), history)
            _check(found)
        except (LookupError, TypeError, AttributeError) as error:
            raise StudyError(
                f"{store.path} is damaged ({type(error).__name__}: {error}); the runs themselves"
                " are in runs/: move the file away, and the same study goes on with them"
            ) from error
    return found


def _check(found: Contents) -> None:
    """Look up everything that readers take for granted."""
    for run in found.runs:
        number = run["recipe"]["seed"]
        if type(number) is not int:
            raise TypeError(f"seed {shown(number)}")
        if run["state"] == "done":
            metric, phases = run["summary"]["metric"], run["summary"]["phases"]
            check_rows(found.history[run["key"]], f"run {shown(run['key'])}", StudyError)
            if not found.history[run["key"]] or metric not in METRICS or not phases:
                raise TypeError(f"metric {shown(metric)}")
    for member in found.members:
        if not isinstance(member["labels"], dict):
            raise TypeError(f"labels {shown(member['labels'])}")


def _planned(study: Study) -> Contents:
    plan = plan_study(study)
    runs = [
        {
            "key": run.key,
            "recipe": run.recipe.model_dump(mode="json"),
            "needs": run.needs,
            "state": "pending",
            "summary": None,
            "started": None,
            "ended": None,
        }
        for run in plan.runs
    ]
    members = [
        {"labels": dict(one.labels), "seed": one.seed, "key": one.key} for one in plan.members
    ]
    return Contents(study.model_dump(mode="json"), runs, members, {})


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
    found, known = _stored(folder), read_finished(results)
    plan = plan_study(study)
    labels = {member.key: member.labels for member in plan.members}
    stored = {run["key"]: run for run in found.runs if run["state"] == "done"}
    in_order = {run.key: known.get(run.key) for run in plan.runs}
    for run in plan.runs:
        if in_order[run.key] is None and run.key in stored:
            own = stored[run.key]
            in_order[run.key] = Finished(
                key=run.key,
                labels=labels.get(run.key),
                seed=run.recipe.seed,
                command=f"pathlen study run {study.name}",
                took=own["ended"] - own["started"] if own["attempts"] == 1 else None,
                summary=own["summary"],
                rows=found.history[run.key],
            )
    whole = [run for run in {**in_order, **known}.values() if run is not None]
    write_finished(results, whole)
    return len(whole)
