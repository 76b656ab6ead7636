"""``pathlen data``: get data sets, and see which are there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathlen.cli.options import print_table
from pathlen.cli.train import INTERRUPTED

if TYPE_CHECKING:
    from pathlen.training.sources.download import Watch
    from pathlen.training.sources.known import Source

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Folder of all data sets; each has a folder in it.",
)


@click.group()
def data() -> None:
    """Get data sets to train on, and see which are there.

    Nothing is downloaded unless you ask for it by `pathlen data get`.
    """


@data.command("list")
@folder_option
def list_command(folder: Path) -> None:
    """List the data sets that can be had, and which are there."""
    from pathlen.training.sources.known import SOURCES

    rows = [
        (
            source.name,
            _where(source, folder),
            _megabytes(source.size),
            _megabytes(source.unpacked),
            source.licence,
            source.elsewhere or source.home,
        )
        for source in SOURCES.values()
    ]
    print_table(("data set", "there", "download", "on disk", "licence", "see also"), rows)


def _where(source: Source, folder: Path) -> str:
    """Where a data set is, if it is."""
    for place in (folder / source.folder, *source.places):
        if not place.is_dir():
            continue
        missing = source.missing(place)
        return f"{place}, without {', '.join(missing)}" if missing else str(place)
    return "no"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


@data.command("get")
@click.argument("name")
@folder_option
@click.option(
    "--url",
    default="",
    help="Of a mirror: that of the file, or of a folder with all files, ending in a slash.",
)
@click.pass_context
def get_command(ctx: click.Context, name: str, folder: Path, url: str) -> None:
    """Download a data set from its original source, and unpack it.

    NAME is that of the task, as cifar10; `pathlen data list` shows all. Its checksum is compared,
    if one is known. The same command goes on where it was stopped.
    """
    from pathlen.training.sources.get import get
    from pathlen.training.sources.known import find_source

    source = find_source(name)
    try:
        with _progress() as watch:
            got = get(source, folder, watch, url)
    except KeyboardInterrupt:
        click.echo("Stopped; the same command goes on from here.", err=True)
        ctx.exit(INTERRUPTED)
    if not got.checksums:
        click.echo(f"{got.place} is there already")
        return
    known = all(download.checksum for download in source.downloads)
    for file, checksum in got.checksums.items():
        verdict = "as it should be" if known else "found; none is known, for the file changes"
        click.echo(f"{file}: {checksum} ({verdict})")
    click.echo(f"{got.place} is complete; a recipe names it by")
    click.echo(f"task: {{name: {source.name}, folder: {folder}}}")
    click.echo(f"licence: {source.licence}; {source.home}")


@contextmanager
def _progress() -> Iterator[Callable[[str], Watch]]:
    """Show on standard error how much has arrived: bars on a terminal, else a line a file."""
    if not sys.stderr.isatty():

        def told(name: str) -> Watch:
            click.echo(f"{name} ...", err=True)
            return lambda done, total: None

        yield told
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    )
    with progress:

        def bar(name: str) -> Watch:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield bar
