"""The ladder of tracers: the fastest first, the next where it fails."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import ModelError, TraceError
from pathlen.tracing.arguments import as_tuple
from pathlen.tracing.autograd_mode import wants_gradients
from pathlen.tracing.checked import check_program, check_traced
from pathlen.tracing.choices import remarks_on
from pathlen.tracing.draws import compare_draws
from pathlen.tracing.eager import EndlessError, record
from pathlen.tracing.export import from_program, record_export
from pathlen.tracing.guard import Limits
from pathlen.tracing.mistakes import advice_on_arguments, check_model, named_arguments
from pathlen.tracing.programs import Arguments, check_example, example_of, is_plain, record_program
from pathlen.tracing.recording import (
    EXPORT,
    FAKE_TENSORS,
    GRADIENTS,
    REAL_GRADIENTS,
    REAL_TENSORS,
    Recording,
)
from pathlen.tracing.sharded import refuse_sharded
from pathlen.tracing.stated import check_stated

Rung = tuple[str, Callable[..., Recording]]
_ON_VALUES = (REAL_TENSORS, REAL_GRADIENTS)
_READS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, EndlessError)


def trace_model(model: Any, args: Any, kwargs: Mapping[str, Any] | None, outputs: Any) -> Recording:
    """One forward pass of a model as a graph of ATen calls.

    Args:
        model: a `torch.nn.Module` (`fx.GraphModule` included), a callable of tensors, or an
            `ExportedProgram`, which needs no arguments.
        args: a tensor, or a tuple of positional arguments. An exported program whose sizes are
            symbols takes the sizes of these, or of the example that it was exported with.
        kwargs: keyword arguments.
        outputs: which returned tensors count (see `select_outputs`).

    Raises:
        ModelError: the model's forward raises for these arguments on every tracer.
        TraceError: the model cannot be traced; the message says what each tracer met. Or an
            exported program of fixed sizes is given arguments of others.
        UnsafeProgram: an exported program holds more than computations, or a traced graph calls
            an operator on a file.
    """
    positional, named = as_tuple(args), named_arguments(kwargs)
    if isinstance(model, ExportedProgram):
        return _trace_program(model, None if args is None else positional, named, outputs)
    check_model(model)
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise TraceError(
            "a TorchScript model hides its Python program; pass the module that it was scripted"
            " from, or an exported program (torch.export)"
        )
    if isinstance(model, torch.nn.Module):
        refuse_sharded(model)
    if isinstance(model, fx.GraphModule):
        check_traced(model)
    return _climb(model, (positional, named), outputs, _rungs(model, positional, named))


def _trace_program(
    program: ExportedProgram, args: tuple[Any, ...] | None, kwargs: dict[str, Any], outputs: Any
) -> Recording:
    """A program that was exported already, once it is known to be nothing but computations."""
    check_program(program)
    limits = Limits.of(program)
    given = args is not None or bool(kwargs)
    if is_plain(program):
        if given:
            check_example(program, args or (), kwargs)
        check_stated(program)
        recording = from_program(program, outputs)
        return replace(recording, remarks=remarks_on(recording.graph), limits=limits)
    arguments = (args or (), kwargs) if given else example_of(program)
    rungs = _program_rungs(given or program.example_inputs is not None, limits)
    return replace(_climb(program, arguments, outputs, rungs), limits=limits)


def trace_values(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
) -> Recording:
    """One forward pass of a model on the tensors given, as the model itself would run on them.

    Raises:
        ModelError: the model's forward raises for these arguments.
        TraceError: the model cannot be traced.
    """
    rungs = [rung for rung in _rungs(model, args, kwargs) if rung[0] in _ON_VALUES]
    return _climb(model, (args, kwargs), outputs, rungs)


def _climb(model: Any, arguments: Arguments, outputs: Any, rungs: list[Rung]) -> Recording:
    """What the first tracer gives that can follow the model."""
    attempts: list[tuple[str, Exception]] = []
    try:
        return _first(model, arguments, outputs, rungs, attempts)
    finally:
        attempts.clear()  # they hold frames that hold them: what was computed there would stay


def _first(
    model: Any,
    arguments: Arguments,
    outputs: Any,
    rungs: list[Rung],
    attempts: list[tuple[str, Exception]],
) -> Recording:
    """The same; what the others have raised is added to a list."""
    for name, tracer in rungs:
        if name == EXPORT and any(isinstance(error, _READS_VALUES) for _, error in attempts):
            continue  # it runs on fake tensors too, and would fail on the same line
        takes_gradients = any(wants_gradients(error) for _, error in attempts)
        if name in (GRADIENTS, REAL_GRADIENTS) and not takes_gradients:
            continue
        try:
            recording = tracer(model, *arguments, outputs)
        except Exception as error:  # a model may raise anything; all of it is shown below
            attempts.append((name, error))
        else:
            said = tuple(f"{rung}: {_first_line(error)}" for rung, error in attempts)
            reads = any(_is_about_values(error) for _, error in attempts)
            again = partial(_again, tracer, model, arguments, outputs)
            recording, drawn = compare_draws(recording, again)
            reads &= recording.needs_values
            remarks = remarks_on(recording.graph, reads_values=reads, drawn=drawn)
            return replace(recording, attempts=said, remarks=(*recording.remarks, *remarks))
    raise _refusal(model, attempts, arguments) from attempts[-1][1]


def _again(
    tracer: Callable[..., Recording], model: Any, arguments: Arguments, outputs: Any, seed: int
) -> Recording:
    """What a tracer records where other random numbers are drawn."""
    return tracer(model, *arguments, outputs, seed=seed)


def _rungs(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Rung]:
    rungs: list[Rung] = [
        (FAKE_TENSORS, partial(record, fake=True)),
        (GRADIENTS, partial(record, fake=True, gradients=True)),
    ]
    if isinstance(model, torch.nn.Module):
        rungs.append((EXPORT, record_export))
    tensors = [
        leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
    ]
    if isinstance(model, torch.nn.Module):
        tensors += [*model.parameters(), *model.buffers()]
    if not any(tensor.is_meta for tensor in tensors):
        rungs.append((REAL_TENSORS, partial(record, fake=False)))
        rungs.append((REAL_GRADIENTS, partial(record, fake=False, gradients=True)))
    return rungs


def _program_rungs(has_values: bool, limits: Limits) -> list[Rung]:
    """Tracers of an exported program that has to be run."""
    rungs: list[Rung] = [(FAKE_TENSORS, partial(record_program, fake=True, limits=limits))]
    if has_values:
        rungs.append((REAL_TENSORS, partial(record_program, fake=False, limits=limits)))
    return rungs


def _refusal(model: Any, attempts: list[tuple[str, Exception]], arguments: Arguments) -> TraceError:
    kind = type(model).__name__
    told = "\n".join(f"  {name}: {_first_line(error)}" for name, error in attempts)
    name, error = attempts[-1]
    if isinstance(error, TraceError):
        return type(error)(f"{kind}: {error}")
    if name not in _ON_VALUES and any(_is_about_values(error) for _, error in attempts):
        return TraceError(
            f"{kind} reads values, which tensors on the meta device do not have: give the model and"
            f" its arguments values (on the CPU, with random weights). What was tried:\n{told}"
        )
    if name in _ON_VALUES or len({_first_line(e) for _, e in attempts}) == 1:
        blamed = "" if wants_gradients(error) else " for these arguments"
        return ModelError(
            f"{kind} raised {type(error).__name__}{blamed}: {error}\n"
            f"{_advice(error, arguments)} What was tried:\n{told}"
        )
    return TraceError(f"{kind} could not be traced:\n{told}")


def _advice(error: Exception, arguments: Arguments) -> str:
    """What to do about a model that raises."""
    said = str(error).lower()  # "Found no NVIDIA driver" is what builds for CUDA say
    if ("cuda" in said or "nvidia" in said) and not torch.cuda.is_available():
        return (
            "The model asks for CUDA, which is not available here: make it run on the device of its"
            " inputs, or trace it where CUDA is and save the graph (PathGraph.save)."
        )
    if wants_gradients(error):
        return (
            "Its forward takes derivatives. It was run with gradients on, as models are; what it"
            " differentiates by has to require grad: x = x.requires_grad_() in the forward, or"
            " inputs that require grad when they are passed."
        )
    return advice_on_arguments(*arguments)


def _is_about_values(error: Exception) -> bool:
    """Whether a tracer met a program that asks a tensor without data for its values."""
    return isinstance(error, _READS_VALUES) or ".numpy()" in str(error)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
