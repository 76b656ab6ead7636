"""How wide a network is, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.errors import GraphError
from pathlen.figures import style
from pathlen.figures.layer_axis import label_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pathlen.report.report import Report


def plot_width_profile(report: Report, ax: Axes | None = None) -> Axes:
    """Draw the active units of each activation layer before all of its units.

    A dashed line marks the effective width: active units averaged over layers, each weighted by
    what it adds to the normalized average path length.

    Args:
        report: What was measured.
        ax: Where to draw; a figure of one column if left out.

    Raises:
        GraphError: There is no activation layer.
        ReportError: matplotlib is not installed.
    """
    rows = report.activation_layers
    if not rows:
        raise GraphError("there is nothing to draw: the network has no activation layers")
    dead = {row.layer: len(row.indices) for row in report.dead_units}
    cut = np.array([dead.get(row.name, 0) for row in rows])
    units = np.array([row.units for row in rows])
    with style.axes_for(ax, 1.9) as axes:
        label_layers(axes, [row.name for row in rows])
        places = np.arange(1, len(rows) + 1)
        bars: dict[str, Any] = {"width": 0.8 if len(rows) <= 60 else 1.0}
        active = np.array(report.width_profile)
        handles: list[Any] = [axes.bar(places, active, color=style.BLUE, label="active", **bars)]
        handles.append(
            axes.bar(
                places, units - active, bottom=active, color=style.LINEAR, label="linear", **bars
            )
        )
        if cut.any():
            dashes: dict[str, Any] = {"hatch": "////", "edgecolor": style.GREY, "linewidth": 0.4}
            some = cut > 0
            handles.append(
                axes.bar(
                    places[some],
                    cut[some],
                    bottom=units[some],
                    color=style.DEAD,
                    label="dead",
                    **dashes,
                    **bars,
                )
            )
        effective = float(report.effective_width)
        look: dict[str, Any] = {
            "color": style.VERMILLION,
            "linewidth": 0.9,
            "linestyle": style.DASHES,
        }
        label = f"effective width {effective:,.4g}"
        handles.append(axes.axhline(effective, label=label, **look))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("units")
        style.legend_above(axes, handles)
    return axes
