"""``pathlen study``: carry out a grid of training runs, and look at what comes out."""

from __future__ import annotations

import csv
import io
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pathlen.cli.options import print_table
from pathlen.cli.train import INTERRUPTED, check_libraries
from pathlen.printable import message, spreadsheet_cell
from pathlen.whole_files import is_folder

if TYPE_CHECKING:
    from pathlen.training.study.results import Case, Results
    from pathlen.training.study.settings import Study
    from pathlen.training.study.verdict import Verdict

STUDIES = Path("studies")


def _echo(text: str, err: bool = False) -> None:
    """Print a text with names of studies, cases or files in it."""
    click.echo(message(text), err=err)


class _Group(click.Group):
    """A group whose first argument may be a study, which is then run."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command for a study."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Group)
def study() -> None:
    """Carry out a grid of training runs, and look at what comes out.

    STUDY is a YAML file, or the name of a study that comes with pathlen. What it makes is kept in
    the folder studies/NAME of the study.

    \b
    pathlen study run STUDY     carry it out, or go on (also: pathlen study STUDY)
    pathlen study status STUDY  how it goes on
    pathlen study table STUDY   what came out, a row for each case
    pathlen study plot STUDY    a figure of it
    pathlen study export STUDY  what came out as a text file, for a repository
    """  # noqa: D301 - click reads the character itself


study_argument = click.argument("source", metavar="STUDY")
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of the study.  [default: studies/NAME of the study]",
)


@study.command()
@study_argument
@folder_option
@click.option("--workers", type=click.IntRange(min=1), help="Runs at a time on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler, as tcp://host:8786.")
@click.option("--retry-failed", is_flag=True, help="Do runs that failed once more.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a value of all runs, as task.folder=data; may be given several times.",
)
@click.pass_context
def run(
    ctx: click.Context,
    source: str,
    folder: Path | None,
    workers: int | None,
    scheduler: str | None,
    retry_failed: bool,
    overrides: tuple[str, ...],
) -> None:
    """Carry out a study, or go on where it was stopped.

    Runs that are finished in the file of results beside the study are not repeated.
    """
    if scheduler is not None:  # before torch is loaded, which takes seconds
        from pathlen.training.study.address import check_address

        check_address(scheduler)
    check_libraries()
    from pathlen.training.study.coordinator import run_study
    from pathlen.training.study.finished import results_file
    from pathlen.training.study.settings import load_study, study_file

    loaded = load_study(source, overrides)
    folder = folder or STUDIES / loaded.name
    try:
        with _stopped_by_sigterm():
            counts = run_study(
                loaded,
                folder,
                scheduler=scheduler,
                workers=workers,
                retry_failed=retry_failed,
                results=results_file(study_file(source)),
                say=_echo,
            )
    except KeyboardInterrupt:
        click.echo(f"stopped; the same command goes on with what is in {folder}")
        ctx.exit(INTERRUPTED)
    click.echo(f"{counts.get('done', 0)} runs are done, in {folder}")
    if counts.get("failed"):
        _list_failed(folder)
        ctx.exit(1)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop a study as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _list_failed(folder: Path) -> None:
    from pathlen.training.study.results import read_status

    failed = read_status(folder).failed
    click.echo(f"{len(failed)} runs failed (--retry-failed does them once more):", err=True)
    for one in failed:
        log = folder / "logs" / f"{one['key']}.log"
        _echo(f"  {one['name']} ({log if log.exists() else one['key']})", err=True)
        _echo("    " + "\n    ".join(one["error"].splitlines()), err=True)


def _place(source: str, folder: Path | None) -> tuple[Path, Study | None, Path | None]:
    """Where a study is: its folder, and unless that alone is given, its settings and its results.

    Args:
        source: The name of a study, its file, or its folder.
        folder: What the option says.
    """
    if is_folder(Path(source)):
        return folder or Path(source), None, None
    check_libraries()
    from pathlen.training.study.finished import results_file
    from pathlen.training.study.settings import load_study, study_file

    loaded = load_study(source)
    return folder or STUDIES / loaded.name, loaded, results_file(study_file(source))


@study.command()
@study_argument
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(source: str, folder: Path | None, as_json: bool) -> None:
    """Tell how many runs are done, which are under way, and why others failed."""
    from pathlen.training.study.results import read_status

    found = read_status(*_place(source, folder))
    if as_json:
        facts = {name: getattr(found, name) for name in ("counts", "running", "failed")}
        click.echo(json.dumps(facts | {"remaining_seconds": found.remaining}, indent=2))
        return
    click.echo(", ".join(f"{number} {state}" for state, number in found.counts.items()))
    for one in found.running:
        _echo(f"running: {one['name']}, for {one['seconds']:.0f} s on {one['host']}")
    if found.remaining is not None:
        click.echo(f"the rest takes about {found.remaining:.0f} s")
    for one in found.failed:
        lines = "\n    ".join(one["error"].splitlines())
        _echo(f"failed: {one['name']} ({one['key']})\n    {lines}")


@study.command()
@study_argument
@folder_option
@click.option("--json", "form", flag_value="json", help="Print every run as JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print every run as a row of CSV.")
def table(source: str, folder: Path | None, form: str | None) -> None:
    """Show what came out: a row for each case, mean ± standard deviation over its seeds."""
    from pathlen.training.study.results import read_results

    results = read_results(*_place(source, folder))
    if form == "json":
        click.echo(json.dumps(_flat(results), indent=2))
    elif form == "csv":
        click.echo(_csv(_flat(results)), nl=False)
    else:
        columns, rows = _cells(results)
        print_table(columns, rows, results.study["claim"] or results.study["name"])
        seconds = sum(record.last["seconds"] for record in results.records)
        click.echo(f"\n{len(results.records)} runs, {seconds:.1f} s of training steps")
        if results.study.get("verdict"):
            _echo("\n" + "\n".join(_verdicts(results)))


def _verdicts(results: Results) -> list[str]:
    """What was computed for each claim, a line for each setting of the labels that it leaves."""
    from pathlen.training.study.verdict import judge

    lines: list[str] = []
    for one in judge(results):
        factor, unit, sign = _scale(one)
        at = ", ".join(f"{name}={value}" for name, value in one.at.items())
        value, low, high = (
            format(number * factor, f"{sign}.2f") for number in (one.value, one.low, one.high)
        )
        says = f": {one.says}" if one.says else ""
        lines.append(
            f"{at + ': ' if at else ''}{one.number}: {value}{unit} [{low}, {high}],"
            f" effect size {one.effect:.2f}, {one.seeds} seeds{says}"
        )
    return lines or ["there are not yet two seeds with all runs that the verdict needs"]


def _scale(verdict: Verdict) -> tuple[float, str, str]:
    """What a value is multiplied by to be shown, its unit, and how its sign is written."""
    if verdict.claim.kind == "steadiness":
        return 100, "%", "+"
    if verdict.claim.kind == "knee" and verdict.metric == verdict.claim.against:
        return 1, "", "-"  # a place, no difference
    return (100, " points", "+") if verdict.metric.endswith("accuracy") else (1, "", "+")


def _flat(results: Results) -> list[dict[str, Any]]:
    """A flat mapping for each finished run: labels, seed, key, its last row, its dense row."""
    found = []
    for record in results.records:
        dense = {f"dense_{name}": value for name, value in (record.dense or {}).items()}
        labels = {f"label_{name}": value for name, value in record.labels.items()}
        found.append(labels | {"seed": record.seed, "key": record.key} | dict(record.last) | dense)
    return found


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(spreadsheet_cell, columns))
    for row in rows:
        writer.writerow([spreadsheet_cell(row.get(name)) for name in columns])
    return text.getvalue()


def _cells(results: Results) -> tuple[list[str], list[list[str]]]:
    metrics = list(dict.fromkeys(record.metric for record in results.records))
    labels = list(dict.fromkeys(name for case in results.cases for name in case.labels))
    columns = [*labels, "seeds"]
    rows = [
        [*(str(case.labels.get(name, "")) for name in labels), _seeds(case)]
        for case in results.cases
    ]
    for name, phase in [
        *((metric, phase) for metric in metrics for phase in ("train", None)),
        *(("napl", None), ("active_units", None)),
    ]:
        cells = [_mean(case, name, phase) for case in results.cases]
        if any(cells):
            columns.append(f"dense {_head(name)}" if phase else _head(name))
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)
    return columns, rows


def _seeds(case: Case) -> str:
    done = len(case.records)
    return str(done) if done == case.planned else f"{done} of {case.planned}"


def _head(name: str) -> str:
    heads = {"test_accuracy": "accuracy %", "bleu": "BLEU", "napl": "NAPL"}
    return heads.get(name, name.replace("_", " "))


def _mean(case: Case, name: str, phase: str | None) -> str:
    from pathlen.training.study.results import spread

    factor = 100.0 if name.endswith("accuracy") else 1.0
    found = spread([factor * value for value in case.values(name, phase)])
    if found is None:
        return ""
    mean, deviation = found
    digits = {"napl": 3, "active_units": 1}.get(name, 2)
    one = deviation != deviation  # NaN: one seed has no deviation
    return f"{mean:.{digits}f}" + ("" if one else f" ± {deviation:.{digits}f}")


@study.command()
@study_argument
@folder_option
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of the figure: .png, .pdf, .svg.",
)
@click.option("--metric", help="Column to draw in place of the task's metric.")
def plot(source: str, folder: Path | None, out: Path, metric: str | None) -> None:
    """Draw what the claim is about: a point for each run, a line through the means over seeds."""
    from pathlen import figures
    from pathlen.training.study.figure import draw
    from pathlen.training.study.results import read_results

    figures.save(draw(read_results(*_place(source, folder)), metric), out)
    click.echo(out)


@study.command()
@study_argument
@folder_option
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the results.  [default: beside the file of the study, ending in .jsonl]",
)
def export(source: str, folder: Path | None, out: Path | None) -> None:
    """Keep what came out as a text file without weights: a line for each finished run.

    Lines that the file has are kept. Every command of a study finds the runs in the file beside it.
    """
    home, loaded, beside = _place(source, folder)
    if loaded is None:
        raise click.UsageError(f"{source} is a folder; give the study, and --folder {source}")
    from pathlen.training.study.contents import export as write

    path = out or beside
    assert path is not None  # a study that is no folder has a file
    click.echo(f"{write(loaded, home, path)} finished runs are in {path}")
