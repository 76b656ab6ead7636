"""The distribution of path lengths as the command line shows it: figures of it, and a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen.show.names import entry
from pathlen.show.text import FULL_TABLE, aligned

if TYPE_CHECKING:
    from pathlen.report.report import Report

RARE = 1e-4
"""Lengths at either end that are rarer than this under every weighting are not shown."""

_LABELS = {"uniform": "of paths", "normalized": "of walks", "magnitude": "by magnitude"}
_QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}


def distribution_text(report: Report) -> str:
    """Mean, deviation and quantiles under each weighting, and the share of each length."""
    head, table = distribution_tables(report)
    return "\n".join([*aligned(head, texts=1), "", *aligned(table, texts=1)])


def distribution_tables(report: Report) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The same as the cells of two tables, their heads first.

    A wide distribution has ranges of lengths instead, so that the table can be read.
    """
    weightings = report.weightings
    head = [("path lengths", "mean", "deviation", *_QUANTILES)]
    for weighting in weightings:
        quantiles = [report.path_length_quantile(q, weighting) for q in _QUANTILES.values()]
        head.append(
            (
                _LABELS[weighting],
                f"{float(report.average(weighting)):.6g}",
                f"{math.sqrt(report.path_length_variance(weighting)):.4g}",
                *map(str, quantiles),
            )
        )
    table = [("length", *(_LABELS[weighting] for weighting in weightings)), *_rows(report)]
    return head, table


def distribution_record(report: Report) -> dict[str, Any]:
    """The share of each length 0, 1, ... by weighting, as plain data; Fractions as text too."""
    record: dict[str, Any] = {}
    for weighting in report.weightings:
        for share in report.path_length_distribution(weighting).tolist():
            for name, value in entry(weighting, share).items():
                record.setdefault(name, []).append(value)
    return record


def _rows(report: Report) -> list[tuple[str, ...]]:
    """The share of each length, or of each range of as many, as cells."""
    shares = np.array(
        [
            report.path_length_distribution(weighting).astype(np.float64)
            for weighting in report.weightings
        ]
    )
    common = np.flatnonzero((shares >= RARE).any(axis=0))
    first, end = int(common[0]), int(common[-1]) + 1
    width = -(-(end - first) // FULL_TABLE)  # rounded up
    rows = []
    for start in range(first, end, width):
        stop = min(start + width, end)
        label = str(start) if width == 1 else f"{start} to {stop - 1}"
        rows.append((label, *(f"{share:.4f}" for share in shares[:, start:stop].sum(axis=1))))
    return rows
