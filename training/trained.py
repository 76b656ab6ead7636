"""Runs read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pathlen.errors import CheckpointError
from pathlen.training.files import read_weights
from pathlen.training.make_model import load_weights, make_model
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import load_recipe
from pathlen.training.task import Task
from pathlen.training.tasks import build_task


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run.

    Attributes:
        recipe: What was done.
        summary: How it ended.
        history: One row an epoch.
        task: Its task.
        model: With the weights and slopes that it ended with, in eval mode.
    """

    recipe: Recipe
    summary: Mapping[str, Any]
    history: list[dict[str, Any]]
    task: Task
    model: nn.Module


def load_run(folder: Path | str, weights: str = "model") -> TrainedRun:
    """Read a finished run, so that its model can be measured or used.

    Args:
        folder: Of the run.
        weights: "model", those at the end, or "dense", those when linearization began.

    Raises:
        CheckpointError: There is no finished run, or a file of it cannot be read.
        PathlenError: Its task or model cannot be made.
    """
    folder = Path(folder)
    files = [folder / name for name in ("recipe.yaml", "summary.json", f"{weights}.safetensors")]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(f"{folder} holds no finished run: {', '.join(missing)} is missing")
    recipe = load_recipe(files[0])
    task = build_task(recipe.task)
    model = make_model(recipe.model_copy(update={"weights": None}), task)
    load_weights(model, read_weights(files[2]), files[2])
    rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = json.loads(files[1].read_text(encoding="utf-8"))
    return TrainedRun(recipe, summary, [json.loads(row) for row in rows], task, model.eval())
