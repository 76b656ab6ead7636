"""In-place calls: what they write shows in every view of the same memory."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import collapse
from pathlen.lowering.operations import aten, call_by_name, viewed_argument, written_argument
from pathlen.lowering.values import Call, Value

_DROPOUTS = frozenset(aten("dropout feature_dropout alpha_dropout feature_alpha_dropout"))


@dataclass(slots=True)
class _View:
    """A node that is a view of a base: the calls that lead to it, with items of their results."""

    base: fx.Node
    steps: tuple[tuple[Call, int | None], ...] = ()


@dataclass(slots=True)
class Aliases:
    """Which nodes share memory, known from the aliasing that operator schemas declare.

    A family is a base and all views of it. When one member is written to, the others get new
    labels: the base by writing through the view, the rest by taking their views again.
    """

    _views: dict[fx.Node, _View] = field(default_factory=dict)
    _families: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    _calls: dict[fx.Node, Call] = field(default_factory=dict)

    def update(self, call: Call, values: dict[fx.Node, Any], lowering: Lowering) -> None:
        """Take note of a call that views a tensor; spread what an in-place call wrote."""
        written = written_argument(call.func)
        if written is not None:
            target = _node_of(call[written])
            if target is not None and isinstance(values[call.node], Value):
                self._write(target, call.node, values, lowering)
            return
        viewed = _viewed(call)
        source = _node_of(call[viewed]) if viewed is not None else None
        if source is not None and not _copies(call, source):
            if isinstance(values[call.node], Value):
                self._add_view(source, call.node, call, None)
            else:
                self._calls[call.node] = call

    def item(self, source: fx.Node, node: fx.Node) -> None:
        """Take note of one of several views (the parts of a split)."""
        call = self._calls.get(source)
        viewed = _viewed(call) if call is not None else None
        if call is not None and viewed is not None:
            base = _node_of(call[viewed])
            if base is not None:
                self._add_view(base, node, call, int(node.args[1]))  # type: ignore[arg-type]

    def _add_view(self, source: fx.Node, node: fx.Node, call: Call, item: int | None) -> None:
        parent = self._views.get(source, _View(source))
        self._views[node] = _View(parent.base, (*parent.steps, (call, item)))
        self._families.setdefault(parent.base, []).append(node)

    def _write(
        self, target: fx.Node, result: fx.Node, values: dict[fx.Node, Any], lowering: Lowering
    ) -> None:
        view = self._views.get(target, _View(target))
        written = values[result]
        values[target] = written
        self._views[result] = _View(view.base, view.steps)
        family = self._families.get(view.base, [])
        self._families[view.base] = [*family, result]
        if not family and not view.steps:
            return
        base = values[view.base]
        if not (base.varies or written.varies):
            return  # constants: `Constants` runs the writes themselves
        if view.steps:
            labels = base.labels.contiguous().clone()
            _follow(labels, view).copy_(written.labels)
            values[view.base] = lowering.value(base.node, collapse(labels), base.dtype, varies=True)
            values[view.base].labels = collapse(labels)
        else:
            values[view.base] = written
            labels = written.labels
        for node in family:
            if node is not target and self._views[node].steps:
                old = values[node]
                new = collapse(_follow(labels.contiguous(), self._views[node]))
                values[node] = lowering.value(old.node, new, old.dtype, varies=True)
            elif not self._views[node].steps:
                values[node] = values[view.base]


def _follow(labels: torch.Tensor, view: _View) -> torch.Tensor:
    """The view of a dense label tensor."""
    for call, item in view.steps:
        arguments = call.replace_values(lambda value: value.labels)
        viewed = _viewed(call)
        assert viewed is not None
        result = call_by_name(call.func, {**arguments, viewed: labels})
        labels = result if item is None else result[item]
    return labels


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
