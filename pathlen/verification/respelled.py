"""A recorded program as a module of its own, in which single calls are written in another way.

It runs the program call by call, inside of modules that have the paths of the model's, so that
whatever traces it again sees the same module paths, parameters and inputs. Another way to write a
call is a Python function of tensors; see `rewrites`.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from pathlen.tracing import Recording
from pathlen.tracing.eager import record
from pathlen.tracing.own_numbers import own_numbers
from pathlen.tracing.recording import REAL_TENSORS


@dataclass(frozen=True, slots=True)
class Call:
    """One call while a program runs.

    Attributes:
        node: of the recorded program.
        args: what it is called with now.
        kwargs: the same, by name.
        known: what the nodes before it gave.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    known: Mapping[fx.Node, Any]

    def plain(self) -> Any:
        """Result of the call as it was recorded."""
        return self.node.target(*self.args, **self.kwargs)  # type: ignore[operator]


Spelling = Callable[[Call], Any]


class _Place(nn.Module):
    """Stands for a module of the model: what it runs was run by that module."""

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()

    def attach(self, name: str, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Keep a copy of a parameter or buffer under its name; returns how to get it."""
        *path, leaf = name.split(".")
        place = self._at(path)
        own = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            own = nn.Parameter(own, requires_grad=False)
        place._buffers[leaf] = own  # whatever the name is: `register_buffer` refuses some
        return lambda: own

    def inside(self, path: str, run: Callable[[], Any]) -> Callable[[], Any]:
        """How to run something inside of the module with a path."""
        place = self._at(path.split("."))
        return lambda: place(run)

    def _at(self, path: list[str]) -> "_Place":
        place = self
        for name in path:
            if name not in place._modules:
                place._modules[name] = _Place()
            place = place._modules[name]  # type: ignore[assignment]
        return place


class Respelled(_Place):
    """A recorded program; `forward` takes what its placeholders stand for.

    Args:
        recording: the program.
        spellings: how to make calls otherwise, by node.
        watch: called after each call with the node and its result, if given.
    """

    def __init__(
        self,
        recording: Recording,
        spellings: Mapping[fx.Node, Spelling],
        watch: Callable[[Call, Any], None] | None = None,
    ) -> None:
        super().__init__()
        self._recording = recording
        self._spellings = spellings
        self._watch = watch
        self._attributes = {
            name: self.attach(name, tensor) for name, tensor in recording.attributes.items()
        }

        for path in {path for node in recording.graph.nodes for path in _paths(node)}:
            self.inside(path, tuple)  # whoever records asks for all modules before the first call

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the program; returns its outputs in the order of the recording."""
        given = iter(inputs)
        known: dict[fx.Node, Any] = {}
        for node in self._recording.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(given)
            elif node.op == "get_attr":
                known[node] = self._attributes[str(node.target)]()
            elif node.op == "call_function":
                known[node] = self._call(node, known)
        return tuple(known[node] for _, node in self._recording.outputs)

    def _call(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        args, kwargs = pytree.tree_map_only(fx.Node, known.__getitem__, (node.args, node.kwargs))
        call = Call(node, args, kwargs, known)
        if node.target is operator.getitem:
            return call.plain()
        spelling: Spelling = self._spellings.get(node, Call.plain)
        run: Callable[[], Any] = partial(spelling, call)
        for path in reversed(_paths(node)):
            run = self.inside(path, run)
        result = run()
        if self._watch is not None:
            self._watch(call, result)
        return result


def run(
    recording: Recording,
    inputs: list[Any],
    spellings: Mapping[fx.Node, Spelling] | None = None,
    watch: Callable[[Call, Any], None] | None = None,
) -> tuple[Any, ...]:
    """Outputs of a recorded program; what it draws is the same each time.

    Args:
        recording: the program.
        inputs: one a placeholder; they are left as they are.
        spellings: see `Respelled`.
        watch: see `Respelled`.

    Raises:
        Exception: whatever the program raises.
    """
    program = Respelled(recording, spellings or {}, watch).eval()
    given = pytree.tree_map_only(torch.Tensor, torch.clone, inputs)
    with own_numbers(), torch.no_grad():
        outputs: tuple[Any, ...] = program(*given)
    return outputs


def _paths(node: fx.Node) -> list[str]:
    """Paths of the modules that ran a node, from the outermost; without the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return [str(path) for path, _ in stack.values() if path]


def record_again(program: nn.Module, inputs: list[Any], like: Recording, name: str) -> Recording:
    """Record a program of the inputs of a recording, with the same names of inputs and outputs.

    Args:
        program: its outputs are those of the recording, in order.
        inputs: one a placeholder of the recording.
        like: the recording.
        name: of the way of writing.

    Raises:
        Exception: whatever the program raises on tensors without data.
    """
    fake = like.tracer != REAL_TENSORS
    found = record(program, tuple(inputs), {}, lambda *_: True, fake=fake)
    return named_like(replace(found, tracer=name), like)


def named_like(recording: Recording, like: Recording) -> Recording:
    """A recording whose inputs and outputs have the names that they have in another one."""
    ours, theirs = (
        [node for node in one.graph.nodes if node.op == "placeholder"] for one in (recording, like)
    )
    for node, other in zip(ours, theirs, strict=len(ours) == len(theirs)):
        node.meta["input_name"] = other.meta.get("input_name", other.name)
    outputs = tuple(
        (name, node) for (name, _), (_, node) in zip(like.outputs, recording.outputs, strict=True)
    )
    return replace(recording, outputs=outputs)


@dataclass(slots=True)
class Storage:
    """Which memory each node's tensors lie in, seen by running a program.

    Attributes:
        of: the storages of the tensors of each node, by identity.
        written: storages that something writes to.
        kept: the tensors, so that no identity is used twice.
    """

    of: dict[fx.Node, set[int]] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    kept: list[Any] = field(default_factory=list)

    def see(self, call: Call, result: Any) -> None:
        """Take note of a call; give it to `Respelled`."""
        self.of[call.node] = self._storages(result)
        for node in call.node.all_input_nodes:
            self.of.setdefault(node, self._storages(call.known[node]))
        schema = call.node.target._schema  # type: ignore[union-attr]
        if schema.is_mutable:
            given = {**dict(zip((a.name for a in schema.arguments), call.args)), **call.kwargs}  # noqa: B905
            for argument in schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self.written |= self._storages(given.get(argument.name))

    def _storages(self, value: Any) -> set[int]:
        tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        self.kept.append(tensors)
        strided = [tensor for tensor in tensors if tensor.layout is torch.strided]
        return {int(tensor.untyped_storage()._cdata) for tensor in strided}
