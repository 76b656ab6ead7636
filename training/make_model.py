"""The model of a run, with its first weights or those of another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pathlen.errors import CheckpointError
from pathlen.training.files import read_weights
from pathlen.training.linearizable import make_linearizable
from pathlen.training.models import build_model
from pathlen.training.recipe import Recipe
from pathlen.training.slope_numbering import version_key
from pathlen.training.slopes import slopes_of
from pathlen.training.task import Task


def make_model(recipe: Recipe, task: Task) -> nn.Module:
    """The model of a recipe with its first weights, and slopes if it is to be linearized."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(recipe.seed)
        model = build_model(recipe.model, task)
    if recipe.linearize.epochs:
        make_linearizable(
            model,
            task.example,
            granularity=recipe.linearize.granularity,
            unplaced=recipe.linearize.unplaced,
        )
    if recipe.weights is not None:
        path = Path(recipe.weights)
        path = path / "model.safetensors" if path.is_dir() else path
        load_weights(model, read_weights(path), path)
    return model


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load weights that may lack slopes of `make_linearizable`; those stay as they are.

    Raises:
        CheckpointError: They are of another model.
    """
    own = model.state_dict()
    slopes = {one.parameter_name for one in slopes_of(model) if one.positions is not None}
    slopes |= {version_key(name) for name in slopes}
    problems = [f"{key} is not in the model" for key in weights.keys() - own.keys() - slopes]
    problems += [f"{key} is not in the file" for key in own.keys() - weights.keys() - slopes]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems)[:8])
        raise CheckpointError(
            f"{where} is of another model than {type(model).__name__}"
            f" ({len(problems)} differences):\n  {listed}"
        )
    model.load_state_dict(dict(weights), strict=False)
