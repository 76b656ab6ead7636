"""Second stage: lowers a recorded program, call by call, to a path graph."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import fx

from pathlen.errors import TraceError
from pathlen.graph.path_graph import PathGraph, TraceInfo
from pathlen.lowering.context import Lowering
from pathlen.lowering.inputs import check_input_axis
from pathlen.lowering.interpreter import Interpreter
from pathlen.lowering.labels import distinct
from pathlen.lowering.steps import Steps
from pathlen.lowering.weighted_builder import WeightedBuilder
from pathlen.policy import Policy, check_policy
from pathlen.tracing import Recording
from pathlen.tracing.own_numbers import own_numbers

for _module in (  # each fills its part of the table of rules
    "attention",
    "complex_numbers",
    "counting",
    "elementwise",
    "indexing",
    "layers",
    "mixing",
    "movement",
    "normalization",
    "products",
    "recurrent",
    "reduction",
    "scattering",
):
    importlib.import_module(f"pathlen.lowering.{_module}")


def lower(
    recording: Recording,
    policy: Policy,
    input_axis: int | Mapping[str, int] | None = None,
    memory_limit: int | None = None,
) -> PathGraph:
    """The path graph of a recorded program.

    Args:
        recording: what the tracer wrote.
        policy: what counts.
        input_axis: axis of the features of the inputs, instead of what the first layer tells.
        memory_limit: bytes that explicit edges with weights may take; None for connections alone.

    Raises:
        UnsupportedOperation: some operations have no rule; all of them are listed.
        TraceError: `input_axis` does not fit the inputs; weights have no values, are not finite
            or need more memory than the limit allows.
        GraphError: no path leads from an input to an output.
    """
    weights = None
    if memory_limit is not None:
        _require_values(recording)
        weights = WeightedBuilder(memory_limit)
    lowering = Lowering(policy, _parents(recording.graph), weights)
    return _lower(lowering, recording, input_axis)[0]


def lower_watched(
    recording: Recording,
    policy: Policy,
    input_axis: int | Mapping[str, int] | None = None,
) -> tuple[PathGraph, Lowering, dict[fx.Node, Any]]:
    """`lower`, with what a check of its result needs to know.

    Returns:
        The path graph; the lowering, whose `steps` tell what each call added to the graph before
        pruning, and whose constants can still be asked for; and the value of each node after the
        last call.
    """
    lowering = Lowering(policy, _parents(recording.graph))
    lowering.steps = Steps()
    lowering.constants.reads = []
    return _lower(lowering, recording, input_axis)


def _lower(
    lowering: Lowering, recording: Recording, input_axis: int | Mapping[str, int] | None
) -> tuple[PathGraph, Lowering, dict[fx.Node, Any]]:
    """Lower a program into a lowering that has seen nothing yet."""
    check_policy(lowering.policy)
    check_input_axis(recording.graph, input_axis)
    interpreter = Interpreter(recording, lowering, input_axis)
    with own_numbers(calls=False):  # constants may be drawn
        interpreter.run()
    for remark in recording.remarks:
        lowering.remark(remark, "example")
    for note in recording.notes:
        lowering.remark(note)
    for name, node in recording.outputs:
        units = distinct(lowering.unified(interpreter.values[node].labels))
        if len(units):
            lowering.builder.layer(name, "output")
            lowering.builder.outputs(units)
    lowering.settle_doubts()
    info = TraceInfo(
        tracer=recording.tracer,
        status=lowering.status,
        causes=(*recording.attempts, *lowering.remarks),
    )
    if lowering.steps is not None:
        lowering.steps.nodes = lowering.builder.arrays()
        lowering.steps.as_recorded()
    watched = lowering.steps is not None
    values = interpreter.values if watched else {}
    del interpreter  # and with it the labels of every tensor, before the graph is put together
    if not watched:
        lowering.constants.forget()
    return lowering.builder.build(info, keep=watched), lowering, values


def _require_values(recording: Recording) -> None:
    """Refuse a program whose parameters have no values, where weights are asked for."""
    names = [name for name, tensor in recording.attributes.items() if tensor.is_meta]
    if names:
        shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
        raise TraceError(
            f"edges='weights' needs values, and {len(names)} tensor(s) of the model have none (meta"
            f" device): {shown}; load its weights, or leave edges at 'connections'"
        )


def _parents(graph: fx.Graph) -> frozenset[str]:
    """Paths of the modules that call other modules."""
    parents: set[str] = set()
    for node in graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        parents.update(str(path) for path, _ in stack[:-1])
    return frozenset(parents)
