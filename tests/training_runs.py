"""Tiny training runs, ways to kill them, and what of a run must not depend on its interruptions."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pathlen import whole_files
from pathlen.training.files import load_tree
from pathlen.training.learning_rate import Stage
from pathlen.training.loop import Result, train
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import make_recipe
from pathlen.training.watch import Watcher

# 270 images of zeros and ones to train on: 5 steps an epoch
TINY: dict[str, Any] = {
    "task": {"name": "digits", "classes": 2},
    "model": {"name": "mlp", "width": 8, "depth": 2},
    "batch_size": 48,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
    "train": {"epochs": 2},
    "linearize": {"epochs": 2, "prior": {"omega": 0.1}},
    "finetune": {"epochs": 1},
    "machine": {"accelerator": "cpu", "threads": 1},
}
TRANSLATION: dict[str, Any] = {
    "task": {
        "name": "number_words",
        "last": 9999,
        "train_size": 200,
        "test_size": 8,
        "vocabulary_size": 280,
        "max_tokens": 48,
    },
    "model": {"name": "transformer", "width": 16, "heads": 2, "layers": 1, "hidden": 16},
    "batch_size": 40,
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "train": {"epochs": 1},
    "linearize": {"epochs": 2, "prior": {"omega": 0.05}},
    "finetune": {"epochs": 1},
    "machine": {"accelerator": "cpu", "threads": 1},
}


def changed(settings: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Settings with others in their place; `linearize__prior__omega` is a key of a part."""
    result = copy.deepcopy(dict(settings))
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = result
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    return result


def tiny(**changes: Any) -> Recipe:
    """A recipe of half a second."""
    return make_recipe(changed(TINY, **changes))


class Killer(Watcher):
    """Kills the process after a step of a phase, as a power failure would.

    Args:
        phase: Which.
        step: Of that phase, counted from 1.
    """

    def __init__(self, phase: str, step: int) -> None:
        self._at = phase, step
        self._phase, self._before, self._steps = "", 0, 0

    def begin(self, stage: Stage, epochs_done: int, steps: int) -> None:
        self._phase, self._before, self._steps = stage.name, epochs_done * steps, steps

    def step(self, batch: int, numbers: Mapping[str, float]) -> None:
        if (self._phase, self._before + batch) == self._at:
            kill()

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._before += self._steps


class Recorder(Watcher):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[str, int, int]] = []
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.rows: list[Mapping[str, Any]] = []
        self.closed = 0

    def begin(self, stage: Stage, epochs_done: int, steps: int) -> None:
        self.begun.append((stage.name, epochs_done, steps))

    def step(self, batch: int, numbers: Mapping[str, float]) -> None:
        self.steps.append((batch, dict(numbers)))

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        self.closed += 1


def kill() -> None:
    """End this process without anything that it could do about it."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after_step(settings: Mapping[str, Any], folder: Path, phase: str, step: int) -> None:
    """Run until a step, in a process of its own."""
    train(make_recipe(settings), folder, Killer(phase, step))


def killed_in_write(settings: Mapping[str, Any], folder: Path, number: int, moment: str) -> None:
    """Run until the n-th file is written; "half" of it, all of it "unsynced", or "renamed"."""
    count = 0
    real_replace = os.replace

    def dies() -> bool:
        return count == number

    class Half(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            kill()
            return 0

    def opened(descriptor: int, mode: str) -> Any:
        nonlocal count
        count += 1
        return Half(descriptor, "wb") if dies() and moment == "half" else open(descriptor, mode)

    def replace(path: Path, target: Path) -> None:
        if dies() and moment == "unsynced":
            kill()
        real_replace(path, target)
        if dies() and moment == "renamed":
            kill()

    whole_files.open = opened  # type: ignore[attr-defined]
    whole_files.os.replace = replace
    train(make_recipe(settings), folder)


def run(settings: Mapping[str, Any], folder: Path, watcher: Watcher | None = None) -> Result:
    """Run, or go on, to the end."""
    return train(make_recipe(settings), folder, watcher)


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, seconds left out; tensors as bytes."""
    checkpoint = load_tree(folder / "checkpoint.safetensors")
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    table = (folder / "metrics.csv").read_text().splitlines()
    found = {
        "checkpoint": checkpoint,
        "model": load_tree(folder / "model.safetensors"),
        "dense": load_tree(folder / "dense.safetensors"),
        "rows": rows,
        "columns": table[0],
        "lines": len(table),
        "summary": summary,
        "names": sorted(path.name for path in folder.iterdir() if path.is_file()),
    }
    return comparable(found)


def comparable(part: Any) -> Any:
    """Without seconds, and with tensors as bytes."""
    if isinstance(part, torch.Tensor):
        return str(part.dtype), tuple(part.shape), part.reshape(-1).view(torch.uint8).tolist()
    if isinstance(part, dict):
        return {key: comparable(value) for key, value in part.items() if key != "seconds"}
    return [comparable(value) for value in part] if isinstance(part, list) else part
