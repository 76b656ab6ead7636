"""How a run ended, as a table: one row a phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from pathlen.printable import printable
from pathlen.training.watch import shown

_COLUMNS = ("test_accuracy", "bleu", "napl", "active_units")


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The last row of each phase."""
    rows = {
        phase: shown({key: row.get(key) for key in _COLUMNS})
        for phase, row in summary["phases"].items()
    }
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("after phase", *columns)
    for phase, row in rows.items():
        table.add_row(Text(printable(phase)), *(row.get(name, "") for name in columns))
    return table
