"""The command ``pathlen backends``: what can count paths here."""

from __future__ import annotations

import click

from pathlen.errors import BackendError


@click.command()
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
