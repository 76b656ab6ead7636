"""The rows of a report's layer table as a reader asks for them: folded by module, sorted, cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pathlen.errors import PathlenError
from pathlen.show.text import (
    FULL_TABLE,
    SHOWN_AT_EACH_END,
    aligned,
    gap_line,
    summary_text,
    table_cells,
)

if TYPE_CHECKING:
    from pathlen.report.layers import LayerRow
    from pathlen.report.report import Report

SORTS = ("network", "name", "units", "active", "linear", "average", "normalized", "magnitude")
"""What a table can be sorted by: the order of the network, names, or numbers, largest first."""

_NUMBERS: dict[str, Callable[[LayerRow], float]] = {
    "units": lambda row: row.units,
    "active": lambda row: row.active,
    "linear": lambda row: row.units - row.active,
    "average": lambda row: float(row.contribution),
    "normalized": lambda row: float(row.normalized_contribution),
    "magnitude": lambda row: float(row.magnitude_contribution or 0),
}


@dataclass(frozen=True, slots=True)
class LayerView:
    """Which rows of a report are shown, and in which order.

    Attributes:
        sort: One of `SORTS`.
        depth: Module levels that are told apart, None for all. Layers whose names agree in so
            many first parts make one row.
        limit: Most rows that are shown, 0 for all. None shows what a report's own text does.
    """

    sort: str = "network"
    depth: int | None = None
    limit: int | None = None

    def rows(self, report: Report) -> tuple[LayerRow, ...]:
        """All rows of the activation layers, folded and sorted.

        Raises:
            PathlenError: They are to be sorted by magnitude, and the report has none.
        """
        if self.sort == "magnitude" and report.magnitude_average_path_length is None:
            raise PathlenError(
                "nothing is known of magnitudes, so layers cannot be sorted by them; measure with"
                " edges='weights' (--edges weights)"
            )
        rows = report.activation_layers
        if self.depth is not None:
            rows = folded(rows, self.depth)
        if self.sort == "network":
            return rows
        if self.sort == "name":
            return tuple(sorted(rows, key=lambda row: _natural(row.name)))
        number = _NUMBERS[self.sort]
        return tuple(sorted(rows, key=lambda row: -number(row)))

    def parts(self, rows: Sequence[LayerRow]) -> tuple[Sequence[LayerRow], Sequence[LayerRow]]:
        """What is shown of all rows, before and after a gap; the gap is at the end if sorted."""
        limit = self.limit
        if limit is None:
            limit = 0 if len(rows) <= FULL_TABLE else 2 * SHOWN_AT_EACH_END
        if not limit or len(rows) <= limit:
            return rows, ()
        if self.sort != "network":
            return rows[:limit], ()
        last = limit // 2
        return rows[: limit - last], rows[len(rows) - last :]

    def text(self, report: Report) -> str:
        """The report as plain text, with these rows; the view by default gives ``str(report)``.

        Raises:
            PathlenError: As for `rows`.
        """
        rows = self.rows(report)
        summary = summary_text(report)
        if not rows:
            return summary
        first, last = self.parts(rows)
        columns, *cells = table_cells([*first, *last])
        if hidden := len(rows) - len(cells):
            cells.insert(len(first), gap_line(hidden, "layers", len(columns)))
        return "\n".join([summary, "", *aligned([columns, *cells])])


def folded(rows: Sequence[LayerRow], depth: int) -> tuple[LayerRow, ...]:
    """One row for all layers whose names agree in their first parts, at the place of the first.

    Numbers are sums. A layer whose name has no more parts than that stays as it is, so that two
    calls of one module at that level stay two rows.

    Args:
        rows: Of a report.
        depth: Number of parts, at least 1.
    """
    groups: dict[str, list[LayerRow]] = {}
    for row in rows:
        parts = row.name.split(".")
        groups.setdefault(".".join(parts[:depth]), []).append(row)
    return tuple(_sum(name, group) for name, group in groups.items())


def _sum(name: str, rows: Sequence[LayerRow]) -> LayerRow:
    """The row of a group of layers."""
    if len(rows) == 1:
        return rows[0]
    operations = {row.operation for row in rows}
    what = operations.pop() if len(operations) == 1 else "layers"
    magnitudes = [
        row.magnitude_contribution for row in rows if row.magnitude_contribution is not None
    ]
    return replace(
        rows[0],
        name=name,
        operation=f"{len(rows)} {what}",
        units=sum(row.units for row in rows),
        active=sum(row.active for row in rows),
        contribution=sum(row.contribution for row in rows),
        normalized_contribution=sum(row.normalized_contribution for row in rows),
        magnitude_contribution=sum(magnitudes) if magnitudes else None,
    )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key for which layer2 comes before layer10; numbers are compared by their digits."""
    parts = [part.lstrip("0") or part[:1] for part in re.split(r"([0-9]+)", name)]
    return [(place % 2 == 0, len(part) * (place % 2), part) for place, part in enumerate(parts)]


def short_name(name: str, width: int, mark: str = "…") -> str:
    """A dotted name made to fit: middle parts by their first letters, then with a gap.

    Numbers stay, because they tell the blocks of a network apart.

    Args:
        name: Such as "encoder.layers.11.linear1.relu".
        width: Maximum number of characters; larger than the length of the mark.
        mark: Stands for what is cut out.
    """
    parts = name.split(".")
    # the first part says most of where one is, so it is the last to go
    for place in [*range(1, len(parts) - 1), *range(min(1, len(parts) - 1))]:
        if sum(map(len, parts)) + len(parts) - 1 <= width:
            break
        if not parts[place].isdecimal():
            parts[place] = parts[place][:1]
    short = ".".join(parts)
    if len(short) <= width:
        return short
    kept = width - len(mark)
    tail = kept // 3
    return f"{short[: kept - tail]}{mark}{short[len(short) - tail :]}"
