"""The command ``pathlen export``: a measured model as a file for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pathlen.cli.options import (
    backend_option,
    edges_option,
    input_option,
    spec_argument,
    without_logs,
)

if TYPE_CHECKING:
    from pathlen.report.report import Report
    from pathlen.specs.spec import InputShape

FORMATS = ("graphml", "dot", "mermaid", "json", "csv")


@click.command()
@spec_argument
@input_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    help="graphml, dot, mermaid: the graph of the layers; csv: their table; json: the report.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write.  [default: standard output]",
)
@click.option(
    "--units", is_flag=True, help="GraphML of the path graph itself, a node for each unit."
)
@backend_option
@edges_option
def export(
    spec: str,
    inputs: tuple[InputShape, ...],
    form: str,
    output: Path | None,
    units: bool,
    backend: str,
    edges: Literal["connections", "weights"],
) -> None:
    """Measure the model that SPEC names and write it for other programs.

    SPEC is as for measure. An existing file is replaced atomically.
    """
    import pathlen
    from pathlen.show.files import file_target, write_text
    from pathlen.specs.spec import resolve

    if units and form != "graphml":
        raise click.UsageError("--units is for --format graphml: other formats show layers")
    if output is not None:
        file_target(output)  # told before a model is made
    if backend != "auto":
        pathlen.backends.get(backend)
    found = resolve(spec, inputs)
    with without_logs():
        report = pathlen.measure(
            found.model, found.args, found.kwargs, backend=backend, edges=edges
        )
    text = export_text(report, form, units)
    if output is None:
        click.echo(text.encode("utf-8", "replace"), nl=False)  # as in a file
    else:
        write_text(output, [text])


def export_text(report: Report, form: str, units: bool = False) -> str:
    """A report in one of the `FORMATS`, with the end of its last line.

    Args:
        report: What was measured.
        form: Name of the format.
        units: Whether GraphML is to hold the path graph itself.
    """
    from pathlen.report.layer_graph import graphml_of_units, layer_graph

    if form == "graphml":
        from pathlen.show.graphml import layers_graphml

        return "".join(graphml_of_units(report) if units else layers_graphml(layer_graph(report)))
    if form == "csv":
        return _csv_text(report)
    if form == "json":
        return report.to_json() + "\n"
    graph = layer_graph(report)
    return graph.to_dot() if form == "dot" else graph.to_mermaid()


def _csv_text(report: Report) -> str:
    """The table of layers, a head and a line for each."""
    from pathlen.printable import spreadsheet_cell
    from pathlen.report.data import layer_columns

    columns = layer_columns(report)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(map(spreadsheet_cell, row))
    return file.getvalue()
