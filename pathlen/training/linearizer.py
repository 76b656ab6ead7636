"""What makes units linear in a training run: the sparsity prior, or a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from pathlen.training.targets import Progress


class Linearizer(Protocol):
    """What a training loop needs of it; `SparsityPrior` and all baselines have it."""

    @property
    def omega(self) -> float:
        """Strength of its penalty; the loop sets it before each step. Unused without a penalty."""

    @omega.setter
    def omega(self, omega: float) -> None: ...

    @property
    def progress(self) -> Progress | None:
        """How far linearization is from its target, None without one."""

    @property
    def num_active(self) -> int:
        """Number of slopes that are not linear yet."""

    def penalty(self) -> Tensor:
        """What is added to the loss: a scalar."""

    def add_gradient(self, scale: Tensor | float | None = None) -> Tensor:
        """Add the gradient of the penalty to those that the slopes have, and return the penalty."""

    def step(self, learning_rate: float = 0.0) -> None:
        """Make units linear, and keep those linear that are; after each step of the optimizer.

        Args:
            learning_rate: Of the slopes in the step before.
        """

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on besides the model: tensors and numbers only."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
