"""What all baselines share: frozen slopes, a budget, and how far the linearize phase is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import ActivityError, PathlenError
from pathlen.monitor import DepthMonitor
from pathlen.training.slopes import slopes_of
from pathlen.training.targets import Budget, Plan, Progress


class Baseline(ABC):
    """Freezes slopes at 1 by some rule until the target is reached; a `Linearizer`.

    Args:
        model: A model with slopes.
        plan: Where to stop, and when.
        monitor: For a target of "napl": it knows the centralities.

    Raises:
        PathlenError: The model has no slopes, or the target cannot be reached.
    """

    def __init__(self, model: nn.Module, plan: Plan, monitor: DepthMonitor | None = None) -> None:
        slopes = slopes_of(model)
        if not slopes:
            raise PathlenError(
                "the model has no slopes; give it some with make_linearizable(model, args)"
            )
        self._model, self._plan = model, plan
        self._names = [own.parameter_name for own in slopes]
        self._sizes = [own.parameter.numel() for own in slopes]
        self._budget = Budget(plan.target, slopes, monitor)
        device = slopes[0].parameter.device
        self._frozen = torch.zeros(sum(self._sizes), dtype=torch.bool, device=device)
        self._kept: Tensor | None = None
        self._done = 0
        self._finished = self._budget.progress(self._frozen).finished
        self.omega = 0.0

    def penalty(self) -> Tensor:
        """What is added to the loss: 0, but for methods that have a penalty."""
        return self._parameters()[0].new_zeros(())

    @torch.no_grad()
    def step(self, learning_rate: float = 0.0) -> None:
        """Freeze what the method says. After each step of the optimizer.

        Args:
            learning_rate: Is not used.

        Raises:
            ActivityError: A slope is NaN; no slope is changed then. (CPU only, as for the prior.)
        """
        slopes = self._parameters()
        flat = self._flat()
        self._frozen = self._frozen.to(flat.device)
        if flat.device.type == "cpu" and bool(flat.isnan().any()):
            pairs = zip(self._names, slopes, strict=True)
            broken = [name for name, slope in pairs if bool(slope.isnan().any())]
            raise ActivityError(f"slopes are NaN: {', '.join(broken)}")
        self._done += 1
        flat = self._constrained(flat)
        if not self._finished:
            self._advance(flat)
            self._finished = self._budget.progress(self._frozen).finished
        if self._kept is not None:
            flat = self._kept.to(flat)
        flat = flat.masked_fill(self._frozen, 1.0)
        parts = flat.split(self._sizes)
        values = [part.view_as(slope) for part, slope in zip(parts, slopes, strict=True)]
        torch._foreach_copy_(tuple(slopes), values)

    @abstractmethod
    def _advance(self, flat: Tensor) -> None:
        """Freeze slopes, given their values, as long as the target is not reached."""

    def _constrained(self, flat: Tensor) -> Tensor:
        """The slopes as the method lets them be."""
        return flat

    @property
    def progress(self) -> Progress:
        """How far linearization is from its target. Waits for the device."""
        return self._budget.progress(self._frozen)

    @property
    def num_units(self) -> int:
        """Number of slopes."""
        return len(self._frozen)

    @property
    def num_active(self) -> int:
        """Number of slopes that are not frozen. Waits for the device."""
        return self.num_units - int(self._frozen.sum())

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on besides the model: tensors and numbers only."""
        kept = None if self._kept is None else self._by_name(self._kept)
        return {
            "omega": self.omega,
            "step": self._done,
            "frozen": self._by_name(self._frozen),
            "kept": kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            PathlenError: It is of another method, or of a model with other slopes.
        """
        missing = self.state_dict().keys() ^ state.keys()
        if missing:
            raise PathlenError(
                f"this is no state of {type(self).__name__}: the keys {sorted(missing)} are not in"
                " both"
            )
        self._frozen = self._from_names(state["frozen"]).bool().to(self._frozen.device)
        self._kept = None if state["kept"] is None else self._from_names(state["kept"])
        self._done = int(state["step"])
        self.omega = float(state["omega"])
        self._finished = self._budget.progress(self._frozen).finished

    def __repr__(self) -> str:
        """Say how far it is."""
        return (
            f"{type(self).__name__}({self.num_active} of {self.num_units} units active,"
            f" {self.progress})"
        )

    def _parameters(self) -> list[nn.Parameter]:
        """The slopes, wherever they are now."""
        return [self._model.get_parameter(name) for name in self._names]

    def _flat(self) -> Tensor:
        return torch.cat([slope.detach().reshape(-1) for slope in self._parameters()])

    def _by_name(self, flat: Tensor) -> dict[str, Tensor]:
        parts = (part.clone() for part in flat.split(self._sizes))
        return dict(zip(self._names, parts, strict=True))

    def _from_names(self, parts: Mapping[str, Tensor]) -> Tensor:
        sizes = {name: part.numel() for name, part in parts.items()}
        if sizes != dict(zip(self._names, self._sizes, strict=True)):
            apart = sorted(sizes.keys() ^ set(self._names))[:4] or "their numbers differ"
            raise PathlenError(f"this state is of a model with other slopes: {apart}")
        return torch.cat([parts[name].reshape(-1) for name in self._names])


def keep_slopes(model: nn.Module) -> None:
    """Let no step of an optimizer change a slope: its gradient becomes 0."""
    for own in slopes_of(model):
        own.parameter.register_hook(torch.zeros_like)
