"""``pathlen train``: carry out a recipe."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C stopped: that of a program that the signal ends."""


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run.  [default: runs/NAME of the recipe]",
)
@click.pass_context
def train(ctx: click.Context, recipe: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Train a network, and linearize it under the sparsity prior.

    RECIPE is a YAML file, or the name of a recipe that comes with pathlen; KEY=VALUE sets a value
    of it, as train.epochs=5. The same command resumes a run that was stopped, by Ctrl-C or by a
    crash, and gives the same result as an uninterrupted run.

    \b
    pathlen train digits
    pathlen train digits linearize.prior.omega=0.3 seed=1 --out runs/strong
    """  # noqa: D301 - click reads the character itself
    try:
        _train(recipe, overrides, out or Path("runs") / Path(recipe).stem)
    except KeyboardInterrupt:
        # Of several processes on one machine the first gives the exit code. It kills itself if it
        # sees another fail first, so that the others end quietly.
        ctx.exit(INTERRUPTED if os.environ.get("LOCAL_RANK", "0") == "0" else 0)


def _train(recipe: str, overrides: tuple[str, ...], folder: Path) -> None:
    check_libraries()
    from rich.console import Console

    from pathlen.training.loop import train as carry_out
    from pathlen.training.progress import watcher_for
    from pathlen.training.recipe_file import load_recipe

    carry_out(load_recipe(recipe, overrides), folder, watcher_for(Console()))


def check_libraries() -> None:
    """Say how to install what training needs, before anything is done.

    Raises:
        SettingsError: A library is not installed.
    """
    from pathlen.training.libraries import library

    for module in ("pydantic", "safetensors", "lightning_fabric"):
        if find_spec(module) is None:  # importing them takes seconds
            library(module, module.replace("_", "-"))
