"""Runs a model beside its recording, call for call, and refuses a run that goes another way.

What is recorded of one batch says where the activations of another are only if the model makes
the same calls on the same tensors. A model that reads values may not, nor one that asks whether it
is being traced: so the operator of every call is compared, the shapes of its operands, where they
come from, and its other arguments. Whoever follows records a batch anew that goes another way.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from pathlen.empirical.sites import SILENT
from pathlen.errors import DataError
from pathlen.lowering.operations import aten, operation_name
from pathlen.tracing import Recording, module_path
from pathlen.tracing.control_flow import as_python
from pathlen.tracing.recording import computes_nothing

_MAY_RETURN_ITS_INPUT = frozenset(
    aten(
        "detach lift_fresh alias contiguous to type_as positive dropout feature_dropout"
        " alpha_dropout feature_alpha_dropout reshape view flatten expand"
    )
)
_CONSTANT = "_constant_"  # how the recorder names tensors that are made anew in each run
_PLAIN = (bool, int, str, torch.dtype, type(None))
Run = Callable[[fx.Node, Any, tuple[Any, ...], dict[str, Any]], Any]


class DepartureError(DataError):
    """A run makes other calls than the recording that it is followed by."""


class Follower(TorchDispatchMode):
    """Compares the calls of a model with those of a recording of the same shapes.

    Args:
        recording: What the model did when it was traced.
        inputs: The tensors that the model is called with, in order.
        state: Parameters and buffers of the model.
        run: Makes a call: given its node, the operator and its arguments, returns the result.

    Attributes:
        departure: The error of the first call that is another, None while all are the same.

    Raises:
        DepartureError: (inside the run of the model, and from `finish`) a call is another.
    """

    def __init__(
        self, recording: Recording, inputs: Sequence[Tensor], state: Iterable[Tensor], run: Run
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._run = run
        self.departure: DepartureError | None = None
        nodes = list(recording.graph.nodes)
        self._todo = iter([node for node in nodes if _is_followed(node)])
        self._wires = _Wires(recording, state)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        for node, tensor in zip(placeholders, inputs, strict=True):
            self._wires.bind(tensor, node)

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if written_out := as_python(func):
            with self:
                return written_out(*args, **kwargs)
        if func.namespace == "prim" or computes_nothing(func):  # asks for a device or the like
            return func(*args, **kwargs)
        if func in SILENT:
            result = func(*args, **kwargs)
            self._wires.pass_on(args[0], result)
            return result
        node = next(self._todo, None)
        if node is None or node.target is not func:
            there = "its end" if node is None else f"{node.target}{_place(node)}"
            raise self._refusal(f"the model calls {func} where the trace has {there}")
        self._compare(node, args, kwargs)
        result = self._run(node, func, args, kwargs)
        self._wires.bind(result, node)
        self._compare_result(node, result)
        return result

    def finish(self) -> None:
        """Raise DepartureError unless the model has made all calls, and no others."""
        if self.departure is not None:  # the model caught it and went on
            raise self.departure
        node = next(self._todo, None)
        if node is not None:
            raise self._refusal(f"the model ends where the trace has {node.target}{_place(node)}")

    def _compare(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorded = pytree.tree_leaves((node.args, dict(node.kwargs)))
        live = pytree.tree_leaves((args, kwargs))
        if len(recorded) != len(live):
            raise self._refusal(
                f"{node.target}{_place(node)} has other arguments than in the trace"
            )
        for one, other in zip(recorded, live, strict=True):
            if isinstance(one, fx.Node) != isinstance(other, Tensor):
                raise self._refusal(
                    f"{node.target}{_place(node)} has {type(other).__name__} for an argument that"
                    f" was {'a tensor' if isinstance(one, fx.Node) else repr(one)} in the trace"
                )
            if isinstance(one, fx.Node):
                self._compare_tensor(node, one, other)
            elif isinstance(one, _PLAIN) and isinstance(other, _PLAIN) and one != other:
                raise self._refusal(
                    f"{node.target}{_place(node)} has the argument {other!r}, which was {one!r} in"
                    " the trace"
                )

    def _compare_tensor(self, node: fx.Node, operand: fx.Node, tensor: Tensor) -> None:
        recorded = operand.meta["val"]
        if isinstance(recorded, Tensor) and recorded.shape != tensor.shape:
            raise self._refusal(
                f"{node.target}{_place(node)} reads a tensor of shape {tuple(tensor.shape)}, which"
                f" was {tuple(recorded.shape)} in the trace"
            )
        if not self._wires.agree(operand, tensor):
            raise self._refusal(
                f"{node.target}{_place(node)} reads another tensor than in the trace, where it was"
                f" {operand.name!r}"
            )

    def _compare_result(self, node: fx.Node, result: Any) -> None:
        recorded = [leaf for leaf in pytree.tree_leaves(node.meta["val"]) if _has_shape(leaf)]
        found = [leaf for leaf in pytree.tree_leaves(result) if _has_shape(leaf)]
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, recorded)]
        if shapes[0] != shapes[1]:
            raise self._refusal(
                f"{node.target}{_place(node)} returns tensors of shapes {shapes[0]}, which were"
                f" {shapes[1]} in the trace"
            )

    def _refusal(self, what: str) -> DepartureError:
        self.departure = DepartureError(
            f"the model does not do what it did when it was traced: {what}. A model whose calls"
            " are others at each run has no units that could be followed over batches"
        )
        return self.departure


class _Wires:
    """Which nodes of a recording the tensors of a run stand for.

    Tensors are held weakly: the run needs no more memory than it does by itself.
    """

    def __init__(self, recording: Recording, state: Iterable[Tensor]) -> None:
        self._attributes: Mapping[str, Tensor] = recording.attributes
        self._own = {id(tensor) for tensor in (*recording.attributes.values(), *state)}
        self._nodes = WeakIdKeyDictionary()

    def bind(self, result: Any, node: fx.Node) -> None:
        """The result of a call stands for its node."""
        if isinstance(result, Tensor):
            self._nodes[result] = _source(node)
        elif isinstance(result, (tuple, list)):
            items = {user.args[1]: user for user in node.users if user.target is operator.getitem}
            for position, item in enumerate(result):
                if isinstance(item, Tensor) and position in items:
                    self._nodes[item] = items[position]

    def pass_on(self, tensor: Any, result: Any) -> None:
        """A tensor made without a recorded call stands for what it was made of."""
        node = self._nodes.get(tensor) if isinstance(tensor, Tensor) else None
        if node is not None and isinstance(result, Tensor):
            self._nodes[result] = node

    def agree(self, node: fx.Node, tensor: Tensor) -> bool:
        """Whether a tensor may be the one that a node stands for.

        Tensors that Python makes past the dispatcher (`tensor.data`) are not known. Constants that
        a model makes anew in each run must hold the same where they are integers or booleans:
        these are indices and masks.
        """
        node, known = _source(node), self._nodes.get(tensor)
        if known is node:
            return True
        if node.op != "get_attr":
            return known is None and id(tensor) not in self._own
        own = self._attributes[str(node.target)]
        if str(node.target).startswith(_CONSTANT):
            return tensor.is_floating_point() or _same(own, tensor) or _equal(own, tensor)
        return known is None and _same(own, tensor)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold the same; those without values hold what others do."""
    return one.is_meta or other.is_meta or torch.equal(one.to(other.device), other)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same memory seen in the same way."""
    if one is other:
        return True
    if one.layout is not torch.strided or other.layout is not torch.strided:
        return False
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata and (
        one.shape,
        one.stride(),
        one.storage_offset(),
    ) == (other.shape, other.stride(), other.storage_offset())


def _source(node: fx.Node) -> fx.Node:
    """The node, or what it passes on unchanged: as a new object or not differs by device."""
    while node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        operand = node.args[0] if node.args else None
        if (
            operation_name(node.target) not in _MAY_RETURN_ITS_INPUT
            or node.target._schema.is_mutable
            or not isinstance(operand, fx.Node)
            or _shape(operand) != _shape(node)
        ):
            break
        node = operand
    return node


def _shape(node: fx.Node) -> torch.Size | None:
    val = node.meta["val"]
    return val.shape if isinstance(val, Tensor) else None


def _is_followed(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and node.target is not operator.getitem
        and node.target not in SILENT
    )


def _has_shape(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _place(node: fx.Node) -> str:
    return f" in module {module_path(node) or '(top level)'!r} (node {node.name!r})"
