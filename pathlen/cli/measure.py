"""The command ``pathlen measure``: from a SPEC to a report, in the form that was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

from pathlen.cli.options import (
    backend_option,
    edges_option,
    input_option,
    spec_argument,
    view_options,
    without_logs,
)
from pathlen.show.table import LayerView
from pathlen.show.terminal import is_terminal, print_distribution, print_report, stages

if TYPE_CHECKING:
    from pathlen.report.report import Report
    from pathlen.specs.spec import InputShape


@click.command()
@spec_argument
@input_option
@backend_option
@click.option("--exact", is_flag=True, help="Compute with integers and fractions.")
@click.option(
    "--between",
    nargs=2,
    metavar="FROM TO",
    help="Measure the part between two layers or modules, named as in the report.",
)
@click.option("--distribution", is_flag=True, help="Show how path lengths are distributed, too.")
@click.option(
    "--compare",
    metavar="SPEC",
    help="Compare with a second model, layer by layer, for instance after training.",
)
@edges_option
@view_options
@click.option(
    "--html",
    "html_path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write the report as a page to explore, too: one file that opens offline.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "meta"]),
    default="cpu",
    show_default=True,
    help="Where torchvision and timm models and the inputs are made; meta needs no memory.",
)
def measure(
    spec: str,
    inputs: tuple[InputShape, ...],
    backend: str,
    exact: bool,
    between: tuple[str, str] | None,
    distribution: bool,
    compare: str | None,
    edges: Literal["connections", "weights"],
    view: LayerView,
    html_path: str | None,
    as_json: bool,
    device: str,
) -> None:
    """Measure the model that SPEC names.

    \b
    SPEC is one of
      torchvision:NAME         a torchvision model, with random weights
      timm:NAME                a timm model, with random weights
      package.module:CALLABLE  what the callable of an importable module returns
      path/file.py:CALLABLE    the same from a file, which is run
      path/model.pt2           a program saved by torch.export

    Nothing is downloaded. CALLABLE is called without arguments and returns a module, or a pair of
    a module and its example arguments. ONNX files are not read.
    """  # noqa: D301 - click reads the character itself
    import pathlen
    from pathlen.specs.spec import resolve

    _check_options(backend, html_path, view, compare, distribution, as_json)

    def measured(name: str) -> Report:
        stage(f"making {name}")
        found = resolve(name, inputs, device=device)
        with without_logs():
            stage(f"tracing {name}")
            graph = pathlen.trace(found.model, found.args, found.kwargs, edges=edges)
            if between:
                graph = graph.between(*between)
            stage(f"counting the paths of {name}")
            alone = backend == "auto" and not (exact or distribution or html_path or compare)
            solver = pathlen.backends.choose_for_once(graph) if alone else backend
            return pathlen.measure(graph, backend=solver, exact=exact)

    with stages() as stage:
        report = measured(spec)
        compared = pathlen.compare(report, measured(compare)) if compare else None
        if distribution:
            stage(f"counting the paths of {spec} by length")
            for weighting in report.weightings:
                report.path_length_distribution(weighting)  # which it keeps
        if html_path:
            stage(f"writing {html_path}")
            report.to_html(html_path, title=spec)
    if compared:
        click.echo(json.dumps(compared.to_dict(), indent=2) if as_json else str(compared))
    elif as_json:
        click.echo(_json_text(report, distribution))
    else:
        _print_as_text(report, spec, view, distribution)


def _check_options(
    backend: str,
    html_path: str | None,
    view: LayerView,
    compare: str | None,
    distribution: bool,
    as_json: bool,
) -> None:
    """Tell what is wrong with the options before a model is made.

    Raises:
        click.UsageError: They do not go together.
        PathlenError: There is no such backend, or the page cannot be written where it is to be.
    """
    import pathlen

    if backend != "auto":
        pathlen.backends.get(backend)
    if html_path:
        from pathlen.show.files import file_target

        file_target(html_path)
    if compare and distribution:
        raise click.UsageError("--compare shows no distribution: leave out one of the two")
    if view != LayerView() and (compare or as_json):
        raise click.UsageError(
            "--sort, --depth and --rows are for the table of layers; JSON and comparisons hold"
            " every layer, in the order of the network"
        )


def _json_text(report: Report, distribution: bool) -> str:
    """The whole report, with or without the distribution of path lengths."""
    if not distribution:
        return report.to_json()
    from pathlen.show.distribution import distribution_record

    record = {**report.to_dict(), "path_length_distribution": distribution_record(report)}
    return json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)


def _print_as_text(report: Report, spec: str, view: LayerView, distribution: bool) -> None:
    """Tables with bars on a terminal, plain text for anything else."""
    from pathlen.show.distribution import distribution_tables, distribution_text

    if not is_terminal():
        click.echo(view.text(report))
        if distribution:
            click.echo(f"\n{distribution_text(report)}")
        return
    from rich.console import Console

    console = Console()
    print_report(report, spec, view, console)
    if distribution:
        console.print()
        print_distribution(distribution_tables(report), console)
