"""The model of a run, with its first weights or those that somebody has trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pathlen.errors import CheckpointError
from pathlen.printable import shown
from pathlen.tracing.own_numbers import own_numbers
from pathlen.training.linearizable import make_linearizable
from pathlen.training.models import build_model
from pathlen.training.recipe import Recipe, Weights
from pathlen.training.slope_numbering import version_key
from pathlen.training.slopes import slopes_of
from pathlen.training.task import Task
from pathlen.training.weight_files import read_weight_file, suggested_rename, with_names_of_ours

NO_BOUNDS: AbstractContextManager[Any] = nullcontext()
_COUNTER = "num_batches_tracked"
"""Of batch norms: files of old releases lack it, and nothing reads it but averages over all."""


def make_model(
    recipe: Recipe, task: Task, within: AbstractContextManager[Any] = NO_BOUNDS
) -> nn.Module:
    """The model of a recipe with its first weights, and slopes if it is to be linearized.

    Args:
        recipe: Of the run.
        task: Of the recipe.
        within: A block in which the model is built and tried on an example of the task.
    """
    with own_numbers(recipe.seed), within:  # the caller's random numbers stay as they are
        model = build_model(recipe.model, task)
    if recipe.linearize.epochs:
        make_linearizable(
            model,
            task.example,
            granularity=recipe.linearize.granularity,
            unplaced=recipe.linearize.unplaced,
            only=recipe.linearize.only,
            exclude=recipe.linearize.exclude,
        )
    if recipe.weights is not None:
        load_given_weights(model, recipe.weights)
    return model


def load_given_weights(model: nn.Module, weights: Weights | str) -> None:
    """Load the weights that a recipe names.

    Args:
        model: With or without slopes.
        weights: Settings, or a path alone.

    Raises:
        CheckpointError: They cannot be read, or are of another model; what would help is said.
    """
    given = Weights(file=weights) if isinstance(weights, str) else weights
    found = with_names_of_ours(read_weight_file(given), model.state_dict(), given)
    load_weights(model, found, Path(given.file))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load weights that may lack slopes of `make_linearizable`; those stay as they are.

    Raises:
        CheckpointError: They are of another model.
    """
    own = model.state_dict()
    foreign = [name for name, weight in weights.items() if not isinstance(weight, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{where} holds no weights by name: {shown(foreign[0])} is a"
            f" {type(weights[foreign[0]]).__name__}"
        )
    slopes = {one.parameter_name for one in slopes_of(model) if one.positions is not None}
    slopes |= {version_key(name) for name in slopes}
    strange = {k: v.shape for k, v in weights.items() if k not in own and k not in slopes}
    missing = {
        key: value.shape
        for key, value in own.items()
        if key not in weights and key not in slopes and not key.endswith(_COUNTER)
    }
    problems = [f"{key} is not in the model" for key in strange]
    problems += [f"{key} is not in the file" for key in missing]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    problems += [
        f"{key} holds {weights[key].dtype}, and the model has {own[key].dtype}"
        for key in own.keys() & weights.keys()
        if own[key].is_floating_point() != weights[key].is_floating_point()
    ]
    if problems:
        listed = "\n  ".join(sorted(problems)[:8])
        raise CheckpointError(
            f"{where} is of another model than {type(model).__name__}"
            f" ({len(problems)} differences):\n  {listed}{_advice(strange, missing)}"
        )
    model.load_state_dict(dict(weights), strict=False)


def require_finite_weights(model: nn.Module, where: Path) -> None:
    """Look at weights that were loaded: a run never keeps any that are not finite.

    Raises:
        CheckpointError: One is infinite or not a number.
    """
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{where} holds weights that are not finite ({len(broken)} tensors, such as"
            f" {shown(broken[0])}): restore it, or let the run make it anew"
        )


def _advice(strange: Mapping[str, torch.Size], missing: Mapping[str, torch.Size]) -> str:
    """How the names of a file could be made those of the model, if that is all that differs."""
    counted = {name: shape for name, shape in strange.items() if not name.endswith(_COUNTER)}
    rename = suggested_rename(counted, missing) if counted and missing else {}
    if not rename:
        return ""
    line = yaml.safe_dump({"rename": rename}, default_flow_style=True, sort_keys=False, width=10000)
    return f"\nwith these names it would fit; give the recipe weights: {{file: ..., {line[1:-2]}}}"
