"""Values of the tensors that no input reaches, computed when a rule asks for them.

Only what is a computation by its schema is run (`pathlen.tracing.pure`), and only on memory of its
own: tensors from outside are copied before something writes to their memory.
"""

import operator
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
from pathlen.tracing.own_numbers import drawing
from pathlen.tracing.pure import reason_against_schema

Given = Mapping[fx.Node, Value]
_CPU = torch.device("cpu")
_OF_TORCH = ("aten", "prims")
_STATISTICS = ("running_mean", "running_var")


class UnknownConstantError(Exception):
    """A constant has no values: it lives on the meta device, or is too large to evaluate on."""


class Constants:
    """Values of constants in all programs of a lowering (decompositions are programs too).

    Attributes:
        reads: takes every value that is asked for, where somebody wants to know.

    Nothing in it holds it: in a cycle, tensors would stay until a search for garbage comes by.
    """

    def __init__(self) -> None:
        self.reads: list[Value] | None = None
        self._traced: Constants | None = None
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
        self._sources[graph] = attributes, given
        self._programs[graph] = _ConstantProgram(nodes or graph.nodes, attributes)

    @property
    def traced(self) -> "Constants":
        """Those that these are renewed from, or themselves."""
        return self if self._traced is None else self._traced

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
        return self._programs[value.node.graph].of(value, self)

    def of_placeholder(self, node: fx.Node) -> torch.Tensor | None:
        """The tensor that a placeholder of a decomposition stands for, None if it varies."""
        value = self.given(node)
        return None if value is None else self._value(value)

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

    def reads_numbers(self, value: Value) -> bool:
        """Whether tensors from outside are behind a constant, other than by masks alone."""
        queue, seen = [value.node], set[fx.Node]()
        while queue:
            node = queue.pop()
            val = node.meta.get("val")
            if node in seen or (isinstance(val, torch.Tensor) and val.dtype == torch.bool):
                continue
            if node.op == "get_attr":
                return True
            seen.add(node)
            queue += self._before(node)
        return False

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
        renewed._traced = self.traced
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
            queue += self._before(node)
        return found

    def _before(self, node: fx.Node) -> list[fx.Node]:
        """What a constant is computed from, and what writes to it."""
        before = [operand for operand in node.all_input_nodes if operand not in _shapes(node)]
        before += writers(node)  # no operands of what they change
        given = self.given(node)
        return before if given is None else [*before, given.node]


class _ConstantProgram:
    """Runs the constant part of a program, no further than is asked for."""

    def __init__(self, nodes: Iterable[fx.Node], attributes: Mapping[str, torch.Tensor]) -> None:
        self._attributes = attributes
        self._known: dict[fx.Node, Any] = {}
        self._foreign: set[int] = set()  # memory from outside
        self._todo = iter(nodes)

    def of(self, value: Value, whole: Constants) -> torch.Tensor:
        """See `Constants.of`."""
        with torch.no_grad():
            while value.node not in self._known:
                node = next(self._todo, None)
                if node is None:
                    raise KeyError(f"{value.node.name!r} is not among the nodes that may be run")
                self._run(node, whole)
        tensor = self._known[value.node]
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            raise UnknownConstantError(value.node.name)
        return tensor

    def _run(self, node: fx.Node, whole: Constants) -> None:
        if node.op == "placeholder":
            self._known[node] = whole.of_placeholder(node)
        elif node.op == "get_attr":
            tensor = self._attributes[str(node.target)]
            if tensor.is_meta and not tensor.numel():  # known as it is
                tensor = torch.empty_like(tensor, device=_CPU)
            tensor = tensor.detach() if tensor.is_meta else tensor.detach().cpu()
            if tensor.layout is not torch.strided:
                tensor = tensor.clone()  # whose memory has several parts
            self._foreign.update(_storages(tensor))
            self._known[node] = tensor
        else:
            self._known[node] = self._call(node)

    def _call(self, node: fx.Node) -> Any:
        """Result of a call, None if an input or a tensor without values reaches it."""
        shapes = _shapes(node)
        read = [self._known.get(o) for o in node.all_input_nodes if o not in shapes]
        if not _may_run(node.target) or any(map(_is_unknown, read)):
            self._forget_written(node)
            return None
        self._make_own(node)
        known = {operand: self._known.get(operand) for operand in node.all_input_nodes}
        known |= {operand: _of_shape(operand.meta["val"]) for operand in shapes}
        args, kwargs = pytree.tree_map_only(fx.Node, known.__getitem__, (node.args, node.kwargs))
        # wherever the model was, here everything is on the CPU
        args, kwargs = pytree.tree_map_only(torch.device, lambda _: _CPU, (args, kwargs))
        with drawing(node.target):
            return node.target(*args, **kwargs)  # type: ignore[operator]

    def _forget_written(self, node: fx.Node) -> None:
        """What an unknown tensor is written to is unknown from then on, and all its views are."""
        for memory in self._written(node):
            for other, value in self._known.items():
                if memory in _storages(value):
                    self._known[other] = None

    def _make_own(self, node: fx.Node) -> None:
        """Copy the memory from outside that a call writes to, for all that are views of it."""
        for memory in self._foreign.intersection(self._written(node)):
            self._foreign.discard(memory)
            move = _Move(memory)
            for other, value in self._known.items():
                if memory in _storages(value):
                    self._known[other] = pytree.tree_map_only(torch.Tensor, move, value)

    def _written(self, node: fx.Node) -> set[int]:
        """The memory that a call may write to, as far as it is known.

        Layers with running statistics write to them in training, of which their schema is silent.
        """
        if not isinstance(node.target, torch._ops.OpOverload):
            return set()
        arguments = bind_call(node.target, node.args, node.kwargs, node).arguments
        names = {written_argument(node.target), *_STATISTICS}
        written = [value for name, value in arguments.items() if name in names]
        nodes = pytree.tree_leaves(written)
        found = [self._known.get(n) for n in nodes if isinstance(n, fx.Node)]
        return {memory for value in found for memory in _storages(value)}


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
            name = None if schema is None else written_argument(user.target)
            writes = name is not None
            if name is not None:  # to this one, or does it only read it?
                written = bind_call(user.target, user.args, user.kwargs, user).arguments[name]
                if reached.isdisjoint(pytree.tree_leaves(written)):
                    continue
            shares = schema is None or any(r.alias_info is not None for r in schema.returns)
            if writes and user not in found:
                found.append(user)
            if shares and user not in reached:
                reached.add(user)
                queue.append(user)
    return found


def _may_run(target: Any) -> bool:
    """Whether a call is a computation, as far as anything tells."""
    if isinstance(target, torch._ops.OpOverload):
        return target.namespace not in _OF_TORCH or reason_against_schema(target) is None
    return target is operator.getitem


def _storage(value: Any) -> int | None:
    """The memory that a tensor is a view of, None for what is no tensor or has several parts."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    return int(value.untyped_storage()._cdata)


def _storages(value: Any) -> list[int]:
    """The memory behind a result: that of a tensor, or of each in a list of them."""
    found = map(_storage, pytree.tree_leaves(value))
    return [memory for memory in found if memory is not None]


class _Move:
    """Gives the same views of a copy of some memory, and leaves other tensors as they are."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._copy: torch.UntypedStorage | None = None

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) != self._memory:
            return tensor
        if self._copy is None:
            self._copy = tensor.untyped_storage().clone()
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(self._copy, tensor.storage_offset(), tensor.size(), tensor.stride())


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, torch.Tensor) and value.is_meta)
