"""Runs a recorded program on real tensors, and keeps the tensor behind each value of the lowering.

The same machine serves three purposes: as the program stands, to be compared with the model; in
float64, for the operands of each call; and under autograd, where in-place calls are written out so
that nothing that autograd has saved is overwritten.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.errors import VerificationError
from pathlen.lowering.operations import (
    aten,
    call_by_name,
    functional,
    operation_name,
    viewed_argument,
    written_argument,
)
from pathlen.lowering.steps import Step, Steps
from pathlen.lowering.values import Value, bind_call
from pathlen.tracing import Recording
from pathlen.tracing.own_numbers import drawing
from pathlen.verification.statistics import holds_statistics, with_held_statistics

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
_MAY_RETURN_ITS_INPUT = aten("dropout feature_dropout alpha_dropout feature_alpha_dropout")
Compute = Callable[[Step, "Tensors"], Any]
Held = dict[fx.Node, dict[str, Any]]
"""By call, the arguments that statistics of normalizations and softmax are those of."""


@dataclass(slots=True)
class Tensors:
    """Real tensors behind values, by the identity of the value.

    Attributes:
        of: the tensors; values seen more than once have the latest.
        made: by node, the tensor that it made: memory before anything is written to it is no
            operand of a call.
    """

    of: dict[int, torch.Tensor] = field(default_factory=dict)
    made: dict[fx.Node, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, value: Value) -> torch.Tensor:
        found = self.of.get(id(value))
        return self.made[value.node] if found is None else found

    def __contains__(self, value: Value) -> bool:
        return id(value) in self.of


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in double precision, outside inference mode; integers as they are."""
    copy = tensor.detach().clone()
    return copy.to(_WIDE[copy.dtype]) if copy.dtype in _WIDE else copy


def input_tensors(recording: Recording, args: Any, kwargs: Any) -> list[Any]:
    """What the placeholders of a recording stand for, in their order.

    Raises:
        VerificationError: the arguments are not those that were recorded.
    """
    count = sum(node.op == "placeholder" for node in recording.graph.nodes)
    leaves = pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    for found in (tensors, leaves):
        if len(found) == count:
            return found
    raise VerificationError(
        f"the recorded program has {count} inputs, but the arguments hold {len(tensors)} tensors;"
        " pass the tensors of args and kwargs in tuples, lists or dictionaries"
    )


def call_differentiably(func: Any, arguments: dict[str, Any]) -> Any:
    """Call the functional form of an operator, written so that autograd can follow it.

    A graph has the paths of the forward pass, so a `detach` in the program is none here. An
    operator that does not take float64 (a kernel of the user's own) gets float32.

    Raises:
        Exception: whatever the operator raises.
    """
    arguments = pytree.tree_map_only(torch.dtype, lambda dtype: _WIDE.get(dtype, dtype), arguments)
    arguments = pytree.tree_map_only(torch.device, lambda _: torch.device("cpu"), arguments)
    if not isinstance(func, torch._ops.OpOverload):  # tensors put together in memory
        return pytree.tree_map_only(torch.Tensor, _widened, func(**arguments))
    name = operation_name(func)
    if name == "aten.detach":
        return arguments["self"].clone()
    if name == "aten.copy":  # has no derivative
        return arguments["src"].to(arguments["self"].dtype).expand(arguments["self"].shape)
    if name == "aten.heaviside":  # a step: torch has no derivative, not even 0
        arguments = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
    called = functional(func)
    try:
        with drawing(called):
            result = call_by_name(called, arguments, func)  # names differ: dropout_ and dropout
    except Exception:
        narrow = pytree.tree_map_only(torch.Tensor, _narrow, arguments)
        try:
            result = call_by_name(called, narrow, func)
        except Exception:
            narrow = None
        if narrow is None:
            raise
    return pytree.tree_map_only(torch.Tensor, _widened, result)


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in double precision, also one that was made without a dtype."""
    return tensor.to(_WIDE[tensor.dtype]) if tensor.dtype in _WIDE else tensor


class Replay:
    """One run of a recorded program.

    Args:
        recording: the program.
        inputs: one a placeholder; they are not written to if `attributes` are given.
        attributes: tensors behind the get_attr nodes.
        steps: the lowered calls; what is behind their values is kept in `tensors`.
        compute: gives the result of a step in place of the operator, or None for the operator's.
        plain: call the operators as they were recorded, in-place ones too.
        held: where the statistics of normalizations and softmax are taken from; those of calls
            that are not in it are their own, and are added. None lets statistics move.
    """

    def __init__(
        self,
        recording: Recording,
        inputs: Sequence[Any],
        attributes: Mapping[str, torch.Tensor],
        steps: Steps | None = None,
        compute: Compute | None = None,
        *,
        plain: bool = False,
        held: Held | None = None,
    ) -> None:
        self.tensors = Tensors()
        self.nodes: dict[fx.Node, Any] = {}
        self._recording = recording
        self._inputs = iter(inputs)
        self._attributes = attributes
        self._steps = {step.call.node: step for step in steps.taken} if steps else {}
        self._compute = compute
        self._plain = plain
        self._held = held
        self._writes = any(map(_writes, recording.graph.nodes)) or any(
            any(map(_writes, program.graph.nodes))
            for program in (steps.programs.values() if steps else ())
        )

    def run(self) -> "Replay":
        """Run to the end."""
        for _ in self.calls():
            pass
        return self

    def calls(self) -> Iterator[fx.Node]:
        """Run call by call; stops after each, with its result in `nodes`."""
        yield from self._run(self._recording, None)

    def outputs(self) -> list[torch.Tensor]:
        """The outputs of the program, after the run."""
        return [self.nodes[node] for _, node in self._recording.outputs]

    def _run(self, program: Recording, given: Sequence[Any] | None) -> Iterator[fx.Node]:
        own = iter(given) if given is not None else self._inputs
        attributes = self._attributes if given is None else program.attributes
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self.nodes[node] = next(own)
            elif node.op == "get_attr":
                tensor = attributes[str(node.target)]
                self.nodes[node] = tensor if given is None else wide(tensor)
            elif node.op == "call_function":
                result = self.nodes[node] = self._call(node)
                if self._writes and isinstance(result, torch.Tensor):
                    self.tensors.made[node] = result.clone()
                if node.target is not operator.getitem and given is None:
                    yield node

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = pytree.tree_map_only(
            fx.Node, self.nodes.__getitem__, (node.args, node.kwargs)
        )
        plain = self._plain or not isinstance(node.target, torch._ops.OpOverload)
        if plain or node.target is operator.getitem:
            with drawing(node.target):
                return node.target(*args, **kwargs)  # type: ignore[operator]
        step = self._steps.get(node)
        if step is not None:
            self._keep_operands(step)
        result = self._result(node, step, args, kwargs)
        result = self._written(node, result)
        if step is not None:
            self._keep(step.result, result)
        return result

    def _result(self, node: fx.Node, step: Step | None, args: Any, kwargs: Any) -> Any:
        if step is not None and step.program is not None:
            return self._decomposed(step)
        if step is not None and self._compute is not None:
            computed = self._compute(step, self.tensors)
            if computed is not None:
                return computed
        if self._writes and viewed_argument(node.target) is None and not _shares(node):
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        call = bind_call(node.target, args, kwargs, node)
        if self._held is not None and holds_statistics(call.name):
            fixed = self._held.setdefault(node, dict(call.arguments))
            return with_held_statistics(call.name, call.arguments, fixed)
        return call_differentiably(node.target, dict(call.arguments))

    def _written(self, node: fx.Node, result: Any) -> Any:
        """The tensor that an in-place call wrote its result to, or the result."""
        if not _writes(node) or torch.Tag.inplace_view in node.target.tags:  # type: ignore[union-attr]
            return result
        call = bind_call(node.target, node.args, dict(node.kwargs), node)
        target = self.nodes[call[str(written_argument(node.target))]]
        return target.copy_(result)

    def _decomposed(self, step: Step) -> Any:
        """Run what a call was decomposed to, so that its inner values are kept too."""
        assert step.program is not None
        given = [self.tensors[value] for value in step.call.values()]
        for _ in self._run(step.program, given):
            pass
        results = iter([self.nodes[node] for _, node in step.program.outputs])
        shape = step.call.node.meta["val"]
        return pytree.tree_map_only(torch.Tensor, lambda _: next(results), shape)

    def _keep_operands(self, step: Step) -> None:
        if step.call.func is not step.call.node.target:  # written otherwise, of earlier values
            return
        call = bind_call(step.call.func, step.call.node.args, dict(step.call.node.kwargs), None)  # type: ignore[arg-type]
        self._keep(dict(step.call.arguments), self._look_up(dict(call.arguments)))

    def _look_up(self, arguments: Any) -> Any:
        return pytree.tree_map_only(fx.Node, self.nodes.__getitem__, arguments)

    def _keep(self, values: Any, tensors: Any) -> None:
        """Keep the tensors behind a nest of values; as copies if the program writes to tensors."""
        flat = [v for v in pytree.tree_leaves(values) if isinstance(v, Value)]
        found = [t for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor)]
        for value, tensor in zip(flat, found, strict=True):
            self.tensors.of[id(value)] = tensor.clone() if self._writes else tensor


def _writes(node: fx.Node) -> bool:
    """Whether a node is a call that writes to its operand and returns it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name
    return node.target._schema.is_mutable and name.endswith("_") and not name.endswith("__")


def _shares(node: fx.Node) -> bool:
    return operation_name(node.target) in _MAY_RETURN_ITS_INPUT
