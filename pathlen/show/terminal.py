"""A report on a terminal: tables with bars, and what is being worked on.

Where standard output is no terminal, commands print the plain text of `pathlen.show.text`, which
other programs can read. rich decides on colours (NO_COLOR, TERM) and finds the width (COLUMNS).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pathlen.printable import LONGEST_LINE, printable
from pathlen.show.columns import LONGEST_BAR, bar, fitting_columns
from pathlen.show.table import LayerView
from pathlen.show.text import summary_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from pathlen.report.layers import LayerRow
    from pathlen.report.report import Report

HEADLINE = ("average path length", "normalized average path length")

STATUS_STYLES = {"exact": "green", "example": "yellow", "bound": "yellow", "opaque": "red"}


def is_terminal() -> bool:
    """Whether people read standard output, on a terminal that can do more than print."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Tell on standard error, if that is a terminal, what is being done; gone when it is done.

    Yields:
        A function that is called with the name of each stage when it begins.
    """
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console, spinner = Console(stderr=True), Spinner("line")
    # What a model prints on a standard output that is a file must arrive there.
    redirect = sys.stdout.isatty()
    live = Live(spinner, console=console, transient=True, redirect_stdout=redirect)

    def show(stage: str) -> None:
        text = Text(f"{printable(stage)} ...")
        text.truncate(console.width - 4, overflow="ellipsis")  # one line, with the spinner
        spinner.update(text=text)
        live.refresh()

    with live:
        yield show


def print_report(report: Report, title: str, view: LayerView, console: Console) -> None:
    """Print a report as two tables: its numbers, and its layers.

    Args:
        report: The report.
        title: Name of what was measured.
        view: Which layers are shown.
        console: Where.

    Raises:
        PathlenError: See `LayerView.rows`.
    """
    from rich.text import Text

    rows = view.rows(report)
    console.print(Text(printable(title), style="bold"))
    console.print(_headline(report))
    if rows:
        console.print()
        console.print(layer_table(rows, view, console))


def _headline(report: Report) -> Table:
    """The numbers of a whole network."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in summary_lines(report):
        style = "bold cyan" if label in HEADLINE else ""
        if label == "status":
            style = STATUS_STYLES[report.status]
        table.add_row(label, Text(printable(value, LONGEST_LINE), style=style))
    return table


def layer_table(rows: Sequence[LayerRow], view: LayerView, console: Console) -> Table:
    """A line for each layer, as wide as the terminal allows.

    Args:
        rows: All rows, in their order.
        view: How many are shown, and what they are sorted by.
        console: Gives the width and the characters that can be printed.
    """
    from rich.text import Text

    first, last = view.parts(rows)
    hidden = len(rows) - len(first) - len(last)
    gap = f"... {hidden:,} more" if hidden else ""
    unicode = console.encoding.startswith("utf")
    columns = fitting_columns(rows, view.sort, console.width, gap, unicode)
    table = _plain_table()
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.left else "right"
        table.add_column(
            column.head, justify=justify, vertical="bottom", width=column.width, no_wrap=True
        )
    for row in first:
        table.add_row(*(column.cell(row, column.width) for column in columns))
    if hidden:
        table.add_row(Text(gap, style="dim"))
    for row in last:
        table.add_row(*(column.cell(row, column.width) for column in columns))
    return table


# ------------------------------------------------------------------ the distribution


def print_distribution(tables: Sequence[Sequence[tuple[str, ...]]], console: Console) -> None:
    """Print the distribution of path lengths, each share with a bar.

    Args:
        tables: What `distribution_tables` gave.
        console: Where.
    """
    (head, *figures), ((_, *names), *shares) = tables
    table = _plain_table()
    for name in head:
        table.add_column(name, justify="right" if table.columns else "left")
    for line in figures:
        table.add_row(*line)
    console.print(table)
    console.print()
    unicode = console.encoding.startswith("utf")
    widest = max(len(line[0]) for line in shares)
    width = min((console.width - widest) // len(names) - 12, LONGEST_BAR)
    largest = max(float(share) for line in shares for share in line[1:])
    table = _plain_table()
    table.add_column("length")
    for name in names:
        table.add_column(name, justify="right")
        table.add_column("", width=max(width, 1))
    for length, *values in shares:
        cells: list[RenderableType] = []
        for value in values:
            cells += [value, bar(float(value) / largest, max(width, 1), unicode)]
        table.add_row(length, *cells)
    console.print(table)


def _plain_table() -> Table:
    """A table without a frame, its head underlined."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
