"""A report as people read it: plain text for terminals, HTML for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlen.report import LayerRow, Report

FULL_TABLE = 40
"""A table of more rows than this is shown without its middle."""

SHOWN_AT_EACH_END = 15

COLUMNS: tuple[str, ...] = ("layer", "operation", "units", "active", "of average", "of normalized")


def report_text(report: Report) -> str:
    """Write a report as aligned plain text."""
    summary = summary_lines(report)
    width = max(len(label) for label, _ in summary)
    lines = [f"{label:<{width}}  {value}" for label, value in summary]
    if report.activation_layers:
        lines += ["", *_aligned(table_lines(report.activation_layers))]
    return "\n".join(lines)


def report_html(report: Report) -> str:
    """Write a report as two HTML tables; every text that came from the model is escaped."""
    summary = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for label, value in summary_lines(report)
    )
    head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in table_lines(report.activation_layers)[1:]
    )
    return (
        f"<table>{summary}</table>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """Give the head of a report as pairs of label and value."""
    lines = [
        ("average path length", number_text(report.average_path_length)),
        ("normalized average path length", number_text(report.normalized_average_path_length)),
        (
            "longest and shortest path",
            f"{number_text(report.longest_path)} and {number_text(report.shortest_path)}",
        ),
        ("paths", count_text(report.log10_path_count)),
        ("active units", f"{report.num_active:,} of {report.num_units:,} units"),
        ("effective width", number_text(report.effective_width)),
        ("status", report.status),
        *(("", cause) for cause in report.causes),
    ]
    if report.tracer is not None:
        lines.append(("tracer", report.tracer))
    seconds = ", ".join(f"{stage} {value:.3f} s" for stage, value in report.seconds.items())
    lines.append(("backend", f"{report.backend} ({seconds})" if seconds else report.backend))
    return lines


def table_lines(rows: Sequence[LayerRow]) -> list[tuple[str, ...]]:
    """Give the table of layers as cells, its head first; a long one loses its middle."""
    cells: list[tuple[str, ...]] = [
        (
            row.name,
            row.operation,
            f"{row.units:,}",
            f"{row.active:,}",
            f"{float(row.contribution):.4f}",
            f"{float(row.normalized_contribution):.4f}",
        )
        for row in rows
    ]
    if len(cells) > FULL_TABLE:
        hidden = len(cells) - 2 * SHOWN_AT_EACH_END
        gap = (f"... {hidden} more layers ...", *[""] * (len(COLUMNS) - 1))
        cells = [*cells[:SHOWN_AT_EACH_END], gap, *cells[-SHOWN_AT_EACH_END:]]
    return [COLUMNS, *cells]


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


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Pad the cells of each column to one width; numbers are set to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    padded = []
    for line in lines:
        texts = [f"{cell:<{width}}" for cell, width in zip(line[:2], widths[:2], strict=True)]
        numbers = [f"{cell:>{width}}" for cell, width in zip(line[2:], widths[2:], strict=True)]
        padded.append("  ".join([*texts, *numbers]).rstrip())
    return padded
