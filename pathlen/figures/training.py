"""What happens to accuracy and depth while a network is trained and linearized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.figures import style
from pathlen.figures.runs import Row, Run, column, in_percent, metric_of, metric_words, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PHASE_SHADES = ("#ffffff", "#ececec")
_PHASE_SIZE = 7.0


def plot_training(run: Run, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
    """Draw the quality of a network, its active units and its depth over the epochs.

    The left axis has the metric and the active units, in percent of the most that the run had; the
    right one the normalized average path length. Phases are shaded in turn and named above.

    Args:
        run: The folder of a run, its metrics.jsonl, or its rows: mappings or a pandas.DataFrame,
            one an epoch, with "epoch", "active_units", "napl", the metric and, to have phases
            marked, "phase".
        ax: Where to draw; a figure of one column if left out.
        metric: Column to draw as the quality; "test_accuracy" or what else there is if left out.
            Columns named an accuracy hold parts of 1 and are drawn in percent.

    Returns:
        The axes on the left; those on the right are ``figure.axes[-1]``.

    Raises:
        DataError: There is no such file, a column is missing, or it does not hold numbers.
        ReportError: matplotlib is not installed.
    """
    rows = rows_of(run)
    metric = metric_of(rows, metric)
    epochs = column(rows, "epoch")
    active = np.array(column(rows, "active_units"))
    most = np.nanmax(active)
    quality = in_percent(column(rows, metric), metric)
    tested = [place for place, value in enumerate(quality) if not math.isnan(value)]
    depth = column(rows, "napl")
    few = len(rows) <= 20
    looks: list[dict[str, Any]] = [
        {"color": style.BLUE, "linestyle": "-", "marker": "o" if few else ""},
        {"color": style.GREEN, "linestyle": (0, (5, 1.5)), "marker": "s" if few else ""},
        {"color": style.VERMILLION, "linestyle": (0, (1, 1)), "marker": "^" if few else ""},
    ]
    words = metric_words(metric)
    with style.axes_for(ax, 2.2) as axes:
        right = axes.twinx()
        lines = [
            *axes.plot(
                [epochs[place] for place in tested],
                [quality[place] for place in tested],
                label=words,
                **looks[0],
            ),
            *axes.plot(
                epochs,
                100 * active / most if most else active,
                label=f"active units (of {most:,.0f})",
                **looks[1],
            ),
            *right.plot(epochs, depth, label="NAPL (right)", **looks[2]),
        ]
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{words}, active units (%)")
        axes.set_ylim(0, 104)
        _frame_right(right, depth)
        named = _mark_phases(axes, rows, epochs)
        style.legend_above(axes, lines, 1.09 if named else 1.0)
    return axes


def _frame_right(right: Axes, depth: Sequence[float]) -> None:
    """Set limits, label and colours of the axis of depths."""
    right.set_ylim(0, 1.04 * (np.nanmax(depth) or 1.0))
    right.set_ylabel("NAPL", color=style.VERMILLION)
    right.tick_params(axis="y", labelsize="small", length=2.5, width=0.6, pad=2.0)
    right.spines["right"].set_visible(True)
    right.spines["top"].set_visible(False)


def _mark_phases(ax: Axes, rows: Sequence[Row], epochs: Sequence[float]) -> bool:
    """Shade the phases in turn and write their names above; whether there are any."""
    first, last = epochs[0] - 0.5, epochs[-1] + 0.5
    ax.set_xlim(first, last)
    if not all(isinstance(row.get("phase"), str) for row in rows):
        return False
    phases = []
    place = 0
    for number, (phase, members) in enumerate(groupby(rows, lambda row: row["phase"])):
        count = len(list(members))
        start, end = epochs[place] - 0.5, epochs[place + count - 1] + 0.5
        place += count
        ax.axvspan(start, end, color=_PHASE_SHADES[number % 2], linewidth=0, zorder=-10)
        whole = last - first
        phases.append((style.name_text(phase), (start - first) / whole, (end - first) / whole))
    for phase, left in _places(ax, phases):
        look: dict[str, Any] = {"fontsize": _PHASE_SIZE, "color": style.GREY, "va": "bottom"}
        ax.text(left, 1.02, phase, transform=ax.transAxes, **look)
    return True


def _places(ax: Axes, phases: Sequence[tuple[str, float, float]]) -> list[tuple[str, float]]:
    """Where the names of phases begin, in parts of the axes; long phases are served first.

    A name stands in the middle of its phase, or at an end of the axes that it would go over. One
    that would overlap with another is left out.
    """
    placed: list[tuple[str, float]] = []
    taken: list[tuple[float, float]] = []
    for phase, start, end in sorted(phases, key=lambda phase: phase[1] - phase[2]):
        width = style.text_width(ax, phase, _PHASE_SIZE)
        left = min(max(0.0, (start + end - width) / 2), 1.0 - width)
        if all(left + width <= first or last <= left for first, last in taken):
            placed.append((phase, left))
            taken.append((left, left + width))
    return placed
