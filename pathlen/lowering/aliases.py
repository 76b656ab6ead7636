"""In-place calls: what they write shows in every view of the same memory.

Nothing is done to the views when memory is written to: they are taken again when they are read. So
a loop that fills a tensor part by part costs as much as the parts.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_labels
from pathlen.lowering.memory import Memory
from pathlen.lowering.one_sum import as_one_sum
from pathlen.lowering.operations import aten, operation_name, written_argument
from pathlen.lowering.values import Call, Value
from pathlen.lowering.views import View, Views

_IN_RULES = frozenset(aten("view_as_real view_as_complex"))  # these make units


@dataclass(slots=True)
class _Family:
    """What the memory of a base holds that was written to, for it and all views of it.

    Attributes:
        whole: the value of the base, where one call made all of it.
        memory: its elements; at least one of the two is there.
        write: the last call that wrote.
        version: how many did.
    """

    whole: Value | None
    memory: Memory | None = None
    write: Call | None = None
    version: int = 0

    def elements(self, base: fx.Node) -> Memory:
        """The elements of the memory."""
        if self.memory is None:
            assert self.whole is not None
            self.memory = Memory(base.meta["val"], self.whole.labels)
            self.memory.note((), self.whole)
        return self.memory


@dataclass(slots=True)
class Aliases:
    """Which nodes share memory, known from the aliasing that operator schemas declare."""

    _views: Views = field(default_factory=Views)
    _families: dict[fx.Node, _Family] = field(default_factory=dict)  # by base
    _seen: dict[fx.Node, int] = field(default_factory=dict)  # the version that a value shows

    def is_written(self, node: fx.Node) -> bool:
        """Whether a node shares memory with one that was written to, which inputs reach."""
        if not self._families:
            return False
        return self._views.of(node).base in self._families

    def read(self, node: fx.Node, values: dict[fx.Node, Any], lowering: Lowering) -> Any:
        """What a node holds now."""
        if not self.is_written(node):
            return values[node]
        view = self._views.of(node)
        family = self._families[view.base]
        if self._seen.get(node) == family.version:
            return values[node]
        if family.whole is not None and not view.steps:
            values[node] = family.whole
        elif isinstance(node.meta["val"], torch.Tensor):
            values[node] = _taken(node, view, family, lowering)
        else:  # all parts of a split
            parts = [view.item(position) for position in range(len(node.meta["val"]))]
            values[node] = [_taken(node, part, family, lowering) for part in parts]
        self._seen[node] = family.version
        return values[node]

    def is_in_parts(self, node: fx.Node) -> bool:
        """Whether a node shares memory that was filled in parts."""
        if not self._families:
            return False
        family = self._families.get(self._views.of(node).base)
        return family is not None and family.whole is None

    def postpones(self, node: fx.Node) -> bool:
        """Whether a call takes a view of memory that was filled in parts, which can wait."""
        if not self.is_in_parts(node) or operation_name(node.target) in _IN_RULES:
            return False
        return written_argument(node.target) is None

    def update(self, call: Call, values: dict[fx.Node, Any]) -> fx.Node | None:
        """Take note of a call that views a tensor, or writes to one.

        Returns:
            The base of the memory that was written to, where inputs reach it.
        """
        written = written_argument(call.func)
        if written is not None:
            target = _node_of(call[written])
            if target is None or not isinstance(values[call.node], Value):
                return None
            return self._write(target, call, values)
        if self.is_written(call.node):
            self._seen[call.node] = self._families[self._views.of(call.node).base].version
        return None

    def item(self, source: fx.Node, node: fx.Node) -> None:
        """Take note of one of several views (the parts of a split)."""
        if source in self._seen:
            self._seen[node] = self._seen[source]

    def same(self, node: fx.Node, other: fx.Node, values: dict[fx.Node, Any]) -> None:
        """Let another node hold what a node holds, its memory with what was written to it too."""
        values[other] = values[node]
        if self.is_written(node):
            base, other_base = self._views.of(node).base, self._views.of(other).base
            self._families[other_base] = self._families[base]
            values[other_base] = values[base]
            self._seen[other] = self._seen[node]

    def _write(self, target: fx.Node, call: Call, values: dict[fx.Node, Any]) -> fx.Node | None:
        view = self._views.of(target)
        written = values[call.node]
        family = self._families.get(view.base)
        if family is None:
            if not (values[view.base].varies or written.varies):  # `Constants` runs the writes
                values[target] = written
                return None
            family = self._families[view.base] = _Family(whole=values[view.base])
        family.version += 1
        family.write = call
        if view.steps:
            source = call.arguments.get("src")
            real = isinstance(source, Value) and not source.dtype.is_complex
            memory = family.elements(view.base)
            memory.write(view.steps, written.labels, real=real)
            memory.note(view.steps, written)
            family.whole = None
        else:
            family.whole, family.memory = written, None
        values[target] = written
        self._seen[target] = self._seen[call.node] = family.version
        return view.base


def _taken(node: fx.Node, view: View, family: _Family, lowering: Lowering) -> Value:
    """The value of a view of memory."""
    memory = family.elements(view.base)
    parts = memory.read(view.steps)
    val = node.meta["val"]
    dtype = val.dtype if isinstance(val, torch.Tensor) else val[0].dtype
    call = memory.call(node, view.steps) if len(parts) == 1 else None
    values = [lowering.value(node, part, dtype, varies=True, call=call) for part in parts]
    if len(values) == 1:
        if call is not None:
            as_one_sum(call, values[0], lowering)
        return values[0]
    assert family.write is not None
    labels = merge_labels(family.write, values, lowering)
    return lowering.value(node, labels, dtype, varies=True)


def _node_of(argument: Any) -> fx.Node | None:
    leaf = pytree.tree_leaves(argument)
    return leaf[0].node if leaf and isinstance(leaf[0], Value) else None
