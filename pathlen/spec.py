"""Models named on the command line: from a SPEC to a model and example inputs.

    torchvision:NAME         a torchvision model, with random weights
    timm:NAME                a timm model, with random weights
    package.module:CALLABLE  what the callable of an importable module returns
    path/file.py:CALLABLE    the same from a file, which is run
    path/model.pt2           a program saved by torch.export

Weights are never downloaded. A callable is called without arguments and returns a module, or a
pair of a module and its example arguments.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, cast

from pathlen.errors import SpecError
from pathlen.exported import load_exported_program

if TYPE_CHECKING:
    import torch

FORMS = (
    "torchvision:NAME, timm:NAME, package.module:CALLABLE, path/file.py:CALLABLE or path/model.pt2"
)

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InputShape:
    """Shape and dtype of one example input, as ``--input`` names them."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str) -> InputShape:
        """Read "1,3,224,224" or "1,16:int64".

        Raises:
            SpecError: The text is not of that form.
        """
        match = re.fullmatch(r"\s*(\d+(?:\s*,\s*\d+)*)\s*(?::\s*(\w+)\s*)?", text)
        if match is None:
            raise SpecError(
                f"input {text!r} is not a shape; write sizes separated by commas, with a dtype "
                "after a colon if it is not float32: 1,3,224,224 or 1,16:int64"
            )
        shape = tuple(int(size) for size in match[1].split(","))
        if 0 in shape:
            raise SpecError(f"input {text!r} is empty; every size must be at least 1")
        return cls(shape, match[2] or "float32")

    def make(self, device: str) -> torch.Tensor:
        """Make a tensor: normal random numbers, or zeros if the dtype is not a float.

        Zeros, because they are a valid index of any embedding.

        Raises:
            SpecError: torch has no such dtype.
        """
        import torch

        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise SpecError(f"torch has no dtype {self.dtype!r}; try float32, int64 or bool")
        if not dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=dtype, device=device)
        generator = None if device == "meta" else torch.Generator(device).manual_seed(0)
        return torch.randn(self.shape, generator=generator, device=device).to(dtype)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that a SPEC named.

    Attributes:
        model: An nn.Module or an ExportedProgram.
        args: Its example arguments, or None if they are not known.
        kwargs: Its example keyword arguments.
    """

    model: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]


def resolve(spec: str, inputs: Sequence[InputShape] = (), *, device: str = "cpu") -> ResolvedModel:
    """Make the model that a SPEC names, and its example arguments.

    Args:
        spec: One of the forms above.
        inputs: Shapes of the example inputs; they go before what is known of the model.
        device: Where torchvision's and timm's models and the inputs are made: "cpu" or "meta".

    Returns:
        The model in eval mode, with arguments.

    Raises:
        SpecError: The SPEC cannot be resolved, or no example input is known.
    """
    resolved = _resolve_model(spec, device)
    if inputs:
        args = tuple(one.make(device) for one in inputs)
        resolved = ResolvedModel(resolved.model, args, {})
    if resolved.args is None:
        raise SpecError(
            f"no example input is known for {spec!r}; give one with --input 1,3,224,224"
        )
    return resolved


def make_model(spec: str, options: Mapping[str, Any], wanted: Mapping[str, Any]) -> torch.nn.Module:
    """Make the model that a SPEC names, for a task: to be trained, with random weights.

    Args:
        spec: One of the forms above, but no saved program.
        options: Keyword arguments for its builder.
        wanted: Keyword arguments that the task would like: num_classes, in_channels (in_chans for
            timm), ... A torchvision model is given the first, a timm model these two, a callable
            those that it has a parameter for.

    Raises:
        SpecError: The SPEC cannot be resolved, or its builder raises.
    """
    if spec.endswith(".pt2"):
        raise SpecError(f"{spec!r} is a saved program, which cannot be trained; give {FORMS}")
    return cast("torch.nn.Module", _resolve_model(spec, "cpu", options, wanted).model).train()


def _resolve_model(
    spec: str,
    device: str,
    options: Mapping[str, Any] = NOTHING,
    wanted: Mapping[str, Any] = NOTHING,
) -> ResolvedModel:
    if spec.endswith(".onnx"):
        raise SpecError(
            f"{spec!r} is an ONNX file, which pathlen does not read: exporters fuse, split and"
            " rewrite operations, and nothing here could check a path graph of the result against"
            " the model. Measure the PyTorch model that it was exported from, as"
            " package.module:CALLABLE or path/file.py:CALLABLE, or save that with torch.export.save"
            " and measure the .pt2 file"
        )
    if spec.endswith(".pt2"):
        program = load_exported_program(Path(spec))
        args, kwargs = program.example_inputs or (None, {})
        return ResolvedModel(program, args, dict(kwargs))
    source, _, name = spec.partition(":")
    if source == "torchvision" and name:
        return _torchvision_model(name, device, {**_only(wanted, "num_classes"), **options})
    if source == "timm" and name:
        named = _only(wanted, "num_classes")
        if "in_channels" in wanted:
            named["in_chans"] = wanted["in_channels"]
        return _timm_model(name, device, {**named, **options})
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise SpecError(f"cannot tell what {spec!r} is; a SPEC is {FORMS}")
    module = _run_file(Path(source)) if source.endswith(".py") else _import_module(source)
    return _called(_attribute(module, source, name), spec, options, wanted)


def _only(wanted: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: wanted[name] for name in names if name in wanted}


# ------------------------------------------------------------------ torchvision and timm


def _torchvision_model(name: str, device: str, given: Mapping[str, Any]) -> ResolvedModel:
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


def _timm_model(name: str, device: str, given: Mapping[str, Any]) -> ResolvedModel:
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


# ------------------------------------------------------------------ callables


def _import_module(name: str) -> ModuleType:
    # As with `python -m`, what lies in the folder one stands in can be named. Last in the search,
    # so that a file there never hides an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(f"importing module {name!r}", error) from error
        raise SpecError(f"there is no module {error.name!r}; a SPEC is {FORMS}") from error
    except Exception as error:
        raise _failed(f"importing module {name!r}", error) from error


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SpecError(f"there is no file {str(path)!r}")
    name = f"pathlen_spec_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise SpecError(f"{str(path)!r} cannot be read as Python")
    # As when it is run by itself, the file can import its neighbours.
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(f"running {str(path)!r}", error) from error
    return module


def _attribute(module: ModuleType, source: str, name: str) -> Any:
    try:
        return operator.attrgetter(name)(module)
    except AttributeError as error:
        callables = [key for key, value in vars(module).items() if _is_own_callable(module, value)]
        near = difflib.get_close_matches(name, callables, n=3)
        offered = near or sorted(callables)[:10]
        hint = f"; it has {', '.join(offered)}" if offered else ""
        raise SpecError(f"{source!r} has no {name!r}{hint}") from error


def _is_own_callable(module: ModuleType, value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _called(
    target: Any, spec: str, options: Mapping[str, Any], wanted: Mapping[str, Any]
) -> ResolvedModel:
    """Call what a SPEC named and see what came back."""
    from torch import nn

    if isinstance(target, nn.Module) and options:
        raise SpecError(f"{spec!r} is a module already and takes no {', '.join(options)}")
    answer = target if isinstance(target, nn.Module) else _call(target, spec, options, wanted)
    model, args = answer, None
    if isinstance(answer, tuple) and len(answer) == 2:
        model, args = answer
        args = tuple(args) if isinstance(args, tuple | list) else (args,)
    if not isinstance(model, nn.Module):
        raise SpecError(
            f"{spec!r} gave an object of type {type(model).__name__}; it must return a "
            "torch.nn.Module, or a pair of one and its example arguments"
        )
    return ResolvedModel(model.eval(), args, {})


def _call(
    target: Callable[..., Any], spec: str, options: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Any:
    if not callable(target):
        raise SpecError(f"{spec!r} is of type {type(target).__name__} and cannot be called")
    parameters = inspect.signature(target).parameters if wanted else {}
    arguments = {**_only(wanted, *parameters), **options}
    given = f"with {', '.join(arguments)}" if arguments else "without arguments"
    try:
        return target(**arguments)
    except Exception as error:
        raise _failed(f"calling {spec!r} {given}", error) from error


@contextmanager
def _naming(what: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Name what raised, if it was given arguments; without any it is no fault of the user's."""
    try:
        yield
    except Exception as error:
        if not given:
            raise
        raise _failed(f"{what} with {', '.join(given)}", error) from error


def _failed(what: str, error: Exception) -> SpecError:
    """Make the error for code of the user's that raised, with the place where it did."""
    place = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and not isinstance(error, SyntaxError):
        place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
    return SpecError(f"{what} raised {type(error).__name__}: {error}{place}")
