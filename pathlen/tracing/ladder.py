"""The ladder of tracers: the fastest first, the next where it fails."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import ModelError, TraceError
from pathlen.tracing.arguments import as_tuple
from pathlen.tracing.eager import EndlessError, record
from pathlen.tracing.export import from_program, record_export
from pathlen.tracing.recording import FAKE_TENSORS, GRADIENTS, REAL_TENSORS, Recording
from pathlen.tracing.sharded import refuse_sharded

_READS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, EndlessError)


def trace_model(model: Any, args: Any, kwargs: dict[str, Any] | None, outputs: Any) -> Recording:
    """One forward pass of a model as a graph of ATen calls.

    Args:
        model: a `torch.nn.Module` (`fx.GraphModule` included), a callable of tensors, or an
            `ExportedProgram`, which needs no arguments.
        args: a tensor, or a tuple of positional arguments.
        kwargs: keyword arguments.
        outputs: which returned tensors count (see `select_outputs`).

    Raises:
        ModelError: the model's forward raises for these arguments on every tracer.
        TraceError: the model cannot be traced; the message says what each tracer met.
    """
    if isinstance(model, ExportedProgram):
        return from_program(model, outputs)
    if not callable(model):
        raise TraceError(f"expected a torch.nn.Module or an ExportedProgram, got {type(model)}")
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise TraceError(
            "a TorchScript model hides its Python program; pass the module that it was scripted"
            " from, or an exported program (torch.export)"
        )
    if isinstance(model, torch.nn.Module):
        refuse_sharded(model)
    positional, named = as_tuple(args), dict(kwargs or {})
    attempts: list[tuple[str, Exception]] = []
    for name, tracer in _rungs(model, positional, named):
        if name == "torch.export" and isinstance(attempts[0][1], _READS_VALUES):
            continue  # it runs on fake tensors too, and would fail on the same line
        if name == GRADIENTS and not any("require grad" in str(error) for _, error in attempts):
            continue
        try:
            recording = tracer(model, positional, named, outputs)
        except Exception as error:  # a model may raise anything; all of it is shown below
            attempts.append((name, error))
        else:
            said = tuple(f"{rung}: {_first_line(error)}" for rung, error in attempts)
            return replace(recording, attempts=said)
    raise _refusal(model, attempts) from attempts[-1][1]


def _rungs(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Callable[..., Recording]]]:
    rungs: list[tuple[str, Callable[..., Recording]]] = [(FAKE_TENSORS, partial(record, fake=True))]
    rungs.append((GRADIENTS, partial(record, fake=True, gradients=True)))
    if isinstance(model, torch.nn.Module):
        rungs.append(("torch.export", record_export))
    tensors = [
        leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
    ]
    if isinstance(model, torch.nn.Module):
        tensors += [*model.parameters(), *model.buffers()]
    if not any(tensor.is_meta for tensor in tensors):
        rungs.append((REAL_TENSORS, partial(record, fake=False)))
    return rungs


def _refusal(model: Any, attempts: list[tuple[str, Exception]]) -> TraceError:
    kind = type(model).__name__
    told = "\n".join(f"  {name}: {_first_line(error)}" for name, error in attempts)
    name, error = attempts[-1]
    if isinstance(error, TraceError):
        return type(error)(f"{kind}: {error}")
    if name == REAL_TENSORS or len({_first_line(e) for _, e in attempts}) == 1:
        return ModelError(
            f"{kind} raised {type(error).__name__} for these arguments: {error}\n"
            f"{_advice(error)} What was tried:\n{told}"
        )
    return TraceError(f"{kind} could not be traced:\n{told}")


def _advice(error: Exception) -> str:
    """What to do about a model that raises."""
    said = str(error).lower()  # "Found no NVIDIA driver" is what builds for CUDA say
    if ("cuda" in said or "nvidia" in said) and not torch.cuda.is_available():
        return (
            "The model asks for CUDA, which is not available here: make it run on the device of its"
            " inputs, or trace it where CUDA is and save the graph (PathGraph.save)."
        )
    return "Check that args and kwargs are what the model's forward expects."


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
