"""Random units: what any rule of choice has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines.gradual import Gradual
from pathlen.training.targets import Plan, ranked


class RandomUnits(Gradual):
    """Makes units linear in an order that is drawn once, from the seed of the plan.

    A control, of no paper.

    Args:
        model: A model with slopes.
        plan: Where to stop, and when.
        monitor: For a target of "napl".
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        monitor: DepthMonitor | None = None,
        *,
        train_slopes: bool = True,
    ) -> None:
        super().__init__(model, plan, monitor)
        self._drawn = ranked(torch.zeros(self.num_units), plan.seed)
        if not train_slopes:
            self._keep_slopes()

    def _order(self, flat: Tensor) -> Tensor:
        return self._drawn.to(flat.device)
