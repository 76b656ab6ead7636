"""How good each of several ways is: a row of dots for each, for many runs."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.bootstrap import mean_interval
from pathlen.errors import DataError
from pathlen.figures import style
from pathlen.figures.points import INTERVAL, finite, panels_of, rows_from, texts
from pathlen.figures.runs import Row, metric_label, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer

_NAME_WIDTH = 28
_ROW_HEIGHT = 0.18
_LINE_HEIGHT = 0.12
_FRAME_HEIGHT = 0.7
_TITLE_WIDTH = 20
_TITLE_HEIGHT = 0.15


def plot_cases(
    points: Iterable[Row],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    metric: str | None = None,
    reference: str | None = None,
) -> Axes:
    """Draw a metric of runs, a row for each case, a panel for each setting.

    Each run is a pale dot; the strong dot is the mean, and its bar the 95 % bootstrap percentile
    interval of it, where there are two runs or more. Of few runs that interval is too narrow rather
    than too wide. Panels have scales of their own.

    Args:
        points: A mapping for each run, or a pandas.DataFrame, with "case", the metric and, if
            wanted, "setting".
        ax: Where to draw: axes, as many as there are settings; if left out, a figure of one column
            for one panel, as wide as a page for several, and as high as its rows need.
        metric: The column; "test_accuracy", "accuracy", "bleu" or what else there is if left out.
            Columns named an accuracy hold parts of 1 and are drawn in percent.
        reference: A case whose mean is drawn through all rows of each panel that has it.

    Returns:
        The axes of the first panel; the others are in ``figure.axes``.

    Raises:
        DataError: There are no runs, one of them has no case or no finite number as its metric,
            some have a setting and others do not, no case is named as `reference`, or `ax` are not
            as many as the settings.
        ReportError: matplotlib is not installed.
    """
    rows = rows_from(points)
    metric = metric_of(rows, metric)
    values = finite(rows, metric)
    names, settings = texts(rows, "case"), texts(rows, "setting")
    if not all(names):
        raise DataError("no run has a 'case': give each the name of its row")
    cases, parts = list(dict.fromkeys(names)), list(dict.fromkeys(settings))
    if reference is not None and reference not in cases:
        known = ", ".join(map(repr, cases))
        raise DataError(f"reference: there is no case {reference!r}; use one of {known}")
    labels = [textwrap.fill(style.name_text(case), _NAME_WIDTH) for case in cases]
    titles = [textwrap.fill(style.name_text(part), _TITLE_WIDTH) for part in parts]
    places, bottom = _places(labels)
    above = _TITLE_HEIGHT * max(len(title.splitlines()) for title in titles)
    with panels_of(ax, len(parts), _FRAME_HEIGHT + above + bottom) as panels:
        handles: list[Any] = []
        for axes, part, title in zip(panels, parts, titles, strict=True):
            where = list(zip(names, settings, strict=True))
            groups = [values[[pair == (case, part) for pair in where]] for case in cases]
            handles += _draw_rows(axes, places, groups)
            if reference is not None and len(groups[cases.index(reference)]):
                mean = groups[cases.index(reference)].mean()
                axes.axvline(mean, color=style.foreground(axes), linewidth=0.6, zorder=0.5)
            _label_rows(axes, places, labels if axes is panels[0] else [""] * len(labels))
            axes.set_ylim(bottom, 0)
            axes.set_xlabel(metric_label(metric))
            if title:
                axes.set_title(title, loc="left")
        style.explain(panels, handles[:1], ax is not None)
    return panels[0]


def _places(labels: Sequence[str]) -> tuple[list[float], float]:
    """How far below the top each row is, and the bottom, in inches; several lines need more."""
    heights = [_ROW_HEIGHT + _LINE_HEIGHT * label.count("\n") for label in labels]
    ends = list(itertools.accumulate(heights))
    return [end - height / 2 for end, height in zip(ends, heights, strict=True)], ends[-1]


def _draw_rows(
    ax: Axes, places: Sequence[float], groups: Sequence[np.ndarray]
) -> list[ErrorbarContainer]:
    """Draw a row for each group of runs; returns the means that have a bar."""
    found = []
    for place, group in zip(places, groups, strict=True):
        if not len(group):
            continue
        look: dict[str, Any] = {"color": style.BLUE, "marker": "o"}
        if len(group) > 1:
            ax.plot(group, [place] * len(group), linestyle="", alpha=0.4, mew=0, zorder=2, **look)
        mean = group.mean()
        interval = mean_interval(group)
        reach = None if interval is None else [[mean - interval[0]], [interval[1] - mean]]
        drawn = ax.errorbar([mean], [place], xerr=reach, label=INTERVAL, zorder=3, **look)
        found += [] if reach is None else [drawn]
    return found


def _label_rows(ax: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Write the names of the cases, the first at the top, with thin lines to find the dots by."""
    ax.set_yticks(places, labels)
    ax.tick_params(axis="y", length=0)
    for place in places:
        ax.axhline(place, color=style.GREY, alpha=0.25, linewidth=0.5, zorder=0.4)
