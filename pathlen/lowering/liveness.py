"""Lets go of labels that nothing in the rest of a program can ask for.

A value is kept by the calls that read it, and these by the values that they make, so without this
every label tensor of a program would live until its end. Where a program narrows to one tensor
that varies (between the blocks of a network), whatever comes later is computed from that one: a
region that ends later begins there or after it, or in what `regions` follows from there, back to
the last layer or merge.
"""

import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Value, varying_operands
from pathlen.lowering.views import may_view
from pathlen.tracing import Recording

_LAYERS = frozenset({"layer", "contraction"})  # no history is followed through these


class Liveness:
    """Knows which nodes of a program are still to be read.

    Args:
        recording: the program.

    Attributes:
        number: of each node, in order.
    """

    def __init__(self, recording: Recording) -> None:
        nodes = list(recording.graph.nodes)
        self.number = {node: number for number, node in enumerate(nodes)}
        self._last = {
            node: max((self.number[user] for user in node.users), default=0) for node in nodes
        }
        for _, node in recording.outputs:
            self._last[node] = len(nodes)
        for node in reversed(nodes):  # memory is in use while any view of it is
            if _may_share_memory(node):
                for source in node.all_input_nodes:
                    self._last[source] = max(self._last[source], self._last[node])
        self._ending: Counter[int] = Counter()
        self._live = 0
        self._held: set[fx.Node] = set()

    def holds(self, base: fx.Node) -> None:
        """Take note of memory that the inputs reach because something was written to it."""
        if base not in self._held:
            self._held.add(base)
            self._live += 1
            self._ending[self._last[base]] += 1

    def narrows_at(self, node: fx.Node, value: Any) -> bool:
        """Take note of a node's value; whether nothing else that varies will be read any more."""
        now = self.number[node]
        self._live -= self._ending.pop(now, 0)
        values = (value,) if isinstance(value, Value) else pytree.tree_leaves(value)
        varies = any(v.varies for v in values if isinstance(v, Value))
        if not varies or self._last[node] <= now:
            return False
        self._live += 1
        self._ending[self._last[node]] += 1
        return self._live == 1 and isinstance(value, Value)

    def goes_on_at(self, link: fx.Node) -> None:
        """Go on where another node is the only one that varies and will be read."""
        self._live, self._ending = 1, Counter({self._last[link]: 1})


def visible(last: Value, readers: Mapping[int, int]) -> list[Value]:
    """All values that can be asked for once one alone is left that varies and will be read.

    No region reaches through a merge: where one could, it would have been no merge.

    Args:
        last: that one.
        readers: how many calls read the result of a node.
    """
    kept: dict[int, Value] = {}
    reads: Counter[int] = Counter()
    queue, parts = [last], [*last.parts]
    while queue or parts:
        is_part = not queue
        value = parts.pop() if is_part else queue.pop()
        if id(value) in kept:
            continue
        kept[id(value)] = value
        below = [] if value.function_of is None else [value.function_of]
        if value.call is not None and not cuts_history(value):
            below += varying_operands(value.call)
        if is_part:  # it is one already: what it is computed from met nothing else
            parts += below
            continue
        for operand in below:
            reads[id(operand)] += 1
            if reads[id(operand)] >= readers.get(id(operand.node), 0):
                parts += operand.parts  # nobody but what it is a part of reads it
        queue += below
    return list(kept.values())


def cuts_history(value: Value) -> bool:
    """Whether nothing is followed back through the call that made a value."""
    return value.merge or kind_of(value) in _LAYERS


def drop_labels(values: list[Value], last: Value, readers: Mapping[int, int]) -> list[Value]:
    """Drop the labels of all values but those that can be asked for once `last` alone is left.

    Args:
        values: all that have labels.
        last: the only one that varies and will be read.
        readers: how many calls read the result of a node.

    Returns:
        The values that keep theirs.
    """
    kept = visible(last, readers)
    left = {id(value) for value in kept}
    for value in values:
        if id(value) not in left and value.varies:
            value.drop_labels()
    return kept


def _may_share_memory(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    aliases = any(returned.alias_info is not None for returned in node.target._schema.returns)
    return aliases or may_view(node.target)
