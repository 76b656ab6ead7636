"""What several commands share: options, tables, and a terminal without torch's logs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from pathlen.errors import SpecError
from pathlen.printable import printable
from pathlen.show.table import SORTS, LayerView
from pathlen.show.terminal import is_terminal
from pathlen.show.text import aligned

if TYPE_CHECKING:
    from pathlen.specs.spec import InputShape


def _parse_inputs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    """Read the shapes given with --input; what is no shape is a usage error."""
    from pathlen.specs.spec import InputShape

    try:
        return tuple(InputShape.parse(value) for value in values)
    except SpecError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _complete_spec(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files, completed by the shell. Names of models would need the libraries: seconds a key."""
    return [CompletionItem(incomplete, type="file")]


def _complete_backend(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of backends, none of which is imported."""
    import pathlen

    names = ["auto", *pathlen.backends.available()]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


spec_argument = click.argument("spec", shell_complete=_complete_spec)
"""Gives a command the parameter `spec`."""

input_option = click.option(
    "--input",
    "inputs",
    callback=_parse_inputs,
    multiple=True,
    metavar="SHAPE[:DTYPE]",
    help="Shape of an example input, as 1,3,224,224 or 1,16:int64; once for each input. "
    "Can be left out where the model says what it takes.",
)
"""Gives a command the parameter `inputs`, a tuple of `InputShape`."""

backend_option = click.option(
    "--backend",
    default="auto",
    show_default=True,
    shell_complete=_complete_backend,
    help="Solver to use.",
)
"""Gives a command the parameter `backend`, a name."""

edges_option = click.option(
    "--edges",
    type=click.Choice(["connections", "weights"]),
    default="connections",
    show_default=True,
    help="weights: drop zero-weight connections and whatever they disconnect.",
)
"""Gives a command the parameter `edges`."""


def view_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameter `view`, a `LayerView`: which layers a table shows, and how."""

    @click.option(
        "--sort",
        type=click.Choice(SORTS),
        default="network",
        show_default=True,
        help="Order of the layers; numbers from the largest down.",
    )
    @click.option(
        "--depth",
        type=click.IntRange(min=1),
        metavar="N",
        help="Fold the table of layers: one row for all below a module of level N.",
    )
    @click.option(
        "--rows",
        type=click.IntRange(min=0),
        metavar="N",
        help="Show at most N layers (0: all; default: 30 if there are more than 40).",
    )
    @functools.wraps(command)
    def with_view(
        *args: Any, sort: str, depth: int | None, rows: int | None, **options: Any
    ) -> Any:
        return command(*args, view=LayerView(sort, depth, rows), **options)

    return with_view


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table of texts: in a frame on a terminal, else as aligned plain text.

    Args:
        columns: Head of each column.
        rows: Cells of each row.
        title: Stands above it.
    """
    title = printable(title)
    if not is_terminal():
        lines = aligned([tuple(columns), *map(tuple, rows)], texts=len(columns))
        click.echo("\n".join([title, "", *lines] if title else lines))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    heads = [Column(Text(printable(name))) for name in columns]
    table = Table(*heads, title=Text(title) if title else None)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep log messages off the terminal: torch logs whole tracebacks of what an error tells."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
