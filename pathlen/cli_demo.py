"""The command ``pathlen demo``: the main job on data that is there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathlen.cli_options import print_table
from pathlen.cli_train import INTERRUPTED, check_libraries

if TYPE_CHECKING:
    from pathlen.report import Report


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pathlen-demo"),
    show_default=True,
    help="Folder of the run, the figures and the page.",
)
@click.pass_context
def demo(ctx: click.Context, out: Path) -> None:
    """Train a small residual network on handwritten digits, and make half of its depth linear.

    It takes a minute or two. Afterwards the folder has the run, figures, and report.html, a page
    to explore. Called again, it goes on where it was stopped.
    """
    check_libraries()
    from rich.console import Console

    from pathlen.training.loop import train
    from pathlen.training.progress import watcher_for
    from pathlen.training.recipe_file import load_recipe

    try:
        train(load_recipe("digits"), out / "run", watcher_for(Console()))
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    before, after = (measured(out / "run", weights) for weights in ("dense", "model"))
    print_table(
        ("", "dense", "linearized"),
        [(label, text(*before), text(*after)) for label, text in _ROWS],
        "ResNet-20 on handwritten digits",
    )
    for path in illustrated(out, after[0]):
        click.echo(path)


def measured(run: Path, weights: str) -> tuple[Report, dict[str, Any]]:
    """The report of a network of a run, and the row of metrics from when it had these weights."""
    import pathlen
    from pathlen.training.trained import load_run

    found = load_run(run, weights)
    phases = list(found.summary["phases"].values())
    report = pathlen.measure(found.model, found.task.example)
    return report, phases[0] if weights == "dense" else phases[-1]


def illustrated(out: Path, report: Report) -> list[Path]:
    """Draw the figures and write the page; their files."""
    from pathlen import figures

    drawn = {
        "training": figures.plot_training(out / "run"),
        "core-network": figures.plot_core_network(report),
        "path-lengths": figures.plot_path_lengths(report),
    }
    files = [out / f"{name}.{ending}" for name in drawn for ending in ("pdf", "png")]
    for file in files:
        figures.save(drawn[file.stem], file)
    page = out / "report.html"
    report.to_html(page, title="ResNet-20 on handwritten digits, half of its depth linear")
    return [*files, page]


_ROWS: list[tuple[str, Callable[[Report, dict[str, Any]], str]]] = [
    ("accuracy on held-out digits", lambda _, row: f"{row['test_accuracy']:.2%}"),
    ("normalized average path length", lambda report, _: _depth(report, "normalized")),
    ("average path length", lambda report, _: _depth(report, "uniform")),
    (
        "longest and shortest path",
        lambda report, _: f"{report.longest_path:g} and {report.shortest_path:g}",
    ),
    ("active units", lambda report, _: f"{report.num_active:,}"),
    ("effective width", lambda report, _: f"{report.effective_width:.2f}"),
]


def _depth(report: Report, weighting: str) -> str:
    return f"{float(report.average(weighting)):.3f}"
