"""Where a model's own Python calls its activations: modules, functions, formulas.

The lowering knows of each activation which tensor it is a function of and which tensor it gives.
While the model is traced, an observer writes down which module or torch function was called with
the one and returned the other. So no list of activations is needed, and what is found is a place
in the user's program where a slope can be put.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.hooks import RemovableHandle

from pathlen.errors import ModelError
from pathlen.lowering.labels import compact
from pathlen.lowering.places import identity
from pathlen.lowering.program import lower_watched
from pathlen.lowering.regions import Region
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Value
from pathlen.policy import Policy
from pathlen.tracing import module_path, trace_model
from pathlen.tracing.recording import EAGER
from pathlen.tracing.state import on_cpu
from pathlen.training.call_actions import Place
from pathlen.training.function_keys import key_of, to_name

FrameKey = tuple[str, int]  # path of a module, and which of its calls in one forward


@dataclass(frozen=True, slots=True, eq=False)
class FunctionCall:
    """One call of a torch function in the forward of a module.

    Attributes:
        frame: The call of the module.
        function: As an override of torch functions sees it.
        key: What it is counted under.
        index: How often the frame had called it before.
        operands: Node behind each tensor, by its position among the leaves of the arguments.
        result: Node of the result.
        in_place: Whether it returned one of its operands.
    """

    frame: FrameKey
    function: Callable[..., Any]
    key: Any
    index: int
    operands: Mapping[int, fx.Node]
    result: fx.Node | None
    in_place: bool


@dataclass(frozen=True, slots=True, eq=False)
class ModuleCall:
    """One call of a module with a tensor as its first argument, that returned a tensor.

    Attributes:
        path: Of the module.
        frame: The call of the module that called it.
        index: How often that frame had called it before.
        operand: Node of the first argument.
        result: Node of the result.
        in_place: Whether it returned its argument.
    """

    path: str
    frame: FrameKey
    index: int
    operand: fx.Node | None
    result: fx.Node | None
    in_place: bool


@dataclass(frozen=True, slots=True, eq=False)
class CallSite:
    """One activation of the path graph, and where the program computes it.

    Attributes:
        layer: Name of its layer in the path graph.
        labels: Unit of each element of the result, of length 1 where it does not vary; -1 is none.
        shape: Of the result.
        dtype: Of the result.
        module: The module call that computes it; or
        last: the function call that returns it, and
        first: one that reads what it is a function of, with the position of that operand.
    """

    layer: str
    labels: Tensor
    shape: torch.Size
    dtype: torch.dtype
    module: ModuleCall | None = None
    last: FunctionCall | None = None
    first: tuple[FunctionCall, int] | None = None

    @property
    def owner(self) -> str:
        """Path of the module that holds its slopes."""
        if self.module is not None:
            return self.module.path
        assert self.last is not None
        return self.last.frame[0]

    @property
    def place(self) -> Place:
        """The call that returns it."""
        if self.module is not None:
            return *self.module.frame, f"module {self.module.path}", self.module.index
        assert self.last is not None
        return *self.last.frame, str(to_name(self.last.key)), self.last.index


@dataclass(frozen=True, slots=True)
class Unplaced:
    """An activation of the path graph without a place of its own in the program.

    Attributes:
        layer: Name of its layer in the path graph.
        operation: That computes it.
        path: Of the module that it is computed in.
    """

    layer: str
    operation: str
    path: str

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.layer!r}: {self.operation} in module {self.path or '(top level)'!r}"


@dataclass(slots=True)
class Observed:
    """What a forward did, in order."""

    modules: list[ModuleCall] = field(default_factory=list)
    functions: list[FunctionCall] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)


def find_call_sites(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    policy: Policy,
    input_axis: int | Mapping[str, int] | None,
) -> tuple[list[CallSite], list[Unplaced], Observed]:
    """Trace a model and find its activations in its own program.

    Returns:
        The sites; the activations that have no place of their own in the program; and all calls
        that were seen.

    Raises:
        ModelError: The model is traced by running another program than its own.
        PathlenError: Whatever `pathlen.trace` raises.
    """
    observer = _Observer(model)
    with observer.watching():
        recording = trace_model(model, args, kwargs, None)
    if recording.tracer not in EAGER:
        raise ModelError(
            f"{type(model).__name__} can only be traced by {recording.tracer}, which does not run"
            " the model's own Python, where the slopes have to go: " + "; ".join(recording.attempts)
        )
    seen = observer.seen_of(recording.graph)
    with on_cpu():
        graph, lowering, _ = lower_watched(recording, policy, input_axis)
    assert lowering.steps is not None
    numbers = lowering.builder.numbers()
    sites, left = [], []
    for step in lowering.steps.taken:
        value = step.result if step.program is None else None
        nodes = numbers[step.nodes.start : step.nodes.stop]
        if not isinstance(value, Value) or value.function is None or not (nodes >= 0).any():
            continue
        layer = graph.layers[graph.layer[nodes[nodes >= 0][0]]].name
        labels = _live_labels(value, numbers)
        shape = CallSite(layer, labels, value.shape, value.dtype)
        places = (
            _place(shape, entry, step.call.node, seen)
            for entry in _entries(value, value.function.region)
        )
        found = next((place for place in places if place is not None), None)
        if found is None or value.dtype.is_complex:
            path = module_path(step.call.node) or ""
            left.append(Unplaced(layer, step.call.operation, path))
        else:
            sites.append(found)
    return sites, left, seen


def _entries(value: Value, region: Region) -> Iterator[fx.Node]:
    """Nodes that hold what an activation is a function of, element by element where it is."""
    places = region.state.places
    if region.entry.shape == value.shape and places == (identity(value.shape),):
        yield region.entry.node
        return
    # The program moves elements on the way: a slope multiplies what has been moved already.
    for inner, state in zip(region.between, region.states, strict=True):
        if (
            state is not None
            and inner.call is not None
            and kind_of(inner) == "movement"
            and inner.function is None
            and inner.shape == value.shape
            and state.places == places
        ):
            yield inner.node


def _live_labels(value: Value, numbers: np.ndarray) -> Tensor:
    """Unit of each element in the path graph, -1 where there is none."""
    labels = compact(value.labels)
    flat = labels.numpy()
    return torch.from_numpy(np.where(flat >= 0, numbers[flat], -1))


def _place(shape: CallSite, entry: fx.Node, result: fx.Node, seen: Observed) -> CallSite | None:
    """Where the program computes a result from an entry: the innermost module, else functions."""
    own = (shape.layer, shape.labels, shape.shape, shape.dtype)
    modules = [c for c in seen.modules if c.result is result and c.operand is entry and c.path]
    if modules:
        return CallSite(*own, module=max(modules, key=lambda call: len(call.path)))
    lasts = [call for call in seen.functions if call.result is result]
    if not lasts:
        return None
    last = lasts[0]  # what follows passes its result on
    for position, node in last.operands.items():
        if node is entry:
            return CallSite(*own, last=last, first=(last, position))
    end = seen.functions.index(last)
    for call in reversed(seen.functions[:end]):
        for position, node in call.operands.items():
            if node is entry and not call.in_place:
                return CallSite(*own, last=last, first=(call, position))
    return None


@dataclass(slots=True)
class _Frame:
    key: FrameKey
    operand: fx.Node | None
    tensor: Any
    index: int
    counts: Counter[Any] = field(default_factory=Counter)


class _Observer(TorchFunctionMode):
    """Writes down the calls of a forward, of each for itself where several are run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._thread = get_ident()
        self._paths = {id(module): path for path, module in model.named_modules()}
        self.seen = Observed()
        self._runs = [self.seen]
        self._frames: list[_Frame] = []

    def seen_of(self, graph: fx.Graph) -> Observed:
        """What the forward did that a graph records; others failed, or drew other numbers."""
        for run in self._runs:
            results = [*(one.result for one in run.functions), *(one.result for one in run.modules)]
            if any(node is not None and node.graph is graph for node in results):
                return run
        return self.seen

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs in the block."""
        handles: list[RemovableHandle] = []
        try:
            for module in self._model.modules():  # what is next to forward: a slope goes there
                handles.append(module.register_forward_pre_hook(self._enter))
                leave = module.register_forward_hook(self._leave, prepend=True, always_call=True)
                handles.append(leave)
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._frames or not callable(func):
            return func(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        operands = {
            position: node
            for position, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and (node := _node_of(leaf)) is not None
        }
        frame = self._frames[-1]
        key = key_of(func, args)
        index = frame.counts[key]
        frame.counts[key] += 1
        result = func(*args, **kwargs)
        self.seen.functions.append(
            FunctionCall(
                frame.key,
                func,
                key,
                index,
                operands,
                _node_of(result),
                any(result is leaf for leaf in leaves if isinstance(leaf, Tensor)),
            )
        )
        return result

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if get_ident() != self._thread:  # who serves the model meanwhile
            return
        if module is self._model and not self._frames:
            self.seen = Observed()
            self._runs.append(self.seen)
        path = self._paths.get(id(module), "?")
        number = self.seen.calls[path]
        self.seen.calls[path] += 1
        index = 0
        if self._frames:
            index = self._frames[-1].counts["module", path]
            self._frames[-1].counts["module", path] += 1
        tensor = args[0] if args else None
        self._frames.append(_Frame((path, number), _node_of(tensor), tensor, index))

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        if get_ident() != self._thread:
            return
        frame = self._frames.pop()
        if self._frames and result is not None:
            self.seen.modules.append(
                ModuleCall(
                    frame.key[0],
                    self._frames[-1].key,
                    frame.index,
                    frame.operand,
                    _node_of(result),
                    result is frame.tensor,
                )
            )


def _node_of(value: Any) -> fx.Node | None:
    """The node that the recorder at work knows a tensor by."""
    if not isinstance(value, Tensor):
        return None
    for mode in _get_current_dispatch_mode_stack():
        if hasattr(mode, "known_node"):
            node: fx.Node | None = mode.known_node(value)
            return node
    return None
