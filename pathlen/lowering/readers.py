"""Who reads what in a recorded program."""

import torch
from torch import fx

from pathlen.lowering.operations import makes_constant, written_argument
from pathlen.tracing import Recording


def count_readers(recording: Recording) -> dict[int, int]:
    """How many calls that matter for the outputs read each node's result.

    In-place calls count as mattering: they may write to what an output is a view of. Calls that
    take no more than a shape (zeros_like) read nothing.
    """
    live: set[fx.Node] = set()
    queue = [node for _, node in recording.outputs]
    for node in recording.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and written_argument(node.target) is not None:
            queue.append(node)
    while queue:
        node = queue.pop()
        if node not in live and not _reads_shape_only(node):
            live.add(node)
            queue += node.all_input_nodes
    outputs = {node for _, node in recording.outputs}
    return {
        id(node): sum(user in live for user in node.users) + (node in outputs)
        for node in recording.graph.nodes
    }


def _reads_shape_only(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and makes_constant(node.target)
