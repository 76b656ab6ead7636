"""Smallest |1 - alpha| first: magnitude pruning, of slopes."""

from __future__ import annotations

from torch import Tensor

from pathlen.training.baselines.gradual import Gradual
from pathlen.training.targets import ranked


class SmallestDistance(Gradual):
    """Makes the units linear whose slopes are nearest to 1, without any penalty that draws them.

    Magnitude pruning (Han, Pool, Tran & Dally, "Learning both Weights and Connections for Efficient
    Neural Networks", NeurIPS 2015, arXiv:1506.02626) on a schedule (Zhu & Gupta, "To prune, or not
    to prune", 2017, arXiv:1710.01878), with 1 - alpha in the place of a weight: at 0 a unit is
    linear. As there, what is pruned is chosen anew in each step by the magnitudes of the moment,
    and does not come back. Differences: slopes begin at 0 and are trained in the linearize phase
    only, so the first are chosen after a share `begin` of it; the schedule is linear, not cubic.
    """

    def _order(self, flat: Tensor) -> Tensor:
        return ranked((1 - flat).abs(), self._plan.seed)
