"""All slopes of a model as one vector: what linearizers compute with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, getitem
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import ActivityError, PathlenError
from pathlen.printable import listed, printable, shown
from pathlen.tracing.sharded import PART, holds_shards, is_sharded
from pathlen.training.loaded_slopes import note_loads
from pathlen.training.slope_numbering import is_former, version_key, version_tensor
from pathlen.training.slopes import as_parameter, slopes_of
from pathlen.wrappers import unwrapped


class SlopeVector:
    """The slopes of a model, one after another in the order of `slopes_of`.

    Args:
        model: A model with slopes. Wrappers for several devices and compilation are seen through.

    Raises:
        PathlenError: It has none.
    """

    def __init__(self, model: nn.Module) -> None:
        model = unwrapped(model)
        self.sites = slopes_of(model)
        if not self.sites:
            raise PathlenError(
                "the model has no slopes; give it some with make_linearizable(model, args)"
            )
        self._model = model
        self._names = [own.parameter_name for own in self.sites]
        self._paths = [name.split(".") for name in self._names]
        self._seats, self._chain, self._modules = _seats(model, self._paths)
        self.sizes = [own.parameter.numel() for own in self.sites]
        self._read: list[nn.Parameter] = []
        self._room: tuple[Tensor, list[Tensor]] | None = None
        self._versions: list[int] = []
        self._loads = note_loads(model, self._names, self)
        self._parameters = [module._parameters for module in model.modules()]
        self._count = sum(map(len, self._parameters))

    def __getstate__(self) -> dict[str, Any]:
        """All but what holds from reading to writing only."""
        return {**vars(self), "_read": [], "_room": None}

    def __len__(self) -> int:
        """Number of slopes."""
        return sum(self.sizes)

    @property
    def model(self) -> nn.Module:
        """The model whose slopes they are."""
        return self._model

    def loaded(self) -> Tensor | None:
        """Slopes that `load_state_dict` has written since they were forgotten, as they were then.

        Returns:
            float[slopes], NaN where none was loaded; None if none was at all.
        """
        if not self._loads:
            return None
        parts = [
            self._loads.get(name, own.detach().new_full(own.shape, torch.nan))
            for name, own in zip(self._names, self.parameters(), strict=True)
        ]
        device = self.device
        return torch.cat([part.reshape(-1).to(device) for part in parts])

    def require_all(self) -> None:
        """Look whether these are all slopes that the model has; a few microseconds.

        Raises:
            PathlenError: It was given more.
        """
        count = sum(map(len, self._parameters))
        if count == self._count:
            return
        names = [own.parameter_name for own in slopes_of(self._model)]
        if new := sorted(set(names) - set(self._names)):
            raise PathlenError(
                f"the model was given {len(new)} more parameters of slopes ({listed(new, 3)}) since"
                " this was made, which would stay as they are: call make_linearizable before, or"
                " make it anew of the model as it is, and the optimizer too"
            )
        self._count = count

    def forget_loaded(self) -> None:
        """What was loaded is known now."""
        self._loads.clear()

    @property
    def device(self) -> torch.device:
        """Where they are now."""
        return self._parameter(0).device

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that hold them, wherever they are now.

        Raises:
            PathlenError: They are sharded over devices.
        """
        try:
            found: list[Any] = self._seats.find(_PARAMETERS)
            there = self._chain.find(_MODULES)
        except KeyError:
            return [self._parameter(number) for number in range(len(self._names))]
        if (
            there == self._modules
            and set(map(type, found)) == {nn.Parameter}
            and not any(map(holds_shards, map(vars, self._seats.owners)))
        ):
            return found
        return [self._parameter(number) for number in range(len(self._names))]

    def _parameter(self, number: int) -> nn.Parameter:
        name, path = self._names[number], self._paths[number]
        try:
            owner = _owner(self._model, path)
            own = owner._parameters[path[-1]]
        except (KeyError, AttributeError):
            return as_parameter(_attribute(self._model, name), name)
        return _unsharded(own, owner, name)

    def read(self) -> Tensor:
        """Their values, with their gradients: float[slopes]."""
        self._read = self.parameters()
        slopes: list[Tensor] = [*self._read]
        if any(slope.ndim != 1 for slope in slopes):
            slopes = [slope.reshape(-1) for slope in slopes]
        return torch.cat(slopes)

    def read_checked(self, *, wait: bool = False) -> Tensor:
        """The same, after a step.

        Args:
            wait: Whether to wait for the answer of a GPU; a CPU always looks.

        Raises:
            ActivityError: One is NaN or infinite.
            PathlenError: They are on the meta device.
        """
        flat = self.read()
        if flat.is_meta:
            raise PathlenError(
                "the slopes are on the meta device, where they have no values: give the model some"
                " first (load_state_dict(assign=True), or to_empty)"
            )
        if (wait or flat.device.type == "cpu") and not bool(flat.isfinite().all()):
            broken = ~flat.isfinite()
            what = "NaN" if bool(flat[broken].isnan().all()) else "NaN or infinite"
            raise ActivityError(
                f"slopes are {what}: {self.places(broken, flat.detach())}; the step before was too"
                " large: lower the learning rate or omega, or go back to a checkpoint"
            )
        return flat

    def places(self, chosen: Tensor, flat: Tensor, most: int = 3) -> str:
        """The names of some slopes, with values of theirs: bool[slopes], float[slopes]."""
        first, found = 0, []
        for name, size in zip(self._names, self.sizes, strict=True):
            own = chosen[first : first + size].nonzero().reshape(-1).tolist()
            found += [f"{name}[{unit}] = {float(flat[first + unit]):g}" for unit in own[:most]]
            first += size
        left = int(chosen.sum()) - len(found[:most])
        return ", ".join(map(printable, found[:most])) + (f" and {left} more" if left else "")

    def write(self, flat: Tensor) -> None:
        """Set the values of those that were read before: float[slopes]."""
        slopes = self._read
        torch._foreach_copy_([*slopes], self._cut(flat, slopes))
        self._versions = [*map(_VERSION, slopes)]

    def _cut(self, flat: Tensor, slopes: list[nn.Parameter]) -> list[Tensor]:
        """A vector in the shapes of the parameters, for now: the next one is put in its place."""
        kept = None if self._room is None else self._room[0]
        like = kept is not None and (kept.dtype, kept.device) == (flat.dtype, flat.device)
        if kept is None or not like or kept.is_inference():
            room = torch.empty_like(flat.detach())
            parts = zip(room.split(self.sizes), slopes, strict=True)
            self._room = room, [part.view(slope.shape) for part, slope in parts]
        assert self._room is not None
        room, cut = self._room  # made once: cutting takes as long as all else in a step
        room.copy_(flat)
        return cut

    @torch.no_grad()
    def add_gradient(self, flat: Tensor) -> None:
        """Add to the gradients of those that were read before and require some: float[slopes]."""
        slopes = self._read
        parts = self._cut(flat, slopes)
        if not all(map(_TRAINS, slopes)):
            chosen = [number for number, slope in enumerate(slopes) if slope.requires_grad]
            slopes, parts = [slopes[n] for n in chosen], [parts[n] for n in chosen]
        if any(map(_HOOKS, slopes)):
            with torch.enable_grad():
                ends = [slope.view_as(slope) for slope in slopes]
            parts = [*torch.autograd.grad(ends, slopes, parts)]
        if type(None) in set(map(type, map(_GRADIENT, slopes))):
            for slope in slopes:
                slope.grad = torch.zeros_like(slope) if slope.grad is None else slope.grad
        if slopes:
            torch._foreach_add_([*map(_GRADIENT, slopes)], parts)

    def resting(self) -> list[bool]:
        """Which of the parameters that were read require no gradients; empty if none does."""
        trains = [*map(_TRAINS, self._read)]
        return [] if all(trains) else [not own for own in trains]

    def were_written(self) -> bool:
        """Whether anything but `write` has changed one in place, by whatever it was."""
        return self._versions != [*map(_VERSION, self.parameters())]

    def by_name(self, flat: Tensor) -> dict[str, Tensor]:
        """Something of each slope, by the names of their parameters, for files; copies.

        Beside slopes that had other numbers once stands how they are numbered.
        """
        parts = (part.clone() for part in flat.split(self.sizes))
        changed = [own.parameter_name for own in self.sites if own.former is not None]
        versions = {version_key(name): version_tensor() for name in changed}
        return dict(zip(self._names, parts, strict=True)) | versions

    def from_names(self, parts: Mapping[str, Tensor]) -> Tensor:
        """What `by_name` was given; what earlier releases wrote is put in order.

        Raises:
            PathlenError: It is of other slopes.
        """
        if not isinstance(parts, Mapping) or not all(isinstance(p, Tensor) for p in parts.values()):
            raise PathlenError(f"this state holds {shown(parts)} in place of tensors by names")
        versions = {version_key(name) for name in self._names}
        sizes = {name: part.numel() for name, part in parts.items() if name not in versions}
        if sizes != dict(zip(self._names, self.sizes, strict=True)):
            apart = sorted(sizes.keys() ^ set(self._names))[:4] or "their numbers differ"
            raise PathlenError(f"this state is of a model with other slopes: {apart}")
        flat = torch.cat([parts[name].reshape(-1) for name in self._names])
        former = self.former_numbers(parts)
        return flat if former is None else flat[former.to(flat.device)]

    def former_numbers(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        """The number that each slope had where `by_name` gave this, None if they are the same."""
        if not any(is_former(own, parts) for own in self.sites):
            return None
        numbers = torch.arange(len(self)).split(self.sizes)
        return torch.cat(
            [
                own_numbers[own.former] if is_former(own, parts) else own_numbers
                for own, own_numbers in zip(self.sites, numbers, strict=True)
            ]
        )


_PARAMETERS, _MODULES = attrgetter("_parameters"), attrgetter("_modules")
_VERSION, _GRADIENT = attrgetter("_version"), attrgetter("grad")
_TRAINS, _HOOKS = attrgetter("requires_grad"), attrgetter("_backward_hooks")


class _Seats:
    """Where things are: the modules that hold them, each once, and their names there."""

    def __init__(self, seats: Iterable[tuple[nn.Module, str]]) -> None:
        self._holders = [holder for holder, _ in seats]
        self._names = [name for _, name in seats]
        self.owners = [*dict.fromkeys(self._holders)]

    def find(self, attribute: Callable[[nn.Module], Any]) -> list[Any]:
        """What is there, in dictionaries that the modules have; no Python runs for each: steps ask.

        Raises:
            KeyError: Something is not there.
        """
        return [*map(getitem, map(attribute, self._holders), self._names)]


def _seats(model: nn.Module, paths: list[list[str]]) -> tuple[_Seats, _Seats, list[nn.Module]]:
    """Where parameters are, where all modules on the way to them are, and these modules."""
    seats: list[tuple[nn.Module, str]] = []
    chain: dict[tuple[nn.Module, str], nn.Module] = {}
    for path in paths:
        owner = model
        for name in path[:-1]:
            inner: Any = owner._modules[name]
            chain[owner, name] = inner
            owner = inner
        seats.append((owner, path[-1]))
    return _Seats(seats), _Seats(chain), [*chain.values()]


def _owner(model: nn.Module, path: list[str]) -> nn.Module:
    """What `get_submodule` finds, in a twentieth of the time."""
    for name in path[:-1]:
        model = model._modules[name]  # type: ignore[assignment]
    return model


def _unsharded(parameter: Any, owner: nn.Module, name: str) -> nn.Parameter:
    """The parameter, unless this process has a part of it only."""
    if is_sharded(parameter) or holds_shards(vars(owner)):
        raise PathlenError(
            f"{name!r} is sharded over devices, {PART}; slopes cannot be made linear then:"
            " linearize the model before it is sharded"
        )
    own: nn.Parameter = parameter
    return own


def _attribute(model: nn.Module, name: str) -> object:
    """What a module has under the name of a parameter.

    Raises:
        PathlenError: It has nothing of that name.
    """
    owner, _, attribute = name.rpartition(".")
    try:
        return getattr(model.get_submodule(owner), attribute)
    except AttributeError as error:
        raise PathlenError(
            f"the model has no slopes {printable(name)} any more: a module was put in the place of"
            " the one that had them; make the model linearizable anew, and then its prior, monitor"
            " and optimizer"
        ) from error
