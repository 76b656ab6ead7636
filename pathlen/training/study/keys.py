"""The key of a run: a hash of the values of its recipe that decide its result.

It is the same on every machine and in every study. Where data lie is left out, and so is a setting
that has its default value: a later version that has more settings knows the runs of an earlier one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from pathlen.training.recipe import Recipe

_NO_RESULT = ("machine", "checkpoint_steps", "tensorboard")
_ANY_DATA = ("imagefolder", "images", "text_pairs")
"""Tasks whose name does not say which data they have."""


def run_key(recipe: Recipe, needs: str | None = None) -> str:
    """The key of a run: equal for recipes that give the same result.

    Args:
        recipe: Of the run.
        needs: Key of the dense run that it begins with.

    Returns:
        16 hexadecimal digits.
    """
    if recipe.weights_file is not None:
        recipe = recipe.with_weights_file(_last_parts(recipe.weights_file, 2))
    settings = {name: value for name, value in _deciding(recipe).items() if name not in _NO_RESULT}
    settings["task"] = _without_places(recipe.task)
    whole = {"recipe": settings, "precision": recipe.machine.precision, "needs": needs}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _deciding(settings: BaseModel) -> dict[str, Any]:
    """The values that are not the default ones; names of alternatives are kept in any case."""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name == "name" or value != field.get_default(call_default_factory=True):
            found[name] = _deciding(value) if isinstance(value, BaseModel) else value
    return found


def _without_places(task: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a task, in which the name of a data set stands for where it lies.

    Of a folder that may hold anything, and of files, the last part of the path is kept.
    """
    named = task.get("name") not in _ANY_DATA
    return {
        key: _last_parts(value, 1) if isinstance(value, str) and "/" in value else value
        for key, value in task.items()
        if not (named and key == "folder")
    }


def _last_parts(path: str, number: int) -> str:
    return "/".join(PurePath(path).parts[-number:])
