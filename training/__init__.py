"""Training on depth: tasks and models to train.

Importing this package is cheap: what it offers is imported when first used, so torch is not loaded
by ``import pathlen.training``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlen.training.decoding import beam_search as beam_search
    from pathlen.training.decoding import greedy_search as greedy_search
    from pathlen.training.mlp import MLP as MLP
    from pathlen.training.models import build_model as build_model
    from pathlen.training.resnet import CifarResNet as CifarResNet
    from pathlen.training.subwords import Subwords as Subwords
    from pathlen.training.task import Task as Task
    from pathlen.training.tasks import build_task as build_task
    from pathlen.training.transformer import Transformer as Transformer
    from pathlen.training.vgg import CifarVGG as CifarVGG

# name -> the module that defines it
_EXPORTS = {
    "MLP": "pathlen.training.mlp",
    "CifarResNet": "pathlen.training.resnet",
    "CifarVGG": "pathlen.training.vgg",
    "Subwords": "pathlen.training.subwords",
    "Task": "pathlen.training.task",
    "Transformer": "pathlen.training.transformer",
    "beam_search": "pathlen.training.decoding",
    "build_model": "pathlen.training.models",
    "build_task": "pathlen.training.tasks",
    "greedy_search": "pathlen.training.decoding",
}

__all__ = list(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object

    def __getattr__(name: str) -> object:
        """Import the module that defines ``name`` on first use and keep the value."""
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Offer the lazy names to tab completion."""
    return sorted({*globals(), *__all__})
