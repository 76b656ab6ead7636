"""What runs inside a linearizable model: slopes applied at the calls that were traced.

Modules keep their identity, their names and their `state_dict` keys; only their class is replaced
by a subclass of it (`mixing`), as `torch.nn.utils.parametrize` does. A module that is an activation
blends its result with its input. A module whose forward calls activations (as functions, or modules
that are called several times) opens a *frame*, in which calls are counted: which slopes a call has
is decided by the module that calls and the order in it, so that a block that is run again by
gradient checkpointing, or on its own, finds the same. What departs from the traced order raises
`LinearizationError`. What is counted belongs to one call of the model (`open_calls`), so that calls
from several threads, and one within another, know nothing of each other.

A compiler looks at whatever is read here, and compiles anew where it is another. So a block that is
compiled by itself reads nothing that tells it from its like: no path, and not what was called
before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, fx, nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pathlen.errors import LinearizationError
from pathlen.training.blend import blend
from pathlen.training.call_actions import Action, Plan, Slot, Table
from pathlen.training.function_keys import key_of
from pathlen.training.open_calls import Calls, Frame, Opened
from pathlen.training.slope_numbering import update_state
from pathlen.training.slopes import SlopeSite

_NOTHING, _NO_SLOTS = Plan("?"), Table()


@dataclass(slots=True, eq=False)
class Linearization:
    """All call sites of a model, and the calls of it that are under way.

    Attributes:
        slots: One for each site, in the order of the program.
        left: A line for each activation that could not be given slopes.
        has_functions: Whether torch functions have to be intercepted.
        observer: Is shown each slot, the module that holds its slopes, and the activation's input.
        opened: The call that is under way in each thread.
    """

    slots: tuple[Slot, ...]
    left: tuple[str, ...]
    has_functions: bool
    observer: Callable[[Slot, nn.Module, Tensor], None] | None = None
    opened: Opened = field(default_factory=Opened)

    def slope(self, slot: Slot, module: nn.Module, x: Tensor) -> Tensor:
        """The slopes for an activation's input, which must have the features that it had."""
        slot.check(x)
        if self.observer is not None:
            self.observer(slot, module, x)
        return slot.slope(module)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the model run as if it had no slopes, in this thread."""
        self.opened.suspended = True
        try:
            yield
        finally:
            self.opened.suspended = False

    @contextmanager
    def frame(self, plan: Plan, module: nn.Module) -> Iterator[None]:
        """Count the calls of one module's forward; the outermost frame intercepts functions."""
        before, calls = self.opened.calls, self.opened.here()
        outermost = calls is None or (plan.whole and not plan.repeated)
        if calls is None or outermost:
            calls = Calls(plan.whole)  # a call of its own, also where a hook calls the model
        number = _number(plan, calls)
        table = plan.tables[number] if number < len(plan.tables) else _NO_SLOTS
        frame = Frame(plan, module, table, calls.frame)
        self.opened.calls, calls.frame = calls, frame
        try:
            if outermost and self.has_functions:
                with _Interception(self, calls):
                    yield
            else:
                yield
            _check_counts(frame)
        finally:
            self.opened.calls, calls.frame = before, frame.outer

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Leave the functions alone that an activation calls itself."""
        calls = self.opened.here() if self.has_functions else None
        if calls is None:
            yield
            return
        frame = Frame(_NOTHING, module, _NO_SLOTS, calls.frame)
        calls.frame = frame
        try:
            yield
        finally:
            calls.frame = frame.outer

    def once(self, plan: Plan) -> None:
        """Note the call of an activation that the trace called once.

        A part that is compiled by itself does not: it would be compiled anew for each.
        """
        calls = self.opened.calls
        if calls is None or not calls.whole or not calls.goes_on():
            return
        if calls.number(plan.path) > 0:
            raise LinearizationError(
                f"activation {plan.path!r} is called a second time in one forward, and was called"
                " once when the model was traced; its slopes are those of one call"
            )

    def next_slot(self, plan: Plan, key: str) -> Slot | None:
        """The slot of the next call of an activation that several calls share."""
        calls = self.opened.here()
        frame = None if calls is None else calls.frame
        slots = frame.table.modules.get(key) if frame is not None else None
        if frame is None or slots is None:
            raise LinearizationError(
                f"activation {plan.path!r} has slopes for several calls, and is called by"
                f" {_shown(frame.plan.path) if frame else 'nobody'}, which did not when the model"
                " was traced; call the modules that did, or the whole model"
            )
        number = frame.count(key)
        if number >= len(slots):
            name = repr(plan.path)
            raise LinearizationError(_departs(frame.plan.path, name, number + 1, len(slots)))
        return slots[number]


def _number(plan: Plan, calls: Calls) -> int:
    """Which of a module's calls in one forward this is."""
    if not plan.repeated:
        return 0
    if not calls.whole:
        raise LinearizationError(
            f"module {plan.path!r} is called several times in one forward, with slopes of their"
            " own, and now outside of it: which call this is cannot be told (gradient checkpointing"
            " of shared modules is not possible)"
        )
    return calls.number(plan.path)


def _check_counts(frame: Frame) -> None:
    """Raise LinearizationError where a frame made fewer calls than were traced."""
    table = frame.table
    for key, actions in (*table.functions.items(), *table.modules.items()):
        found = frame.counts.get(key, 0)
        if found != len(actions):
            raise LinearizationError(_departs(frame.plan.path, _name(key), found, len(actions)))


def _name(key: Any) -> str:
    """What is called, for people."""
    if isinstance(key, str):
        return repr(key.removeprefix("module "))
    return getattr(key, "__name__", str(key))


def _departs(path: str, name: str, found: int, traced: int) -> str:
    said = (
        f"the forward of {_shown(path)} departs from the traced one: it calls"
        f" {name} {found} time(s) so far, and did {traced} time(s). Slopes belong to calls in their"
        " order; make the model call the same activations each time"
    )
    if torch.compiler.is_dynamo_compiling():
        said += (
            ". (torch.compile does not show calls of abs, F.hardswish, F.sigmoid and F.tanh: call"
            " torch.sigmoid, torch.tanh or a module instead)"
        )
    return said


def _shown(path: str) -> str:
    return f"module {path!r}" if path else "the model itself"


class _Interception(TorchFunctionMode):
    """Applies slopes to the torch functions that are called in the open frame of one call."""

    def __init__(self, linearization: Linearization, calls: Calls) -> None:
        super().__init__()
        self._state, self._calls = linearization, calls

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        frame = self._calls.frame
        if frame is None or self._state.opened.here() is not self._calls:
            return func(*args, **kwargs)  # a call of its own, within this one
        called = key_of(func, args)
        actions = frame.table.functions.get(called)
        if actions is None or _is_compiled(frame.plan):
            return func(*args, **kwargs)
        number = frame.count(called)
        if number >= len(actions):
            raise LinearizationError(
                _departs(frame.plan.path, _name(called), number + 1, len(actions))
            )
        return self._act(frame, actions[number], func, args, kwargs)

    def _act(self, frame: Frame, action: Action, func: Any, args: Any, kwargs: Any) -> Any:
        if not action.keep and action.slot is None:
            return func(*args, **kwargs)
        leaves, structure = pytree.tree_flatten((args, kwargs))
        slot = action.slot
        for own, position in action.keep:
            tensor = leaves[position]
            if own is slot:  # one call is the whole activation

                def phi(x: Tensor, position: int = position) -> Tensor:
                    inner = [*leaves[:position], x, *leaves[position + 1 :]]
                    given, named = pytree.tree_unflatten(inner, structure)
                    result: Tensor = func(*given, **named)
                    return result

                slope = self._state.slope(own, frame.module, tensor)
                if not action.in_place:
                    return blend(tensor, slope, phi, own.form)
                copied = phi if own.form == "relu" else lambda x: phi(x.clone())
                return blend(tensor, slope, copied, own.form, in_place=True)
            kept, name = self._kept(frame, own)
            kept[name] = tensor, _version(tensor)
        if slot is None:
            return func(*args, **kwargs)
        return self._end(frame, slot, func, args, kwargs)

    def _kept(self, frame: Frame, slot: Slot) -> tuple[dict[str, tuple[Tensor, int]], str]:
        """Where the operand of an activation is kept until its last call, and its name there."""
        if slot.spans:
            return self._calls.kept, f"{slot.owner}.{slot.attribute}"
        return frame.kept, slot.attribute

    def _end(self, frame: Frame, slot: Slot, func: Any, args: Any, kwargs: Any) -> Any:
        """The last call of a function that is written in several."""
        every, name = self._kept(frame, slot)
        kept = every.pop(name, None)
        if kept is None or _version(kept[0]) != kept[1]:
            what = "was not computed" if kept is None else "is written to"
            raise LinearizationError(
                f"{slot.layer!r}: what the activation is a function of {what} before its last call"
            )
        slope = self._state.slope(slot, frame.module, kept[0])
        before = kept[0].clone() if any(kept[0] is leaf for leaf in args) else kept[0]
        return blend(before, slope, lambda _: func(*args, **kwargs), "any")


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; a compiler does not know these numbers."""
    return 0 if torch.compiler.is_dynamo_compiling() else tensor._version


class Linearized(nn.Module):
    """Mixed into the modules of a model with slopes.

    What code of others makes of such a class (`model[:3]`, `type(module)(...)`) has no slopes of
    its own, and does what the class did before.

    Attributes:
        _linearization: Of the model; None of what others have made.
        _plan: What the module is in it.
        _slope_sites: The slopes that it holds.
    """

    _linearization: Linearization | None = None
    _plan: Plan
    _slope_sites: tuple[SlopeSite, ...] = ()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        update_state(self, self._slope_sites, state_dict, prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __prepare_scriptable__(self) -> Any:
        """What `torch.jit.script` asks for.

        Raises:
            LinearizationError: Always.
        """
        name = type(self).__name__ if self._linearization is None else _shown(self._plan.path)
        raise LinearizationError(
            f"{name} has slopes, and torch.jit.script cannot compile the Python"
            " that applies them; use torch.export.export or torch.jit.trace"
        )


class Caller(Linearized):
    """Mixed into modules whose forward calls activations."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module does, with the calls in it counted."""
        state = self._linearization
        if state is None or state.opened.suspended:
            return super().forward(*args, **kwargs)
        plan = self._plan
        if plan.tables:
            _refuse_symbols(plan, args, kwargs)
        with state.frame(plan, self):
            # a compiler that waits for the next call, and does not follow this one
            waits = (
                not torch.compiler.is_dynamo_compiling() and get_eval_frame_callback() is not None
            )
            if waits and plan.intercepts:
                return _uncompiled()(super().forward, args, kwargs)
            return super().forward(*args, **kwargs)


class Activation(Linearized):
    """Mixed into modules that are activations.

    Attributes:
        _slot: None where several calls have slopes of their own.
        _key: What it is called in the tables of those that call it.
        _writes_in_place: Whether it writes its result to its argument.
    """

    _slot: Slot | None
    _key: str
    _writes_in_place: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Blend what the activation gives with its input."""
        state, original = self._linearization, super().forward
        if state is None or state.opened.suspended:
            return original(*args, **kwargs)
        slot = self._slot
        if slot is None:
            slot = state.next_slot(self._plan, self._key)
        else:
            state.once(self._plan)
        if slot is None:
            return original(*args, **kwargs)
        x, *rest = args

        def phi(x: Tensor) -> Tensor:
            y: Tensor = original(x.clone() if self._writes_in_place else x, *rest, **kwargs)
            return y

        if not state.has_functions:
            slope = state.slope(slot, self, x)
            return blend(x, slope, phi, slot.form, in_place=self._writes_in_place)
        with state.inside(self):  # what a blend calls is none of the forward's calls
            slope = state.slope(slot, self, x)
            return blend(x, slope, phi, slot.form, in_place=self._writes_in_place)


@cache
def _uncompiled() -> Any:
    """What runs a forward whose functions are intercepted without a compiler.

    What could not be compiled as a whole is not compiled in pieces: a compiler that begins in the
    midst of it does not know what was counted and kept.
    """
    return torch.compiler.disable(_call)


def _call(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return forward(*args, **kwargs)


def _refuse_symbols(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse to be traced by torch.fx where slopes belong to calls that it does not show."""
    if any(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values())):
        raise LinearizationError(
            f"{_shown(plan.path)} calls activations as functions, or one module several times;"
            " torch.fx.symbolic_trace (which torchvision's create_feature_extractor uses) does not"
            " tell these calls apart, and their slopes would be lost. Use torch.export.export or"
            " torch.fx.experimental.proxy_tensor.make_fx, hooks for features, or make each call a"
            " module of its own"
        )


def _is_compiled(plan: Plan) -> bool:
    """Whether a program that torch.compile has made calls a function: its slopes are in there.

    Raises:
        LinearizationError: Gradient checkpointing would repeat the call where nobody intercepts it.
    """
    if torch.compiler.is_dynamo_compiling():
        return False
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not Caller.forward.__code__:
        if frame.f_code.co_filename.startswith("<eval_with_key>"):  # code of torch.fx
            return True
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            raise LinearizationError(
                f"{_shown(plan.path)} calls activations as functions inside a part of its forward"
                " that is checkpointed; backward would run that part again without its slopes."
                " Checkpoint whole modules, or make the activation a module"
            )
        frame = frame.f_back  # type: ignore[assignment]
    return False
