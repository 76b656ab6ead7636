"""Values of the tensors that no input reaches, computed when a rule asks for them."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.operations import (
    READS_SHAPE_OF_OTHER,
    makes_constant,
    operation_name,
    written_argument,
)
from pathlen.lowering.values import Value, bind_call

Given = Mapping[fx.Node, Value]
_CPU = torch.device("cpu")


class UnknownConstantError(Exception):
    """A constant has no values: it lives on the meta device, or is too large to evaluate on."""


class Constants:
    """Values of constants in all programs of a lowering (decompositions are programs too).

    Attributes:
        reads: takes every value that is asked for, where somebody wants to know.
    """

    def __init__(self) -> None:
        self.reads: list[Value] | None = None
        self.traced = self
        self._programs: dict[fx.Graph, _ConstantProgram] = {}
        self._sources: dict[fx.Graph, tuple[Mapping[str, torch.Tensor], Given]] = {}

    def add(
        self,
        graph: fx.Graph,
        attributes: Mapping[str, torch.Tensor],
        given: Given = MappingProxyType({}),
        nodes: Iterable[fx.Node] | None = None,
    ) -> None:
        """Take up a program.

        Args:
            graph: the recorded program.
            attributes: the tensors behind its get_attr nodes; they are never written to.
            given: values of the placeholders of a decomposition.
            nodes: those that may be run, in order; by default all.
        """

        def tensor_of(node: fx.Node) -> torch.Tensor | None:
            value = given.get(node)
            return self._value(value) if value is not None and not value.varies else None

        self._sources[graph] = attributes, given
        self._programs[graph] = _ConstantProgram(nodes or graph.nodes, attributes, tensor_of)

    def forget(self) -> None:
        """Let go of all programs and values."""
        self._programs.clear()
        self._sources.clear()

    def of(self, value: Value) -> torch.Tensor:
        """The tensor behind a constant value, on the CPU; do not write to it.

        Raises:
            UnknownConstantError: it has no values.
        """
        if self.reads is not None:
            self.reads.append(value)
        return self._value(value)

    def one_number(self, value: Value) -> float | None:
        """The one number that a constant holds; None where it holds several or is unknown."""
        try:
            flat = self.of(value).reshape(-1)
        except UnknownConstantError:
            return None
        # the first few tell most matrices of weights
        same = flat.numel() > 0 and all(bool((f == flat[:1]).all()) for f in (flat[:16], flat))
        return flat[0].item() if same else None

    def is_parameter(self, value: Value) -> bool:
        """Whether a constant is a parameter itself, which training changes."""
        node = value.node
        attributes = self._sources[node.graph][0]
        return isinstance(attributes.get(str(node.target)), torch.nn.Parameter)

    def holds_parameters(self, value: Value) -> bool:
        """Whether a constant is computed from parameters, not from numbers in the code alone."""
        behind = self.attributes_behind([value]).values()
        return any(isinstance(tensor, torch.nn.Parameter) for tensor in behind)

    def _value(self, value: Value) -> torch.Tensor:
        return self._programs[value.node.graph].of(value)

    def given(self, node: fx.Node) -> Value | None:
        """The constant that a placeholder of a decomposition stands for, None for other nodes."""
        value = self._sources[node.graph][1].get(node)
        return None if value is None or value.varies else value

    def attributes_behind(
        self, values: Iterable[Value]
    ) -> dict[tuple[fx.Graph, str], torch.Tensor]:
        """The tensors from outside that constants are computed from, by program and name."""
        return {
            (node.graph, str(node.target)): self._sources[node.graph][0][str(node.target)]
            for node in self._behind(value.node for value in values)
            if node.op == "get_attr"
        }

    def is_behind(self, name: tuple[fx.Graph, str], node: fx.Node) -> bool:
        """Whether a constant is computed from a tensor from outside, by its program and name."""
        behind = self._behind([node])
        return any(n.op == "get_attr" and (n.graph, str(n.target)) == name for n in behind)

    def renewed(
        self, tensor_of: Callable[[fx.Graph, str], torch.Tensor], values: Iterable[Value]
    ) -> "Constants":
        """The same programs on other tensors from outside, to compute some constants again.

        Args:
            tensor_of: gives the tensor for a program and the name of an attribute.
            values: the constants that can be asked for.
        """
        renewed = Constants()
        renewed.traced = self.traced
        wanted = self._behind(value.node for value in values)
        for graph in dict.fromkeys(node.graph for node in wanted):
            nodes = [node for node in graph.nodes if node in wanted]
            names = [str(node.target) for node in nodes if node.op == "get_attr"]
            tensors = {name: tensor_of(graph, name) for name in names}
            renewed.add(graph, tensors, self._sources[graph][1], nodes)
        return renewed

    def _behind(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """The nodes that constants are computed by, in all programs."""
        found: set[fx.Node] = set()
        queue = [*nodes]
        while queue:
            node = queue.pop()
            if node in found:
                continue
            found.add(node)
            queue += [operand for operand in node.all_input_nodes if operand not in _shapes(node)]
            queue += writers(node)  # no operands of what they change
            given = self.given(node)
            if given is not None:
                queue.append(given.node)
        return found


class _ConstantProgram:
    """Runs the constant part of a program, no further than is asked for."""

    def __init__(
        self,
        nodes: Iterable[fx.Node],
        attributes: Mapping[str, torch.Tensor],
        given: Callable[[fx.Node], torch.Tensor | None],
    ) -> None:
        self._attributes = attributes
        self._given = given
        self._known: dict[fx.Node, Any] = {}
        self._todo = iter(nodes)

    def of(self, value: Value) -> torch.Tensor:
        """See `Constants.of`."""
        with torch.no_grad():
            while value.node not in self._known:
                node = next(self._todo, None)
                if node is None:
                    raise KeyError(f"{value.node.name!r} is not among the nodes that may be run")
                self._run(node)
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
        for operand in _shapes(node):
            known[operand] = _of_shape(operand.meta["val"])
        if not callable(node.target) or any(map(_is_unknown, known.values())):
            self._forget_written(node)
            return None
        args, kwargs = pytree.tree_map_only(fx.Node, known.__getitem__, (node.args, node.kwargs))
        # wherever the model was, here everything is on the CPU
        args, kwargs = pytree.tree_map_only(torch.device, lambda _: _CPU, (args, kwargs))
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
        return tensor.clone() if writers(node) else tensor


def _shapes(node: fx.Node) -> set[fx.Node]:
    """Operands of which a call takes no more than the shape and dtype."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return set()
    if makes_constant(node.target):
        return set(node.all_input_nodes)
    of_other = operation_name(node.target) in READS_SHAPE_OF_OTHER and len(node.args) > 1
    other = node.args[1] if of_other else None
    return {other} if isinstance(other, fx.Node) and other is not node.args[0] else set()


def _of_shape(val: torch.Tensor) -> torch.Tensor:
    """A tensor of a shape and dtype that takes no memory."""
    return torch.zeros((), dtype=val.dtype).expand(val.shape)


def writers(node: fx.Node) -> list[fx.Node]:
    """The in-place calls that write to the result of a node or to a view of it."""
    reached, queue, found = {node}, [node], []
    while queue:
        for user in queue.pop().users:
            schema = getattr(user.target, "_schema", None)
            writes = schema is not None and written_argument(user.target) is not None
            shares = schema is None or any(r.alias_info is not None for r in schema.returns)
            if writes and user not in found:
                found.append(user)
            if shares and user not in reached:
                reached.add(user)
                queue.append(user)
    return found


def _storage(value: Any) -> int | None:
    """The memory that a tensor is a view of, None for what is no tensor."""
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, torch.Tensor) and value.is_meta)
