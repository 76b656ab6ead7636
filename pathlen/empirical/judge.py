"""From the sums over a unit's inputs and outputs to what is said of it."""

from dataclasses import dataclass

import numpy as np

from pathlen.empirical.moments import Moments
from pathlen.graph.parts import BoolArray, FloatArray

_CALLS = 4.0  # as many roundings as a function written out may make, each of a last digit
_SUMMED = 64 * np.finfo(np.float64).eps  # what rounding of the sums themselves may leave
_FIT_SUMMED = 1e-13  # the same for the difference that a fit leaves, as a share of the variance


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What is said of the units of a site; see `EmpiricalActivity`."""

    samples: np.ndarray
    nonlinearity: FloatArray
    negative_share: FloatArray
    always_on: BoolArray
    dead: BoolArray
    slope: FloatArray
    intercept: FloatArray


def judge(moments: Moments, precision: float) -> Judgement:
    """Fit the outputs of units on their inputs.

    A unit is dead where its output varies no more than rounding explains, and always on where what
    the best affine fit leaves over is no more than that; in both cases its nonlinearity is 0.

    Args:
        moments: Of the units, on the CPU.
        precision: Relative rounding error of inputs and outputs: eps of their type, 0 for integers.
    """
    count, mean_x, mean_y, xx, yy, xy, negative = (row.numpy() for row in moments.stacked())
    varies = xx > 0
    slope = np.divide(xy, xx, out=np.zeros_like(xy), where=varies)
    left = np.clip(yy - slope * xy, 0.0, yy)
    error = max(_CALLS * precision, _SUMMED)
    size_y = yy + count * mean_y**2
    dead = yy <= error**2 * size_y
    through = slope**2 * (xx + count * mean_x**2)  # roundings of the input reach the output
    affine = (left <= error**2 * (size_y + through)) | (left <= _FIT_SUMMED * yy)
    share = np.divide(left, yy, out=np.zeros_like(yy), where=~dead)
    return Judgement(
        samples=count.astype(np.int64),
        nonlinearity=np.where(affine | dead, 0.0, share),
        negative_share=negative / count,
        always_on=affine & ~dead,
        dead=dead,
        slope=np.where(dead, 0.0, slope),
        intercept=mean_y - np.where(dead, 0.0, slope) * mean_x,
    )
