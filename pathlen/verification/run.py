"""`verify`: all checks of one model."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import VerificationError
from pathlen.lowering.program import lower_watched
from pathlen.policy import DEFAULT_POLICY, Policy
from pathlen.tracing import Recording, trace_model
from pathlen.tracing.arguments import as_tuple
from pathlen.tracing.guard import guarded
from pathlen.tracing.mistakes import check_model, named_arguments
from pathlen.tracing.own_numbers import own_numbers
from pathlen.tracing.programs import module_of
from pathlen.tracing.state import untouched_process
from pathlen.verification.activities import Activities
from pathlen.verification.compare import compare_with_model
from pathlen.verification.connections import Connections
from pathlen.verification.edges import Edges
from pathlen.verification.features import Features
from pathlen.verification.replay import Replay, input_tensors, wide
from pathlen.verification.spellings import Spellings
from pathlen.verification.verdict import Check, Verdict
from pathlen.verification.whole import WholeModel

TIMES_MEASURED = 10
"""How much more than `measure` may compute a check of an exported program may."""


def verify(
    model: "torch.nn.Module | Any",
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    policy: Policy = DEFAULT_POLICY,
    outputs: Any = None,
    input_axis: int | Mapping[str, int] | None = None,
    samples: int = 4,
    seed: int = 0,
    spellings: int = 3,
) -> Verdict:
    """Whether the path graph of a model is right, found out without the rules that made it.

    Six checks (docs/definitions.md says what is right):

    1. *Replay*: the recorded program gives the model's own outputs, in eval mode.
    2. *Connections*: for every call, the units of its result that depend on a unit of its
       operands have a path from it within the call, and, where the call was lowered as exact, no
       other path. Dependence is that of the Jacobian by automatic differentiation, united over
       the model's own operands and random ones, parameters included; statistics of
       normalizations and softmax are held fixed. What has no derivative (integers, rounding) is
       seen by changing it. Of more than 64 units a sample is taken, and the verdict says so.
    3. *Whole model*: no output unit depends on an input unit without a path from it.
    4. *Activities*: units are active where a line of values sent through their calls is bent.
    5. *Input features*: the units of an input are those that some parameter which reads it tells
       apart: the derivative by it changes when they do. Inputs of `input_axis` are left out.
    6. *Spellings*: the model, traced by torch.export, decomposed to core ATen by torch, and
       rewritten at random into programs that are run to see that they compute the same, has the
       same paths, averages and active units. Of a rewrite that differs the verdict names the
       fewest calls that make the difference. Models of up to 1,000 calls.

    The model runs on the CPU, on tensors with values, several times over: give it a small
    variant of the architecture. The model is left as it was.

    Args:
        model: see `pathlen.trace`.
        args: a tensor, or a tuple of positional arguments, with values.
        kwargs: keyword arguments.
        policy: what counts as a nonlinearity.
        outputs: see `pathlen.trace`.
        input_axis: see `pathlen.trace`.
        samples: most random draws for one call, beside the model's own operands.
        seed: of the random draws.
        spellings: random rewrites to measure; 0 leaves the sixth check out.

    Returns:
        The verdict, with the worst offender of every check.

    Raises:
        VerificationError: the model or its arguments have no values, or cannot be run; `samples`
            or `spellings` is too small.
        PathlenError: whatever `pathlen.trace` raises.
    """
    if samples < 1:
        raise VerificationError(f"samples={samples} is too few; draw operands at least once")
    if spellings < 0:
        raise VerificationError(f"spellings={spellings} is no number of rewrites; 0 makes none")
    check_model(model)
    positional, named = as_tuple(args), named_arguments(kwargs)
    if isinstance(model, ExportedProgram) and args is None and model.example_inputs is not None:
        positional, named = model.example_inputs[0], dict(model.example_inputs[1])
    _require_values(model, positional, named)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    recording = trace_model(model, positional, named, outputs)
    with guarded(recording.limits):
        lowered = lower_watched(recording, policy, input_axis)
    seconds["trace and lower"] = time.perf_counter() - start
    callable_model = module_of(model) if isinstance(model, ExportedProgram) else model
    limits = guarded(recording.limits, TIMES_MEASURED)
    with untouched_process(), own_numbers(seed, calls=False), _unshared(), limits:
        start = time.perf_counter()
        checks = [compare_with_model(callable_model, positional, named, recording, outputs)]
        seconds["replay"] = time.perf_counter() - start
        inputs = input_tensors(recording, positional, named)
        steps = lowered[1].steps
        assert steps is not None
        checks += _structure(recording, lowered, inputs, policy, (samples, seed), seconds)
        start = time.perf_counter()
        features = Features(recording, steps.inputs, input_axis, seed)
        checks.append(features.check(inputs))
        seconds["input features"] = time.perf_counter() - start
        if spellings:
            start = time.perf_counter()
            others = Spellings(recording, policy, input_axis, range(seed, seed + spellings))
            checks.append(others.check(model, positional, named, outputs, inputs))
            seconds["spellings"] = time.perf_counter() - start
    graph = lowered[0]
    return Verdict(
        ok=all(check.ok for check in checks),
        checks=tuple(checks),
        model=type(model).__name__,
        graph=repr(graph),
        tracer=recording.tracer,
        status=graph.info.status if graph.info is not None else "",
        samples=samples,
        seed=seed,
        seconds=seconds,
    )


def _structure(
    recording: Recording,
    lowered: Any,
    inputs: list[Any],
    policy: Policy,
    draws: tuple[int, int],
    seconds: dict[str, float],
) -> list[Check]:
    """The checks of the graph: connections of each call, the whole model, activities."""
    _, lowering, values = lowered
    edges = Edges(lowering.steps.nodes, lowering.steps.taken)
    start = time.perf_counter()
    attributes = {name: wide(tensor) for name, tensor in recording.attributes.items()}
    given = [wide(t) if isinstance(t, torch.Tensor) else t for t in inputs]
    with torch.no_grad():
        replay = Replay(recording, given, attributes, lowering.steps).run()
    connections = Connections(edges, replay.tensors, policy, *draws)
    for step in lowering.steps.taken:
        connections.add(step)
    seconds["connections"] = time.perf_counter() - start
    start = time.perf_counter()
    whole = WholeModel(recording, lowering.steps, values, edges, connections, draws[1])
    whole_check = whole.check(inputs)
    seconds["whole model"] = time.perf_counter() - start
    start = time.perf_counter()
    activities = Activities(edges, connections, replay.tensors, policy)
    for step in lowering.steps.taken:
        activities.add(step)
    seconds["activities"] = time.perf_counter() - start
    return [*connections.checks(), whole_check, activities.check()]


@contextmanager
def _unshared() -> Iterator[None]:
    """Calls in this thread share their work with no other.

    There are thousands of passes backward through small calls, and sharing each costs more than it
    saves. How many threads take part is kept for each thread that calls, and beside that for those
    that are still to be started: for these it is set back at once, which takes another thread.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    apart = threading.Thread(target=torch.set_num_threads, args=(before,))
    try:
        torch.set_num_threads(1)
        apart.start()
        apart.join()
        yield
    finally:
        torch.set_num_threads(before)


def _require_values(model: Any, args: Any, kwargs: Any) -> None:
    """Raise VerificationError if a tensor has no values or lies on another device."""
    tensors = [("args", t) for t in pytree.tree_leaves((args, kwargs))]
    if isinstance(model, torch.nn.Module):
        tensors += [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            device = "no device" if isinstance(tensor, FakeTensor) else tensor.device.type
            if device != "cpu":
                raise VerificationError(
                    f"verify runs the model on the CPU, but {name} lies on {device}; move the model"
                    " and its arguments with .cpu(), or make them with values"
                )
