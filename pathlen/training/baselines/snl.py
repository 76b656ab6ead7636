"""Selective Network Linearization: L1 on 1 - alpha, ever stronger, until the budget is met."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathlen.errors import PathlenError
from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines.base import Baseline
from pathlen.training.linearizer_state import Plain
from pathlen.training.targets import Plan


class SelectiveLinearization(Baseline):
    """Slopes under an L1 penalty; once few enough are nonlinear, all become 1 or 0.

    Cho, Joshi, Garg, Reagen & Hegde, "Selective Network Linearization for Efficient Private
    Inference", ICML 2022, arXiv:2202.02340. A ReLU becomes c * ReLU(x) + (1 - c) * x
    (their equation 2; c = 1 - alpha), and algorithm 1 is:

    - lines 4 to 9: train weights and c on the loss + lambda * sum |c|; units with c <= epsilon
      count as linear; after an epoch without a new least count lambda is multiplied by kappa; until
      the count is within the budget;
    - line 11: c > epsilon becomes 1, others 0, and all c are fixed;
    - line 12: the weights are finetuned.

    Here lambda is `omega` and is given anew for each step (`GrowUntilFalling` multiplies it), and
    epsilon is `threshold`. Differences: one slope for each unit that the model has slopes for (they
    have one for each pixel: `granularity="position"`); |c| <= epsilon is linear, where they have no
    absolute value; no more units become linear than the target allows, the nearest first; and the
    phase has an end: where the count is not within the budget by then, the nearest are taken, at
    whatever distance. They distil from the dense network in both phases, which is an option here.

    Args:
        model: A model with slopes.
        plan: Where to stop, and the latest time for it; its `begin` is not used.
        monitor: For a target of "napl".
        omega: Strength of the penalty.
        threshold: Slopes with |1 - alpha| within it count as linear.

    Raises:
        PathlenError: The threshold is out of range, or what :class:`Baseline` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        monitor: DepthMonitor | None = None,
        *,
        omega: float = 1e-5,
        threshold: float = 0.01,
    ) -> None:
        super().__init__(model, plan, monitor)
        if not 0 <= threshold < 1:
            raise PathlenError(f"threshold={threshold!r} must lie in [0, 1)")
        self.omega, self.threshold = omega, threshold

    def _penalty(self, flat: Tensor) -> Tensor:
        """Omega * sum |1 - alpha|, until the budget is met."""
        if self._finished:
            return flat.new_zeros(())
        return self.omega * (1 - flat).abs().sum()

    def _settings(self) -> Plain:
        return super()._settings() | {"threshold": self.threshold}

    def _advance(self, flat: Tensor) -> None:
        distance = (1 - flat).abs()
        within = self._budget.progress(distance <= self.threshold).reached
        if within or self._plan.share(self._done) >= 1:
            self._frozen |= self._budget.first(distance.argsort(stable=True), self._frozen, 1.0)
            self._kept = torch.zeros_like(flat)

    @property
    def num_active(self) -> int:
        """Number of slopes that do not count as linear. Waits for the device."""
        if self._kept is not None:
            return super().num_active
        return int(((1 - self._slopes.read().detach()).abs() > self.threshold).sum())
