"""Baselines that are an order of units: the first of it become linear, step by step."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from pathlen.training.baselines.base import Baseline


class Gradual(Baseline):
    """Freezes slopes in an order, evenly from `begin` to `end` of the linearize phase.

    After a share s of that time, the first slopes of the order are frozen that bring the quantity
    (units, NAPL, ReLU calls) down by the share s of what it has to fall: the schedule is the same
    for all methods, and even in what the target counts.
    """

    @abstractmethod
    def _order(self, flat: Tensor) -> Tensor:
        """The numbers of the slopes in their order, given the values of all: int64[slopes]."""

    def _advance(self, flat: Tensor) -> None:
        share = self._plan.share(self._done)
        if share > 0:
            self._frozen |= self._budget.first(self._order(flat), self._frozen, share)
