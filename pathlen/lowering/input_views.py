"""Which nodes of a program share memory, by what the schemas of operators say."""

import operator

import torch
from torch import fx

from pathlen.lowering.operations import aten, viewed_argument, written_argument
from pathlen.lowering.values import bind_call


def shared_source(node: fx.Node) -> fx.Node | None:
    """The node whose memory a node shares, None for a tensor of its own.

    An in-place call shares that of what it writes to.
    """
    if node.target is operator.getitem:
        source = node.args[0]
        whole = isinstance(source, fx.Node) and shared_source(source) is not None
        return source if whole else None  # type: ignore[return-value]
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    written = written_argument(node.target)
    name = written or viewed_argument(node.target)
    if name is None:
        return None
    source = bind_call(node.target, node.args, node.kwargs, node)[name]
    source = source[0] if isinstance(source, (list, tuple)) and source else source
    if not isinstance(source, fx.Node) or (written is None and _copies(node, source)):
        return None
    return source


def writes(node: fx.Node) -> bool:
    """Whether a node is an in-place call."""
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    return is_operator and written_argument(node.target) is not None


def views_before(base: fx.Node, last: fx.Node) -> list[fx.Node]:
    """The nodes before `last` that share the memory of `base`, in order, without it."""
    found = {base: None}
    for node in base.graph.nodes:
        if node is last:
            break
        reads = any(source in found for source in node.all_input_nodes)
        if reads and shared_source(node) in found:
            found[node] = None
    return list(found)[1:]


def _copies(node: fx.Node, source: fx.Node) -> bool:
    """Whether a call that returns a view where it can had to copy."""
    before, after = source.meta["val"], node.meta["val"]
    if not isinstance(after, torch.Tensor):
        return False  # the parts of a split
    call = bind_call(node.target, node.args, node.kwargs, node)
    if before.dtype != after.dtype or call.arguments.get("copy"):
        return True
    if call.name == "aten.contiguous":
        return bool(before.stride() != after.stride())
    if call.name in aten("reshape reshape_as flatten"):
        try:
            torch.empty_strided(before.shape, before.stride(), device="meta").view(after.shape)
        except RuntimeError:
            return True
    return False
