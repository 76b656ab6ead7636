"""The command ``pathlen verify``: a path graph checked against its model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pathlen.cli.options import input_option, spec_argument, without_logs
from pathlen.show.terminal import stages

if TYPE_CHECKING:
    from pathlen.specs.spec import InputShape


@click.command()
@spec_argument
@input_option
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Maximum number of random draws per call.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for the random draws.")
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
    from pathlen.specs.spec import resolve

    with stages() as stage:
        stage(f"making {spec}")
        resolved = resolve(spec, inputs)
        stage(f"verifying {spec}")
        with without_logs():
            verdict = pathlen.verify(
                resolved.model, resolved.args, resolved.kwargs, samples=samples, seed=seed
            )
    click.echo(json.dumps(verdict.to_dict(), indent=2) if as_json else str(verdict))
    ctx.exit(0 if verdict.ok else 1)
