"""`make_linearizable`: a slope for every activation call of a model, which stays the user's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from pathlen.errors import LinearizationError, PathlenError
from pathlen.policy import DEFAULT_POLICY, Policy
from pathlen.training.blend import Form
from pathlen.training.call_actions import Action, Slot, Table
from pathlen.training.call_sites import CallSite, FrameKey, FunctionCall, Observed, find_call_sites
from pathlen.training.interception import Activation, Caller, Linearization, mixed
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


def make_linearizable(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    granularity: Granularity = "channel",
    unplaced: Literal["refuse", "keep"] = "refuse",
    policy: Policy = DEFAULT_POLICY,
    input_axis: int | Mapping[str, int] | None = None,
) -> nn.Module:
    """Give every counted activation call of a model its own slopes.

    An activation phi becomes alpha * x + (1 - alpha) * phi(x), with one alpha a unit: for ReLU
    that is PReLU. Slopes are 0 at first, so the model computes what it did. They are parameters
    named "slope" (or "slope_0", "slope_1", ... where a module has several) of the activation
    module, or of the module whose forward calls the function; `slopes_of(model)` lists them. All
    other names and keys stay, and a `state_dict` from before loads, which leaves the slopes as
    they are.

    It is still the user's model: its own forward runs, in train and eval mode. A forward that
    calls its activations otherwise than traced raises `LinearizationError` (docs/linearizable.md).

    Args:
        model: The model; it is changed in place.
        args: A tensor, or a tuple of positional arguments, to trace it with.
        kwargs: Keyword arguments.
        granularity: "channel", one slope for each unit of the path graph; "layer", one for each
            call; "position", one for each element of a sample (inputs must then keep their size).
        unplaced: What to do where an activation has no place of its own in the model's Python
            (inside a fused operator such as `torch.lstm`): "refuse", or "keep" it nonlinear.
        policy: What counts as a nonlinearity; see `pathlen.trace`.
        input_axis: See `pathlen.trace`.

    Returns:
        The same object.

    Raises:
        LinearizationError: There is no activation, or one without a place; it has slopes already.
        ModelError: The model is traced by running another program than its own.
        PathlenError: Whatever `pathlen.trace` raises.
    """
    _check_arguments(model, granularity, unplaced)
    sites, left, seen = find_call_sites(model, args, kwargs, policy, input_axis)
    if left and (unplaced == "refuse" or not sites):
        raise LinearizationError(
            "no slope can be put at these activations, which torch computes inside an operator:\n  "
            + "\n  ".join(left)
            + "\nwrite them out in Python, or leave them nonlinear with unplaced='keep'"
        )
    if not sites:
        raise LinearizationError(
            f"{type(model).__name__} has no activation that lies on a path from input to output:"
            " there is nothing to linearize"
        )
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 1
    _Installer(model, sites, seen, tuple(left), granularity, batch).install()
    return model


def _check_arguments(model: nn.Module, granularity: str, unplaced: str) -> None:
    if not isinstance(model, nn.Module):
        raise PathlenError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if granularity not in ("channel", "layer", "position"):
        raise PathlenError(f"granularity={granularity!r}; choose 'channel', 'layer' or 'position'")
    if unplaced not in ("refuse", "keep"):
        raise PathlenError(f"unplaced={unplaced!r}; choose 'refuse' or 'keep'")
    for path, module in model.named_modules():
        if hasattr(module, "_linearization"):
            raise LinearizationError(f"module {path!r} of the model has slopes already")
        if "forward" in vars(module):
            raise LinearizationError(
                f"module {path or '(the model)'!r} has a forward of its own in place of its"
                " class's; make it a method of a class"
            )
        if isinstance(module, fx.GraphModule):
            raise LinearizationError(
                f"module {path or '(the model)'!r} is a torch.fx.GraphModule, a program that was"
                " traced; make the model linearizable that it was traced from"
            )


class _Installer:
    """Puts slopes into a model."""

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[CallSite],
        seen: Observed,
        left: tuple[str, ...],
        granularity: Granularity,
        batch: int,
    ) -> None:
        self._model, self._sites, self._seen, self._left = model, sites, seen, left
        self._granularity, self._batch = granularity, batch
        self._modules = dict(model.named_modules())
        self._taken: dict[str, list[SlopeSite]] = defaultdict(list)
        self._several = self._owners_of_several()

    def install(self) -> None:
        """Register parameters, then replace the classes; a refusal leaves the model as it was."""
        slots = [self._slot(site) for site in self._sites]
        tables = self._tables(slots)
        calls = self._seen.calls
        state = Linearization(
            slots=tuple(slot for slot, _ in slots),
            left=self._left,
            tables=tables,
            repeated=frozenset(path for path, _ in tables if calls[path] > 1),
        )
        for slot, parameter in slots:
            self._modules[slot.owner].register_parameter(slot.attribute, parameter)
        for owner, taken in self._taken.items():
            for own in taken:
                if own.former is not None:
                    name = version_key(own.attribute)
                    self._modules[owner].register_buffer(name, version_tensor())
        activations = {site.module.path: site.module for site in self._sites if site.module}
        single = {slot.owner: slot for slot, _ in slots if calls[slot.owner] == 1}
        for path, call in activations.items():
            module = self._modules[path]
            module._activation_path = path
            module._activation_slot = single.get(path)
            module._writes_in_place = call.in_place
            self._mix(path, Activation, state)
        for path in self._callers(state) - activations.keys():
            self._modules[path]._frame_path = path
            self._mix(path, Caller, state)

    def _mix(self, path: str, mixin: Any, state: Linearization) -> None:
        module = self._modules[path]
        module._linearization = state
        module._slope_sites = tuple(self._taken.get(path, ()))
        kind: Any = type(module)
        module.__class__ = mixed(kind, mixin)

    def _callers(self, state: Linearization) -> set[str]:
        """The model, what calls activations, and what was not run: that counts for itself."""
        paths = {"", *(path for path, _ in state.tables)}
        if state.has_functions:
            paths |= {path for path in self._modules if not self._seen.calls[path]}
        return paths & self._modules.keys()

    def _owners_of_several(self) -> set[str]:
        owners = [_owner(site) for site in self._sites]
        return {path for path in owners if owners.count(path) > 1}

    def _slot(self, site: CallSite) -> tuple[Slot, nn.Parameter]:
        owner = _owner(site)
        view, index, count, former = self._layout(site)
        taken = self._taken[owner]
        attribute = f"slope_{len(taken)}" if owner in self._several else "slope"
        named = [attribute] if former is None else [attribute, version_key(attribute)]
        if owner not in self._modules or any(hasattr(self._modules[owner], n) for n in named):
            raise LinearizationError(
                f"module {owner!r} of {site.layer!r} has an attribute {attribute!r}, the name that"
                " its slopes need; rename it"
                if owner in self._modules
                else f"{site.layer!r} is computed by a module that is made anew in each forward"
            )
        elements = site.shape.numel() // max(1, self._batch)
        taken.append(SlopeSite(attribute, site.layer, max(1, elements // count), former))
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        parameter = nn.Parameter(torch.zeros(count, dtype=site.dtype, device=device))
        slot = Slot(site.layer, owner, attribute, view, index, self._form(site))
        return slot, parameter

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
            kind = type(self._modules[site.module.path])
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

    def _tables(self, slots: Sequence[tuple[Slot, nn.Parameter]]) -> dict[FrameKey, Table]:
        """What the calls in each frame do, those that do nothing included: they are counted too."""
        of = {site: slot for site, (slot, _) in zip(self._sites, slots, strict=True)}
        keep: dict[FunctionCall, list[tuple[Slot, int]]] = defaultdict(list)
        ends: dict[FunctionCall, Slot] = {}
        by_module = {site.module: slot for site, slot in of.items() if site.module is not None}
        for site, slot in of.items():
            if site.last is not None and site.first is not None:
                keep[site.first[0]].append((slot, site.first[1]))
                ends[site.last] = slot
        functions = {call.function for call in (*keep, *ends)}
        shared = {s.owner for s in by_module.values() if self._seen.calls[s.owner] > 1}
        inside = {site.module.path for site in self._sites if site.module is not None}
        actions: dict[FrameKey, dict[Any, list[Action]]] = defaultdict(lambda: defaultdict(list))
        modules: dict[FrameKey, dict[str, list[Slot | None]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for call in self._seen.functions:
            if call.function in functions and call.frame[0] not in inside:
                action = Action(tuple(keep.get(call, ())), ends.get(call), call.in_place)
                actions[call.frame][call.function].append(action)
        for called in sorted(self._seen.modules, key=lambda c: (c.frame, c.index)):
            if called.path in shared:
                modules[called.frame][called.path].append(by_module.get(called))
        return {
            key: Table(
                {function: tuple(own) for function, own in actions[key].items()},
                {path: tuple(own) for path, own in modules[key].items()},
            )
            for key in {*actions, *modules}
        }


def _owner(site: CallSite) -> str:
    """Path of the module that holds the slopes of a site."""
    if site.module is not None:
        return site.module.path
    assert site.last is not None
    return site.last.frame[0]
