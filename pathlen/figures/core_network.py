"""The core of a network: which channels of each layer are still nonlinear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np

from pathlen.errors import GraphError
from pathlen.figures import style
from pathlen.figures.bypasses import bypasses
from pathlen.figures.layer_axis import label_layers
from pathlen.report.channels import ACTIVE, DEAD, LINEAR, STATES, channel_states
from pathlen.report.layer_graph import layer_graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pathlen.report.report import Report

_COLORS = {ACTIVE: style.BLUE, LINEAR: style.LINEAR, DEAD: style.DEAD}

# In layers up to this wide every channel is a cell of its own.
_SEPARATE = 32
# More skips than this are a grey blur.
_MOST_SKIPS = 400


@dataclass(frozen=True, slots=True)
class Strip:
    """The channels of one layer, as they are drawn.

    Attributes:
        name: Of the layer.
        states: ACTIVE, LINEAR or DEAD for each channel, from the bottom of the strip to its top.
    """

    name: str
    states: tuple[int, ...]


def plot_core_network(
    report: Report,
    ax: Axes | None = None,
    *,
    order: Literal["core", "channels"] = "core",
    scale: Literal["linear", "sqrt"] = "linear",
    skips: bool = True,
) -> Axes:
    """Draw each activation layer as a strip of its channels: active, linear or dead.

    Strips stand in the order of the layers and are as tall as they have channels. Arcs above them
    are skip connections around the layers below.

    After Mehmeti-Göpel and Disselhoff, "Nonlinear Advantage", ICML 2023.

    Args:
        report: What was measured.
        ax: Where to draw; a figure of one column if left out.
        order: "core" has active channels in the middle, linear ones around them, and dead ones
            (`edges="weights"`) outside; "channels" has them as the layer has, the first below.
        scale: How the height grows with the number of channels: "sqrt" lets narrow layers be
            seen beside wide ones.
        skips: Whether skip connections are drawn.

    Raises:
        GraphError: There is no activation layer, or no such order or scale.
        ReportError: matplotlib is not installed.
    """
    if order not in ("core", "channels") or scale not in ("linear", "sqrt"):
        raise GraphError(
            f"no order {order!r} or scale {scale!r}; use order='core' or 'channels' and"
            " scale='linear' or 'sqrt'"
        )
    strips = strips_of(report, order)
    heights = np.array([len(strip.states) for strip in strips], dtype=np.float64)
    if scale == "sqrt":
        heights = np.sqrt(heights)
    with style.axes_for(ax, 1.9) as axes:
        label_layers(axes, [strip.name for strip in strips])
        _draw_strips(axes, strips, heights)
        top = heights.max() / 2
        names = {strip.name for strip in strips}
        arcs = bypasses(layer_graph(report), names) if skips else []
        reach = _draw_skips(axes, arcs, top)
        axes.set_ylim(-1.06 * top, 1.06 * reach)
        _draw_scale(axes, top, max(len(strip.states) for strip in strips))
        style.legend_above(axes, axes.get_legend_handles_labels()[0])
    return axes


def strips_of(report: Report, order: str = "core") -> list[Strip]:
    """The channels of each activation layer, as `plot_core_network` draws them.

    Raises:
        GraphError: There is no activation layer.
    """
    dead = {row.layer: row for row in report.dead_units}
    layers = {layer.name: layer for layer in report.graph.layers}
    strips = []
    for row in report.activation_layers:
        found = channel_states(report.graph, layers[row.name], dead.get(row.name))
        states = found.tolist()
        strips.append(Strip(row.name, tuple(states if order == "channels" else _core(states))))
    if not strips:
        raise GraphError(
            "the network has no activation layers, so there is no core to draw; pathlen.measure"
            " with another policy counts other operations"
        )
    return strips


def _core(states: Sequence[int]) -> list[int]:
    """The same states with active ones in the middle and dead ones at both ends."""
    ordered = sorted(states, reverse=True)
    return [*ordered[::2], *reversed(ordered[1::2])]


def _draw_strips(ax: Axes, strips: Sequence[Strip], heights: np.ndarray) -> None:
    """Add one collection of rectangles for each state that occurs."""
    from matplotlib.collections import PolyCollection

    separate = max(len(strip.states) for strip in strips) <= _SEPARATE
    width = 0.8 if len(strips) <= 60 else 1.0
    corners: dict[int, list[list[tuple[float, float]]]] = {
        state: [] for state in range(len(STATES))
    }
    for place, (strip, height) in enumerate(zip(strips, heights, strict=True), 1):
        unit = height / len(strip.states)
        for state, first, count in _cells(strip.states, separate):
            left, right = place - width / 2, place + width / 2
            low = first * unit - height / 2
            high = low + count * unit
            corners[state].append([(left, low), (left, high), (right, high), (right, low)])
    for state, label in enumerate(STATES):
        if state != ACTIVE and not corners[state]:
            continue
        ax.add_collection(
            PolyCollection(
                corners[state],
                facecolors=_COLORS[state],
                edgecolors=_edge_color(state, separate),
                linewidths=0.4 if separate or state == DEAD else 0.0,
                hatch="////" if state == DEAD and not separate else None,
                label=label,
            ),
            autolim=False,
        )


def _edge_color(state: int, separate: bool) -> str:
    """The colour of the frame of a rectangle, and of its hatching."""
    if state == DEAD:
        return style.GREY
    return "white" if separate else "none"


def _cells(states: Sequence[int], separate: bool) -> Iterator[tuple[int, int, int]]:
    """State, first channel and number of channels of each rectangle of a strip."""
    first = 0
    for state, run in groupby(states):
        count = len(list(run))
        if separate:
            yield from ((state, place, 1) for place in range(first, first + count))
        else:
            yield state, first, count
        first += count


def _draw_skips(ax: Axes, arcs: Sequence[tuple[int, int]], top: float) -> float:
    """Add half ellipses above the strips that they lead around; returns where they end."""
    from matplotlib.collections import LineCollection

    if not arcs:
        return top
    if len(arcs) > _MOST_SKIPS:
        ax.text(
            1.0,
            0.99,
            f"{len(arcs):,} skip connections",
            transform=ax.transAxes,
            va="top",
            ha="right",
            fontsize="small",
            color=style.GREY,
        )
        return 1.2 * top
    base, room = 1.08 * top, 0.35 * top
    widest = max(last - first for first, last in arcs)
    slot = style.width_in_points(ax) / (ax.get_xlim()[1] - ax.get_xlim()[0])
    point = 3.0 * top / style.height_in_points(ax)  # about what a point is, at least
    angles = np.linspace(0, np.pi, 25)
    curves, highest = [], 0.0
    for first, last in arcs:
        across = (first + last + 1) / 2 - (last - first) / 2 * np.cos(angles)
        # No arc is much taller than wide: many narrow ones side by side would be a grey band.
        rise = min(room * np.sqrt((last - first) / widest), 0.8 * slot * (last - first) * point)
        curves.append(np.column_stack([across, base + rise * np.sin(angles)]))
        highest = max(highest, rise)
    ax.add_collection(
        LineCollection(curves, colors=style.GREY, linewidths=min(0.7, 0.25 * slot), label="skip"),
        autolim=False,
    )
    return float(base + highest)


def _draw_scale(ax: Axes, top: float, channels: int) -> None:
    """Turn the vertical axis into a bar as tall as the widest layer."""
    ax.set_yticks([-top, top], ["", ""])
    ax.spines["left"].set_bounds(-top, top)
    ax.set_ylabel(f"{channels:,} channels")
    bottom, upper = ax.get_ylim()
    ax.yaxis.set_label_coords(-0.04, (0 - bottom) / (upper - bottom))
