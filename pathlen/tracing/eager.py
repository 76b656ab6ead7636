"""The eager recorder: runs the model's own Python once and writes down every ATen call.

Under `torch.inference_mode` autograd steps aside and a dispatch mode sees composite operations
(linear, dropout, scaled_dot_product_attention, ...) whole, before they are decomposed. Fake
tensors make the run cost no arithmetic and no memory; real tensors can answer programs that look
at values.
"""

import operator
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from pathlen.collection import uncollected
from pathlen.errors import TraceError
from pathlen.tracing.arguments import dotted_name, input_names, named_tensors, select_outputs
from pathlen.tracing.autograd_mode import as_given, autograd_mode
from pathlen.tracing.control_flow import as_python
from pathlen.tracing.draws import watched_draws
from pathlen.tracing.fake import LazyFakeMode
from pathlen.tracing.meta_values import MetaValues
from pathlen.tracing.modes import DispatchMode
from pathlen.tracing.module_stack import ModuleStack, Place
from pathlen.tracing.recording import (
    FAKE_TENSORS,
    GRADIENTS,
    REAL_GRADIENTS,
    REAL_TENSORS,
    Recording,
    computes_nothing,
)
from pathlen.tracing.state import untouched, untouched_process


class EndlessError(TraceError):
    """A program on tensors without data makes too many calls; a loop in it may never end."""


class CompiledError(TraceError):
    """An operator was compiled before it was called; once the compiler is loaded, none is."""


_TRACERS = {
    (True, False): FAKE_TENSORS,
    (True, True): GRADIENTS,
    (False, False): REAL_TENSORS,
    (False, True): REAL_GRADIENTS,
}
MOST_FAKE_CALLS = 1_000_000  # a hundred times what the largest networks make; minutes


def record(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    *,
    fake: bool,
    gradients: bool = False,
    call: Callable[..., Any] | None = None,
    seed: int | None = None,
) -> Recording:
    """Record one forward pass of `model` in eval mode.

    Args:
        model: a module or any callable of tensors.
        args: positional arguments of the call; tensors may be anywhere in them.
        kwargs: keyword arguments of the call.
        outputs: which returned tensors count (see `select_outputs`).
        fake: run on fake tensors (shapes only) instead of on the tensors given.
        gradients: let the model compute gradients in its forward; composite operations are then
            seen in parts.
        call: runs the model in place of its own call. It is given a function that takes the
            modules (path, class) around the calls to come, then the arguments.
        seed: for other random numbers than those that it is recorded with by default.

    Raises:
        TraceError: no floating-point output, or a tensor appeared that no recorded call made.
        Exception: whatever the model raises.
    """
    compiler = sys.modules.get("torch._dynamo")
    try:
        return _record(model, args, kwargs, outputs, fake, gradients, call, seed)
    except Exception as error:
        compiles = isinstance(error, CompiledError) or "torch._dynamo" in type(error).__module__
        if compiler is not None or not compiles:
            raise
    return _record(model, args, kwargs, outputs, fake, gradients, call, seed)


def _record(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    fake: bool,
    gradients: bool,
    call: Callable[..., Any] | None,
    seed: int | None,
) -> Recording:
    """One try of `record`."""
    mode = LazyFakeMode() if fake else None
    recorder = _Recorder(model, MOST_FAKE_CALLS if fake else None, ModuleStack(sys._getframe()))
    collection = uncollected if fake else nullcontext  # real tensors may be large
    with (
        untouched(model),
        watched_draws(model, seed, calls=not fake) as drawn,
        autograd_mode(gradients),
        collection(),
    ):
        args, kwargs = recorder.enter_inputs(model, args, kwargs, mode)
        try:
            with mode or nullcontext(), recorder, recorder.values():
                run = model if call is None else partial(call, recorder.at)
                result = run(*args, **kwargs)
        finally:
            recorder.stack.forget()
            recorder.restore_written()
    tensors = select_outputs(named_tensors(result, ""), outputs)
    named = tuple((name or "output", recorder.node_of(tensor)) for name, tensor in tensors)
    recorder.graph.output(tuple(node for _, node in named))
    tracer = _TRACERS[fake, gradients]
    return Recording(recorder.graph, recorder.attributes, named, tracer, draws=drawn.seen)


def record_operator(
    function: Callable[..., Any], values: list[torch.Tensor], stack: list[tuple[str, type]]
) -> Recording:
    """Record what a function of tensors calls, without running it on data.

    Args:
        function: called with fake tensors of the shapes of `values`.
        values: tensors with or without data; they become the placeholders, in this order.
        stack: the modules (path, class) that the calls are to be told of.

    Returns:
        The calls; its outputs are all tensors that the function returns, in order.
    """
    mode = LazyFakeMode()
    recorder = _Recorder(None)
    recorder.at(list(stack))
    # under a torch function mode, such as a default device, an operator is made of itself
    with untouched_process(), torch.inference_mode(), torch._C.DisableTorchFunction():
        entered = [recorder.enter(value, f"operand_{n}", mode) for n, value in enumerate(values)]
        with mode, recorder:
            result = function(*entered)
    tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    named = tuple((str(n), recorder.node_of(tensor)) for n, tensor in enumerate(tensors))
    recorder.graph.output(tuple(node for _, node in named))
    return Recording(recorder.graph, recorder.attributes, named, "decomposition")


class _Recorder(DispatchMode):
    """Writes every call that reaches the dispatcher to `graph`.

    Tensors are known by identity; each is kept alive until the recording ends, so that neither an
    identity nor a storage is used twice. An in-place call makes its target stand for the result.
    """

    def __init__(
        self, model: Any, most_calls: int | None = None, stack: ModuleStack | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self._calls_left = most_calls
        self.attributes: dict[str, torch.Tensor] = {}
        self.stack = ModuleStack() if stack is None else stack
        self._nodes: dict[int, tuple[torch.Tensor, fx.Node]] = {}
        self._of_tensor: dict[int, list[fx.Node]] = {}
        self._by_storage: dict[int, list[int]] = {}
        state = _state(model)
        self._names = {id(tensor): name for name, tensor in reversed(state)}
        self._is_on_meta = any(tensor.is_meta for _, tensor in state)
        self._outside: dict[int, list[torch.Tensor]] = {}
        self._written: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._compiles_nothing = "torch._dynamo" in sys.modules  # `untouched_process` sees to it
        self._reshaped: list[tuple[torch.Tensor, torch.Tensor, bool]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if written_out := as_python(func):
            return self._inside(func, written_out, args, kwargs)
        self._count()
        if func.namespace == "prim" or computes_nothing(func):  # asks for a device or the like
            return func(*args, **kwargs)
        run = func
        if torch.Tag.inplace_view in func.tags:
            self._keep_shape_of(args[0])
            run = _on_its_own(func, args[0])
        node_args, node_kwargs = map_aggregate((args, kwargs), self._argument)
        if func._schema.is_mutable:
            self._keep_values_of(pytree.tree_leaves((args, kwargs)))
        result = run(*args, **kwargs)
        self._refuse_nested(func, result)
        node = self.graph.call_function(func, node_args, node_kwargs)
        node.meta["val"] = map_aggregate(result, _without_data)
        node.meta["nn_module_stack"] = self._module_stack_entry()
        self._bind(result, node)
        return result

    def _inside(
        self, func: Any, written_out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record what an operator calls."""
        if isinstance(func, HigherOrderOperator) and not self._compiles_nothing:
            raise CompiledError("torch.compile was loaded by an operator while something records")
        with self:
            return written_out(*args, **kwargs)

    def _count(self) -> None:
        """Stop a program that goes on and on, as a loop may that waits for a value."""
        if self._calls_left is None:
            return
        self._calls_left -= 1
        if self._calls_left < 0:
            raise EndlessError(
                f"more than {MOST_FAKE_CALLS:,} operations on tensors without data, the last in"
                f" {self._place()}; a loop there may wait for a value"
            )

    def _refuse_nested(self, func: Any, result: Any) -> None:
        if isinstance(result, torch.Tensor) and result.is_nested:
            raise TraceError(
                f"{func} in {self._place()} makes a nested tensor, of which no"
                " element has a place of its own; pad the sequences to one length instead"
            )

    def _argument(self, value: Any) -> Any:
        return self.node_of(value) if isinstance(value, torch.Tensor) else value

    def node_of(self, tensor: torch.Tensor) -> fx.Node:
        """The node that made this tensor, or a get_attr node for a tensor from outside."""
        known = self._nodes.get(id(tensor))
        if known is not None:
            return known[1]
        if name := self._names.get(id(tensor)):
            return self._attribute(tensor, name)
        for key in self._by_storage.get(_storage_key(tensor), ()):
            other, node = self._nodes[key]
            if _same_view(other, tensor):  # tensor.data and the like make a new object silently
                return node
        if isinstance(tensor, FakeTensor):
            if tensor.constant is not None:
                return self._attribute(tensor, f"_constant_{len(self.attributes)}", tensor.constant)
            raise TraceError(
                f"a tensor of shape {tuple(tensor.shape)} came from no recorded call"
                f" in {self._place()}"
            )
        return self._attribute(tensor, f"_constant_{len(self.attributes)}")

    def known_node(self, tensor: torch.Tensor) -> fx.Node | None:
        """The node of a tensor that was met before, None for any other."""
        known = self._nodes.get(id(tensor))
        return None if known is None else known[1]

    def enter(self, tensor: torch.Tensor, name: str, mode: FakeTensorMode | None) -> torch.Tensor:
        """A placeholder for a tensor; returns the tensor to call with in its place."""
        self._is_on_meta |= tensor.is_meta
        own = tensor.detach()  # a tensor passed twice is two inputs
        own = mode.from_tensor(own) if mode else own.clone()  # the model may write to it
        own = as_given(own, tensor)
        node = self.graph.placeholder(name.replace(".", "_"))
        node.meta["val"] = _without_data(own)
        node.meta["input_name"] = name
        self._remember(own, node)
        return own

    def enter_inputs(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: FakeTensorMode | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Placeholders for the tensors in the arguments; returns the arguments to call with."""
        forward = model.forward if isinstance(model, torch.nn.Module) else model
        named = {**dict(zip(input_names(forward, args), args, strict=True)), **kwargs}

        def enter(path: tuple[Any, ...], leaf: Any) -> Any:
            is_tensor = isinstance(leaf, torch.Tensor)
            return self.enter(leaf, dotted_name(path), mode) if is_tensor else leaf

        entered = pytree.tree_map_with_path(enter, named)
        values = list(entered.values())
        return tuple(values[: len(args)]), {key: entered[key] for key in kwargs}

    def at(self, places: list[Place]) -> None:
        """Say in which modules the calls to come are."""
        self.stack.put(places)

    def _place(self) -> str:
        places = self.stack.now()
        return f"module {(places[-1][0] if places else '') or '(top level)'!r}"

    def values(self) -> AbstractContextManager[Any]:
        """Keeps the numbers that a program on the meta device writes down; elsewhere they are."""
        return MetaValues() if self._is_on_meta else nullcontext()

    def restore_written(self) -> None:
        """Give parameters, buffers and other tensors from outside what they were before."""
        for tensor, before, requires_grad in reversed(self._reshaped):
            tensor.data = before
            tensor.requires_grad_(requires_grad)
        with torch.no_grad():
            for kept in self._written.values():
                for tensor, values in kept:
                    tensor.copy_(values)

    def _keep_values_of(self, arguments: list[Any]) -> None:
        """Before an in-place call: what it may write to is copied if it is not our own."""
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, FakeTensor):
                key = _storage_key(tensor)
                if key in self._outside and key not in self._written:
                    with unset_fake_temporarily(), torch.no_grad():
                        self._written[key] = [(own, own.clone()) for own in self._outside[key]]

    def _bind(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, torch.Tensor):
            self._remember(result, node)
        elif isinstance(result, (tuple, list)):
            for position, item in enumerate(result):
                if isinstance(item, torch.Tensor):
                    part = self.graph.call_function(operator.getitem, (node, position))
                    part.meta["val"] = _without_data(item)
                    part.meta["nn_module_stack"] = node.meta["nn_module_stack"]
                    self._remember(item, part)

    def _keep_shape_of(self, tensor: torch.Tensor) -> None:
        """Before unsqueeze_ and its like: what was recorded of the tensor keeps its old shape."""
        if not isinstance(tensor, FakeTensor):
            with unset_fake_temporarily():
                self._reshaped.append((tensor, tensor.detach(), tensor.requires_grad))
            return
        before = tensor.detach()
        for node in self._of_tensor.pop(id(tensor), ()):
            node.meta["val"] = before

    def _remember(self, tensor: torch.Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = (tensor, node)
        self._of_tensor.setdefault(id(tensor), []).append(node)
        self._by_storage.setdefault(_storage_key(tensor), []).insert(0, id(tensor))

    def _attribute(
        self, tensor: torch.Tensor, name: str, value: torch.Tensor | None = None
    ) -> fx.Node:
        node = self.graph.create_node("get_attr", name, (), {})
        node.meta["val"] = tensor  # it is kept anyway
        self.attributes[name] = tensor if value is None else value
        self._outside.setdefault(_storage_key(tensor), []).append(tensor)
        self._nodes[id(tensor)] = (tensor, node)
        return node

    def _module_stack_entry(self) -> OrderedDict[str, tuple[str, type]]:
        return OrderedDict((path, (path, kind)) for path, kind in self.stack.now())


def _state(model: Any) -> list[tuple[str, torch.Tensor]]:
    if not isinstance(model, torch.nn.Module):
        return []
    return [*model.named_parameters(), *model.named_buffers()]


def _on_its_own(func: Any, tensor: torch.Tensor) -> Any:
    """An operator that changes how a tensor is seen; fake mode lets it change only fake ones.

    Real ones are those that a model has or makes past the dispatcher, such as
    `torch.tensor([...], device="meta")`.
    """
    if isinstance(tensor, FakeTensor):
        return func

    def run(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    return run


def _without_data(tensor: Any) -> Any:
    """Shape, strides and dtype of a tensor; a fake tensor is that already, a number stays."""
    if not isinstance(tensor, torch.Tensor) or isinstance(tensor, FakeTensor):
        return tensor
    if tensor.layout is not torch.strided:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _storage_key(tensor: torch.Tensor) -> int:
    if tensor.layout is not torch.strided:
        return -1
    return int(tensor.untyped_storage()._cdata)


def _same_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
    )
