"""The columns of a layer table on a terminal: numbers and bars, as many as fit its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pathlen.printable import printable
from pathlen.show.table import short_name

if TYPE_CHECKING:
    from rich.text import Text

    from pathlen.report.layers import LayerRow

SHORTEST_NAME = 20
"""Columns are left out before names get less room than this."""

GAP = 2
"""Between two columns."""

SHORTEST_BAR, LONGEST_BAR = 8, 20

# The order in which columns get a place where not all fit; the sorted number is always there.
_IMPORTANCE = (
    "active",
    "shares",
    "units",
    "bar",
    "normalized",
    "average",
    "magnitude",
    "operation",
)

_CONTRIBUTIONS: dict[str, Callable[[LayerRow], float]] = {
    "average": lambda row: float(row.contribution),
    "normalized": lambda row: float(row.normalized_contribution),
    "magnitude": lambda row: float(row.magnitude_contribution or 0),
}

_EIGHTHS = ("", *"▏▎▍▌▋▊▉")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: What stands above it; a line break where it has two lines.
        width: Number of characters.
        cell: What it shows of a layer in so many characters.
        left: Whether it is aligned on the left.
    """

    head: str
    width: int
    cell: Callable[[LayerRow, int], Text | str]
    left: bool = False


def fitting_columns(
    rows: Sequence[LayerRow], sort: str, width: int, gap: str = "", unicode: bool = True
) -> list[Column]:
    """The columns for a terminal of so many characters.

    The contribution that the rows are sorted by, else the normalized one, has bars.

    Args:
        rows: The rows of the table.
        sort: What they are sorted by, one of `pathlen.show.table.SORTS`.
        width: Of the terminal.
        gap: What stands among the names for rows left out.
        unicode: Whether it can print blocks; bars are made of # and . otherwise.
    """
    barred = sort if sort in _CONTRIBUTIONS else "normalized"
    possible = _possible_columns(rows, barred, unicode)
    longest = max(len("layer"), len(gap), *(len(printable(row.name)) for row in rows))
    name_width = min(longest, SHORTEST_NAME)
    free = width - name_width
    chosen = set()
    for name in (barred, *_IMPORTANCE):
        if name in possible and name not in chosen and possible[name].width + GAP <= free:
            chosen.add(name)
            free -= possible[name].width + GAP
    more = min(free, longest - name_width)
    columns = [Column("layer", name_width + more, _name_cell("…" if unicode else ".."), left=True)]
    free -= more
    bars = chosen & {"shares", "bar"}
    longer = min(free // max(len(bars), 1), LONGEST_BAR - SHORTEST_BAR)
    for name in possible:
        if name in chosen:
            column = possible[name]
            wide = replace(column, width=column.width + longer)
            columns.append(wide if name in bars else column)
    return columns


def _possible_columns(rows: Sequence[LayerRow], barred: str, unicode: bool) -> dict[str, Column]:
    """Every column but the names, in the order from left to right, bars at their shortest."""
    active, linear = ("█", "░") if unicode else ("#", ".")

    def texts(head: str, text: Callable[[LayerRow], str], left: bool = False) -> Column:
        width = max(len(line) for line in [*head.split("\n"), *map(text, rows)])
        return Column(head, width, lambda row, width: text(row), left)

    columns = {
        "operation": texts("operation", lambda row: printable(row.operation), left=True),
        "active": texts("active", lambda row: f"{row.active:,}"),
        "units": texts("of\nunits", lambda row: f"{row.units:,}"),
        "shares": Column(
            f"active {active}\nlinear {linear}",
            SHORTEST_BAR,
            lambda row, width: shares_bar(row.active, row.units, width, active, linear),
            left=True,
        ),
    }
    for name, number in _CONTRIBUTIONS.items():
        if name == "magnitude" and all(row.magnitude_contribution is None for row in rows):
            continue
        columns[name] = texts(f"of\n{name}", _four_decimals(number))
        if name == barred:
            largest = max(number(row) for row in rows)
            columns["bar"] = Column("", SHORTEST_BAR, _bar_cell(number, largest, unicode), True)
    return columns


def _four_decimals(number: Callable[[LayerRow], float]) -> Callable[[LayerRow], str]:
    return lambda row: f"{number(row):.4f}"


def _bar_cell(
    number: Callable[[LayerRow], float], largest: float, unicode: bool
) -> Callable[[LayerRow, int], Text]:
    return lambda row, width: bar(number(row) / largest if largest else 0.0, width, unicode)


def _name_cell(mark: str) -> Callable[[LayerRow, int], Text]:
    from rich.text import Text  # so that a name is not read as markup

    return lambda row, width: Text(short_name(printable(row.name), width, mark))


def shares_bar(active: int, units: int, width: int, full: str, empty: str) -> Text:
    """Active and linear units as parts of a bar; what there is of either is seen."""
    from rich.text import Text

    cells = round(width * active / units)
    if 0 < active < units:
        cells = min(max(cells, 1), width - 1)
    return Text.assemble((full * cells, "cyan"), (empty * (width - cells), "bright_black"))


def bar(share: float, width: int, unicode: bool) -> Text:
    """A bar of a share of the width, to an eighth of a character; never empty unless it is 0."""
    from rich.text import Text

    if not unicode:
        return Text("#" * (max(round(share * width), 1) if share > 0 else 0), style="yellow")
    eighths = max(round(share * width * 8), 1) if share > 0 else 0
    return Text("█" * (eighths // 8) + _EIGHTHS[eighths % 8], style="yellow")
