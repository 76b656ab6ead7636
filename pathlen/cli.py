"""The command ``pathlen``: measure a model, verify one, list the backends, see a demonstration.

Exit codes: 0 when the command did what was asked, 2 for anything the user can mend (an unknown
SPEC, a wrong option, a model that cannot be traced), told in one message on standard error, and
1 for a fault of pathlen's own, shown with its traceback, or found by ``pathlen verify``.

torch and everything else that is slow to import is imported inside the commands, so that help
comes at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from pathlen import __version__
from pathlen.errors import BackendError, PathlenError, SpecError

if TYPE_CHECKING:
    from pathlen.report import Report
    from pathlen.spec import InputShape


class _Group(click.Group):
    """A group of commands that tells errors of pathlen's own in one message, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except PathlenError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


def _parse_inputs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    """Read the shapes given with --input; what is no shape is a usage error."""
    from pathlen.spec import InputShape

    try:
        return tuple(InputShape.parse(value) for value in values)
    except SpecError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pathlen")
def main() -> None:
    """Measure the effective depth of PyTorch models: their average path length."""


_input_option = click.option(
    "--input",
    "inputs",
    callback=_parse_inputs,
    multiple=True,
    metavar="SHAPE[:DTYPE]",
    help="Shape of an example input, as 1,3,224,224 or 1,16:int64; once for each input. "
    "Can be left out where the model says what it takes.",
)


@main.command()
@click.argument("spec")
@_input_option
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
        with _without_logs():
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


@main.command()
@click.argument("spec")
@_input_option
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Most random draws for one call.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole verdict as JSON.")
@click.pass_context
def verify(
    ctx: click.Context,
    spec: str,
    inputs: tuple[InputShape, ...],
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Check the path graph of the model that SPEC names against the model itself.

    The recorded program is compared with the model, every connection with the Jacobian, every
    activity with the unit's function. Exits with 1 if anything is wrong. SPEC is as for measure;
    take a small variant of the architecture, for the model is run many times.
    """
    import pathlen
    from pathlen.spec import resolve

    resolved = resolve(spec, inputs)
    with _without_logs():
        verdict = pathlen.verify(
            resolved.model, resolved.args, resolved.kwargs, samples=samples, seed=seed
        )
    click.echo(json.dumps(verdict.to_dict(), indent=2) if as_json else str(verdict))
    ctx.exit(0 if verdict.ok else 1)


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep log messages off the terminal: torch logs whole tracebacks of what an error tells."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@main.command()
def backends() -> None:
    """List the backends that can count paths."""
    from rich.console import Console
    from rich.table import Table

    import pathlen

    table = Table("backend", "exact", "available", "gives", "how it works")
    for name in pathlen.backends.available():
        try:
            backend = pathlen.backends.get(name)
        except BackendError as error:
            table.add_row(name, "", "no", "", str(error))
        else:
            able = backend.capabilities
            needs = [
                need for need in pathlen.backends.NEEDS if pathlen.backends.gives(backend, need)
            ]
            exact = "yes" if able.exact else "no"
            table.add_row(name, exact, "yes", ", ".join(needs), able.summary)
    Console().print(table)


@main.command()
def demo() -> None:
    """Measure a small residual network, with all, half and none of its channels nonlinear."""
    from rich.console import Console
    from rich.table import Table

    reports = {
        "fully active": _measure_resnet(linear_part=0.0),
        "half the channels linear": _measure_resnet(linear_part=0.5),
        "fully linear": _measure_resnet(linear_part=1.0),
    }
    table = Table("", *reports, title="ResNet-20 for CIFAR with channel-wise PReLU slopes")
    for label, text in _demo_rows():
        table.add_row(label, *(text(report) for report in reports.values()))
    console = Console()
    console.print(table)
    console.print(
        "A channel whose slope is 1 is linear and no longer counts. The average path length "
        "weighs all paths alike, the normalized one all branches: a skip as much as its block."
    )


def _measure_resnet(linear_part: float) -> Report:
    """Measure a ResNet-20, the first part of whose channels have slope 1 in every layer."""
    import torch
    from torch import nn

    import pathlen
    from pathlen.training.resnet import CifarResNet, channelwise_prelu

    model = CifarResNet(depth=20, activation=channelwise_prelu).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight[: round(linear_part * module.num_parameters)] = 1.0
    return pathlen.measure(model, torch.zeros(1, 3, 32, 32))


def _demo_rows() -> list[tuple[str, Callable[[Report], str]]]:
    """Give the lines of the demonstration's table: a label, and how to read it off a report."""
    return [
        ("average path length", lambda report: f"{report.average_path_length:.4f}"),
        ("normalized", lambda report: f"{report.normalized_average_path_length:.4f}"),
        ("longest path", lambda report: str(report.longest_path)),
        ("shortest path", lambda report: str(report.shortest_path)),
        ("active units", lambda report: f"{report.num_active:,}"),
        ("effective width", lambda report: f"{report.effective_width:.2f}"),
        ("paths", lambda report: f"10^{report.log10_path_count:.2f}"),
    ]
