"""Training on depth: tasks and models to train.

Importing this package is cheap: what it offers is imported when first used, so torch is not loaded
by ``import pathlen.training``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathlen.lazy import lazy_names

if TYPE_CHECKING:
    from pathlen.training.averages import copy_frozen_slopes as copy_frozen_slopes
    from pathlen.training.batch_norm import renew_batch_norm as renew_batch_norm
    from pathlen.training.decoding import beam_search as beam_search
    from pathlen.training.decoding import greedy_search as greedy_search
    from pathlen.training.groups import parameter_groups as parameter_groups
    from pathlen.training.groups import warn_of_decay as warn_of_decay
    from pathlen.training.linearizable import make_linearizable as make_linearizable
    from pathlen.training.loop import Result as Result
    from pathlen.training.loop import train as train
    from pathlen.training.mlp import MLP as MLP
    from pathlen.training.models import build_model as build_model
    from pathlen.training.omega import GrowUntilFalling as GrowUntilFalling
    from pathlen.training.omega import constant as constant
    from pathlen.training.omega import ramp as ramp
    from pathlen.training.prior import SparsityPrior as SparsityPrior
    from pathlen.training.proximal import prox as prox
    from pathlen.training.recipe import Recipe as Recipe
    from pathlen.training.recipe_file import load_recipe as load_recipe
    from pathlen.training.recipe_file import make_recipe as make_recipe
    from pathlen.training.resnet import CifarResNet as CifarResNet
    from pathlen.training.slopes import Slopes as Slopes
    from pathlen.training.slopes import slopes_of as slopes_of
    from pathlen.training.subwords import Subwords as Subwords
    from pathlen.training.targets import Plan as Plan
    from pathlen.training.targets import Progress as Progress
    from pathlen.training.targets import Target as Target
    from pathlen.training.task import Task as Task
    from pathlen.training.tasks import build_task as build_task
    from pathlen.training.trained import TrainedRun as TrainedRun
    from pathlen.training.trained import load_run as load_run
    from pathlen.training.transformer import Transformer as Transformer
    from pathlen.training.vgg import CifarVGG as CifarVGG
    from pathlen.training.watch import Watcher as Watcher

# name -> the module that defines it
_EXPORTS = {
    "CifarResNet": "pathlen.training.resnet",
    "CifarVGG": "pathlen.training.vgg",
    "GrowUntilFalling": "pathlen.training.omega",
    "MLP": "pathlen.training.mlp",
    "Recipe": "pathlen.training.recipe",
    "Result": "pathlen.training.loop",
    "Slopes": "pathlen.training.slopes",
    "SparsityPrior": "pathlen.training.prior",
    "Subwords": "pathlen.training.subwords",
    "Plan": "pathlen.training.targets",
    "Progress": "pathlen.training.targets",
    "Target": "pathlen.training.targets",
    "Task": "pathlen.training.task",
    "TrainedRun": "pathlen.training.trained",
    "Transformer": "pathlen.training.transformer",
    "Watcher": "pathlen.training.watch",
    "beam_search": "pathlen.training.decoding",
    "build_model": "pathlen.training.models",
    "build_task": "pathlen.training.tasks",
    "copy_frozen_slopes": "pathlen.training.averages",
    "constant": "pathlen.training.omega",
    "greedy_search": "pathlen.training.decoding",
    "load_recipe": "pathlen.training.recipe_file",
    "load_run": "pathlen.training.trained",
    "make_linearizable": "pathlen.training.linearizable",
    "make_recipe": "pathlen.training.recipe_file",
    "parameter_groups": "pathlen.training.groups",
    "prox": "pathlen.training.proximal",
    "ramp": "pathlen.training.omega",
    "renew_batch_norm": "pathlen.training.batch_norm",
    "slopes_of": "pathlen.training.slopes",
    "train": "pathlen.training.loop",
    "warn_of_decay": "pathlen.training.groups",
}

__all__ = list(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    __getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
