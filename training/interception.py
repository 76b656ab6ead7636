"""What runs inside a linearizable model: slopes applied at the calls that were traced.

Modules keep their identity, their names and their `state_dict` keys; only their class is replaced
by a subclass of it, as `torch.nn.utils.parametrize` does. A module that is an activation blends
its result with its input. A module whose forward calls activations (as functions, or modules that
are called several times) opens a *frame*, in which calls are counted: which slopes a call has is
decided by the module that calls and the order in it, so that a block that is run again by gradient
checkpointing, or on its own, finds the same. What departs from the traced order raises
`LinearizationError`. What is counted belongs to one call of the model (`open_calls`), so that calls
from several threads, and one within another, know nothing of each other.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pathlen.errors import LinearizationError
from pathlen.training.blend import blend
from pathlen.training.call_actions import Action, Slot, Table
from pathlen.training.call_sites import FrameKey
from pathlen.training.open_calls import Calls, Frame, Opened
from pathlen.training.slope_numbering import update_state
from pathlen.training.slopes import SlopeSite


@dataclass(slots=True, eq=False)
class Linearization:
    """All call sites of a model, and the calls of it that are under way.

    Attributes:
        slots: One for each site, in the order of the program.
        left: A line for each activation that could not be given slopes.
        tables: By frame; modules that were not run have none.
        repeated: Paths of modules with a table that one forward calls several times.
        observer: Is shown each slot, the module that holds its slopes, and the activation's input.
        opened: The call that is under way in each thread.
    """

    slots: tuple[Slot, ...]
    left: tuple[str, ...]
    tables: Mapping[FrameKey, Table]
    repeated: frozenset[str]
    observer: Callable[[Slot, nn.Module, Tensor], None] | None = None
    opened: Opened = field(default_factory=Opened)

    def slope(self, slot: Slot, module: nn.Module, x: Tensor) -> Tensor:
        """The slopes for an activation's input, which must have the features that it had."""
        slot.check(x)
        if self.observer is not None:
            self.observer(slot, module, x)
        return slot.slope(module)

    @property
    def has_functions(self) -> bool:
        """Whether torch functions have to be intercepted."""
        return any(table.functions for table in self.tables.values())

    @contextmanager
    def frame(self, path: str, module: nn.Module) -> Iterator[None]:
        """Count the calls of one module's forward; the outermost frame intercepts functions."""
        before = self.opened.calls
        calls = self.opened.here()
        if calls is None or (path == "" and path not in self.repeated):
            calls = Calls()  # a call of its own, also where a hook calls the model within another
        outermost = not calls.stack
        number = self._number(path, calls)
        frame = Frame(path, module, self.tables.get((path, number), Table()))
        self.opened.calls = calls
        calls.stack.append(frame)
        try:
            if outermost and self.has_functions:
                with _Interception(self, calls):
                    yield
            else:
                yield
            _check_counts(frame)
        finally:
            calls.stack.pop()
            self.opened.calls = before

    @contextmanager
    def inside(self, path: str, module: nn.Module) -> Iterator[None]:
        """Leave the functions alone that an activation calls itself."""
        calls = self.opened.here()
        if calls is None:
            yield
            return
        calls.stack.append(Frame(path, module, Table()))
        try:
            yield
        finally:
            calls.stack.pop()

    def once(self, path: str) -> None:
        """Note the call of an activation that the trace called once."""
        calls = self.opened.here()
        if calls is not None and calls.stack[0].path == "" and calls.number(path) > 0:
            raise LinearizationError(
                f"activation {path!r} is called a second time in one forward, and was called"
                " once when the model was traced; its slopes are those of one call"
            )

    def next_slot(self, path: str) -> Slot | None:
        """The slot of the next call of an activation that several calls share."""
        calls = self.opened.here()
        frame = None if calls is None else calls.stack[-1]
        slots = frame.table.modules.get(path) if frame is not None else None
        if frame is None or slots is None:
            raise LinearizationError(
                f"activation {path!r} has slopes for several calls, and is called by"
                f" {_shown(frame.path) if frame else 'nobody'}, which did not when the model"
                " was traced; call the modules that did, or the whole model"
            )
        number = frame.count(path)
        if number >= len(slots):
            raise LinearizationError(_departs(frame.path, repr(path), number + 1, len(slots)))
        return slots[number]

    def _number(self, path: str, calls: Calls) -> int:
        if path not in self.repeated:
            return 0
        if path != "" and (not calls.stack or calls.stack[0].path != ""):
            raise LinearizationError(
                f"module {path!r} is called several times in one forward, with slopes of their own,"
                " and now outside of it: which call this is cannot be told (gradient checkpointing"
                " of shared modules is not possible)"
            )
        return calls.number(path)


def _check_counts(frame: Frame) -> None:
    """Raise LinearizationError where a frame made fewer calls than were traced."""
    table = frame.table
    for name, actions in (*table.functions.items(), *table.modules.items()):
        found = frame.counts.get(name, 0)
        if found != len(actions):
            shown = repr(name) if isinstance(name, str) else getattr(name, "__name__", str(name))
            raise LinearizationError(_departs(frame.path, shown, found, len(actions)))


def _departs(path: str, name: str, found: int, traced: int) -> str:
    return (
        f"the forward of {_shown(path)} departs from the traced one: it calls"
        f" {name} {found} time(s) so far, and did {traced} time(s). Slopes belong to calls in their"
        " order; make the model call the same activations each time"
    )


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
        if self._state.opened.here() is not self._calls:  # a call of its own, within this one
            return func(*args, **kwargs)
        frame = self._calls.stack[-1]
        actions = frame.table.functions.get(func)
        if actions is None:
            return func(*args, **kwargs)
        number = frame.count(func)
        if number >= len(actions):
            name = getattr(func, "__name__", str(func))
            raise LinearizationError(_departs(frame.path, name, number + 1, len(actions)))
        return self._act(actions[number], func, args, kwargs)

    def _act(self, action: Action, func: Any, args: Any, kwargs: Any) -> Any:
        if not action.keep and action.slot is None:
            return func(*args, **kwargs)
        _refuse_checkpoint(self._calls.stack[-1].path)
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

                slope = self._state.slope(own, self._calls.stack[-1].module, tensor)
                if not action.in_place:
                    return blend(tensor, slope, phi, own.form)
                copied = phi if own.form == "relu" else lambda x: phi(x.clone())
                return blend(tensor, slope, copied, own.form, in_place=True)
            self._calls.kept[id(own)] = tensor, tensor._version
        if slot is None:
            return func(*args, **kwargs)
        return self._end(slot, func, args, kwargs)

    def _end(self, slot: Slot, func: Any, args: Any, kwargs: Any) -> Any:
        """The last call of a function that is written in several."""
        kept = self._calls.kept.pop(id(slot), None)
        if kept is None or kept[0]._version != kept[1]:
            what = "was not computed" if kept is None else "is written to"
            raise LinearizationError(
                f"{slot.layer!r}: what the activation is a function of {what} before its last call"
            )
        slope = self._state.slope(slot, self._calls.stack[-1].module, kept[0])
        before = kept[0].clone() if any(kept[0] is leaf for leaf in args) else kept[0]
        return blend(before, slope, lambda _: func(*args, **kwargs), "any")


class Caller(nn.Module):
    """Mixed into modules whose forward calls activations."""

    _linearization: Linearization
    _frame_path: str
    _slope_sites: tuple[SlopeSite, ...]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module does, with the calls in it counted."""
        with self._linearization.frame(self._frame_path, self):
            return super().forward(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        update_state(self, self._slope_sites, state_dict, prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


class Activation(nn.Module):
    """Mixed into modules that are activations."""

    _linearization: Linearization
    _activation_path: str
    _activation_slot: Slot | None  # None where several calls have slopes of their own
    _writes_in_place: bool
    _slope_sites: tuple[SlopeSite, ...]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Blend what the activation gives with its input."""
        state, path, slot = self._linearization, self._activation_path, self._activation_slot
        if slot is None:
            slot = state.next_slot(path)
        else:
            state.once(path)
        original = super().forward
        if slot is None:
            return original(*args, **kwargs)
        x, *rest = args

        def phi(x: Tensor) -> Tensor:
            y: Tensor = original(x.clone() if self._writes_in_place else x, *rest, **kwargs)
            return y

        with state.inside(path, self):  # what a blend calls is none of the forward's calls
            slope = state.slope(slot, self, x)
            return blend(x, slope, phi, slot.form, in_place=self._writes_in_place)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        update_state(self, self._slope_sites, state_dict, prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


@cache
def mixed(kind: Any, mixin: Any) -> Any:
    """The subclass of a module's class with a mixin; it goes by the same name."""
    named = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "forward": _with_signature(mixin.forward, kind.forward),
    }
    return type(kind.__name__, (mixin, kind), named)


def _with_signature(forward: Any, original: Any) -> Any:
    """The same function with the parameters of another one: Trainers ask what a forward takes."""
    own: Any = FunctionType(
        forward.__code__,
        forward.__globals__,
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    own.__doc__ = original.__doc__
    own.__signature__ = inspect.signature(original)
    return own


def _refuse_checkpoint(path: str) -> None:
    """Refuse a call that gradient checkpointing would repeat where nobody intercepts it."""
    if torch.compiler.is_compiling():
        return
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not Caller.forward.__code__:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            raise LinearizationError(
                f"{_shown(path)} calls activations as functions inside a part of its forward"
                " that is checkpointed; backward would run that part again without its slopes."
                " Checkpoint whole modules, or make the activation a module"
            )
        frame = frame.f_back  # type: ignore[assignment]
