"""Sums over pairs (input, output) of units, kept so that no digits are lost however many come.

Means and centered sums of squares and products are merged by the update of Chan, Golub & LeVeque,
"Algorithms for computing the sample variance", The American Statistician 37 (1983); sums of raw
squares would lose all digits where a mean is large beside its deviation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MOST_AT_ONCE = 1 << 22  # elements of a tensor that are widened to float64 together
_WITHOUT_FLOAT64 = ("mps",)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over pairs (x, y), one of each for every unit (or cell).

    Attributes:
        count: Number of pairs; 0 where there were none.
        mean_x: Mean of x.
        mean_y: Mean of y.
        xx: Sum of (x - mean)^2.
        yy: Sum of (y - mean)^2.
        xy: Sum of the products of both deviations.
        negative: Number of pairs with x < 0.
    """

    count: Tensor
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor
    negative: Tensor

    def with_more(self, other: "Moments") -> "Moments":
        """Those of both sets of pairs together, unit by unit (Chan, Golub & LeVeque 1983).

        A unit without pairs in `other` keeps what it has.
        """
        count = self.count + other.count
        share = other.count / count.clamp_min(1)
        step_x, step_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.count * share
        return Moments(
            count=count,
            mean_x=self.mean_x + step_x * share,
            mean_y=self.mean_y + step_y * share,
            xx=self.xx + other.xx + step_x * step_x * weight,
            yy=self.yy + other.yy + step_y * step_y * weight,
            xy=self.xy + other.xy + step_x * step_y * weight,
            negative=self.negative + other.negative,
        )

    def stacked(self) -> Tensor:
        """All of them in the order of the attributes, one row each: shape [7, units]."""
        return torch.stack(
            [self.count, self.mean_x, self.mean_y, self.xx, self.yy, self.xy, self.negative]
        )


def no_pairs(units: int, device: torch.device) -> Moments:
    """Moments of nothing."""
    return Moments(*[torch.zeros(units, dtype=torch.float64, device=device) for _ in range(7)])


def home_of(device: torch.device) -> torch.device:
    """Where sums over tensors of a device are kept: there, if it computes in float64."""
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def moments_of(x: Tensor, y: Tensor, units: Tensor, count: int) -> Moments:
    """Moments of the elements of two tensors, those of a unit together.

    Axes on which units do not vary are summed over first; what is left, the cells, are then
    grouped by unit. Tensors are widened to float64 a part at a time, so that the memory needed
    does not grow with the batch where units do not vary along the first axis.

    Args:
        x: Inputs.
        y: Outputs, of the same shape.
        units: Number of the unit of every element, of length 1 along axes on which it does not
            vary; `count` where there is none.
        count: Number of units.

    Returns:
        Sums on the device of the units.  # (count,)
    """
    if x.ndim == 0:
        x, y, units = x.reshape(1), y.reshape(1), units.reshape(1)
    whole = units.shape[0] > 1 or x.numel() <= _MOST_AT_ONCE
    rows = len(x) if whole else max(1, len(x) * _MOST_AT_ONCE // x.numel())
    total = no_pairs(count, units.device)
    for part_x, part_y in zip(x.split(rows), y.split(rows), strict=True):
        cells = _cells(part_x, part_y, units)
        total = total.with_more(_grouped(cells, units.reshape(-1), count))
    return total


def _cells(x: Tensor, y: Tensor, units: Tensor) -> Moments:
    """Moments over the axes on which units do not vary: one cell for each element of `units`."""
    axes = [axis for axis in range(x.ndim) if units.shape[axis] == 1 and x.shape[axis] > 1]
    each = float(np.prod([x.shape[axis] for axis in axes]))
    x, y = (tensor.to(units.device).to(torch.float64) for tensor in (x, y))

    def total(tensor: Tensor) -> Tensor:
        return (tensor.sum(axes) if axes else tensor).reshape(-1)

    mean_x, mean_y = (t.mean(axes, keepdim=True) if axes else t for t in (x, y))
    off_x, off_y = x - mean_x, y - mean_y
    return Moments(
        count=torch.full_like(units, each, dtype=torch.float64).reshape(-1),
        mean_x=mean_x.reshape(-1),
        mean_y=mean_y.reshape(-1),
        xx=total(off_x * off_x),
        yy=total(off_y * off_y),
        xy=total(off_x * off_y),
        negative=total((x < 0).double()),
    )


def _grouped(cells: Moments, unit: Tensor, count: int) -> Moments:
    """Moments of the cells of each unit together.

    Args:
        cells: One for each element of `unit`.
        unit: Number of the unit of each cell, `count` where there is none.
        count: Number of units.
    """

    def total(of_cells: Tensor) -> Tensor:
        start = torch.zeros(count + 1, dtype=torch.float64, device=unit.device)
        return start.index_add_(0, unit, of_cells)

    pairs = total(cells.count)
    present = pairs.clamp_min(1)
    mean_x, mean_y = (total(m * cells.count) / present for m in (cells.mean_x, cells.mean_y))
    off_x, off_y = cells.mean_x - mean_x[unit], cells.mean_y - mean_y[unit]
    grouped = Moments(
        count=pairs,
        mean_x=mean_x,
        mean_y=mean_y,
        xx=total(cells.xx + cells.count * off_x * off_x),
        yy=total(cells.yy + cells.count * off_y * off_y),
        xy=total(cells.xy + cells.count * off_x * off_y),
        negative=total(cells.negative),
    )
    return Moments(*(row[:count] for row in grouped.stacked()))
