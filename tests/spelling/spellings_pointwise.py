"""Spellings of functions of one tensor: activations, bases, affine functions; and detours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from tests.spelling.rules import DETOURS, Call, rule, rules, written

zeros = torch.zeros_like


def _assigned(x: Tensor, mask: Tensor, number: float = 0.0) -> Tensor:
    x = x.clone()
    x[mask] = number
    return x


def _read_and_written(x: Tensor) -> Tensor:
    buffer = zeros(x)
    buffer[x > 0] = x[x > 0]
    return buffer


def _two_views(x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A function of two views of one tensor, each made for itself."""
    return function(x.view(*x.shape, 1), x[..., None]).squeeze(-1)


def _beside_zero(x: Tensor) -> Tensor:
    return torch.stack([x, zeros(x)], -1)


# Of a tensor and a parameter (a number or a tensor that broadcasts); rule -> form.
_Forms = dict[str, Callable[[Tensor, Any], Tensor]]
ACTIVATIONS: dict[str, _Forms] = {
    "relu": {
        "plain": lambda x, _: F.relu(x),
        "clamp": lambda x, _: x.clamp(min=0),
        "maximum": lambda x, _: torch.maximum(x, torch.zeros(())),
        "minimum, negated": lambda x, _: -torch.minimum(-x, zeros(x)),
        "mask as factor": lambda x, _: x * (x > 0),
        "mask as float factor": lambda x, _: x.gt(0).to(x.dtype).mul(x),
        "where": lambda x, _: torch.where(x > 0, x, 0.0),
        "where, turned round": lambda x, _: torch.where(x <= 0, zeros(x), x),
        "masked_fill": lambda x, _: x.masked_fill(x < 0, 0.0),
        "boolean assignment": lambda x, _: _assigned(x, x < 0),
        "boolean read and write": lambda x, _: _read_and_written(x),
        "index_put": lambda x, _: x.index_put((x < 0,), torch.zeros(())),
        "in place": lambda x, _: x.clone().relu_(),
        "half of x and its magnitude": lambda x, _: (x + x.abs()) * 0.5,
        "x less its negative part": lambda x, _: x - x.clamp(max=0),
        "sign": lambda x, _: x * (x.sign() + 1) / 2,
        "heaviside": lambda x, _: x * torch.heaviside(x, torch.zeros(())),
        "two views": lambda x, _: _two_views(x, lambda a, b: a * (b > 0)),
        "stack and maximum": lambda x, _: torch.stack([x, zeros(x)]).amax(0),
        "leaky of slope 0": lambda x, _: F.leaky_relu(x, 0.0),
        "threshold": lambda x, _: F.threshold(x, 0.0, 0.0),
        "transposed mask": lambda x, _: (x.mT * (x > 0).mT).mT,
    },
    "leaky_relu": {
        "plain": lambda x, a: F.leaky_relu(x, a),
        "maximum": lambda x, a: torch.maximum(x, a * x),
        "where": lambda x, a: torch.where(x > 0, x, a * x),
        "sum of parts": lambda x, a: x.clamp(min=0) + a * x.clamp(max=0),
        "mask as factor": lambda x, a: x * ((x > 0) + a * (x <= 0)),
        "sum with relu": lambda x, a: a * x + (1 - a) * F.relu(x),
        "in place": lambda x, a: F.leaky_relu_(x.clone(), a),
    },
    "prelu": {
        "where": lambda x, a: torch.where(x > 0, x, a * x),
        "sum of parts": lambda x, a: F.relu(x) + a * torch.minimum(x, torch.zeros(())),
        "difference of relus": lambda x, a: F.relu(x) - a * F.relu(-x),
        "mask as factor": lambda x, a: x * (x > 0) + (a * x) * (x <= 0),
        "lerp": lambda x, a: torch.lerp(F.relu(x), x, a.expand_as(x)),
    },
    "blend": {
        "sum": lambda x, a: a * x + (1 - a) * F.relu(x),
        "other order": lambda x, a: F.relu(x) * (1 - a) + x * a,
        "lerp": lambda x, a: torch.lerp(F.relu(x), x, a.expand_as(x)),
        "difference": lambda x, a: F.relu(x) + a * (x - F.relu(x)),
        "addcmul": lambda x, a: torch.addcmul(F.relu(x), a, x.clamp(max=0)),
    },
    "relu6": {
        "plain": lambda x, _: F.relu6(x),
        "clamp": lambda x, _: x.clamp(0, 6),
        "two bounds": lambda x, _: x.clamp(min=0).clamp(max=6),
        "hardtanh": lambda x, _: F.hardtanh(x, 0.0, 6.0),
    },
    "squared_relu": {
        "square of a relu": lambda x, _: F.relu(x) ** 2,
        "product": lambda x, _: x * F.relu(x),
        "mask as factor": lambda x, _: x * x * (x > 0),
        "relu twice": lambda x, _: F.relu(x) * F.relu(x),
        "pow": lambda x, _: torch.pow(x.clamp(min=0), 2),
    },
    "elu": {
        "plain": lambda x, _: F.elu(x),
        "where": lambda x, _: torch.where(x > 0, x, torch.expm1(x)),
        "sum of parts": lambda x, _: F.relu(x) + torch.expm1(x.clamp(max=0)),
        "exp": lambda x, _: torch.where(x > 0, x, x.exp() - 1),
    },
    "gelu": {
        "plain": lambda x, _: F.gelu(x),
        "erf": lambda x, _: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        "erf, other order": lambda x, _: (torch.erf(x * 0.5**0.5) + 1) * (x / 2),
        "erfc": lambda x, _: x * torch.erfc(-x / math.sqrt(2)) * 0.5,
        "ndtr": lambda x, _: x * torch.special.ndtr(x),
        "two views": lambda x, _: _two_views(x, lambda a, b: a * torch.special.ndtr(b)),
    },
    "gelu_tanh": {
        "plain": lambda x, _: F.gelu(x, approximate="tanh"),
        "tanh and pow": lambda x, _: (
            0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "sigmoid": lambda x, _: (
            x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        ),
    },
    "quick_gelu": {
        "product": lambda x, _: x * torch.sigmoid(1.702 * x),
        "silu": lambda x, _: F.silu(1.702 * x) / 1.702,
        "quotient": lambda x, _: x / (1 + torch.exp(-1.702 * x)),
    },
    "silu": {
        "plain": lambda x, _: F.silu(x),
        "product": lambda x, _: x * x.sigmoid(),
        "quotient": lambda x, _: x / (1 + (-x).exp()),
        "in place": lambda x, _: x.sigmoid().mul_(x),
        "two views": lambda x, _: _two_views(x, lambda a, b: a * b.sigmoid()),
        "tanh": lambda x, _: 0.5 * x * (1 + torch.tanh(x / 2)),
        "einsum": lambda x, _: torch.einsum("...,...->...", x, x.sigmoid()),
    },
    "mish": {
        "plain": lambda x, _: F.mish(x),
        "product": lambda x, _: x * torch.tanh(F.softplus(x)),
        "logarithm": lambda x, _: x * torch.tanh(torch.log1p(x.exp())),
        "powers": lambda x, _: x * ((1 + x.exp()) ** 2 - 1) / ((1 + x.exp()) ** 2 + 1),
    },
    "softplus": {
        "plain": lambda x, _: F.softplus(x),
        "log1p": lambda x, _: torch.log1p(x.exp()),
        "log": lambda x, _: torch.log(1 + x.exp()),
        "log sigmoid": lambda x, _: -F.logsigmoid(-x),
        "logaddexp": lambda x, _: torch.logaddexp(x, torch.zeros(())),
        "relu and a rest": lambda x, _: F.relu(x) + torch.log1p(torch.exp(-x.abs())),
    },
    "sigmoid": {
        "exponentials over their sum": lambda x, _: (lambda e: e[..., 0] / e.sum(-1))(
            _beside_zero(x).exp()
        ),
        "exponent less a logarithm": lambda x, _: (
            _beside_zero(x) - _beside_zero(x).logsumexp(-1, keepdim=True)
        ).exp()[..., 0],
        "plain": lambda x, _: x.sigmoid(),
        "quotient": lambda x, _: 1 / (1 + (-x).exp()),
        "reciprocal": lambda x, _: (1 + torch.exp(-x)).reciprocal(),
        "tanh": lambda x, _: 0.5 * (1 + torch.tanh(0.5 * x)),
        "quotient of exponentials": lambda x, _: x.exp() / (1 + x.exp()),
    },
    "tanh": {
        "plain": lambda x, _: x.tanh(),
        "sigmoid": lambda x, _: 2 * torch.sigmoid(2 * x) - 1,
        "exponentials": lambda x, _: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
        "in place": lambda x, _: x.clone().tanh_(),
    },
    "hardtanh": {
        "plain": lambda x, _: F.hardtanh(x),
        "clamp": lambda x, _: x.clamp(-1, 1),
        "bounds": lambda x, _: torch.minimum(
            torch.maximum(x, torch.full((), -1.0)), torch.ones(())
        ),
        "boolean assignment": lambda x, _: _assigned(_assigned(x, x < -1, -1.0), x > 1, 1.0),
        "where": lambda x, _: torch.where(x.abs() < 1, x, x.sign()),
    },
    "hardsigmoid": {
        "plain": lambda x, _: F.hardsigmoid(x),
        "clamp": lambda x, _: (x / 6 + 0.5).clamp(0, 1),
        "relu6": lambda x, _: F.relu6(x + 3) / 6,
    },
    "hardswish": {
        "plain": lambda x, _: F.hardswish(x),
        "clamp": lambda x, _: x * (x + 3).clamp(0, 6) / 6,
        "hardsigmoid": lambda x, _: F.hardsigmoid(x) * x,
    },
    "softsign": {
        "plain": lambda x, _: F.softsign(x),
        "quotient": lambda x, _: x / (1 + x.abs()),
        "reciprocal": lambda x, _: x * (x.abs() + 1).reciprocal(),
    },
    "softshrink": {
        "plain": lambda x, _: F.softshrink(x),
        "difference": lambda x, _: x - x.clamp(-0.5, 0.5),
        "two relus": lambda x, _: F.relu(x - 0.5) - F.relu(-x - 0.5),
        "sign": lambda x, _: x.sign() * F.relu(x.abs() - 0.5),
    },
    "hardshrink": {
        "plain": lambda x, _: F.hardshrink(x),
        "mask as factor": lambda x, _: x * (x.abs() > 0.5),
        "boolean assignment": lambda x, _: _assigned(x, x.abs() <= 0.5),
        "two masks": lambda x, _: torch.where((x > 0.5) | (x < -0.5), x, 0.0),
    },
    "abs": {
        "plain": lambda x, _: x.abs(),
        "maximum": lambda x, _: torch.maximum(x, -x),
        "sign": lambda x, _: x * x.sign(),
        "two relus": lambda x, _: F.relu(x) + F.relu(-x),
        "where": lambda x, _: torch.where(x < 0, -x, x),
        "norm over a new axis": lambda x, _: x[..., None].norm(dim=-1),
        "root of a square": lambda x, _: (x * x).sqrt(),
    },
    "square": {
        "diagonal": lambda x, _: torch.diagonal(
            x[..., :, None] * x[..., None, :], dim1=-2, dim2=-1
        ),
        "power": lambda x, _: x**2,
        "product": lambda x, _: x * x,
        "square": lambda x, _: x.square(),
        "einsum": lambda x, _: torch.einsum("...,...->...", x, x),
        "magnitude": lambda x, _: x.abs() * x.abs(),
        "two views": lambda x, _: _two_views(x, lambda a, b: a * b),
    },
    "gaussian": {
        "power": lambda x, _: torch.exp(-(x**2)),
        "product": lambda x, _: (x * -x).exp(),
        "quotient": lambda x, _: 1 / x.square().exp(),
    },
    "sine": {
        "plain": lambda x, _: x.sin(),
        "cosine": lambda x, _: torch.cos(x - math.pi / 2),
        "odd": lambda x, _: -torch.sin(-x),
    },
    "log_magnitude": {
        "log1p": lambda x, _: torch.log1p(x.abs()),
        "log": lambda x, _: torch.log(1 + x.abs()),
        "maximum": lambda x, _: torch.log1p(torch.maximum(x, -x)),
    },
    "threshold": {
        "plain": lambda x, _: F.threshold(x, 0.25, 0.0),
        "mask as factor": lambda x, _: x * (x > 0.25),
        "boolean assignment": lambda x, _: _assigned(x, ~(x > 0.25)),
        "where": lambda x, _: torch.where(x > 0.25, x, 0.0),
    },
    "hinge": {
        "relu": lambda x, k: F.relu(x - k),
        "mask as factor": lambda x, k: (x - k) * (x > k),
        "maximum": lambda x, k: torch.maximum(x, k) - k,
        "where": lambda x, k: torch.where(x > k, x - k, 0.0),
    },
    "hat": {
        "magnitude": lambda x, k: (1 - (x - k).abs()).clamp(min=0),  # a relu would begin a unit
        "hinges": lambda x, k: F.relu(x - k + 1) - 2 * F.relu(x - k) + F.relu(x - k - 1),
        "pieces (Cox and de Boor)": lambda x, k: (
            (x - k + 1) * ((x >= k - 1) & (x < k)) + (k + 1 - x) * ((x >= k) & (x < k + 1))
        ),
        "minimum": lambda x, k: torch.minimum(x - k + 1, k + 1 - x).clamp(min=0),
    },
    "rbf": {
        "power": lambda x, k: torch.exp(-((x - k) ** 2)),
        "product": lambda x, k: torch.exp((k - x) * (x - k)),
        "expanded": lambda x, k: torch.exp(2 * k * x - x * x - k * k),
    },
    "fourier": {
        "sine": lambda x, f: torch.sin(x * f),
        "other order": lambda x, f: torch.sin(f * x),
        "cosine": lambda x, f: torch.cos(f * x - math.pi / 2),
    },
}


def _activation(form: Callable[[Tensor, Any], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    def spelling(call: Call, x: Tensor) -> Tensor:
        return form(x, call.weights["parameter"])

    return spelling


def _side_by_side(form: Callable[[Tensor, Any], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    def spelling(call: Call, x: Tensor) -> Tensor:
        return form(x[..., None], call.weights["knots"]).flatten(-2)

    return spelling


def _one_after_another(form: Callable[[Tensor, Any], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    def spelling(call: Call, x: Tensor) -> Tensor:
        return torch.stack([form(x, knot) for knot in call.weights["knots"]], -1).flatten(-2)

    return spelling


for _name, _forms in ACTIVATIONS.items():
    for _rule, _form in _forms.items():
        if _name in ("hinge", "hat", "rbf", "fourier"):
            rule(f"basis:{_name}", f"{_name}: {_rule}, new axis")(_side_by_side(_form))
            rule(f"basis:{_name}", f"{_name}: {_rule}, stacked")(_one_after_another(_form))
        else:
            rule(f"act:{_name}", f"{_name}: {_rule}")(_activation(_form))


@rule("act:prelu", "prelu: plain")
def _prelu(call: Call, x: Tensor) -> Tensor | None:
    return F.prelu(x, call.weights["parameter"].flatten()) if call.channels == 1 else None


rules(
    "affine",
    affine=lambda c, x: x * c.weights["factor"] + c.weights["offset"],
    affine_other_order=lambda c, x: c.weights["offset"] + c.weights["factor"] * x,
    affine_addcmul=lambda c, x: torch.addcmul(
        torch.as_tensor(c.weights["offset"]), x, torch.as_tensor(c.weights["factor"])
    ),
    affine_quotient=lambda c, x: x / (1 / c.weights["factor"]) + c.weights["offset"],
    affine_in_place=lambda c, x: (
        (x * c.weights["factor"]).add_(c.weights["offset"]) if x.shape[1:] == c.node.shape else None
    ),
    affine_difference=lambda c, x: -(x * -c.weights["factor"] - c.weights["offset"]),
)


# --- detours --------------------------------------------------------------------------------------


def _halves_written(x: Tensor) -> Tensor:
    half = (x.shape[1] + 1) // 2
    left, right = (slice(None), slice(None, half)), (slice(None), slice(half, None))
    return written(x, (left, x[left]), (right, x[right]))


def _loop_written(x: Tensor) -> Tensor:
    buffer = torch.empty_like(x)
    for i in range(x.shape[1]):
        buffer[:, i] = x[:, i]
    return buffer


def _gathered(x: Tensor) -> Tensor:
    shape = (1, x.shape[1]) + (1,) * (x.dim() - 2)
    return x.gather(1, torch.arange(x.shape[1]).view(shape).expand(x.shape))


DETOURS += [
    ("view and back", lambda x: x.reshape(-1).view(x.shape)),
    ("transposed twice", lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)),
    ("new axis and back", lambda x: x.unsqueeze(1).squeeze(1)),
    ("last axis new and indexed", lambda x: x[..., None][..., 0]),
    ("flattened and back", lambda x: x.flatten(1).unflatten(1, x.shape[1:])),
    ("chunks joined", lambda x: torch.cat(x.chunk(2, 1), 1)),
    ("unbound and stacked", lambda x: torch.stack(x.unbind(1), 1)),
    ("split and joined, batch", lambda x: torch.cat(x.split(1))),
    ("negated twice", lambda x: x.neg().neg()),
    ("doubled and halved", lambda x: 2 * (x * 0.5)),
    ("one added and taken away", lambda x: (x + 1) - 1),
    ("half and half", lambda x: x * 0.5 + x * 0.5),
    ("clone", lambda x: x.clone()),
    ("flipped twice", lambda x: x.flip(1).flip(1)),
    ("rolled there and back", lambda x: x.roll(1, 1).roll(-1, 1)),
    ("index of all", lambda x: x[:, torch.arange(x.shape[1])]),
    ("gather of all", _gathered),
    ("index_select of all", lambda x: x.index_select(1, torch.arange(x.shape[1]))),
    ("written in halves", _halves_written),
    ("written in a loop", _loop_written),
    ("copied into a buffer", lambda x: torch.empty_like(x).copy_(x)),
    ("added to zeros in place", lambda x: torch.zeros_like(x).add_(x)),
    ("double and back", lambda x: x.double().to(x.dtype)),
    ("permuted and back", lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0)),
    ("padded and cut", lambda x: F.pad(x, (1, 1))[..., 1:-1]),
    ("repeated and cut", lambda x: x.repeat(2, *[1] * (x.dim() - 1))[: x.shape[0]]),
    ("expanded and selected", lambda x: x.expand(3, *x.shape)[1]),
    ("einsum of one", lambda x: torch.einsum("...->...", x)),
    ("times ones", lambda x: x * torch.ones(x.shape[1:])),
    ("dropout in eval", lambda x: F.dropout(x, 0.5, training=False)),
    ("complex and back", lambda x: torch.complex(x, torch.zeros_like(x)).real),
]
