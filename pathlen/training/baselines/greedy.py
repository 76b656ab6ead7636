"""Greedy by centrality: the order that lowers the average path length fastest, or slowest."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines.gradual import Gradual
from pathlen.training.linearizer_state import Plain
from pathlen.training.targets import Plan, ranked, slope_shares


class ByCentrality(Gradual):
    """Makes units linear by their centrality in the normalized average path length.

    A control, of no paper: it looks at the structure alone, neither at data nor at weights. With
    "largest" a target of NAPL is reached with the fewest units, as in
    `pathlen.greedy_linearization`; with "smallest" with the most. Units of equal centrality, such
    as those of a layer, come in an order drawn from the seed.

    Args:
        model: A model with slopes.
        plan: Where to stop, and when.
        monitor: Of the model; it knows the centralities.
        first: Which units come first.
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        monitor: DepthMonitor,
        *,
        first: Literal["largest", "smallest"] = "largest",
        train_slopes: bool = True,
    ) -> None:
        super().__init__(model, plan, monitor)
        shares = slope_shares(self._slopes.sites, monitor)
        # equal centralities may differ in their last digits, by the order of additions
        steps = (shares * (2**40 / shares.max().clamp(min=1e-300))).round()
        self._first = first
        self._by_centrality = ranked(-steps if first == "largest" else steps, plan.seed)
        if not train_slopes:
            self._keep_slopes()

    def _settings(self) -> Plain:
        return super()._settings() | {"first": self._first}

    def _order(self, flat: Tensor) -> Tensor:
        return self._by_centrality.to(flat.device)
