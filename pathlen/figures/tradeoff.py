"""Quality against depth, for many runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.errors import DataError
from pathlen.figures import style
from pathlen.figures.knee import Knee, draw_knees, knees_of
from pathlen.figures.runs import (
    column,
    in_percent,
    metric_label,
    metric_of,
    rows_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Result = str | PathLike[str] | Mapping[str, Any] | tuple[float, float]
"""A run's folder or metrics.jsonl, a mapping with "napl" and a metric, or a pair of the two."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one run came to.

    Attributes:
        series: Which line it belongs to, or "".
        setting: What runs with other seeds have in common with it, or None.
        napl: Normalized average path length.
        value: Of the metric; accuracies in percent.
    """

    series: str
    setting: object
    napl: float
    value: float


def plot_tradeoff(
    runs: Iterable[Result] | Mapping[str, Iterable[Result]],
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    knee: Knee | Mapping[str, Knee] | None = None,
) -> Axes:
    """Draw a metric against the normalized average path length, a line for each series.

    Runs of a series with the same setting differ in their seeds: each is a pale point, and the line
    goes through their means, whose bars reach from the smallest to the largest.

    Args:
        runs: Of each run its folder or its metrics.jsonl (whose last row counts), a mapping, or a
            pair of depth and metric. A mapping has "napl", the metric and, if wanted, "series" and
            "setting". A mapping from names of series to such runs gives the series instead.
        ax: Where to draw; a figure of one column if left out.
        metric: The column; "test_accuracy", "accuracy", "bleu" or what else there is if left out.
            Columns named an accuracy hold parts of 1 and are drawn in percent; pairs are drawn as
            they are.
        knee: Where accuracy begins to fall, and the ends of the confidence interval of that, as
            depths: (place, low, high), drawn as a line with a pale band. A mapping from names of
            series to such triples gives each its own, in the colour of the series.

    Raises:
        DataError: There are no runs, one of them has no depth or no metric, or a knee is no triple
            of finite numbers with low <= high, or of no series.
        ReportError: matplotlib is not installed.
    """
    points, label = points_of(runs, metric)
    names = list(dict.fromkeys(point.series for point in points))
    knees = knees_of(knee, names)
    with style.axes_for(ax, 2.2) as axes:
        lines = []
        for number, name in enumerate(names):
            part = [point for point in points if point.series == name]
            lines.append(_draw_series(axes, name, part, style.series_look(number)))
        colors: dict[str | None, Any] = {
            name: line.get_color() for name, line in zip(names, lines, strict=True)
        }
        draw_knees(axes, [(found, colors.get(name)) for name, found in knees])
        axes.set_xlabel("normalized average path length")
        axes.set_ylabel(label)
        if names != [""]:
            style.legend_above(axes, lines)
    return axes


def points_of(
    runs: Iterable[Result] | Mapping[str, Iterable[Result]], metric: str | None = None
) -> tuple[list[Point], str]:
    """What `plot_tradeoff` draws: a point for each run, and the label of the metric.

    Raises:
        DataError: As for `plot_tradeoff`.
    """
    series = runs if isinstance(runs, Mapping) else {"": runs}
    found = [
        (*_point(result, name, metric), result) for name, part in series.items() for result in part
    ]
    if not found:
        raise DataError("there are no runs to draw: give at least one")
    labels = list(dict.fromkeys(label for _, label, _ in found if label))
    if len(labels) > 1:
        raise DataError(
            f"runs have different metrics ({', '.join(labels)}): name the one to draw, metric=..."
        )
    return [point for point, _, _ in found], labels[0] if labels else (metric or "metric")


def _point(result: Result, series: str, metric: str | None) -> tuple[Point, str]:
    """One run as a point, and the label of its metric ("" for a pair)."""
    if isinstance(result, tuple):
        if len(result) != 2:
            raise DataError(f"a run is a pair of depth and metric, not {result!r}")
        row: Mapping[str, Any] = dict(zip(("napl", "metric"), result, strict=True))
        name = "metric"
    elif isinstance(result, Mapping):
        row, name = result, metric_of([result], metric)
    else:
        rows = rows_of(result)
        row, name = rows[-1], metric_of(rows, metric)
    (napl,), values = column([row], "napl"), column([row], name)
    (value,) = in_percent(values, name)
    if not (math.isfinite(napl) and math.isfinite(value)):
        raise DataError(f"the depth and the metric of a run must be finite: {napl}, {value}")
    series = series or str(row.get("series", ""))
    point = Point(series, row.get("setting"), napl, value)
    return point, "" if isinstance(result, tuple) else metric_label(name)


def _draw_series(ax: Axes, name: str, points: Sequence[Point], look: Mapping[str, Any]) -> Line2D:
    """Draw a line through the means over seeds, with bars, and pale points for the single runs."""
    groups: dict[object, list[Point]] = {}
    for number, point in enumerate(points):
        key = ("alone", number) if point.setting is None else ("setting", point.setting)
        groups.setdefault(key, []).append(point)
    depths = [np.array([point.napl for point in group]) for group in groups.values()]
    values = [np.array([point.value for point in group]) for group in groups.values()]
    order = np.argsort([part.mean() for part in depths], kind="stable")
    depths, values = [depths[place] for place in order], [values[place] for place in order]
    if any(len(part) > 1 for part in depths):
        ax.plot(
            np.concatenate(depths), np.concatenate(values), linestyle="", alpha=0.3, mew=0, **look
        )
    line: Line2D
    line, _, _ = ax.errorbar(
        [part.mean() for part in depths],
        [part.mean() for part in values],
        xerr=_reach(depths),
        yerr=_reach(values),
        elinewidth=0.8,
        **look,
    )
    line.set_label(style.name_text(name))
    return line


def _reach(parts: Sequence[np.ndarray]) -> np.ndarray:
    """How far the smallest and the largest of each group lie from its mean: [2, groups]."""
    return np.array([[part.mean() - part.min(), part.max() - part.mean()] for part in parts]).T
