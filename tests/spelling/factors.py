"""Sums of products that share factors: constructs, and their spellings, multiplied out or factored.

Which of the forms is the graph's is decided by the definitions: that with the fewest products, then
with the fewest summands. The oracle has it written out (`Oracle.mixture`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.spelling.constructs import Draw, construct
from tests.spelling.rules import rules


@construct("c tc ct chw")
def gate_between_two(d: Draw, x: int) -> int:
    """n + z (h - n): what a GRU does, and a highway network."""
    n, h = d.layer(x, 3), d.choose((d.layer, lambda x, size: d.any_act(d.layer(x, size))))(x, 3)
    return d.like("mixture", n, h, d.act(d.layer(x, 3), "sigmoid"), kind="gate")


@construct("c tc ct chw")
def modulation(d: Draw, x: int) -> int:
    """h (1 + g) + b: feature-wise linear modulation, adaptive layer norm."""
    parts = d.any_act(d.layer(x, 2)), d.layer(x, 2), d.layer(x, 2)
    return d.like("mixture", *parts, kind="modulation")


@construct("c tc ct chw")
def factor_of_two_summands(d: Draw, x: int) -> int:
    """(a + b) c."""
    parts = d.any_act(d.layer(x, 2)), d.layer(x, 2), d.layer(x, 2)
    return d.like("mixture", *parts, kind="factor")


@construct("c tc ct chw")
def mixture_of_three(d: Draw, x: int) -> int:
    """w + a (u - w) + b (v - w)."""
    gates = [d.act(d.layer(x, 2), "sigmoid") for _ in range(2)]
    parts = d.layer(x, 2), d.layer(x, 2), d.any_act(d.layer(x, 2))
    return d.like("mixture", *parts, *gates, kind="three")


def _through(function):  # type: ignore[no-untyped-def]
    """With the last axis first."""
    return lambda c, *xs: function(*[x.movedim(-1, 0) for x in xs]).movedim(0, -1)


def _viewed(n: Tensor, h: Tensor, z: Tensor) -> Tensor:
    flat = [x.reshape(-1) for x in (n, h, z)]
    return ((1 - flat[2]) * flat[0] + (z * h).reshape(-1)).view(n.shape)


rules(
    "mixture:gate",
    **{
        "gate: factored": lambda c, n, h, z: n + z * (h - n),
        "gate: as documented": lambda c, n, h, z: (1 - z) * n + z * h,
        "gate: multiplied out": lambda c, n, h, z: n - z * n + z * h,
        "gate: other order": lambda c, n, h, z: z * h - (z * n - n),
        "gate: lerp": lambda c, n, h, z: torch.lerp(n, h, z),
        "gate: from the other end": lambda c, n, h, z: h + (1 - z) * (n - h),
        "gate: addcmul": lambda c, n, h, z: torch.addcmul((1 - z) * n, z, h),
        "gate: in place": lambda c, n, h, z: n.clone().sub_(z * n).addcmul_(z, h),
        "gate: stack": lambda c, n, h, z: torch.stack([n, -z * n, z * h]).sum(0),
        "gate: negated": lambda c, n, h, z: -(z - 1) * n - z * (-h),
        "gate: in halves": lambda c, n, h, z: 2 * ((0.5 - 0.5 * z) * n + 0.5 * z * h),
        "gate: moved": _through(lambda n, h, z: (1 - z) * n + z * h),
        "gate: flattened": lambda c, n, h, z: _viewed(n, h, z),
    },
)
rules(
    "mixture:modulation",
    **{
        "modulation: factored": lambda c, h, g, b: h * (1 + g) + b,
        "modulation: multiplied out": lambda c, h, g, b: h + h * g + b,
        "modulation: other order": lambda c, h, g, b: b + g * h + h,
        "modulation: addcmul": lambda c, h, g, b: torch.addcmul(h + b, h, g),
        "modulation: addcmul of both": lambda c, h, g, b: torch.addcmul(b, h, g + 1),
        "modulation: in place": lambda c, h, g, b: h.clone().addcmul_(h, g).add_(b),
        "modulation: difference": lambda c, h, g, b: b - h * (-g) + h,
        "modulation: moved": _through(lambda h, g, b: h + h * g + b),
        "modulation: lerp": lambda c, h, g, b: torch.lerp(h, 2 * h, g) + b,
    },
)
rules(
    "mixture:factor",
    **{
        "factor: drawn out": lambda c, a, b, d: (a + b) * d,
        "factor: multiplied out": lambda c, a, b, d: a * d + b * d,
        "factor: addcmul": lambda c, a, b, d: torch.addcmul(d * b, d, a),
        "factor: stack": lambda c, a, b, d: torch.stack([a * d, d * b], -1).sum(-1),
        "factor: scaled": lambda c, a, b, d: 3 * (a * d) / 3 + b * d,
        "factor: moved": _through(lambda a, b, d: d * a + d * b),
    },
)
rules(
    "mixture:three",
    **{
        "three: factored": lambda c, u, v, w, a, b: w + a * (u - w) + b * (v - w),
        "three: convex": lambda c, u, v, w, a, b: a * u + b * v + (1 - a - b) * w,
        "three: multiplied out": lambda c, u, v, w, a, b: a * u + b * v + w - a * w - b * w,
        "three: lerp": lambda c, u, v, w, a, b: torch.lerp(w, u, a) + b * (v - w),
    },
)
