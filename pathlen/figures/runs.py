"""Runs of training as the figures take them: folders, files, rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pathlen.errors import DataError
from pathlen.figures.style import name_text
from pathlen.json_text import read_bytes, read_json
from pathlen.printable import listed, shown
from pathlen.whole_files import is_file, is_folder

FILE = "metrics.jsonl"
"""What a run writes into its folder: one JSON object a line, one line an epoch."""

Row = Mapping[str, Any]

Run = str | PathLike[str] | Iterable[Row]
"""The folder of a run, its metrics.jsonl, or its rows: mappings, or a pandas.DataFrame."""

# The first of these that a run has is its quality.
_METRICS = (
    "test_accuracy",
    "accuracy",
    "test_bleu",
    "bleu",
    "validation_accuracy",
    "train_accuracy",
)

_WORDS = {"bleu": "BLEU", "napl": "NAPL", "apl": "APL", "relu": "ReLU"}


def rows_of(run: Run) -> list[Row]:
    """The rows of a run, one an epoch, in order.

    Raises:
        DataError: There is no such file, it holds something else, or there are no rows.
    """
    if isinstance(run, str | PathLike):
        return _read(Path(run))
    records = run.to_dict("records") if hasattr(run, "to_dict") else list(run)
    rows = [dict(row) if isinstance(row, Mapping) else row for row in records]
    _check(rows, "the run")
    return rows


def _read(path: Path) -> list[Row]:
    """The rows of a file, or of the file in a folder."""
    file = path / FILE if is_folder(path) else path
    if not is_file(file):
        raise DataError(f"cannot read {file}: there is no such file; give a run's folder")
    lines = read_bytes(file, DataError).splitlines()
    rows = [
        read_json(line, f"{file}, line {number}", DataError)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    _check(rows, str(file))
    return rows


def _check(rows: Sequence[object], where: str) -> None:
    """Raise DataError unless there are rows and all are mappings."""
    if not rows:
        raise DataError(f"{where} has no rows: give one mapping for each epoch")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where}, row {number}: {shown(row)} is no mapping of names to numbers"
            )


def column(rows: Sequence[Row], name: str) -> list[float]:
    """The values of a column; NaN where a row has none.

    Raises:
        DataError: No row has it, or a value is no number.
    """
    values = [_number(row.get(name), name) for row in rows]
    if all(math.isnan(value) for value in values):
        known = sorted({key for row in rows for key in row})
        raise DataError(f"no row has {shown(name)}; there are {listed(map(repr, known), 40)}")
    return values


def _number(value: object, name: str) -> float:
    """A value as a float, NaN for None."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise DataError(f"{name!r} should be a number, not {shown(value)}")
    return float(value)


def metric_of(rows: Sequence[Row], metric: str | None) -> str:
    """The name of the column that says how good a run is.

    Args:
        rows: Of the run.
        metric: What the caller asks for, or None.

    Raises:
        DataError: None is asked for, and the run has none of the usual ones.
    """
    if metric is not None:
        return metric
    for name in _METRICS:
        if any(row.get(name) is not None for row in rows):
            return name
    known = sorted({key for row in rows for key in row})
    raise DataError(
        f"no row has any of {', '.join(_METRICS)}: name the metric, one of"
        f" {listed(map(repr, known), 40)}"
    )


def in_percent(values: Sequence[float], metric: str, lowest: float = 0) -> list[float]:
    """Values of a metric as they are drawn: accuracies, parts of 1, become percent.

    Args:
        values: Of the metric.
        metric: Its name.
        lowest: What an accuracy can be at least; -1 for differences of two.

    Raises:
        DataError: An accuracy is no part of 1.
    """
    if "accuracy" not in metric:
        return list(values)
    wrong = [value for value in values if value < lowest or value > 1]
    if wrong:
        raise DataError(f"{metric!r} must lie between {lowest:g} and 1; there is {wrong[0]}")
    return [100 * value for value in values]


def metric_words(metric: str) -> str:
    """The name of a column for people: "test accuracy", "NAPL"."""
    if metric == "omega":
        return "strength of the prior (ω)"
    words = metric.rpartition(".")[2].split("_")
    return name_text(" ".join(_WORDS.get(word, word) for word in words))


def metric_label(metric: str) -> str:
    """The same with its unit: "test accuracy (%)"."""
    return f"{metric_words(metric)} (%)" if "accuracy" in metric else metric_words(metric)
