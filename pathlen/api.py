"""The whole way from a model to a report, stage by stage."""

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pathlen.collection import uncollected
from pathlen.errors import BackendError, PathlenError
from pathlen.graph.path_graph import PathGraph
from pathlen.policy import DEFAULT_POLICY, Policy, check_policy
from pathlen.report.report import Report

if TYPE_CHECKING:
    import torch

MEMORY_LIMIT = 4 << 30
"""Bytes that the explicit edges of `edges="weights"` may take by default."""


def trace(
    model: "torch.nn.Module | Any",
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    policy: Policy = DEFAULT_POLICY,
    outputs: Any = None,
    input_axis: int | Mapping[str, int] | None = None,
    edges: Literal["connections", "weights"] = "connections",
    memory_limit: int = MEMORY_LIMIT,
) -> PathGraph:
    """The path graph of a model (docs/definitions.md): its units, hubs and which feeds which.

    The model is run once, in eval mode, on tensors without data (see the ladder of tracers); its
    mode, parameters, buffers, hooks and the random state are afterwards what they were.

    Args:
        model: a module, an `fx.GraphModule`, or an `ExportedProgram` (which needs no arguments).
        args: a tensor, or a tuple of positional arguments. Only shapes and dtypes matter.
        kwargs: keyword arguments.
        policy: what counts as a nonlinearity.
        outputs: which returned tensors are outputs: a name, a position, a list of them, or a
            function of (name, tensor). By default all floating-point tensors except caches.
        input_axis: the axis of the features of the inputs (or a mapping from input names to
            axes), instead of the axis that the first layer to read an input tells apart.
        edges: "connections" are those of generic weights, and a layer is a hub. "weights" takes
            the weights that the model has: a layer has an edge for each weight that is not 0
            (`PathGraph.weights`), and what is cut off drops out and is listed
            (`TraceInfo.dead`). Parameters must have values then.
        memory_limit: bytes that the edges of "weights" may take.

    Raises:
        ModelError: the model's forward raises for these arguments.
        UnsupportedOperation: operations without a rule; all of them are listed.
        UnsafeProgram: an exported program holds more than computations, or takes too much.
        TraceError: no tracer can follow the model, or it returns no floating-point tensor; or
            weights are asked for and have no values (meta device), are not finite, or need more
            memory than the limit.
        GraphError: no path leads from an input to an output, or every one over a weight of 0.
        ActivityError: a slope is not a number.
        PathlenError: `edges` is unknown.
    """
    if edges not in ("connections", "weights"):
        raise PathlenError(f"edges={edges!r} is unknown; choose 'connections' or 'weights'")
    if not isinstance(memory_limit, int | float):
        raise PathlenError(f"memory_limit={memory_limit!r} is no number of bytes, such as 4 << 30")
    check_policy(policy)
    with uncollected():
        from pathlen.lowering import lower
        from pathlen.tracing import trace_model
        from pathlen.tracing.guard import guarded
        from pathlen.tracing.state import on_cpu

    start = time.perf_counter()
    recording = trace_model(model, args, kwargs, outputs)
    recorded = time.perf_counter()
    with on_cpu(), guarded(recording.limits):
        limit = memory_limit if edges == "weights" else None
        graph = lower(recording, policy, input_axis, limit)
    assert graph.info is not None
    seconds = {"trace": recorded - start, "lower": time.perf_counter() - recorded}
    return graph.with_info(dataclasses.replace(graph.info, seconds=seconds))


def measure(
    model_or_graph: "PathGraph | torch.nn.Module | Any",
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str = "auto",
    exact: bool = False,
    policy: Policy = DEFAULT_POLICY,
    outputs: Any = None,
    input_axis: int | Mapping[str, int] | None = None,
    edges: Literal["connections", "weights"] = "connections",
    memory_limit: int = MEMORY_LIMIT,
) -> Report:
    """How deep a network is: path counts, average path lengths and what each layer adds.

    Args:
        model_or_graph: a model (see `trace`), or a graph that was traced or built before.
        args: a tensor, or a tuple of positional arguments; none for a graph.
        kwargs: keyword arguments; none for a graph.
        backend: name of the solver, "auto" to let pathlen choose.
        exact: give integers and Fractions instead of floats.
        policy: what counts as a nonlinearity.
        outputs: see `trace`.
        input_axis: see `trace`.
        edges: see `trace`.
        memory_limit: see `trace`.

    Raises:
        BackendError: no such backend, or one that is not exact where `exact` is asked for.
        PathlenError: arguments or options of tracing were given with a graph, or whatever
            `trace` raises.
    """
    from pathlen import backends

    solver = None if backend == "auto" else backends.get(backend)
    if exact and solver is not None and not solver.capabilities.exact:
        raise BackendError(
            f"backend {solver.name!r} computes in floating point; exact=True needs the backend"
            " 'exact' (or backend='auto')"
        )
    if isinstance(model_or_graph, PathGraph):
        if args is not None or kwargs is not None:
            raise PathlenError("a path graph is measured as it is: leave args and kwargs out")
        if policy != DEFAULT_POLICY or (outputs, input_axis, edges) != (None, None, "connections"):
            raise PathlenError(
                "a path graph is measured as it is: policy, outputs, input_axis and edges matter"
                " when a model is traced; give them to pathlen.trace"
            )
        graph = model_or_graph
    else:
        graph = trace(
            model_or_graph,
            args,
            kwargs,
            policy=policy,
            outputs=outputs,
            input_axis=input_axis,
            edges=edges,
            memory_limit=memory_limit,
        )
    if solver is None:
        solver, _ = backends.choose(graph, exact)
    start = time.perf_counter()
    solution = solver.solve(graph)
    seconds = {**(graph.info.seconds if graph.info else {}), "solve": time.perf_counter() - start}
    return Report.build(graph, solution, backend=solver.name, seconds=seconds, exact=exact)
