"""What several commands share: the option --input, and a terminal without torch's logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pathlen.errors import SpecError

if TYPE_CHECKING:
    from pathlen.spec import InputShape


def _parse_inputs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    """Read the shapes given with --input; what is no shape is a usage error."""
    from pathlen.spec import InputShape

    try:
        return tuple(InputShape.parse(value) for value in values)
    except SpecError as error:
        raise click.BadParameter(str(error), ctx, param) from error


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


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep log messages off the terminal: torch logs whole tracebacks of what an error tells."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
