"""The command ``pathlen demo``: the main job on data that is there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from pathlen.cli.options import print_table
from pathlen.cli.train import INTERRUPTED, check_libraries

if TYPE_CHECKING:
    from pathlen.report.report import Report

    Measured = tuple[Report, dict[str, Any]]

SEEDS = (0, 1, 2)
"""Of the networks."""


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pathlen-demo"),
    show_default=True,
    help="Folder of the runs, the figures and the page.",
)
@click.pass_context
def demo(ctx: click.Context, out: Path) -> None:
    """Train small residual networks on handwritten digits, and make half of their depth linear.

    Three of them, with other first weights: a difference that one alone shows may be chance. It
    takes a minute or two. Afterwards the folder has the runs, figures of the first, and
    report.html, a page to explore. Called again, it goes on where it was stopped.
    """
    check_libraries()
    from rich.console import Console

    from pathlen.training.loop import train
    from pathlen.training.progress import watcher_for
    from pathlen.training.recipe_file import load_recipe

    runs = [out / f"seed-{seed}" for seed in SEEDS]
    try:
        for seed, run in zip(SEEDS, runs, strict=True):
            click.echo(f"network {seed + 1} of {len(SEEDS)}")
            train(load_recipe("digits", [f"seed={seed}"]), run, watcher_for(Console()))
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    dense, linearized = ([measured(run, name) for run in runs] for name in ("dense", "model"))
    print_table(
        ("", "dense", "linearized"),
        [(label, _over(dense, value), _over(linearized, value)) for label, value in _ROWS],
        f"ResNet-20 on handwritten digits: mean of {len(SEEDS)} networks (least to most)",
    )
    click.echo(f"\n{story(dense, linearized)}")
    for path in illustrated(out, linearized[0][0]):
        click.echo(path)


def story(dense: Sequence[Measured], linearized: Sequence[Measured]) -> str:
    """What the runs show, in a sentence: accuracy against depth, before and after."""
    changes = [
        100 * (after["test_accuracy"] - before["test_accuracy"])
        for (_, before), (_, after) in zip(dense, linearized, strict=True)
    ]
    shares = [
        float(after.average("normalized")) / float(before.average("normalized"))
        for (before, _), (after, _) in zip(dense, linearized, strict=True)
    ]
    each = ", ".join(f"{change:+.1f}" for change in changes)
    return (
        f"At {100 * fmean(shares):.0f} % of their depth, the networks are within "
        f"{max(map(abs, changes)):.1f} points of the accuracy that they had:\n"
        f"{each} points, {fmean(changes):+.1f} on average."
    )


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
        "training": figures.plot_training(out / f"seed-{SEEDS[0]}"),
        "core-network": figures.plot_core_network(report),
        "path-lengths": figures.plot_path_lengths(report),
    }
    files = [out / f"{name}.{ending}" for name in drawn for ending in ("pdf", "png")]
    for file in files:
        figures.save(drawn[file.stem], file)
    page = out / "report.html"
    report.to_html(page, title="ResNet-20 on handwritten digits, half of its depth linear")
    return [*files, page]


def _over(networks: Sequence[Measured], value: Callable[[Report, dict[str, Any]], float]) -> str:
    """The mean of a number over networks, and its range where there is one."""
    numbers = [value(*network) for network in networks]
    low, mean, high = (
        f"{number:.2f}".removesuffix(".00")
        for number in (min(numbers), fmean(numbers), max(numbers))
    )
    return mean if low == high else f"{mean} ({low} to {high})"


_ROWS: list[tuple[str, Callable[[Report, dict[str, Any]], float]]] = [
    ("accuracy on held-out digits, %", lambda _, row: 100 * row["test_accuracy"]),
    ("normalized average path length", lambda report, _: float(report.average("normalized"))),
    ("average path length", lambda report, _: float(report.average("uniform"))),
    ("longest path", lambda report, _: float(report.longest_path)),
    ("shortest path", lambda report, _: float(report.shortest_path)),
    ("active units", lambda report, _: float(report.num_active)),
    ("effective width", lambda report, _: float(report.effective_width)),
]
