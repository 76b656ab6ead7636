"""The second tracer: torch.export, and models that come as exported programs already."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx

from pathlen.errors import TraceError
from pathlen.one_thread import unwarned
from pathlen.tracing.arguments import named_tensors, select_outputs
from pathlen.tracing.autograd_mode import autograd_mode
from pathlen.tracing.draws import watched_draws
from pathlen.tracing.own_numbers import own_numbers
from pathlen.tracing.programs import is_plain, record_program
from pathlen.tracing.recording import EXPORT, Recording, computes_nothing
from pathlen.tracing.state import untouched


def record_export(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    seed: int | None = None,
) -> Recording:
    """Record `model` in eval mode by `torch.export.export(strict=False)`.

    Args:
        model: the model.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        outputs: which returned tensors count (see `select_outputs`).
        seed: for other random numbers than those that it is recorded with by default.

    Raises:
        TraceError: no floating-point output.
        Exception: whatever torch.export or the model raises.
    """
    with untouched(model), watched_draws(model, seed) as drawn:
        program = _export(model, args, kwargs)
    if is_plain(program):
        recording = from_program(program, outputs, EXPORT)
    else:
        recording = record_program(program, args, kwargs, outputs, fake=True)
    return replace(recording, tracer=EXPORT, draws=drawn.seen)


def export_program(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.export.ExportedProgram:
    """`torch.export.export(strict=False)` in eval mode.

    Raises:
        Exception: whatever torch.export or the model raises.
    """
    with untouched(model), own_numbers():
        return _export(model, args, kwargs)


def _export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.export.ExportedProgram:
    with autograd_mode(gradients=True), unwarned():  # torch.export's advice is for deployment
        return torch.export.export(model, args, kwargs, strict=False)


def from_program(program: Any, outputs: Any, tracer: str = "exported program") -> Recording:
    """The recording behind an `ExportedProgram`.

    Parameters and buffers, which export passes as arguments, become get_attr nodes again.
    """
    signature = program.graph_signature
    state = {**program.state_dict, **program.constants}
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op == "output" or computes_nothing(node.target):
            continue
        if node.op == "placeholder" and node.name in targets:
            copies[node] = graph.create_node("get_attr", targets[node.name], (), {})
        else:
            copies[node] = graph.node_copy(node, partial(_copy_of, copies))
        copies[node].meta = dict(node.meta)
    attributes = {target: state[target] for target in targets.values()}
    named = _outputs(program, copies, outputs)
    graph.output(tuple(node for _, node in named))
    return Recording(graph, attributes, named, tracer)


def _copy_of(copies: dict[fx.Node, fx.Node], node: fx.Node) -> fx.Node:
    if node not in copies:
        raise TraceError(
            f"the exported program uses what {node.name!r} returns, but {node.target} computes"
            " nothing; export the model again"
        )
    return copies[node]


def _outputs(
    program: Any, copies: dict[fx.Node, fx.Node], outputs: Any
) -> tuple[tuple[str, fx.Node], ...]:
    """Output tensors in the nest that the model returned, so that they carry its names."""
    returned = next(node for node in program.graph.nodes if node.op == "output").args[0]
    user_outputs = set(program.graph_signature.user_outputs)
    flat = [item for item in returned if getattr(item, "name", item) in user_outputs]
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(flat):
        raise TraceError("the exported program does not say which tensors it returns")
    nest = spec.unflatten(
        [item.meta["val"] if isinstance(item, fx.Node) else item for item in flat]
    )
    node_of = {id(item.meta["val"]): item for item in flat if isinstance(item, fx.Node)}
    chosen = select_outputs(named_tensors(nest, ""), outputs)
    return tuple((name or "output", copies[node_of[id(tensor)]]) for name, tensor in chosen)
