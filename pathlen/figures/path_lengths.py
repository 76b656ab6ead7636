"""How long the paths are, under both weightings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pathlen.figures import style
from pathlen.show.distribution import RARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pathlen.report.report import Report


def plot_path_lengths(
    report: Report,
    ax: Axes | None = None,
    *,
    weightings: Sequence[str] | None = None,
    memory_limit: int | None = None,
) -> Axes:
    """Draw the share of the paths of each length, with the averages marked.

    APL, the average path length, is the mean where all paths count the same, and NAPL, the
    normalized one, that of the random walk.
    Lengths at either end that are rarer than 1 in 10,000 under every weighting are not shown.

    Args:
        report: What was measured.
        ax: Where to draw; a figure of one column if left out.
        weightings: Of the paths; all that the report has, if left out.
        memory_limit: See `Report.path_length_distribution`.

    Raises:
        BackendError: There is no such weighting, or distributions need more memory than allowed.
        ReportError: matplotlib is not installed.
    """
    chosen = report.weightings if weightings is None else tuple(weightings)
    shares = {
        weighting: report.path_length_distribution(weighting, memory_limit=memory_limit).astype(
            np.float64
        )
        for weighting in chosen
    }
    with style.axes_for(ax, 1.9) as axes:
        for weighting, values in shares.items():
            color = style.WEIGHTING_COLORS[weighting]
            average = float(report.average(weighting))
            # One stair for each length, with its number in the middle.
            edges = np.arange(len(values) + 1) - 0.5
            label = f"{style.WEIGHTING_LABELS[weighting]} = {average:.4g}"
            axes.stairs(values, edges, fill=True, color=color, alpha=0.25, linewidth=0)
            axes.stairs(values, edges, color=color, label=label)
            axes.axvline(average, color=color, linewidth=0.9, linestyle=style.DASHES)
        _frame(axes, shares, [float(report.average(weighting)) for weighting in chosen])
    return axes


def _frame(ax: Axes, shares: dict[str, np.ndarray], averages: Sequence[float]) -> None:
    """Set limits to the lengths that occur, and labels."""
    from matplotlib.ticker import MaxNLocator

    common = np.flatnonzero(np.any([values >= RARE for values in shares.values()], axis=0))
    first, last = min(int(common[0]), *averages), max(int(common[-1]), *averages)
    margin = max(1.5 if last - first < 2 else 0.8, 0.03 * (last - first))
    ax.set_xlim(first - margin, last + margin)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    ax.set_xlabel("active units on the path")
    ax.set_ylabel("share of paths")
    style.legend_above(ax, ax.get_legend_handles_labels()[0])
