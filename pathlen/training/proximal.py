"""Proximal steps: the exact minimizer of distance and penalty, in place of a gradient.

    prox(x) = argmin over t of  (t - x)^2 / 2 + strength |t|^p

For p = 1 it is soft thresholding (Donoho, IEEE Trans. Inf. Theory 41, 1995); for p = 1/2 half
thresholding (Xu, Chang, Xu & Zhang, IEEE Trans. Neural Netw. Learn. Syst. 23, 2012, theorem 1).
Both give exactly 0 near 0, where a gradient would jump across.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

POWERS = (0.5, 1.0)


def prox(x: Tensor, strength: Tensor, p: float) -> Tensor:
    """The minimizer, element by element; where two are equally good, 0.

    Args:
        x: Any shape.
        strength: At least 0, broadcasts to the shape of `x`.
        p: 0.5 or 1.

    Raises:
        ValueError: There is no closed form for p here.
    """
    if p == 1.0:
        return torch.sign(x) * (x.abs() - strength).clamp_min(0)
    if p == 0.5:
        return _half(x, strength)
    raise ValueError(f"a proximal step is known for p = 0.5 and p = 1, not {p}")


def _half(x: Tensor, strength: Tensor) -> Tensor:
    """With t = s^2, the stationary points solve s^3 - |x| s + strength / 2 = 0.

    The largest root is 2 sqrt(|x| / 3) cos(phi / 3) with cos(phi) = -(strength / 4) (|x| /
    3)^(-3/2). It is the minimizer where |x| > 3/2 strength^(2/3), and 0 is elsewhere.
    """
    size = x.abs()
    beyond = size > 1.5 * strength.pow(2 / 3)
    third = torch.where(beyond, size, torch.ones_like(size)) / 3
    angle = torch.acos((-strength / 4 * third.pow(-1.5)).clamp(-1, 1))
    root = 4 * third * torch.cos(angle / 3).square()
    return torch.where(beyond & (strength > 0), torch.sign(x) * root, x * (strength == 0))


def threshold(strength: float, p: float) -> float:
    """The largest |x| that a step sends to 0."""
    return strength if p == 1.0 else 1.5 * math.pow(strength, 2 / 3)
