"""Reductions that are not linear, written out: a function of each element, and one of their sum.

So they have the units that they have where a program writes them out.
"""

import math
from typing import Any

import torch


def norm(
    self: torch.Tensor,
    p: float | None = 2.0,
    dim: Any = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """A p-norm, all elements where no axis is given."""
    x = self if dtype is None else self.to(dtype)
    axes, power = _axes(x, dim), 2.0 if p is None else float(p)
    if abs(power) == math.inf:
        return (x.abs().amax if power > 0 else x.abs().amin)(axes, keepdim)
    if power == 0:
        return (x != 0).sum(axes, keepdim).to(x.dtype)
    if power == 1:
        return x.abs().sum(axes, keepdim)
    if power == 2 and not x.is_complex():
        return x.square().sum(axes, keepdim).sqrt()
    return x.abs().pow(power).sum(axes, keepdim).pow(1 / power)


def logsumexp(self: torch.Tensor, dim: Any, keepdim: bool = False) -> torch.Tensor:
    """Without the shift by the largest element, which only keeps numbers small."""
    return self.exp().sum(_axes(self, dim), keepdim).log()


def variance(self: torch.Tensor, *settings: Any, **named: Any) -> torch.Tensor:
    """A mean of squares around the mean."""
    return variance_and_mean(self, *settings, **named)[0]


def deviation(self: torch.Tensor, *settings: Any, **named: Any) -> torch.Tensor:
    """The square root of a variance."""
    return variance(self, *settings, **named).sqrt()


def deviation_and_mean(
    self: torch.Tensor, *settings: Any, **named: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The square root of a variance, and the mean."""
    found, mean = variance_and_mean(self, *settings, **named)
    return found.sqrt(), mean


def variance_and_mean(
    self: torch.Tensor,
    *settings: Any,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A variance and the mean, by the settings of any overload."""
    dim = None
    if len(settings) == 3:
        dim, unbiased, keepdim = settings
        correction = float(unbiased)
    elif settings and isinstance(settings[0], bool):
        correction = float(settings[0])
    elif settings:
        (dim,) = settings
    axes = _axes(self, dim)
    number = math.prod(self.shape[axis] for axis in axes)
    mean = self.mean(axes, keepdim=True)
    squares = (self - mean).square().sum(axes, keepdim)
    divisor = max(number - (1.0 if correction is None else correction), 0.0)
    return squares / divisor, mean if keepdim else mean.squeeze(axes)


def _axes(x: torch.Tensor, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(x.ndim))
    return [dim] if isinstance(dim, int) else [axis % x.ndim for axis in dim]
