"""How a training run goes on, in a terminal or a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pathlen.printable import message
from pathlen.training.learning_rate import Stage
from pathlen.training.summary import summary_table
from pathlen.training.watch import Watcher, shown

NARROW = 110
"""Columns of a terminal below which the accuracy on the training data is left out."""


class Lines(Watcher):
    """A line an epoch, for logs and pipes.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write the row."""
        parts = [f"epoch {row['epoch']:>3}", f"{row['phase']:<9}"]
        parts += [f"{name} {text}" for name, text in shown(row).items()]
        self.say("  ".join(parts))

    def say(self, text: str) -> None:
        """Write the text, whatever the width."""
        self._console.print(message(text), soft_wrap=True, highlight=False, markup=False)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Write a table."""
        self._console.print(summary_table(summary))


class Bars(Watcher):
    """One bar a phase, with loss, accuracy, active units and NAPL.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._narrow = console.width < NARROW
        numbers = Column(no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=6 if self._narrow else 20),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
            TextColumn("{task.fields[numbers]}", table_column=numbers),
            TimeRemainingColumn(compact=True),
            console=console,
            refresh_per_second=5,
        )
        self._bar: TaskID | None = None
        self._before = self._steps = 0
        self._tested = ""

    def begin(self, stage: Stage, epochs_done: int, steps: int) -> None:
        """Draw a bar over the steps of the phase."""
        self._progress.start()
        self._before, self._steps = epochs_done * steps, steps
        self._bar = self._progress.add_task(
            stage.name, total=stage.epochs * steps, completed=self._before, numbers=""
        )

    def step(self, batch: int, numbers: Mapping[str, float]) -> None:
        """Move the bar on."""
        assert self._bar is not None
        texts = shown(numbers)
        if self._narrow:
            texts.pop("train", None)
        parts = [f"{name.removeprefix('active ')} {text}" for name, text in texts.items()]
        line = "  ".join([*parts, self._tested])
        self._progress.update(self._bar, completed=self._before + batch, numbers=line)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Keep the accuracy on the test data in sight."""
        self._before += self._steps
        tested = {key: row[key] for key in ("test_accuracy", "bleu") if key in row}
        if tested:  # not every epoch is evaluated
            self._tested = "  ".join(f"{name} {text}" for name, text in shown(tested).items())
        self.step(0, {key: value for key, value in row.items() if key not in tested})

    def say(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(message(text), markup=False)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Draw a table below the bars."""
        self._progress.stop()
        self._progress.console.print(summary_table(summary))

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


def watcher_for(console: Console) -> Watcher:
    """Bars for a terminal, a line an epoch for anything else."""
    return Bars(console) if console.is_terminal else Lines(console)
