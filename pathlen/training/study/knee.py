"""The knee of a curve: where two straight lines meet that fit it best.

V. Muggeo, "Estimating regression models with unknown break-points", Statistics in Medicine 22,
2003. With one break-point its place is found by trying many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_POINTS = 5
"""Two lines that meet have four parameters."""

TRIED = 2048
"""Places of the knee that are tried."""


@dataclass(frozen=True, slots=True)
class KneeFit:
    """Two lines that meet.

    Attributes:
        place: Where, on the axis of depth.
        bend: Slope below it minus slope above it.
        decay: What is lost from the deepest point to the knee: positive if the line falls.
    """

    place: float
    bend: float
    decay: float


def fit_knee(depths: Sequence[float], values: Sequence[float]) -> KneeFit:
    """Fit two lines that meet, by least squares; at least two points lie on each side.

    Args:
        depths: Of at least `LEAST_POINTS` points, in any order.
        values: At these depths.
    """
    x, y = np.array(depths), np.array(values)
    inner = np.sort(x)[1:-1]
    best: tuple[float, float, np.ndarray] | None = None
    for place in np.linspace(inner[0], inner[-1], TRIED):
        terms = np.stack([np.ones_like(x), x - place, np.minimum(x - place, 0)], axis=1)
        found = np.linalg.lstsq(terms, y, rcond=None)[0]
        error = float(((terms @ found - y) ** 2).sum())
        if best is None or error < best[0]:
            best = error, float(place), found
    assert best is not None
    _, place, (_, above, bend) = best
    return KneeFit(place, float(bend), float(above) * (float(x.max()) - place))
