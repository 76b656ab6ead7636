"""What came out of a study: records of runs, cases with means over seeds, points of a figure."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathlen.errors import StudyError
from pathlen.training.study.contents import METRICS, read_contents
from pathlen.training.study.owners import is_dead
from pathlen.training.study.settings import Study
from pathlen.training.study.store import LEASE


@dataclass(frozen=True, slots=True)
class Record:
    """A finished run at a place of the grid.

    Attributes:
        labels: Of its case.
        seed: Of the run.
        key: Names its folder, runs/KEY.
        metric: The column that its task is judged by.
        last: Its last row of metrics.
        phases: The last row of each phase.
        history: All rows.
        summary: As in summary.json.
        recipe: Its settings.
    """

    labels: Mapping[str, Any]
    seed: int
    key: str
    metric: str
    last: Mapping[str, Any]
    phases: Mapping[str, Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    recipe: Mapping[str, Any]

    @property
    def dense(self) -> Mapping[str, Any] | None:
        """The last row of the training phase, if there was one and something came after it."""
        return self.phases.get("train") if len(self.phases) > 1 else None


@dataclass(frozen=True, slots=True)
class Case:
    """The finished runs of a case, and how many there are to be.

    Attributes:
        labels: Of the case.
        records: One for each seed that is finished.
        planned: Number of seeds.
    """

    labels: Mapping[str, Any]
    records: tuple[Record, ...]
    planned: int

    def values(self, column: str, phase: str | None = None) -> list[float]:
        """A column of the last rows, or of those of a phase; runs without it are left out."""
        rows = [
            record.last if phase is None else record.phases.get(phase) for record in self.records
        ]
        found = [row.get(column) for row in rows if row is not None]
        return [float(value) for value in found if value is not None]


@dataclass(frozen=True, slots=True)
class Results:
    """What the store of a study holds.

    Attributes:
        study: The settings of the study.
        records: Of all finished runs, in the order of the grid.
        cases: The same by case.
    """

    study: Mapping[str, Any]
    records: tuple[Record, ...]
    cases: tuple[Case, ...]


def read_results(
    folder: Path | str, study: Study | None = None, results: Path | None = None
) -> Results:
    """Read what is finished of a study; it may be under way.

    Args:
        folder: Of the study.
        study: Its settings, for a study of which only finished runs are known, and no folder.
        results: The file of its finished runs; see :mod:`pathlen.training.study.finished`.

    Raises:
        StudyError: The folder holds no study, and no finished runs are known.
    """
    found = read_contents(Path(folder), study, results)
    runs = {run["key"]: run for run in found.runs if run["state"] == "done"}
    records = []
    for member in found.members:
        run = runs.get(member["key"])
        if run is None:
            continue
        rows, summary = found.history[member["key"]], run["summary"]
        records.append(
            Record(
                member["labels"],
                member["seed"],
                member["key"],
                METRICS[summary["metric"]],
                rows[-1],
                summary["phases"],
                rows,
                summary,
                run["recipe"],
            )
        )
    return Results(found.study, tuple(records), tuple(_cases(found.members, records)))


def _cases(members: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> list[Case]:
    planned: dict[str, list[Mapping[str, Any]]] = {}
    for member in members:
        planned.setdefault(setting_of(member["labels"]), []).append(member)
    return [
        Case(
            part[0]["labels"],
            tuple(one for one in records if setting_of(one.labels) == setting),
            len(part),
        )
        for setting, part in planned.items()
    ]


def setting_of(labels: Mapping[str, Any]) -> str:
    """Labels as one text, equal for equal labels."""
    return json.dumps(dict(labels))


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (NaN of one value), None of no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), deviation


def points(results: Results, metric: str | None = None) -> list[dict[str, Any]]:
    """The runs as :func:`pathlen.figures.plot_tradeoff` takes them.

    Args:
        results: Of a study.
        metric: The column to draw; the one that the task is judged by if None.

    Raises:
        StudyError: No run is finished.
    """
    if not results.records:
        raise StudyError("no run of the study is finished: there is nothing to draw yet")
    has_cases = bool(results.study["cases"])
    series = results.study["series"] or ("case" if has_cases else None)
    found = []
    for record in results.records:
        name = metric or record.metric
        point = {"napl": record.last["napl"], name: record.last.get(name)}
        point["setting"] = setting_of(record.labels)
        if series is not None:
            label = record.labels[series]
            point["series"] = label if series == "case" else f"{series} {label}"
        found.append(point)
    return found


@dataclass(frozen=True, slots=True)
class Status:
    """How a study goes on.

    Attributes:
        counts: Runs in each state.
        running: Name, key, seconds so far, and whether its owner gives signs of life.
        failed: Name, key and error.
        remaining: Seconds that the rest takes at the pace so far, None if it is not known.
    """

    counts: Mapping[str, int]
    running: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    remaining: float | None


def read_status(
    folder: Path | str, study: Study | None = None, results: Path | None = None
) -> Status:
    """See how a study goes on; see `read_results`.

    Raises:
        StudyError: The folder holds no study, and no finished runs are known.
    """
    found = read_contents(Path(folder), study, results)
    runs, members = found.runs, found.members
    names = {run["key"]: f"dense, seed {run['recipe']['seed']}" for run in runs}
    for member in members:
        names[member["key"]] = name_of(member["labels"], member["seed"])
    counts = dict.fromkeys(("done", "running", "pending", "failed"), 0)
    for run in runs:
        counts[run["state"]] += 1
    now = time.time()
    running = [
        {
            "name": names[run["key"]],
            "key": run["key"],
            "seconds": now - run["started"],
            "alive": now - run["heartbeat"] < LEASE and not is_dead(run["owner"]),
        }
        for run in runs
        if run["state"] == "running"
    ]
    failed = [
        {"name": names[run["key"]], "key": run["key"], "error": run["error"]}
        for run in runs
        if run["state"] == "failed"
    ]
    return Status(counts, running, failed, _remaining(runs, running))


def name_of(labels: Mapping[str, Any], seed: int) -> str:
    """What a run is called in lists."""
    return ", ".join([*(f"{name}={value}" for name, value in labels.items()), f"seed {seed}"])


def _remaining(
    runs: Sequence[Mapping[str, Any]], running: Sequence[Mapping[str, Any]]
) -> float | None:
    """Seconds to the end, if as many runs as now go on side by side, as long as those before."""
    took = [
        run["ended"] - run["started"] for run in runs if run["state"] == "done" and run["ended"]
    ]
    alive = [run["seconds"] for run in running if run["alive"]]
    if not took or not alive:
        return None
    typical: float = statistics.fmean(took)
    pending = sum(run["state"] == "pending" for run in runs)
    work: float = pending * typical + sum(max(0.0, typical - seconds) for seconds in alive)
    return work / len(alive)
