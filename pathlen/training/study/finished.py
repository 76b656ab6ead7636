"""Finished runs as a text file, one line a run, which a repository keeps where folders do not last.

A study FILE.yaml has its results in FILE.jsonl beside it: labels, metrics by epoch, what computed
them and how long that took, but no weights. Runs found there are not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathlen.errors import StudyError
from pathlen.json_text import read_bytes, read_json
from pathlen.printable import shown
from pathlen.training.files import write_text
from pathlen.training.records import check_rows
from pathlen.whole_files import is_file

DIGITS = 7
"""Significant digits of numbers that are kept, as many as numbers of 32 bits have."""

_MEND = "remove the line, and `pathlen study run` does the run again"


@dataclass(frozen=True, slots=True)
class Finished:
    """What is kept of a finished run.

    Attributes:
        key: Of the run; see :func:`pathlen.training.study.keys.run_key`.
        labels: Of its case; None for a dense run that only others begin with.
        seed: Of the run.
        command: What it was made with.
        took: Seconds from its beginning to its end, None if it was interrupted.
        summary: As in summary.json, without the rows.
        rows: Of metrics, one an epoch.
    """

    key: str
    labels: Mapping[str, Any] | None
    seed: int
    command: str
    took: float | None
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def whole_summary(self) -> dict[str, Any]:
        """The summary with the last row of each phase."""
        return {**self.summary, "phases": {row["phase"]: row for row in self.rows}}


def results_file(study: Path) -> Path:
    """Where the results of a study lie, whose settings are in a file."""
    return study.with_suffix(".jsonl")


def read_finished(path: Path | None) -> dict[str, Finished]:
    """Read a file of results: runs by their keys; none if there is no file.

    Raises:
        StudyError: It cannot be read, or is something else.
    """
    if path is None or not is_file(path):
        return {}
    found: dict[str, Finished] = {}
    # not splitlines: names may hold other characters that end lines
    for number, line in enumerate(read_bytes(path, StudyError).split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        run = _finished(line, where)
        if found.setdefault(run.key, run) != run:
            raise StudyError(
                f"{where}: there are other results of the run {run.key} above; {_MEND}"
            )
    return found


def _finished(line: bytes, where: str) -> Finished:
    """The run of a line."""
    try:
        plain = read_json(line, where, _NoRun)
        rows = _rows(plain.pop("metrics"))
        if not rows:
            raise _NoRun("a run without metrics")
        check_rows(rows, "metrics", _NoRun)
        run = Finished(**plain, rows=rows)
        _check(run)
    except (_NoRun, LookupError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{where}: this is no finished run of a study ({error}); the file is written by:"
            " pathlen study export"
        ) from error
    return run


class _NoRun(StudyError):
    """Why a line is no run."""


def _check(run: Finished) -> None:
    kinds = {"key": str, "seed": int, "command": str, "summary": dict}
    wrong = [name for name, kind in kinds.items() if type(getattr(run, name)) is not kind]
    if run.labels is not None and not isinstance(run.labels, dict):
        wrong.append("labels")
    if run.took is not None and not isinstance(run.took, int | float):
        wrong.append("took")
    if wrong:
        raise _NoRun(f"{wrong[0]} is {shown(getattr(run, wrong[0]))}")


def require_same_runs(found: Mapping[str, Finished], seeds: Mapping[str, int], path: Path) -> None:
    """Compare finished runs with those that a study asks for under the same keys.

    Args:
        found: Finished runs by their keys.
        seeds: Of the runs that are asked for, by their keys.
        path: The file that they are from.

    Raises:
        StudyError: One has the seed of another run: its key was put before other results.
    """
    for key, seed in seeds.items():
        if key in found and found[key].seed != seed:
            raise StudyError(
                f"{path}: the run {key} has seed {found[key].seed} there, and the study's has seed"
                f" {seed}: this line is of another run; {_MEND}"
            )


def write_finished(path: Path, runs: Iterable[Finished]) -> None:
    """Write a file of results.

    Raises:
        CheckpointError: It cannot be written.
    """
    write_text(path, "".join(_line(run) + "\n" for run in runs))


def _line(run: Finished) -> str:
    summary = {name: part for name, part in run.summary.items() if name != "phases"}
    plain = {
        "key": run.key,
        "labels": run.labels,
        "seed": run.seed,
        "command": run.command,
        "took": run.took,
        "summary": summary,
        "metrics": _columns(run.rows),
    }
    return json.dumps(_rounded(plain), ensure_ascii=False)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, which name each metric once; null where a row has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    whole = zip(*columns.values(), strict=True)
    return [
        {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        for values in whole
    ]


def _rounded(part: Any) -> Any:
    if isinstance(part, float):
        return float(f"{part:.{DIGITS}g}")
    if isinstance(part, Mapping):
        return {name: _rounded(value) for name, value in part.items()}
    return [_rounded(value) for value in part] if isinstance(part, list | tuple) else part
