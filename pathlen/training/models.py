"""Models by name, made to fit a task.

resnet20, resnet56, ...     CifarResNet of depth 6n + 2
resnet20v2, ...             the same with activations before the convolutions
plain20, ...                the same without shortcuts
vgg11, vgg13, vgg16, vgg19  CifarVGG
mlp                         MLP
transformer                 Transformer, an encoder and a decoder
torchvision:NAME, timm:NAME, package.module:CALLABLE, path/file.py:CALLABLE
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pathlen.errors import SettingsError
from pathlen.printable import shown
from pathlen.specs.spec import make_model
from pathlen.training.keywords import call_with_settings, check_settings, unknown_name
from pathlen.training.mlp import MLP
from pathlen.training.resnet import CifarResNet, Shortcut
from pathlen.training.task import Task
from pathlen.training.tasks.translation import evaluating
from pathlen.training.transformer import Transformer
from pathlen.training.vgg import CifarVGG

NAMES = ("resnet20", "resnet56", "resnet110", "resnet20v2", "plain20", "vgg11", "vgg13", "vgg16")
"""Examples of names with a depth in them, for messages; any other depth goes too."""


def build_model(settings: Mapping[str, Any], task: Task) -> nn.Module:
    """Make a model by its name, with as many inputs and outputs as a task needs.

    Args:
        settings: "name" is one of the above; the rest are its settings (of a SPEC: keyword
            arguments for its builder).
        task: What it is for.

    Raises:
        SettingsError: There is no such model, its settings are wrong, or it does not fit the task.
        SpecError: A SPEC cannot be resolved.
    """
    name = settings.get("name")
    others = {key: value for key, value in settings.items() if key != "name"}
    if isinstance(name, str) and ":" in name:
        model = make_model(name, others, task.model_arguments)
    else:
        function, depth = _function_of(name)
        try:
            model = call_with_settings(function, others, f"model {shown(name)}", depth, task)
        except ValueError as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"model {shown(name)}: {error}") from error
    check_fits(model, task, str(name))
    return model


def check_model(settings: Mapping[str, Any]) -> None:
    """Check the settings of a model without making it; those of a SPEC are not looked at.

    Raises:
        SettingsError: There is no such model, or its settings are wrong.
    """
    name = settings.get("name")
    if not (isinstance(name, str) and ":" in name):
        others = {key: value for key, value in settings.items() if key != "name"}
        check_settings(_function_of(name)[0], others, f"model {shown(name)}")


def _function_of(name: object) -> tuple[Callable[..., nn.Module], int]:
    """Find the function that makes a model, and the depth in its name (0 if there is none)."""
    match = re.fullmatch(r"(resnet|plain|vgg)(\d+)(v[12])?", str(name))
    if match is not None and (match[1] == "resnet" or match[3] is None):
        family = match[1] + (match[3] or "").replace("v1", "")
        return FAMILIES[family], int(match[2])
    if name in ("mlp", "transformer"):
        return FAMILIES[str(name)], 0
    raise SettingsError(
        unknown_name("model", name, (*NAMES, "mlp", "transformer"))
        + " (or torchvision:NAME, timm:NAME, file.py:CALLABLE)"
    )


def _asked(task: Task, *names: str) -> dict[str, Any]:
    """Get what a model must know of its task."""
    missing = [name for name in names if name not in task.model_arguments]
    if missing:
        raise SettingsError(
            f"task {task.name!r} has no {', '.join(missing)}, which this model needs: models of "
            "images are for images, mlp is for images and vectors, transformer for texts"
        )
    return {name: task.model_arguments[name] for name in names}


def resnet(
    depth: int, task: Task, *, width: int = 16, shortcut: Shortcut = "projection"
) -> nn.Module:
    """Make a :class:`CifarResNet`."""
    known = _asked(task, "num_classes", "in_channels")
    return CifarResNet(depth, width=width, shortcut=shortcut, **known)


def resnet_v2(
    depth: int, task: Task, *, width: int = 16, shortcut: Shortcut = "projection"
) -> nn.Module:
    """Make a :class:`CifarResNet` of version 2."""
    known = _asked(task, "num_classes", "in_channels")
    return CifarResNet(depth, version=2, width=width, shortcut=shortcut, **known)


def plain(depth: int, task: Task, *, width: int = 16) -> nn.Module:
    """Make a :class:`CifarResNet` without shortcuts."""
    return resnet(depth, task, width=width, shortcut="none")


def vgg(depth: int, task: Task, *, width: int = 64) -> nn.Module:
    """Make a :class:`CifarVGG`."""
    return CifarVGG(depth, width=width, **_asked(task, "num_classes", "in_channels", "image_size"))


def mlp(
    _: int, task: Task, *, depth: int = 3, width: int = 128, residual: bool = False
) -> nn.Module:
    """Make an :class:`MLP`."""
    classes = _asked(task, "num_classes")["num_classes"]
    features = math.prod(task.example[0].shape[1:])
    return MLP(features, classes, depth=depth, width=width, residual=residual)


def transformer(
    _: int,
    task: Task,
    *,
    width: int = 128,
    heads: int = 4,
    layers: int = 2,
    hidden: int | None = None,
    dropout: float = 0.1,
    norm: Literal["pre", "post"] = "pre",
    activation: Literal["relu", "gelu"] = "relu",
    positions: Literal["sinusoidal", "learned"] = "sinusoidal",
    tied: Literal["none", "output", "all"] = "all",
) -> nn.Module:
    """Make a :class:`Transformer`."""
    return Transformer(
        **_asked(task, "vocabulary_size", "padding", "max_length"),
        width=width,
        heads=heads,
        layers=layers,
        hidden=hidden,
        dropout=dropout,
        norm=norm,
        activation=activation,
        positions=positions,
        tied=tied,
    )


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet,
    "resnetv2": resnet_v2,
    "plain": plain,
    "vgg": vgg,
    "mlp": mlp,
    "transformer": transformer,
}


def check_fits(model: nn.Module, task: Task, name: str) -> None:
    """Run a model on a task's example and look at what it gives.

    Raises:
        SettingsError: It raises, or gives no tensor with one number for each class or token.
    """
    expected = task.model_arguments.get("num_classes", task.model_arguments.get("vocabulary_size"))
    with evaluating(model), torch.no_grad():
        try:
            output = model(*task.example)
        except Exception as error:
            shapes = ", ".join(str(list(one.shape)) for one in task.example)
            raise SettingsError(
                f"model {shown(name)} cannot take the inputs of task {task.name!r} ({shapes}): "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[-1] != expected:
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SettingsError(
            f"model {shown(name)} gives {got} for one item of task {task.name!r}; it must give a"
            f" tensor [batch, ..., {expected}] of logits"
        )
