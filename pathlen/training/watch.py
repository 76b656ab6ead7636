"""Who is told how a run goes on. The loop calls a watcher in the first process only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathlen.training.learning_rate import Stage


class Watcher:
    """Receives progress events; every method does nothing by default."""

    def begin(self, stage: Stage, epochs_done: int, steps: int) -> None:
        """A phase begins, or goes on after some epochs; an epoch has so many steps."""

    def step(self, batch: int, numbers: Mapping[str, float]) -> None:
        """So many steps of the epoch are done; numbers to show, now and then."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done; its row of metrics."""

    def say(self, text: str) -> None:
        """Something that the user should know."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """The run is finished; what summary.json holds."""

    def close(self) -> None:
        """Nothing more follows."""


def shown(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Numbers as people read them, by their short names."""
    formats = {
        "train_loss": ("loss", "{:.4f}"),
        "train_accuracy": ("train", "{:.2%}"),
        "test_accuracy": ("test", "{:.2%}"),
        "bleu": ("BLEU", "{:.1f}"),
        "active_units": ("active units", "{:,}"),
        "napl": ("NAPL", "{:.3f}"),
    }
    return {
        label: form.format(numbers[name])
        for name, (label, form) in formats.items()
        if numbers.get(name) is not None
    }
