"""Who reads what in a recorded program."""

import operator
from collections.abc import Mapping

import torch
from torch import fx

from pathlen.lowering.operations import makes_constant, viewed_argument, written_argument
from pathlen.lowering.values import bind_call
from pathlen.tracing import Recording


def count_readers(recording: Recording) -> dict[int, int]:
    """How many calls that matter for the outputs read each node's result.

    In-place calls count as mattering: they may write to what an output is a view of. Only those to
    new memory that nothing else reads do not. Calls that take no more than a shape (zeros_like),
    or a view to write to, read nothing. What is read after an in-place call is the call's result,
    whether by its own name or by that of the tensor that it wrote to.
    """
    targets = {node: _written(node) for node in recording.graph.nodes}
    live = _live(recording, targets) - _only_written(recording, targets)
    count = dict.fromkeys(recording.graph.nodes, 0)
    first: dict[fx.Node, fx.Node] = {}  # the tensor behind the result of an in-place call
    latest: dict[fx.Node, fx.Node] = {}  # the call that wrote last to a tensor
    for node in recording.graph.nodes:
        if node in live:
            for operand in node.all_input_nodes:
                count[latest.get(first.get(operand, operand), operand)] += 1
        target = targets[node]
        if target is not None:
            first[node] = first.get(target, target)
            latest[first[node]] = node
    for node in {node for _, node in recording.outputs}:
        count[latest.get(first.get(node, node), node)] += 1
    return {id(node): number for node, number in count.items()}


def _live(recording: Recording, targets: Mapping[fx.Node, fx.Node | None]) -> set[fx.Node]:
    """The calls that matter for the outputs, and those that write, but for writes to new memory."""
    live: set[fx.Node] = set()
    queue = [node for _, node in recording.outputs]
    to_new: dict[fx.Node, list[fx.Node]] = {}  # what writes to memory that a call has made
    memories = _memories(recording.graph)
    for node, target in targets.items():
        if target is not None:
            memory = memories[target]
            (to_new.setdefault(memory, []) if _is_new(memory) else queue).append(node)
    while queue:
        node = queue.pop()
        queue += to_new.pop(node, ())
        if node not in live and not _reads_shape_only(node):
            live.add(node)
            queue += node.all_input_nodes
    return live


def _only_written(recording: Recording, targets: Mapping[fx.Node, fx.Node | None]) -> set[fx.Node]:
    """The calls whose results are written to and not read: they say where."""
    found: set[fx.Node] = set()
    for node in reversed(recording.graph.nodes):
        users = [u for u in node.users if u not in found]
        writes = all(targets[user] is node and not user.users for user in users)
        if node.users and writes and targets[node] is None:
            found.add(node)
    return found


def _written(node: fx.Node) -> fx.Node | None:
    """The node of the tensor that a call writes to, None where it writes to none."""
    schema = getattr(node.target, "_schema", None)
    name = written_argument(node.target) if schema is not None else None
    if name is None:
        return None
    written = bind_call(node.target, node.args, node.kwargs, node)[name]
    return written if isinstance(written, fx.Node) else None


def _memories(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """By node, the one whose memory it is a view of, or a write to, as far as schemas tell."""
    memories: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        source: object = None
        if node.target is operator.getitem:
            source = node.args[0]
        elif isinstance(node.target, torch._ops.OpOverload):
            name = written_argument(node.target) or viewed_argument(node.target)
            source = name and bind_call(node.target, node.args, node.kwargs, node)[name]
        memories[node] = memories[source] if isinstance(source, fx.Node) else node
    return memories


def _is_new(node: fx.Node) -> bool:
    """Whether a call makes memory of its own, which nothing else has seen."""
    return node.op == "call_function" and (not node.all_input_nodes or _reads_shape_only(node))


def _reads_shape_only(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and makes_constant(node.target)
