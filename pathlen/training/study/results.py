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
from pathlen.training.study.contents import read_contents
from pathlen.training.study.folder import METRICS
from pathlen.training.study.plan import Member
from pathlen.training.study.settings import Study


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
    """What is finished of a study.

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
    recipes = {run.key: run.recipe for run in found.plan.runs}
    records = []
    for member in found.plan.members:
        known = found.known[member.key]
        if known.state != "done":
            continue
        records.append(
            Record(
                member.labels,
                member.seed,
                member.key,
                METRICS[known.summary["metric"]],
                known.rows[-1],
                known.summary["phases"],
                known.rows,
                known.summary,
                recipes[member.key].model_dump(mode="json"),
            )
        )
    settings = found.plan.study.model_dump(mode="json")
    return Results(settings, tuple(records), tuple(_cases(found.plan.members, records)))


def _cases(members: Sequence[Member], records: Sequence[Record]) -> list[Case]:
    planned: dict[str, list[Member]] = {}
    for member in members:
        planned.setdefault(setting_of(member.labels), []).append(member)
    return [
        Case(
            part[0].labels,
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
        running: Name, key, seconds so far, and the machine that it runs on.
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
    names, known = found.plan.names, found.known
    counts = dict.fromkeys(("done", "running", "pending", "failed"), 0)
    for one in known.values():
        counts[one.state] += 1
    now = time.time()
    running = [
        {"name": names[key], "key": key, "seconds": max(0.0, now - since.begun), "host": since.host}
        for key, one in known.items()
        if one.state == "running" and (since := one.attempt) is not None
    ]
    failed = [
        {"name": names[key], "key": key, "error": one.error}
        for key, one in known.items()
        if one.state == "failed"
    ]
    took = [one.took for one in known.values() if one.took is not None]
    return Status(counts, running, failed, _remaining(took, running, counts["pending"]))


def _remaining(
    took: Sequence[float], running: Sequence[Mapping[str, Any]], pending: int
) -> float | None:
    """Seconds to the end, if as many runs as now go on side by side, as long as those before."""
    if not took or not running:
        return None
    typical = statistics.fmean(took)
    left: float = sum(max(0.0, typical - run["seconds"]) for run in running)
    return (pending * typical + left) / len(running)
