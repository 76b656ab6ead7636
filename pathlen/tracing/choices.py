"""What in a program depends on the values of its example, or on numbers drawn at random.

Such a program is one of several: another example may take another branch, keep another number of
boxes, send its tokens to other experts.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.tracing.recording import module_path

_RANDOM = torch.Tag.nondeterministic_seeded
_READS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_UNTAGGED = (  # what is made of calls that have such a tag
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.item.default,
    torch.ops.aten.where.default,
    torch.ops.aten.nonzero_numpy.default,
)
_BRANCH = (
    "this example takes one of several branches: values decide in {}; another example may have"
    " another path graph"
)
_DROPOUT = ("train", "training", "dropout", "dropout_p")  # arguments
_ARITHMETIC = (torch.ops.aten.mul, torch.ops.aten.mul_, torch.ops.aten.div)
_INDEX = (torch.ops.aten.index.Tensor,)  # of dynamic shape where a mask is among the indices


def remarks_on(
    graph: fx.Graph, *, reads_values: bool = False, drawn: Iterable[fx.Node] = ()
) -> tuple[str, ...]:
    """In plain words, what makes a recorded program one of several; () where nothing does.

    Args:
        graph: the recorded program.
        reads_values: whether it is known to read values, which may be past all calls.
        drawn: constants of the program that are drawn at random.
    """
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    reading = [node for node in nodes if _reads_values(node)]
    drawing = [*drawn, *(node for node in nodes if _draws(node))]
    remarks = []
    if reads_values and not reading:  # `tolist` and `numpy` are no calls
        remarks.append(_BRANCH.format("its Python code"))
    if reading:
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        reached = _reached([*inputs, *drawing])
        if found := [node for node in reading if reached.intersection(_deciding(node))]:
            remarks.append(_BRANCH.format(_places(found)))
    if drawing and (found := _chosen_by(drawing, graph)):
        remarks.append(
            f"numbers drawn at random choose connections in {_places(found)}: this is one draw of"
            " several"
        )
    return tuple(remarks)


def _reads_values(node: fx.Node) -> bool:
    """Whether a call gives a number to Python, or a result whose shape depends on values."""
    if node.target in _INDEX:
        return any(val.dtype in (torch.bool, torch.uint8) for val in _vals(node.args[1]))
    if node.kwargs.get("output_size") is not None:  # of repeat_interleave
        return False
    if node.target is torch.ops.aten.one_hot.default and node.args[1:] not in ((), (-1,)):
        return False
    return _is_of(node.target, _READS) or node.target in _UNTAGGED


def _deciding(node: fx.Node) -> list[fx.Node]:
    """The operands of such a call whose values it reads: the mask, where there is one."""
    if node.target not in (*_INDEX, torch.ops.aten.masked_select.default):
        return node.all_input_nodes
    return [leaf for leaf in pytree.tree_leaves(node.args[1]) if isinstance(leaf, fx.Node)]


def _draws(node: fx.Node) -> bool:
    """Whether a call draws numbers; a dropout, wherever it is a part of, chooses nothing."""
    if not _is_of(node.target, (_RANDOM,)):
        return False
    return not any(argument.name in _DROPOUT for argument in node.target._schema.arguments)  # type: ignore[union-attr]


@cache
def _is_of(func: Any, tags: tuple[torch.Tag, ...]) -> bool:
    return isinstance(func, torch._ops.OpOverload) and any(tag in func.tags for tag in tags)


def _reached(sources: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes that are computed from some, these included."""
    reached: set[fx.Node] = set()
    queue = list(sources)
    while queue:
        node = queue.pop()
        if node not in reached:
            reached.add(node)
            queue += node.users
    return reached


def _chosen_by(drawing: list[fx.Node], graph: fx.Graph) -> list[fx.Node]:
    """The calls in which masks or indices that are drawn meet what comes from the inputs."""
    drawn = set(drawing)
    varying: set[fx.Node] = set()
    chosen = []
    for node in graph.nodes:
        operands = node.all_input_nodes
        if node.op == "placeholder" or (
            node not in drawn and any(operand in varying for operand in operands)
        ):
            varying.add(node)
            scales = getattr(node.target, "overloadpacket", None) in _ARITHMETIC
            if not scales and any(o in drawn and _is_mask(o) for o in operands):
                chosen.append(node)
        elif any(operand in drawn for operand in operands):
            drawn.add(node)
    return chosen


def _is_mask(node: fx.Node) -> bool:
    return any(not (val.is_floating_point() or val.is_complex()) for val in _vals(node))


def _vals(argument: Any) -> list[torch.Tensor]:
    """The tensors without data of the nodes in an argument."""
    nodes = [leaf for leaf in pytree.tree_leaves(argument) if isinstance(leaf, fx.Node)]
    vals = [val for node in nodes for val in pytree.tree_leaves(node.meta.get("val"))]
    return [val for val in vals if isinstance(val, torch.Tensor)]


def _places(nodes: list[fx.Node]) -> str:
    """Where some calls are, in words."""
    first = nodes[0]
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"module {module_path(first) or '(top level)'!r} ({first.target}{more})"
