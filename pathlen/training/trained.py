"""Runs read back from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pathlen.errors import CheckpointError, UnsafeProgram
from pathlen.printable import shown
from pathlen.specs.spec import code_of
from pathlen.tracing.guard import MOST_BYTES, MOST_WORK, Guard
from pathlen.training.code_key import warn_of_other_code
from pathlen.training.files import code_of_file, read_weights
from pathlen.training.make_model import load_weights, make_model, require_finite_weights
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import load_recipe
from pathlen.training.records import read_records
from pathlen.training.study.keys import run_key
from pathlen.training.task import Task
from pathlen.training.tasks import build_task
from pathlen.whole_files import is_file

_TIMES = 8
_CALLS = 10_000, 100
"""What making a model may take: so many times the bytes of its weights, and so many calls of torch
beside those for each tensor of them."""

_TASK_BYTES = 4 * MOST_BYTES  # of tensors that a task makes


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


def load_run(folder: Path | str, weights: str = "model", *, trust_code: bool = False) -> TrainedRun:
    """Read a finished run, so that its model can be measured or used.

    A recipe may name a model by a file or a module of Python, which is run to make the model; that
    is done only if you say so.

    Args:
        folder: Of the run.
        weights: "model", those at the end, or "dense", those when linearization began.
        trust_code: Whether to run the code that the recipe in the folder names.

    Raises:
        CheckpointError: There is no finished run, a file of it cannot be read or is of another run,
            the recipe names code that is not trusted, or a model that is far larger than its
            weights.
        PathlenError: Its task or model cannot be made.
    """
    if weights not in ("model", "dense"):
        raise CheckpointError(f"there are no weights {shown(weights)}; choose 'model' or 'dense'")
    folder = Path(folder)
    files = [folder / name for name in ("recipe.yaml", "summary.json", f"{weights}.safetensors")]
    missing = [path.name for path in files if not is_file(path)]
    if missing:
        raise CheckpointError(f"{folder} holds no finished run: {', '.join(missing)} is missing")
    recipe = load_recipe(files[0])
    if not trust_code:
        _require_no_code(recipe, files[0])
    run = run_key(recipe)
    summary, history = read_records(folder, run)
    found = read_weights(files[2], run, weights)
    warn_of_other_code(files[2], code_of_file(files[2]), recipe.model)
    sizes = [weight.nbytes for weight in found.values() if isinstance(weight, Tensor)]
    try:
        with Guard(_TASK_BYTES, MOST_WORK):
            task = build_task(recipe.task)
        calls = _CALLS[0] + _CALLS[1] * len(sizes)
        bounds = Guard(max(MOST_BYTES, _TIMES * sum(sizes)), MOST_WORK, calls)
        model = make_model(recipe.model_copy(update={"weights": None}), task, bounds)
    except (UnsafeProgram, MemoryError) as error:
        raise CheckpointError(
            f"{files[0]} describes a task or a model that is far too large for the {sum(sizes):,}"
            f" bytes of weights in {files[2].name}, and is not made"
        ) from error
    load_weights(model, found, files[2])
    require_finite_weights(model, files[2])
    return TrainedRun(recipe, summary, history, task, model.eval())


def _require_no_code(recipe: Recipe, path: Path) -> None:
    """Refuse a recipe that runs code which is not that of pathlen or a library of models."""
    name = recipe.model.get("name")
    options = {key: value for key, value in recipe.model.items() if key != "name"}
    reason = code_of(name, options) if isinstance(name, str) and ":" in name else None
    if reason is not None:
        raise CheckpointError(
            f"{path} says model.name: {shown(name)}, and {reason}. Nothing was run. If you trust"
            " whoever made this folder and that code, write load_run(folder, trust_code=True)"
        )
