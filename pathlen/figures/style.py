"""How figures look: sizes, fonts and colours, and how they are saved."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathlen.one_thread import exclusive
from pathlen.optional import optional
from pathlen.printable import printable
from pathlen.show.files import file_target, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.3
"""Inches: one column of a page of two."""

PAGE_WIDTH = 6.8
_LEAST_PANEL = 1.7

# Okabe and Ito, Color Universal Design (2008): told apart with every kind of colour vision.
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
VERMILLION, PURPLE, SKY, BLACK = "#d55e00", "#cc79a7", "#56b4e9", "#000000"
LINEAR = "#cccccc"
DEAD = "#ffffff"
GREY = "#666666"

# Width of a character of a proportional font, as a part of its size; generous.
CHARACTER = 0.62

DASHES = (0, (4, 2))

SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

WEIGHTING_COLORS = {"uniform": BLUE, "normalized": VERMILLION, "magnitude": GREEN}
WEIGHTING_LABELS = {
    "uniform": "APL",
    "normalized": "NAPL",
    "magnitude": "APL by magnitude",
}

# For figures that pathlen makes; in the axes of a caller the caller's settings hold.
_PAPER: dict[str, Any] = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "legend.fontsize": 7.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.5,
}

# Type 42 is TrueType, which can be searched and edited; matplotlib's default, type 3, is refused
# by several publishers. Without hashes and dates the same figure gives the same file.
_SAVED: dict[str, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "pathlen",
}
LONGEST_NAME = 60
"""Characters of a name; what is longer is cut in its middle."""

_UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


@contextmanager
def axes_for(ax: Axes | None, height: float) -> Iterator[Axes]:
    """Axes to draw into: the caller's, or those of a new figure one column wide.

    Args:
        ax: The caller's axes, or None.
        height: Of a new figure, in inches.

    Raises:
        ReportError: matplotlib is not installed.
    """
    if ax is not None:
        yield ax
        return
    with panels_for(1, height) as (made,):
        yield made


@contextmanager
def panels_for(count: int, height: float) -> Iterator[list[Axes]]:
    """Axes side by side in a new figure: one a column wide, several as wide as a page or wider.

    Args:
        count: Of the axes.
        height: Of the figure, in inches.

    Raises:
        ReportError: matplotlib is not installed.
    """
    matplotlib = optional("matplotlib", "figures")
    from matplotlib import pyplot

    width = COLUMN_WIDTH if count == 1 else max(PAGE_WIDTH, _LEAST_PANEL * count)
    with exclusive(), matplotlib.rc_context(_PAPER):
        _, made = pyplot.subplots(
            1, count, figsize=(width, height), layout="constrained", squeeze=False
        )
        for axes in made[0]:
            # Ticks that appear later, when the figure is drawn, are to look like those made now.
            axes.tick_params(labelsize=7.0, width=0.6, length=2.5, pad=2.0)
        yield list(made[0])


def name_text(name: str) -> str:
    """A name as matplotlib is to write it: what it has between dollars is no formula."""
    return printable(name, LONGEST_NAME).replace("$", r"\$")


def series_look(number: int) -> dict[str, Any]:
    """The colour and the marker of a series, counted from 0."""
    return {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)]}


def text_width(ax: Axes, text: str, size: float) -> float:
    """About how wide a line of text is, as a part of the axes.

    Args:
        ax: The axes.
        text: One line.
        size: Of the font, in points.
    """
    return len(text) * CHARACTER * size / width_in_points(ax)


def width_in_points(ax: Axes) -> float:
    """How wide the axes are, before they make room for labels."""
    return float(ax.get_window_extent().width * 72 / _dots(ax))


def height_in_points(ax: Axes) -> float:
    """How high the axes are, before they make room for labels."""
    return float(ax.get_window_extent().height * 72 / _dots(ax))


def foreground(ax: Axes) -> str:
    """The colour of the letters of the axes, which is light on a dark ground."""
    return str(ax.xaxis.label.get_color())


def _dots(ax: Axes) -> float:
    """Dots an inch."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return float(figure.dpi)


def legend_above(ax: Axes, handles: Sequence[Any], height: float = 1.0) -> None:
    """Put a legend above the axes, in one row if it fits, where it hides nothing.

    Args:
        ax: The axes.
        handles: What it explains, in order.
        height: Where it begins, in axes coordinates.
    """
    for columns in range(len(handles), 0, -1):
        legend = ax.legend(
            handles=handles,
            loc="lower right",
            bbox_to_anchor=(1.0, height),
            ncols=columns,
            borderaxespad=0.2,
        )
        # At the left it may reach over the label of the vertical axis.
        if legend.get_window_extent().width <= 1.18 * ax.get_window_extent().width:
            break


def explain(panels: Sequence[Axes], handles: Sequence[Any], of_caller: bool) -> None:
    """Put a legend above one panel or several, where it hides nothing.

    Args:
        panels: From left to right.
        handles: What it explains, in order; nothing is done if there are none.
        of_caller: Whether the figure is the caller's, who may have other things above the panels.
    """
    if not handles:
        return
    if of_caller or len(panels) == 1:
        title = panels[0].get_title(loc="left")
        lines = len(title.splitlines())
        size = float(panels[0].title.get_fontsize())
        above = 1.4 * size * lines / height_in_points(panels[0])
        legend_above(panels[0], handles, 1 + above)
        return
    figure: Any = panels[0].figure
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="outside upper right", ncols=columns)
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            break
        legend.remove()


def save(figure: Figure | Axes, path: str | PathLike[str], **options: Any) -> None:
    """Write a figure to a file, by its ending: .pdf, .svg, .eps or .png and others.

    Fonts are embedded as TrueType, and the same figure gives the same PDF or SVG, byte by byte.

    Args:
        figure: A figure, or axes of it.
        path: Where to.
        options: For `matplotlib.figure.Figure.savefig`; a PNG has 300 dots an inch if it says
            nothing else.

    Raises:
        ReportError: The file cannot be written.
    """
    matplotlib = optional("matplotlib", "figures")
    file_target(path)
    whole: Any = getattr(figure, "figure", figure)
    target = Path(path)
    form = options.pop("format", None) or target.suffix[1:].lower()
    if not form:  # as matplotlib does
        form = whole.canvas.get_default_filetype()
        target = target.with_name(f"{target.name}.{form}")
    undated = _UNDATED.get(f".{form}")
    if undated is not None:
        options["metadata"] = {**undated, **options.get("metadata", {})}
    drawn = io.BytesIO()
    with exclusive(), matplotlib.rc_context(_SAVED):
        whole.savefig(drawn, format=form, **{"dpi": 300, **options})
    written(target, [drawn.getvalue()])
