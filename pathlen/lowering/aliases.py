"""In-place calls: what they write shows in every view of the same memory.

Nothing is done to the views when memory is written to: they are taken again when they are read. So
a loop that fills a tensor part by part costs as much as the parts.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_labels
from pathlen.lowering.memory import Memory, ViewStep
from pathlen.lowering.operations import aten, viewed_argument, written_argument
from pathlen.lowering.values import Call, Value

_DROPOUTS = frozenset(aten("dropout feature_dropout alpha_dropout feature_alpha_dropout"))
_IN_RULES = frozenset(aten("view_as_real view_as_complex"))  # these make units


@dataclass(slots=True)
class _View:
    """A node that is a view of a base, and how it is taken from it."""

    base: fx.Node
    steps: tuple[ViewStep, ...] = ()


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

    _views: dict[fx.Node, _View] = field(default_factory=dict)
    _families: dict[fx.Node, _Family] = field(default_factory=dict)  # by base
    _seen: dict[fx.Node, int] = field(default_factory=dict)  # the version that a value shows

    def is_written(self, node: fx.Node) -> bool:
        """Whether a node shares memory with one that was written to, which inputs reach."""
        if not self._families:
            return False
        view = self._views.get(node)
        return (node if view is None else view.base) in self._families

    def read(self, node: fx.Node, values: dict[fx.Node, Any], lowering: Lowering) -> Any:
        """What a node holds now."""
        if not self.is_written(node):
            return values[node]
        view = self._views.get(node, _View(node))
        family = self._families[view.base]
        if self._seen.get(node) == family.version:
            return values[node]
        if family.whole is not None and not view.steps:
            values[node] = family.whole
        elif isinstance(node.meta["val"], torch.Tensor):
            values[node] = _taken(node, view, family, lowering)
        else:  # all parts of a split
            parts = [_View(view.base, _at(view.steps, n)) for n in range(len(node.meta["val"]))]
            values[node] = [_taken(node, part, family, lowering) for part in parts]
        self._seen[node] = family.version
        return values[node]

    def is_in_parts(self, node: fx.Node) -> bool:
        """Whether a node shares memory that was filled in parts."""
        if not self._families:
            return False
        family = self._families.get(self._views.get(node, _View(node)).base)
        return family is not None and family.whole is None

    def postpones(self, call: Call) -> bool:
        """Whether a call takes a view of memory that was filled in parts; if so, take note of it.

        Args:
            call: with nodes for values.
        """
        viewed = _viewed(call)
        source = call[viewed] if viewed is not None else None
        if not isinstance(source, fx.Node) or not self.is_in_parts(source):
            return False
        if call.name in _IN_RULES or _copies(call, source):
            return False
        self._note(source, call, str(viewed))
        return True

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
        viewed = _viewed(call)
        source = _node_of(call[viewed]) if viewed is not None else None
        if source is not None and not _copies(call, source):
            view = self._note(source, call, str(viewed))
            if view.base in self._families:
                self._seen[call.node] = self._families[view.base].version
        return None

    def item(self, source: fx.Node, node: fx.Node) -> None:
        """Take note of one of several views (the parts of a split)."""
        if source not in self._views:
            return
        view = self._views[source]
        self._views[node] = _View(view.base, _at(view.steps, int(node.args[1])))  # type: ignore[arg-type]
        if source in self._seen:
            self._seen[node] = self._seen[source]

    def _note(self, source: fx.Node, call: Call, viewed: str) -> _View:
        parent = self._views.get(source, _View(source))
        view = _View(parent.base, (*parent.steps, ViewStep.of(call, viewed)))
        self._views[call.node] = view
        return view

    def _write(self, target: fx.Node, call: Call, values: dict[fx.Node, Any]) -> fx.Node | None:
        view = self._views.get(target, _View(target))
        written = values[call.node]
        self._views[call.node] = view
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


def _taken(node: fx.Node, view: _View, family: _Family, lowering: Lowering) -> Value:
    """The value of a view of memory."""
    parts = family.elements(view.base).read(view.steps)
    val = node.meta["val"]
    dtype = val.dtype if isinstance(val, torch.Tensor) else val[0].dtype
    memory = family.elements(view.base)
    call = memory.call(node, view.steps) if len(parts) == 1 else None
    values = [lowering.value(node, part, dtype, varies=True, call=call) for part in parts]
    if len(values) == 1:
        return values[0]
    assert family.write is not None
    labels = merge_labels(family.write, values, lowering)
    return lowering.value(node, labels, dtype, varies=True)


def _at(steps: tuple[ViewStep, ...], position: int) -> tuple[ViewStep, ...]:
    return (*steps[:-1], replace(steps[-1], position=position))


def _viewed(call: Call) -> str | None:
    """Name of the argument that the result may be a view of, None where there is none.

    Dropout that drops nothing returns its input itself, of which its schema says nothing.
    """
    if call.name in _DROPOUTS and "input" in call.arguments:
        return "input" if not call["train"] or call["p"] == 0 else None
    return viewed_argument(call.func)


def _copies(call: Call, source: fx.Node) -> bool:
    """Whether an operation that returns a view where it can had to copy."""
    val = source.meta["val"]
    if call.name in ("aten.to", "aten.type_as"):
        return bool(call.arguments.get("copy")) or call.output.dtype != val.dtype
    if call.name == "aten.contiguous":
        layout = call["memory_format"]  # a default comes from the schema, as a number
        known = isinstance(layout, torch.memory_format)
        return not val.is_contiguous(memory_format=layout if known else torch.contiguous_format)
    if call.name in ("aten.reshape", "aten.reshape_as", "aten.flatten"):
        empty = torch.empty_strided(val.shape, val.stride(), device="meta")
        try:
            empty.view(call.shape)
        except RuntimeError:
            return True
    return False


def _node_of(argument: Any) -> fx.Node | None:
    leaf = pytree.tree_leaves(argument)
    return leaf[0].node if leaf and isinstance(leaf[0], Value) else None
