"""A report as people read it: plain text for terminals, HTML for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pathlen.printable import LONGEST_LINE, printable

if TYPE_CHECKING:
    from pathlen.graph.parts import DeadUnits
    from pathlen.report.layers import LayerRow
    from pathlen.report.report import Report

FULL_TABLE = 40
"""A table of more rows than this is shown without its middle."""

SHOWN_AT_EACH_END = 15

SHOWN_DEAD = 4
"""Layers with dead units that the summary names; all are in `Report.dead_units`."""

COLUMNS: tuple[str, ...] = ("layer", "operation", "units", "active", "of average", "of normalized")

MAGNITUDE_COLUMN = "of magnitude"
"""One more column, for a graph with weights."""


def report_text(report: Report) -> str:
    """Write a report as aligned plain text."""
    lines = [summary_text(report)]
    if report.activation_layers:
        lines += ["", *aligned(table_lines(report.activation_layers))]
    return "\n".join(lines)


def summary_text(report: Report) -> str:
    """Write the head of a report as aligned plain text."""
    return "\n".join(labelled(summary_lines(report)))


def labelled(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a label and a value each, the labels padded to one width."""
    width = max(len(label) for label, _ in lines)
    return [f"{label:<{width}}  {printable(value, LONGEST_LINE)}" for label, value in lines]


def report_html(report: Report) -> str:
    """Write a report as two HTML tables; every text that came from the model is escaped."""
    table = html_table(table_lines(report.activation_layers))
    return f"{html_summary(summary_lines(report))}{table}"


def html_summary(lines: Sequence[tuple[str, str]]) -> str:
    """Write pairs of label and value as an HTML table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for label, value in lines
    )
    return f"<table>{rows}</table>"


def html_table(lines: Sequence[tuple[str, ...]]) -> str:
    """Write a table of cells, its head first, as HTML."""
    columns, *rest = lines
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in rest
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """Give the head of a report as pairs of label and value."""
    magnitude = []
    if report.magnitude_average_path_length is not None:
        average = number_text(report.magnitude_average_path_length)
        magnitude.append(("average path length by magnitude", average))
    lines = [
        ("average path length", number_text(report.average_path_length)),
        ("normalized average path length", number_text(report.normalized_average_path_length)),
        *magnitude,
        (
            "longest and shortest path",
            f"{number_text(report.longest_path)} and {number_text(report.shortest_path)}",
        ),
        ("paths", count_text(report.log10_path_count)),
        ("active units", f"{report.num_active:,} of {report.num_units:,} units"),
        ("effective width", number_text(report.effective_width)),
        *_dead_lines(report.dead_units),
        ("status", report.status),
        *(("", cause) for cause in report.causes),
    ]
    if report.tracer is not None:
        lines.append(("tracer", report.tracer))
    seconds = ", ".join(f"{stage} {value:.3f} s" for stage, value in report.seconds.items())
    lines.append(("backend", f"{report.backend} ({seconds})" if seconds else report.backend))
    return lines


def _dead_lines(dead: Sequence[DeadUnits]) -> list[tuple[str, str]]:
    """Tell how many units drop out because of weights of 0, and in which layers most do."""
    if not dead:
        return []
    number = sum(len(row.indices) for row in dead)
    most = sorted(dead, key=lambda row: -len(row.indices))[:SHOWN_DEAD]
    named = [f"{row.layer} ({len(row.indices):,} of {row.units:,})" for row in most]
    rest = [f"{len(dead) - len(most)} more layers"] if len(dead) > len(most) else []
    return [("dead units", f"{number:,}: {', '.join(named + rest)}")]


def table_lines(rows: Sequence[LayerRow]) -> list[tuple[str, ...]]:
    """Give the table of layers as cells, its head first; a long one loses its middle."""
    columns, *cells = table_cells(rows)
    return [columns, *without_middle(cells)]


def table_cells(rows: Sequence[LayerRow]) -> list[tuple[str, ...]]:
    """Give the whole table of layers as cells, its head first."""
    columns, cells = COLUMNS, [_layer_cells(row) for row in rows]
    if any(row.magnitude_contribution is not None for row in rows):
        columns = (*COLUMNS, MAGNITUDE_COLUMN)
    return [columns, *cells]


def _layer_cells(row: LayerRow) -> tuple[str, ...]:
    """Give a layer's line of the table."""
    cells = (
        row.name,
        row.operation,
        f"{row.units:,}",
        f"{row.active:,}",
        f"{float(row.contribution):.4f}",
        f"{float(row.normalized_contribution):.4f}",
    )
    if row.magnitude_contribution is None:
        return cells
    return (*cells, f"{float(row.magnitude_contribution):.4f}")


def without_middle(lines: Sequence[tuple[str, ...]], what: str = "layers") -> list[tuple[str, ...]]:
    """Leave out the middle of a table that is too long to read."""
    if len(lines) <= FULL_TABLE:
        return list(lines)
    hidden = len(lines) - 2 * SHOWN_AT_EACH_END
    gap = gap_line(hidden, what, len(lines[0]))
    return [*lines[:SHOWN_AT_EACH_END], gap, *lines[-SHOWN_AT_EACH_END:]]


def gap_line(hidden: int, what: str, columns: int) -> tuple[str, ...]:
    """Give the line of a table that stands for lines left out."""
    return (f"... {hidden} more {what} ...", *[""] * (columns - 1))


def number_text(value: float | Fraction) -> str:
    """Write a number shortly: six significant digits, a short fraction also as it is."""
    text = f"{float(value):.6g}"
    # A long fraction is not even turned into text: str() refuses very long integers.
    if isinstance(value, Fraction) and 1 < value.denominator < 2**32 > abs(value.numerator):
        return f"{value} = {text}"
    return text


def count_text(log10_count: float) -> str:
    """Write a number known by its decimal logarithm."""
    if log10_count < 9:
        return f"{round(10**log10_count):,}"
    exponent = math.floor(log10_count)
    mantissa = f"{10 ** (log10_count - exponent):.3f}"
    if mantissa == "10.000":
        mantissa, exponent = "1.000", exponent + 1
    return f"{mantissa}e{exponent}"


def aligned(lines: Sequence[tuple[str, ...]], texts: int = 2) -> list[str]:
    """Pad the cells of each column to one width: the first ones are texts, the rest numbers.

    Cells become printable, and names without end are cut.
    """
    lines = [tuple(map(printable, line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = []
    for line in lines:
        cells = [
            f"{cell:<{width}}" if place < texts else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        padded.append("  ".join(cells).rstrip())
    return padded
