"""SPECs that name a model of torchvision or timm, made with random weights."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pathlen.errors import SpecError
from pathlen.specs.parts import InputShape, ResolvedModel, failed


def torchvision_model(name: str, device: str, given: Mapping[str, Any]) -> ResolvedModel:
    """Make a model of torchvision, with an example of what it takes, if that is known.

    Args:
        name: Its name there.
        device: Where it is made.
        given: Further keyword arguments for its builder.

    Raises:
        SpecError: The library is not there or has no such model, or the builder raises.
    """
    import torch

    models = _library("torchvision", "torchvision.models")
    if name not in models.list_models():
        raise SpecError(_unknown("torchvision", name, models.list_models()))
    options: dict[str, Any] = {"weights": None}
    accepted = inspect.signature(models.get_model_builder(name)).parameters
    # Some builders would download a pretrained backbone although weights are None.
    if "weights_backbone" in accepted:
        options["weights_backbone"] = None
    # GoogLeNet and Inception warn unless told whether to draw their weights the slow way.
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    with torch.device(device), _naming(f"building torchvision's {name!r}", given):
        model = models.get_model(name, **options, **given)
    shape = _torchvision_input(models, name)
    args = None if shape is None else (shape.make(device),)
    return ResolvedModel(model.eval(), args, {})


def timm_model(name: str, device: str, given: Mapping[str, Any]) -> ResolvedModel:
    """Make a model of timm, with an example of what it takes, if that is known.

    Args:
        name: Its name there.
        device: Where it is made.
        given: Further keyword arguments for its builder.

    Raises:
        SpecError: The library is not there or has no such model, or the builder raises.
    """
    import torch

    timm = _library("timm", "timm")
    if ":" in name or "/" in name:
        raise SpecError(f"timm model {name!r} lies on a hub; pathlen downloads nothing")
    if not timm.is_model(name):
        raise SpecError(_unknown("timm", name, timm.list_models()))
    with torch.device(device), _naming(f"building timm's {name!r}", given):
        model = timm.create_model(name, pretrained=False, **given)
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    args = None if size is None else (InputShape((1, *size)).make(device),)
    return ResolvedModel(model.eval(), args, {})


def _torchvision_input(models: Any, name: str) -> InputShape | None:
    """Give the input that a torchvision classifier or segmenter is evaluated on, if known."""
    task = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
    if task.startswith(("detection", "optical_flow")):
        return None  # these take lists of images, or pairs of them
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    crop = getattr(transforms, "crop_size", None) or [224]
    height, width = (crop * 2)[:2] if len(crop) == 1 else crop
    frames = (16,) if task.startswith("video") else ()
    return InputShape((1, 3, *frames, height, width))


def _library(package: str, module: str) -> Any:
    """Import an optional model library."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise SpecError(
            f"{package} is not installed; install it with: pip install 'pathlen[models]'"
        ) from error
    except (ImportError, RuntimeError) as error:
        # torchvision raises RuntimeError where its compiled operators do not fit torch.
        raise SpecError(
            f"{package} is installed but cannot be imported ({type(error).__name__}: {error}); "
            "its release and its build (CPU or CUDA) must be those that belong to the torch here"
        ) from error


def _unknown(package: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else f" among its {len(known)}"
    return f"{package} has no model {name!r}{hint}"


@contextmanager
def _naming(what: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Name what raised, if it was given arguments; without any it is no fault of the user's."""
    try:
        yield
    except Exception as error:
        if not given:
            raise
        raise failed(f"{what} with {', '.join(given)}", error) from error
