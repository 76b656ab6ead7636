"""What all baselines share: frozen slopes, a budget, and how far the linearize phase is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.attachment import Attachable
from pathlen.training.linearizer_state import (
    Plain,
    frozen_in,
    goal_settings,
    numbers_in,
    require_same,
)
from pathlen.training.slope_vector import SlopeVector
from pathlen.training.targets import Budget, Plan, Progress


class Baseline(Attachable, ABC):
    """Freezes slopes at 1 by some rule until the target is reached; a `Linearizer`.

    Args:
        model: A model with slopes.
        plan: Where to stop, and when.
        monitor: For a target of "napl": it knows the centralities.

    Raises:
        PathlenError: The model has no slopes, or the target cannot be reached.
    """

    def __init__(self, model: nn.Module, plan: Plan, monitor: DepthMonitor | None = None) -> None:
        self._slopes, self._plan = SlopeVector(model), plan
        self._budget = Budget(plan.target, self._slopes.sites, monitor)
        # what is linear already stays linear, and counts
        self._frozen = self._slopes.read_checked(wait=True).detach() == 1
        self._kept: Tensor | None = None
        self._done = 0
        self._finished = self._budget.progress(self._frozen).finished
        self.omega = 0.0

    @torch.no_grad()
    def _step(self, learning_rate: float = 0.0) -> None:
        """Freeze what the method says; the learning rate is not used."""
        self._slopes.require_all()
        flat = self._slopes.read_checked()
        self._frozen = self._frozen.to(flat.device)
        self._done += 1
        flat = self._constrained(flat)
        if not self._finished:
            self._advance(flat)
            self._finished = self._budget.progress(self._frozen).finished
        if self._kept is not None:
            flat = self._kept.to(flat)
        self._slopes.write(flat.masked_fill(self._frozen, 1.0))

    @abstractmethod
    def _advance(self, flat: Tensor) -> None:
        """Freeze slopes, given their values, as long as the target is not reached."""

    def _keep_slopes(self) -> None:
        """Let no step of an optimizer change a slope: its gradient becomes 0."""
        for slope in self._slopes.parameters():
            slope.register_hook(torch.zeros_like)

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
        kept = None if self._kept is None else self._slopes.by_name(self._kept)
        return {
            "omega": self.omega,
            "step": self._done,
            "frozen": self._slopes.by_name(self._frozen),
            "kept": kept,
            "settings": self._settings(),
        }

    def _settings(self) -> Plain:
        """How it was made: what its state must agree with."""
        return {"method": type(self).__name__} | goal_settings(self._budget, self._plan)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            PathlenError: It is of another method, target or plan, or of a model with other slopes.
        """
        who = type(self).__name__
        frozen = frozen_in(state, set(self.state_dict()), self._slopes, who)
        require_same(state["settings"], self._settings(), who)
        kept = None if state["kept"] is None else self._slopes.from_names(state["kept"])
        omega, done = numbers_in(state, who)  # all is read before anything changes
        self._frozen, self._kept = frozen.to(self._frozen.device), kept
        self.omega, self._done = omega, done
        self._finished = self._budget.progress(self._frozen).finished

    def __repr__(self) -> str:
        """Say how far it is."""
        return (
            f"{type(self).__name__}({self.num_active} of {self.num_units} units active,"
            f" {self.progress})"
        )
