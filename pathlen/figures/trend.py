"""What becomes of one thing, or several, when another grows, for many runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.bootstrap import mean_interval
from pathlen.errors import DataError
from pathlen.figures import style
from pathlen.figures.points import INTERVAL, finite, panels_of, rows_from, texts
from pathlen.figures.runs import Row, metric_label, metric_words

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_MOST_TICKS = 8
# What labels beside the axes leave of their width, and a gap between two labels.
_LEFT_OVER = 0.8


def plot_trend(
    points: Iterable[Row],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    x: str,
    y: str | Sequence[str],
    log_x: bool = False,
    zero: bool = False,
) -> Axes:
    """Draw columns of runs against another one, a panel for each column, a line for each series.

    Each run is a pale point. The line goes through the means over runs with the same x, in a band
    that is the 95 % bootstrap percentile interval of the mean, where there are two runs or more. Of
    few runs that interval is too narrow rather than too wide.

    Args:
        points: A mapping for each run, or a pandas.DataFrame, with the columns `x` and `y` and, if
            wanted, "series".
        ax: Where to draw: axes, as many as there are columns `y`; if left out, a figure of one
            column for one panel, as wide as a page for several.
        x: The column on the horizontal axis, such as "omega" or "classes".
        y: The column on the vertical axis, or several. Columns named an accuracy hold parts of 1
            and are drawn in percent.
        log_x: Whether the horizontal axis is logarithmic.
        zero: Whether `y` are differences: 0 is marked by a line, and accuracies may be negative and
            are called points.

    Returns:
        The axes of the first panel; the others are in ``figure.axes``.

    Raises:
        DataError: There are no runs, one of them has no finite number in a column, some have a
            series and others do not, or `ax` and `y` are not as many.
        ReportError: matplotlib is not installed.
    """
    rows = rows_from(points)
    columns = [y] if isinstance(y, str) else list(y)
    places = finite(rows, x)
    values = [finite(rows, name, -1 if zero else 0) for name in columns]
    names = texts(rows, "series")
    if not columns:
        raise DataError("y names no column: give at least one")
    if log_x and places.min() <= 0:
        raise DataError(
            f"{x!r} has {places.min():g}, which has no place on a logarithmic axis: leave such runs"
            " out, or use log_x=False"
        )
    with panels_of(ax, len(columns), 2.2) as panels:
        for axes, name, part in zip(panels, columns, values, strict=True):
            if log_x:
                axes.set_xscale("log")
            handles = _draw_panel(axes, places, part, names)
            if zero:
                axes.axhline(0, color=style.foreground(axes), linewidth=0.6, zorder=0.5)
            _set_ticks(axes, places, log_x)
            axes.set_xlabel(metric_label(x))
            axes.set_ylabel(_label(name, zero))
        style.explain(panels, handles, ax is not None)
    return panels[0]


def _label(name: str, zero: bool) -> str:
    """The words for a column, with its unit."""
    if zero and "accuracy" in name:
        return f"{metric_words(name)} (points)"
    return metric_label(name)


def _draw_panel(
    ax: Axes, places: np.ndarray, values: np.ndarray, names: Sequence[str]
) -> list[Artist]:
    """Draw every series; returns what the legend is to explain."""
    from matplotlib.patches import Patch

    handles: list[Artist] = []
    band = False
    for number, name in enumerate(dict.fromkeys(names)):
        look, shown = style.series_look(number), style.name_text(name)
        mine = np.array([other == name for other in names])
        at = np.unique(places[mine])
        groups = [values[mine & (places == place)] for place in at]
        if any(len(group) > 1 for group in groups):
            ax.plot(places[mine], values[mine], linestyle="", alpha=0.4, mew=0, zorder=1.5, **look)
        (line,) = ax.plot(at, [group.mean() for group in groups], label=shown, zorder=2.5, **look)
        band |= _draw_band(ax, at, groups, look["color"])
        if name:
            handles.append(line)
    if band:
        look = {"color": style.foreground(ax), "alpha": 0.2, "linewidth": 0}
        handles.append(Patch(label=INTERVAL, **look))
    return handles


def _draw_band(ax: Axes, at: np.ndarray, groups: Sequence[np.ndarray], color: str) -> bool:
    """Shade the intervals of the means; whether there are any.

    Where neither neighbour has an interval there is nothing to shade between: a bar stands there.
    """
    found = [mean_interval(group) or (math.nan, math.nan) for group in groups]
    low, high = np.array(found).T
    known = np.isfinite(low)
    look: dict[str, Any] = {"color": color, "alpha": 0.2}
    ax.fill_between(at, low, high, where=known, linewidth=0, zorder=1, **look)
    beside = np.concatenate([[False], known, [False]])
    alone = known & ~beside[:-2] & ~beside[2:]
    if alone.any():
        ax.vlines(at[alone], low[alone], high[alone], linewidth=4, zorder=1, **look)
    return bool(known.any())


def _set_ticks(ax: Axes, places: np.ndarray, log_x: bool) -> None:
    """Put ticks at the values that runs have, if these are few.

    Where their labels would meet, a logarithmic axis leaves some of them out: matplotlib's own,
    such as 3 x 10^-2, are longer. Another axis gets matplotlib's.
    """
    from matplotlib.ticker import MaxNLocator

    at = np.unique(places)
    labels = [f"{place:g}" for place in at]
    if len(at) == 1 and not log_x:
        # matplotlib would show a range of thousandths around a single number.
        ax.set_xlim(at[0] - 1, at[0] + 1)
    shown = _apart(ax, np.log(at) if log_x else at, labels, log_x)
    if len(at) <= _MOST_TICKS and (log_x or shown == labels):
        ax.set_xticks(at, shown)
        ax.set_xticks([], minor=True)
    elif not log_x and (at == np.round(at)).all():
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _apart(ax: Axes, where: np.ndarray, labels: Sequence[str], log_x: bool) -> list[str]:
    """The labels, from left to right, without those that meet one before: they are ""."""
    low, high = ax.get_xlim()
    span = math.log(high / low) if log_x else high - low
    size = float(ax.xaxis.get_ticklabels()[0].get_fontsize())
    shown: list[str] = []
    end = -math.inf  # of the last label, as a share of the axis
    for place, label in zip(where, labels, strict=True):
        middle = _LEFT_OVER * (place - where[0]) / span
        half = style.text_width(ax, f"{label} ", size) / 2
        shown.append(label if middle - half > end else "")
        if shown[-1]:
            end = middle + half
    return shown
