"""Which tensors of a program are views of which, by what the schemas of operators say."""

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.operations import (
    aten,
    call_by_name,
    operation_name,
    viewed_argument,
    written_argument,
)
from pathlen.lowering.values import Call, Value, bind_call

_DROPOUTS = frozenset(aten("dropout feature_dropout alpha_dropout feature_alpha_dropout"))
_SAME = _DROPOUTS | frozenset(aten("to type_as contiguous"))  # where these do not copy


@dataclass(frozen=True, slots=True)
class ViewStep:
    """A call that takes a view.

    Attributes:
        func: the operator.
        arguments: by name; shapes in place of other tensors.
        viewed: name of the argument that is viewed.
        position: which of several results, None for the result.
    """

    func: Any
    arguments: dict[str, Any]
    viewed: str
    position: int | None = None

    @staticmethod
    def of(call: Call, viewed: str) -> "ViewStep":
        """The step of a call, whose tensors are values or nodes."""

        def shape(tensor: Any) -> torch.Tensor:
            like = tensor.meta["val"] if isinstance(tensor, fx.Node) else tensor
            return torch.zeros(()).expand(like.shape)

        others = {name: a for name, a in call.arguments.items() if name != viewed}
        return ViewStep(call.func, pytree.tree_map_only((fx.Node, Value), shape, others), viewed)

    def __call__(self, tensor: torch.Tensor) -> Any:
        """The view of a tensor.

        Raises:
            UnsupportedOperation: elements are read as numbers of another size.
        """
        if operation_name(self.func) == "aten.view" and "dtype" in self.arguments:
            raise UnsupportedOperation("memory that is written to and viewed with another dtype")
        result = call_by_name(self.func, {**self.arguments, self.viewed: tensor})
        return result if self.position is None else result[self.position]


@dataclass(frozen=True, slots=True)
class View:
    """How a tensor is taken from the memory of a base.

    Attributes:
        base: whose memory it is, for a tensor of its own itself.
        steps: from the base to the tensor.
    """

    base: fx.Node
    steps: tuple[ViewStep, ...] = ()

    def item(self, position: int) -> "View":
        """One of several results of the last step (the parts of a split)."""
        return View(self.base, (*self.steps[:-1], replace(self.steps[-1], position=position)))


@dataclass(slots=True)
class Views:
    """The views in programs, found when somebody asks for them."""

    _known: dict[fx.Node, View] = field(default_factory=dict)

    def of(self, node: fx.Node) -> View:
        """How a node is taken from the memory that it shares.

        An in-place call shares that of what it writes to.
        """
        waiting = []
        while node not in self._known:
            source = _source(node)
            if source is None:
                self._known[node] = View(node)
            else:
                waiting.append(node)
                node = source
        view = self._known[node]
        for later in reversed(waiting):
            view = self._known[later] = _after(view, later)
        return view


def _source(node: fx.Node) -> fx.Node | None:
    """The node whose memory a node shares, None for a tensor of its own."""
    if node.target is operator.getitem:
        source = node.args[0]
        return source if isinstance(source, fx.Node) and _source(source) is not None else None
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    written = written_argument(node.target)
    if written is None and not may_view(node.target):
        return None
    call = bind_call(node.target, node.args, node.kwargs, node)
    name = written or _viewed(call)
    source = call[name] if name is not None else None
    if not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), torch.Tensor):
        return None
    if written is not None:
        return source if isinstance(node.meta.get("val"), torch.Tensor) else None
    return None if _copies(call, source) else source


def _after(view: View, node: fx.Node) -> View:
    """The view that a node takes of what its source is a view of."""
    if node.target is operator.getitem:
        return view.item(int(node.args[1]))  # type: ignore[arg-type]
    call = bind_call(node.target, node.args, node.kwargs, node)
    if written_argument(call.func) is not None or call.name in _SAME:
        return view
    return View(view.base, (*view.steps, ViewStep.of(call, str(_viewed(call)))))


def may_view(func: Any) -> bool:
    """Whether an operator may return a view of what it is given."""
    return viewed_argument(func) is not None or operation_name(func) in _DROPOUTS


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
