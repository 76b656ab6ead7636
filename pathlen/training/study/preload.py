"""What a run needs, loaded: imported by the fork server alone, whose processes all have it then."""

from __future__ import annotations

import lightning_fabric  # noqa: F401 - the loop loads it when it trains

import pathlen
import pathlen.training.study.child  # torch and the training loop come with it

# kernels of numba are read from their cache when they are first called
pathlen.measure(pathlen.PathGraph.from_edges([(0, 1)], activity=[0, 0]))
