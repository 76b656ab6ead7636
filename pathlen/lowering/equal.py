"""Whether two tensors of a program are known to be equal."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.operations import aten, operation_name
from pathlen.lowering.values import Value, bind_call

_RESHAPES = frozenset(aten("view reshape unsqueeze squeeze expand expand_as _unsafe_view alias"))


def equal(one: Value, other: Value) -> bool:
    """Whether two values are known to be equal, apart from how they were expanded."""
    return _equal(_unshaped(one), _unshaped(other))


def _unshaped(value: Value) -> Value | fx.Node:
    """An index before it was expanded to the shape of what is written there."""
    while value.call is not None and value.call.name in _RESHAPES:
        value = value.call["self"]
    if value.varies:
        return value
    node = value.node  # constants keep no calls
    while isinstance(node.target, torch._ops.OpOverload):
        if operation_name(node.target) not in _RESHAPES:
            break
        node = node.all_input_nodes[0]
    return node


def _equal(one: Value | fx.Node, other: Value | fx.Node) -> bool:
    """Whether they are one value, or equal calls on equal operands."""
    compared: set[tuple[int, int]] = set()
    pairs: list[tuple[Any, Any]] = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if left is right or (id(left), id(right)) in compared:
            continue
        compared.add((id(left), id(right)))
        if not any(isinstance(v, Value) and (v.varies or v.call) for v in (left, right)):
            left, right = (v.node if isinstance(v, Value) else v for v in (left, right))
        parts = list(_parts(left)), list(_parts(right))
        if not parts[0] or len(parts[0]) != len(parts[1]):
            return False
        for a, b in zip(*parts, strict=True):
            if isinstance(a, (Value, fx.Node)) and isinstance(b, (Value, fx.Node)):
                pairs.append((a, b))
            elif type(a) is not type(b) or a != b:
                return False
    return True


def _parts(value: Value | fx.Node) -> Iterator[Any]:
    """The operator that made a tensor and all that it was given; nothing where that is random."""
    node = value.node if isinstance(value, Value) else value
    if isinstance(value, fx.Node) and node.op == "get_attr":
        yield node.target
        return
    call = value.call if isinstance(value, Value) else None
    if call is None and isinstance(value, fx.Node) and hasattr(node.target, "_schema"):
        call = bind_call(node.target, node.args, node.kwargs, node)
    if call is None or torch.Tag.nondeterministic_seeded in call.func.tags:
        return
    yield call.func
    yield node.args[1] if node.target is operator.getitem else None  # which part of a split
    yield from pytree.tree_leaves(dict(call.arguments))


class Same:
    """A value that is equal to another one if both are computed alike."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and equal(self._value, other._value)

    def __hash__(self) -> int:
        return 0
