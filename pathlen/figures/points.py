"""Runs as single points with columns, and the panels to draw them in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.errors import DataError
from pathlen.figures import style
from pathlen.figures.runs import Row, column, in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTERVAL = "mean, 95 % interval"
"""What legends call it."""


def rows_from(points: Iterable[Row]) -> list[Row]:
    """The points of a figure, one mapping a run.

    Args:
        points: Mappings, or a pandas.DataFrame.

    Raises:
        DataError: There are none, or something else.
    """
    if isinstance(points, str | PathLike | Mapping):
        raise DataError(f"points should be a sequence of mappings, one a run, not {points!r}")
    rows = points.to_dict("records") if hasattr(points, "to_dict") else list(points)
    if not rows:
        raise DataError("there are no runs to draw: give at least one")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"run {number}: {row!r} is no mapping of names to values")
    return rows


def finite(rows: Sequence[Row], name: str, lowest: float = 0) -> np.ndarray:
    """A numeric column that every run has, accuracies in percent: [runs].

    Args:
        rows: One a run.
        name: Of the column.
        lowest: What an accuracy can be at least.

    Raises:
        DataError: No run has it, or that of one is missing, no number, or not finite.
    """
    values = column(rows, name)
    for number, (value, row) in enumerate(zip(values, rows, strict=True), 1):
        if not math.isfinite(value):
            raise DataError(
                f"run {number}: {name!r} must be a finite number, not {row.get(name)!r}; give it,"
                " or leave the run out"
            )
    return np.array(in_percent(values, name, lowest))


def texts(rows: Sequence[Row], name: str) -> list[str]:
    """A column of labels; "" where a run has none.

    Raises:
        DataError: Some runs have a label and others do not.
    """
    found = [_text(row.get(name)) for row in rows]
    if any(found) and not all(found):
        number = found.index("") + 1
        raise DataError(
            f"run {number} has no {name!r}, and others have: give all runs one, or none"
        )
    return found


def _text(value: Any) -> str:
    """A label; None and the NaN that pandas has for it are none."""
    if value is None or value != value:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


@contextmanager
def panels_of(ax: Axes | Sequence[Axes] | None, count: int, height: float) -> Iterator[list[Axes]]:
    """Axes for several panels: the caller's, or those of a new figure.

    Args:
        ax: The caller's axes, one or several, or None.
        count: Of the panels.
        height: Of a new figure, in inches.

    Raises:
        DataError: The caller gives more or fewer.
        ReportError: matplotlib is not installed.
    """
    if ax is None:
        with style.panels_for(count, height) as made:
            yield made
        return
    given: list[Axes] = list(np.ravel(np.array(ax, dtype=object)))
    if len(given) != count:
        raise DataError(
            f"there are {count} panels to draw and {len(given)} axes: give one for each"
        )
    yield given
