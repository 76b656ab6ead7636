"""The command ``pathlen backends``: what can count paths here."""

from __future__ import annotations

import click

from pathlen.cli.options import print_table
from pathlen.errors import BackendError


@click.command()
def backends() -> None:
    """List the backends that can count paths."""
    import pathlen

    rows = []
    for name in pathlen.backends.available():
        try:
            backend = pathlen.backends.get(name)
        except BackendError as error:
            rows.append((name, "", "no", "", str(error)))
        else:
            able = backend.capabilities
            needs = [
                need for need in pathlen.backends.NEEDS if pathlen.backends.gives(backend, need)
            ]
            exact = "yes" if able.exact else "no"
            rows.append((name, exact, "yes", ", ".join(needs), able.summary))
    print_table(("backend", "exact", "available", "gives", "how it works"), rows)
