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

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from pathlen.errors import SpecError, TraceError
from pathlen.printable import shown
from pathlen.specs.callables import called_model
from pathlen.specs.libraries import timm_model, torchvision_model
from pathlen.specs.parts import FORMS, InputShape, ResolvedModel, only
from pathlen.specs.saved_programs import load_exported_program

if TYPE_CHECKING:
    import torch

__all__ = ["InputShape", "ResolvedModel", "code_of", "make_model", "resolve"]

_LIBRARIES = _TORCHVISION, _TIMM = "torchvision", "timm"
NOTHING: Mapping[str, Any] = MappingProxyType({})


def resolve(spec: str, inputs: Sequence[InputShape] = (), *, device: str = "cpu") -> ResolvedModel:
    """Make the model that a SPEC names, and its example arguments.

    Args:
        spec: One of the forms above.
        inputs: Shapes of the example inputs; they go before what is known of the model. Those of a
            saved program must be those that it was exported for, unless its sizes are symbols.
        device: Where torchvision's and timm's models and the inputs are made: "cpu" or "meta".

    Returns:
        The model in eval mode, with arguments.

    Raises:
        SpecError: The SPEC cannot be resolved, or no example input is known.
    """
    resolved = _resolve_model(spec, device)
    if inputs:
        args = tuple(one.make(device) for one in inputs)
        if spec.endswith(".pt2"):
            _check_example(spec, resolved.model, args)
        resolved = ResolvedModel(resolved.model, args, {})
    if resolved.args is None:
        raise SpecError(
            f"no example input is known for {shown(spec)}; give one with --input 1,3,224,224"
        )
    return resolved


def _check_example(spec: str, program: Any, args: tuple[Any, ...]) -> None:
    """Check that inputs are such as a saved program takes.

    Raises:
        SpecError: They are not.
    """
    from pathlen.tracing.programs import check_example

    try:
        check_example(program, args, {})
    except TraceError as error:
        raise SpecError(f"--input does not fit {spec!r}: {error}") from error


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
        raise SpecError(f"{shown(spec)} is a saved program, which cannot be trained; give {FORMS}")
    return cast("torch.nn.Module", _resolve_model(spec, "cpu", options, wanted).model).train()


def code_of(spec: str, options: Mapping[str, Any]) -> str | None:
    """Why making a model may run code of whoever wrote its SPEC and options; None if it cannot.

    Models of torchvision and timm are code that is installed. Their builders take paths of
    checkpoints, which they may unpickle, among their texts and mappings; numbers can do no harm.
    """
    source, _, name = spec.partition(":")
    if source not in _LIBRARIES or not name:
        return "to make the model is to run that code"
    risky = [key for key, value in options.items() if not _is_plain(value)]
    if risky:
        return (
            f"its {', '.join(map(shown, risky[:3]))} may make {source} read other files or run code"
        )
    return None


def _is_plain(value: object) -> bool:
    """Whether a value holds nothing but numbers, true, false and null."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float)


def _resolve_model(
    spec: str,
    device: str,
    options: Mapping[str, Any] = NOTHING,
    wanted: Mapping[str, Any] = NOTHING,
) -> ResolvedModel:
    if spec.endswith(".onnx"):
        raise SpecError(
            f"{shown(spec)} is an ONNX file, which pathlen does not read: exporters fuse, split and"
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
    if source == _TORCHVISION and name:
        return torchvision_model(name, device, {**only(wanted, "num_classes"), **options})
    if source == _TIMM and name:
        named = only(wanted, "num_classes")
        if "in_channels" in wanted:
            named["in_chans"] = wanted["in_channels"]
        return timm_model(name, device, {**named, **options})
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise SpecError(f"cannot tell what {shown(spec)} is; a SPEC is {FORMS}")
    return called_model(source, name, options, wanted)
