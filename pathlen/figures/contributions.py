"""What each layer adds to the average path lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.errors import GraphError
from pathlen.figures import style
from pathlen.figures.layer_axis import label_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pathlen.report.report import Report


def plot_contributions(
    report: Report, ax: Axes | None = None, *, weightings: Sequence[str] | None = None
) -> Axes:
    """Draw what each activation layer adds to the average, as bars and dashes over them.

    The bars are those of the random walk and add up to the normalized average path length (NAPL);
    the dashes are those of all paths alike and add up to the average path length (APL).

    Args:
        report: What was measured.
        ax: Where to draw; a figure of one column if left out.
        weightings: The first as bars, others as dashes; by default the random walk as bars and all
            others that the report has as dashes.

    Raises:
        GraphError: There is no activation layer, or no weighting is named.
        BackendError: There is no such weighting for this report.
        ReportError: matplotlib is not installed.
    """
    if weightings is None:
        others = [weighting for weighting in report.weightings if weighting != "normalized"]
        weightings = ["normalized", *others]
    names = [row.name for row in report.activation_layers]
    if not names or not weightings:
        raise GraphError(
            "there is nothing to draw: the network has no activation layers, or no weighting is"
            " named"
        )
    added = {weighting: report.contributions(weighting) for weighting in weightings}
    with style.axes_for(ax, 1.9) as axes:
        label_layers(axes, names)
        places = np.arange(1, len(names) + 1)
        width = 0.8 if len(names) <= 60 else 1.0
        handles: list[Any] = []
        for number, (weighting, values) in enumerate(added.items()):
            color = style.WEIGHTING_COLORS[weighting]
            total = float(sum(values.values()))
            look: dict[str, Any] = {
                "color": color,
                "label": f"{style.WEIGHTING_LABELS[weighting]} = {total:.4g}",
            }
            heights = [float(values[name]) for name in names]
            if number == 0:
                handles.append(axes.bar(places, heights, width, alpha=0.45, **look))
            elif width < 1.0:
                ends = places - width / 2, places + width / 2
                handles.append(axes.hlines(heights, *ends, linewidth=1.5, **look))
            else:  # dashes without gaps would be a cloud of dots
                edges = np.arange(len(names) + 1) + 0.5
                handles.append(axes.stairs(heights, edges, baseline=None, linewidth=0.7, **look))
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        axes.set_ylabel("contribution")
        style.legend_above(axes, handles)
    return axes
