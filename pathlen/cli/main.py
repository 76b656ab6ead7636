"""The command ``pathlen``: the group that its commands are registered with.

Each command is a module of its own, `pathlen/cli/NAME.py`, with a `click.command` of that name; a
new one is imported here and added to the list at the end. What several commands need is in
`pathlen/cli/options.py`.

Exit codes: 0 when the command did what was asked, 2 for anything the user can mend (an unknown
SPEC, a wrong option, a model that cannot be traced), told in one message on standard error, and
1 for a fault of pathlen's own, shown with its traceback, or found by ``pathlen verify``. A
command raises a `PathlenError` for the second; the group does the rest.

torch and everything else that is slow to import is imported inside the commands, so that help
comes at once.
"""

from __future__ import annotations

from typing import Any

import click

from pathlen import __version__
from pathlen.cli.backends import backends
from pathlen.cli.data import data
from pathlen.cli.demo import demo
from pathlen.cli.export import export
from pathlen.cli.measure import measure
from pathlen.cli.study import study
from pathlen.cli.train import train
from pathlen.cli.verify import verify
from pathlen.errors import PathlenError


class _Group(click.Group):
    """A group of commands that tells errors of pathlen's own in one message, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except PathlenError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0: done; 1: a fault of pathlen itself, or a path graph that verify finds"
    " wrong; 2: user error, explained in one message.",
)
@click.version_option(__version__, prog_name="pathlen")
def main() -> None:
    """Measure the effective depth of PyTorch models: their average path length."""


main.add_command(measure)
main.add_command(export)
main.add_command(verify)
main.add_command(data)
main.add_command(train)
main.add_command(study)
main.add_command(backends)
main.add_command(demo)
