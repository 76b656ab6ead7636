"""The command ``pathlen measure``: from a SPEC to a report, in the form that was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

from pathlen.cli_options import input_option, without_logs

if TYPE_CHECKING:
    from pathlen.report import Report
    from pathlen.spec import InputShape


@click.command()
@click.argument("spec")
@input_option
@click.option("--backend", default="auto", show_default=True, help="What counts the paths.")
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
@click.option(
    "--edges",
    type=click.Choice(["connections", "weights"]),
    default="connections",
    show_default=True,
    help="weights: leave out what weights of 0 cut, as in a pruned network.",
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
    as_json: bool,
    device: str,
) -> None:
    r"""Measure the model that SPEC names.

    \b
    SPEC is one of
      torchvision:NAME         a torchvision model, with random weights
      timm:NAME                a timm model, with random weights
      package.module:CALLABLE  what the callable of an importable module returns
      path/file.py:CALLABLE    the same from a file, which is run
      path/model.pt2           a program saved by torch.export

    Nothing is downloaded. CALLABLE is called without arguments and returns a module, or a pair of
    a module and its example arguments.
    """
    import pathlen
    from pathlen.spec import resolve

    if backend != "auto":
        pathlen.backends.get(backend)  # a misspelt name is told before a model is made
    if compare and distribution:
        raise click.UsageError("--compare shows no distribution: leave out one of the two")

    def measured(name: str) -> Report:
        found = resolve(name, inputs, device=device)
        with without_logs():
            graph = pathlen.trace(found.model, found.args, found.kwargs, edges=edges)
            if between:
                graph = graph.between(*between)
            return pathlen.measure(graph, backend=backend, exact=exact)

    report = measured(spec)
    if compare:
        comparison = pathlen.compare(report, measured(compare))
        click.echo(json.dumps(comparison.to_dict(), indent=2) if as_json else str(comparison))
    else:
        click.echo(_report_as_asked(report, distribution, as_json))


def _report_as_asked(report: Report, distribution: bool, as_json: bool) -> str:
    """The text or the JSON of a report, with or without the distribution of path lengths."""
    if not distribution:
        return report.to_json() if as_json else str(report)
    from pathlen.rendering_distribution import distribution_record, distribution_text

    if not as_json:
        return f"{report}\n\n{distribution_text(report)}"
    record = {**report.to_dict(), "path_length_distribution": distribution_record(report)}
    return json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
