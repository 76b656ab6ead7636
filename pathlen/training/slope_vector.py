"""All slopes of a model as one vector: what linearizers compute with."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.sizes = [own.parameter.numel() for own in self.sites]
        self._versions: list[int] = []
        self._loads = note_loads(model, self._names, self)
        self._parameters = [module._parameters for module in model.modules()]
        self._count = sum(map(len, self._parameters))

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
        return [self._parameter(number) for number in range(len(self._names))]

    def _parameter(self, number: int) -> nn.Parameter:
        name, path = self._names[number], self._paths[number]
        try:
            owner = _owner(self._model, path)
            own = owner._parameters[path[-1]]
        except (KeyError, AttributeError):
            return as_parameter(_attribute(self._model, name), name)
        return _unsharded(own, owner, name)

    def zero(self) -> Tensor:
        """The penalty of nothing: a scalar 0 of their type, where they are."""
        return self._parameter(0).new_zeros(())

    def read(self) -> Tensor:
        """Their values, with their gradients: float[slopes]."""
        return torch.cat([_as_shape(slope, (slope.numel(),)) for slope in self.parameters()])

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
        """Set their values: float[slopes]."""
        slopes = tuple(self.parameters())
        parts = zip(flat.split(self.sizes), slopes, strict=True)
        torch._foreach_copy_(slopes, [_as_shape(part, slope.shape) for part, slope in parts])
        self._versions = [slope._version for slope in slopes]

    def were_written(self) -> bool:
        """Whether anything but `write` has changed one in place, by whatever it was."""
        return self._versions != [slope._version for slope in self.parameters()]

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


def _owner(model: nn.Module, path: list[str]) -> nn.Module:
    """What `get_submodule` finds, in a twentieth of the time: every step asks for each slope."""
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


def _as_shape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor in a shape; itself where it has that: each view is a call more in every step."""
    return tensor if tensor.shape == shape else tensor.reshape(shape)
