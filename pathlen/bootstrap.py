"""The bootstrap interval of a mean, in verdicts of studies and in figures.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Ann. Statist. 7, 1979; percentile method.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 9999


def mean_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The bootstrap percentile interval of the mean, None of one value.

    The resamples are the same each time. Of few values the interval is too narrow rather than too
    wide.

    Args:
        values: [runs].
        confidence: Of the interval.
    """
    if len(values) < 2:
        return None
    from scipy.stats import bootstrap  # takes long to import, and figures of one run need none

    interval = bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
