"""Puts slopes into a model, beside those that parts of it have already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathlen.errors import LinearizationError
from pathlen.training.blend import Form
from pathlen.training.call_actions import Action, Place, Plan, Slot, Table
from pathlen.training.call_sites import CallSite, FrameKey, FunctionCall, Observed
from pathlen.training.interception import Activation, Caller, Linearization
from pathlen.training.mixing import mix, own_class
from pathlen.training.slope_numbering import number_units, version_key, version_tensor
from pathlen.training.slopes import SlopeSite

Granularity = Literal["channel", "layer", "position"]
_RELU = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_NAMES = (
    *("relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh"),
    *("hardtanh", "hardswish", "hardsigmoid", "softplus", "logsigmoid", "softsign"),
    *("softshrink", "hardshrink", "tanhshrink", "threshold"),
)
_PURE = {
    getattr(home, name + ending)
    for home in (functional, torch, Tensor)
    for name in _NAMES
    for ending in ("", "_")
    if hasattr(home, name + ending)
}


class Installed:
    """The slopes that a model has already: of itself, or of parts that were given some before.

    Args:
        model: The model.

    Raises:
        LinearizationError: It is itself a part of a model that has slopes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._states: dict[str, Linearization] = {}
        self._modules = dict(model.named_modules())
        roots: dict[int, str] = {}
        found: dict[int, tuple[str, Linearization]] = {}
        for path, module in self._modules.items():
            state: Linearization | None = getattr(module, "_linearization", None)
            if state is not None:
                found.setdefault(id(state), (path, state))
                if module._plan.whole:
                    roots[id(state)] = path
        for key, (path, state) in found.items():
            if key not in roots:
                raise LinearizationError(
                    f"module {path or '(the model)'!r} belongs to a larger model that has slopes;"
                    " call make_linearizable on that one, with only=... for this part"
                )
            self._states[roots[key]] = state

    def suspended(self) -> ExitStack:
        """A block in which the model runs as if it had no slopes."""
        stack = ExitStack()
        for state in self._states.values():
            stack.enter_context(state.suspended())
        return stack

    def slots(self, sites: Sequence[CallSite], seen: Observed) -> dict[CallSite, Slot]:
        """Those of the sites that have slopes, as they are called in the whole model.

        Raises:
            LinearizationError: Slopes belong to calls that the model does not make.
        """
        at = {site.place: site for site in sites}
        placed: dict[CallSite, Slot] = {}
        for root, state in self._states.items():
            if seen.calls[root] != 1 and root:
                raise LinearizationError(
                    f"module {root!r} has slopes of its own, and is called {seen.calls[root]}"
                    " times in a forward of the model, where each call would have others; make the"
                    " whole model linearizable before any part of it"
                )
            for slot in state.slots:
                site = at.get(_within(root, slot.place))
                if site is None:
                    raise LinearizationError(
                        f"the slopes of {slot.layer!r}"
                        + (f" in module {root!r}" if root else "")
                        + " belong to a call that the model does not make with these arguments;"
                        " give arguments with which it calls all that have slopes"
                    )
                placed[site] = replace(
                    slot, layer=site.layer, owner=_inside(root, slot.owner), place=site.place
                )
        return placed

    def site(self, slot: Slot) -> SlopeSite:
        """What is known of slopes that are there, under the name that their layer has now."""
        own: Any = self._modules[slot.owner]
        known = next(site for site in own._slope_sites if site.attribute == slot.attribute)
        return SlopeSite(known.attribute, slot.layer, known.positions, known.former)

    def modules(self) -> list[str]:
        """Paths of the modules that have slopes or call what has."""
        return [path for path, module in self._modules.items() if hasattr(module, "_plan")]


def _inside(root: str, path: str) -> str:
    return ".".join(part for part in (root, path) if part)


def _within(root: str, place: Place) -> Place:
    """A call in a part of a model, as a call in the model."""
    path, number, called, index = place
    if called.startswith("module "):
        called = f"module {_inside(root, called.removeprefix('module '))}"
    return _inside(root, path), number, called, index


@dataclass(frozen=True, slots=True)
class _Made:
    """A slot, what is known of its slopes, and the parameter where it is new."""

    slot: Slot
    site: SlopeSite
    parameter: nn.Parameter | None


class Installer:
    """Puts slopes into a model.

    Args:
        model: The model.
        sites: All its activations, in the order of its program.
        chosen: Which of them are to have slopes beside those that have some.
        seen: What its forward did.
        installed: The slopes that are there.
        left: A line for each activation that cannot have slopes.
        granularity: Of new slopes.
        batch: Number of samples that it was traced with.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[CallSite],
        chosen: Sequence[CallSite],
        seen: Observed,
        installed: Installed,
        left: tuple[str, ...],
        granularity: Granularity,
        batch: int,
    ) -> None:
        self._model, self._sites, self._seen, self._left = model, sites, seen, left
        self._chosen, self._installed = set(chosen), installed
        self._granularity, self._batch = granularity, batch
        self._modules = dict(model.named_modules())
        self._of_owner: dict[str, list[CallSite]] = defaultdict(list)
        for site in sites:  # those without slopes too: names are the same in whatever order
            self._of_owner[site.owner].append(site)

    def install(self) -> None:
        """Register parameters, then replace the classes; a refusal leaves the model as it was."""
        made = self._slots()
        slots = {site: own.slot for site, own in made.items()}
        tables = self._tables(slots)
        state = Linearization(
            slots=tuple(slots.values()),
            left=self._left,
            has_functions=any(table.functions for table in tables.values()),
        )
        taken: dict[str, list[SlopeSite]] = defaultdict(list)
        for own in made.values():
            taken[own.slot.owner].append(own.site)
            if own.parameter is not None:
                owner = self._modules[own.slot.owner]
                owner.register_parameter(own.slot.attribute, own.parameter)
                if own.site.former is not None:
                    owner.register_buffer(version_key(own.site.attribute), version_tensor())
        activations = self._activations(slots)
        for path in {*self._callers(tables, slots), *activations, *self._installed.modules()}:
            module: Any = self._modules[path]
            module._linearization = state
            module._plan = self._plan(path, tables)
            module._slope_sites = tuple(taken.get(path, ()))
            if path in activations:
                module._key, module._slot, module._writes_in_place = activations[path]
            mix(module, Activation if path in activations else Caller)

    def _slots(self) -> dict[CallSite, _Made]:
        """The slots of all sites that have slopes or get some, in the order of the program."""
        there = self._installed.slots(self._sites, self._seen)
        names: dict[str, set[str]] = defaultdict(set)
        for slot in there.values():
            names[slot.owner].add(slot.attribute)
        made = {}
        for site in self._sites:
            if site in there:
                slot = there[site]
                made[site] = _Made(slot, self._installed.site(slot), None)
            elif site in self._chosen:
                made[site] = self._new(site, names[site.owner])
        return made

    def _new(self, site: CallSite, taken: set[str]) -> _Made:
        owner = site.owner
        view, index, count, former = self._layout(site)
        sharing = self._of_owner[owner]
        number = sharing.index(site)
        attribute = f"slope_{number}" if len(sharing) > 1 else "slope"
        while attribute in taken:
            number += 1
            attribute = f"slope_{number}"
        taken.add(attribute)
        named = [attribute] if former is None else [attribute, version_key(attribute)]
        if owner not in self._modules or any(hasattr(self._modules[owner], n) for n in named):
            raise LinearizationError(
                f"module {owner!r} of {site.layer!r} has an attribute {attribute!r}, the name that"
                " its slopes need; rename it"
                if owner in self._modules
                else f"{site.layer!r} is computed by a module that is made anew in each forward"
            )
        elements = site.shape.numel() // max(1, self._batch)
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        return _Made(
            Slot(
                *(site.layer, site.place, owner, attribute, view, index, self._form(site)),
                spans=site.first is not None
                and site.last is not None
                and site.first[0].frame != site.last.frame,
            ),
            SlopeSite(attribute, site.layer, max(1, elements // count), former),
            nn.Parameter(torch.zeros(count, dtype=site.dtype, device=device)),
        )

    def _layout(self, site: CallSite) -> tuple[tuple[int, ...], Tensor | None, int, Tensor | None]:
        """Shape of the slopes beside the tensor; which one each element has; how many.

        And their former numbers, where these were others.
        """
        if self._granularity == "layer":
            return (1,), None, 1, None
        if self._granularity == "position":
            shape = site.shape[1:] if len(site.shape) > 1 else site.shape
            return tuple(shape), None, shape.numel(), None
        labels = site.labels.numpy()
        while labels.ndim > 1 and labels.shape[0] == 1:
            labels = labels[0]
        labels = labels.reshape(labels.shape or (1,))
        numbers, count, former = number_units(labels)
        before = None if former is None else torch.from_numpy(former)
        if count == labels.size:
            return labels.shape, None, count, before
        return labels.shape, torch.from_numpy(numbers), count, before

    def _form(self, site: CallSite) -> Form:
        if site.module is not None:
            kind = own_class(self._modules[site.module.path])
            if kind is nn.ReLU:
                return "relu"
            of_torch = kind.__module__ == "torch.nn.modules.activation"
            return "pure" if of_torch and kind not in (nn.RReLU, nn.PReLU) else "any"
        assert site.last is not None
        assert site.first is not None
        if site.first[0] is not site.last:
            return "any"
        if site.last.function in _RELU:
            return "relu"
        alone = len(site.last.operands) == 1
        return "pure" if alone and site.last.function in _PURE else "any"

    def _activations(
        self, slots: Mapping[CallSite, Slot]
    ) -> dict[str, tuple[str, Slot | None, bool]]:
        """Of each module that is an activation: its key, its slots if alone, how it writes."""
        found = {}
        for site, slot in slots.items():
            if site.module is not None:
                path = site.module.path
                single = slot if self._seen.calls[path] == 1 else None
                found[path] = self._key(path), single, site.module.in_place
        return found

    def _key(self, path: str) -> str:
        """What an activation is called in the tables of those that call it.

        Within the module that alone calls it this is the same in each of several like blocks.
        """
        callers = {call.frame[0] for call in self._seen.modules if call.path == path}
        around = f"{next(iter(callers))}." if len(callers) == 1 else f"{path}."
        inner = path.startswith(around)
        return f"module .{path.removeprefix(around)}" if inner else f"module {path}"

    def _plan(self, path: str, tables: Mapping[FrameKey, Table]) -> Plan:
        own = [tables.get((path, number), Table()) for number in range(self._seen.calls[path])]
        there = any(table.functions or table.modules for table in own)
        return Plan(
            path,
            tuple(own) if there else (),
            whole=path == "",
            repeated=there and len(own) > 1,
            intercepts=any(table.functions for table in own),
        )

    def _callers(
        self, tables: Mapping[FrameKey, Table], slots: Mapping[CallSite, Slot]
    ) -> set[str]:
        """The model, what calls activations, and what counts for itself.

        That is what was not run, and what calls the same functions without slopes.
        """
        keys = {key for table in tables.values() for key in table.functions}
        inside = {site.module.path for site in slots if site.module is not None}
        paths = {"", *(path for path, _ in tables)}
        if keys:
            paths |= {path for path in self._modules if not self._seen.calls[path]}
            paths |= {c.frame[0] for c in self._seen.functions if c.key in keys}
        return (paths - inside) & self._modules.keys()

    def _tables(self, slots: Mapping[CallSite, Slot]) -> dict[FrameKey, Table]:
        """What the calls in each frame do, those that do nothing included: they are counted too."""
        keep: dict[FunctionCall, list[tuple[Slot, int]]] = defaultdict(list)
        ends: dict[FunctionCall, Slot] = {}
        by_module = {site.module: slot for site, slot in slots.items() if site.module is not None}
        for site, slot in slots.items():
            if site.last is not None and site.first is not None:
                keep[site.first[0]].append((slot, site.first[1]))
                ends[site.last] = slot
        counted = {(call.frame[0], call.key) for call in (*keep, *ends)}
        shared = {s.owner for s in by_module.values() if self._seen.calls[s.owner] > 1}
        keys = {path: self._key(path) for path in shared}
        actions: dict[FrameKey, dict[Any, list[Action]]] = defaultdict(lambda: defaultdict(list))
        modules: dict[FrameKey, dict[str, list[Slot | None]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for call in self._seen.functions:
            if (call.frame[0], call.key) in counted:
                action = Action(tuple(keep.get(call, ())), ends.get(call), call.in_place)
                actions[call.frame][call.key].append(action)
        for called in sorted(self._seen.modules, key=lambda c: (c.frame, c.index)):
            if called.path in shared:
                modules[called.frame][keys[called.path]].append(by_module.get(called))
        return {
            key: Table(
                {called: tuple(own) for called, own in actions[key].items()},
                {called: tuple(own) for called, own in modules[key].items()},
            )
            for key in {*actions, *modules}
        }
