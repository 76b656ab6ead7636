"""Values of the tensors that no input reaches, computed when a rule asks for them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.operations import makes_constant, written_argument
from pathlen.lowering.values import Value, bind_call


class UnknownConstantError(Exception):
    """A constant has no values: it lives on the meta device, or is too large to evaluate on."""


class Constants:
    """Values of constants in all programs of a lowering (decompositions are programs too)."""

    def __init__(self) -> None:
        self._programs: dict[fx.Graph, _ConstantProgram] = {}

    def add(
        self,
        graph: fx.Graph,
        attributes: Mapping[str, torch.Tensor],
        given: Mapping[fx.Node, Value] = MappingProxyType({}),
    ) -> None:
        """Take up a program.

        Args:
            graph: the recorded program.
            attributes: the tensors behind its get_attr nodes; they are never written to.
            given: values of the placeholders of a decomposition.
        """

        def tensor_of(node: fx.Node) -> torch.Tensor | None:
            value = given.get(node)
            return self.of(value) if value is not None and not value.varies else None

        self._programs[graph] = _ConstantProgram(graph, attributes, tensor_of)

    def forget(self) -> None:
        """Let go of all programs and values."""
        self._programs.clear()

    def of(self, value: Value) -> torch.Tensor:
        """The tensor behind a constant value, on the CPU; do not write to it.

        Raises:
            UnknownConstantError: it has no values.
        """
        return self._programs[value.node.graph].of(value)


class _ConstantProgram:
    """Runs the constant part of a program, no further than is asked for."""

    def __init__(
        self,
        graph: fx.Graph,
        attributes: Mapping[str, torch.Tensor],
        given: Callable[[fx.Node], torch.Tensor | None],
    ) -> None:
        self._attributes = attributes
        self._given = given
        self._known: dict[fx.Node, Any] = {}
        self._todo = iter(graph.nodes)

    def of(self, value: Value) -> torch.Tensor:
        """See `Constants.of`."""
        with torch.no_grad():
            while value.node not in self._known:
                self._run(next(self._todo))
        tensor = self._known[value.node]
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            raise UnknownConstantError(value.node.name)
        return tensor

    def _run(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._known[node] = self._given(node)
        elif node.op == "get_attr":
            tensor = self._attributes[str(node.target)]
            tensor = tensor.detach() if tensor.is_meta else tensor.detach().cpu()
            self._known[node] = self._guarded(node, tensor)
        else:
            self._known[node] = self._call(node)

    def _call(self, node: fx.Node) -> Any:
        """Result of a call, None if an input or a tensor without values reaches it."""
        known = {operand: self._known.get(operand) for operand in node.all_input_nodes}
        if isinstance(node.target, torch._ops.OpOverload) and makes_constant(node.target):
            known = {n: torch.empty(n.meta["val"].shape, dtype=n.meta["val"].dtype) for n in known}
        if not callable(node.target) or any(map(_is_unknown, known.values())):
            self._forget_written(node)
            return None
        args, kwargs = pytree.tree_map_only(fx.Node, known.__getitem__, (node.args, node.kwargs))
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "cpu"}
        return node.target(*args, **kwargs)

    def _forget_written(self, node: fx.Node) -> None:
        """What an unknown tensor is written to is unknown from then on, and all its views are."""
        name = written_argument(node.target) if hasattr(node.target, "_schema") else None
        if name is None:
            return
        written = bind_call(node.target, node.args, node.kwargs, node)[name]
        storage = _storage(self._known.get(written))
        for other, value in self._known.items():
            if storage is not None and _storage(value) == storage:
                self._known[other] = None

    def _guarded(self, node: fx.Node, tensor: torch.Tensor) -> torch.Tensor:
        """The user's tensor, or a copy if the program writes to it or to a view of it."""
        reached, queue = {node}, [node]
        while queue:
            for user in queue.pop().users:
                schema = getattr(user.target, "_schema", None)
                if schema is not None and written_argument(user.target) is not None:
                    return tensor.clone()
                shares = schema is None or any(r.alias_info is not None for r in schema.returns)
                if shares and user not in reached:
                    reached.add(user)
                    queue.append(user)
        return tensor


def _storage(value: Any) -> int | None:
    """The memory that a tensor is a view of, None for what is no tensor."""
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, torch.Tensor) and value.is_meta)
