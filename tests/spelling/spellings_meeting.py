"""Spellings of sums, products, choices; of normalizations and softmax; of what reduces."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from tests.spelling.program import LAYERS, Program
from tests.spelling.rules import Call, Spelling, rule, rules
from tests.spelling.spellings_layers import SOFTMAX

# --- sums -----------------------------------------------------------------------------------------


def _summands(c: Call, xs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x if f == 1 else f * x for f, x in zip(c.factors, xs, strict=True)]


def _stacked(c: Call, xs: tuple[Tensor, ...], axis: int) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*_summands(c, xs)), axis)


def _alpha(c: Call, *xs: Tensor) -> Tensor:
    total = c.factors[0] * xs[0]
    for factor, x in zip(c.factors[1:], xs[1:], strict=True):
        total = torch.sub(total, x) if factor == -1 else torch.add(total, x, alpha=factor)
    return total


def _accumulated(c: Call, *xs: Tensor) -> Tensor:
    total = torch.zeros(torch.broadcast_shapes(*(x.shape for x in xs)))
    for factor, x in zip(c.factors, xs, strict=True):
        total.add_(x, alpha=factor)
    return total


def _in_place(c: Call, *xs: Tensor) -> Tensor | None:
    first, *others = _summands(c, xs)
    if first.shape != torch.broadcast_shapes(*(x.shape for x in xs)):
        return None
    first = first.clone()
    for other in others:
        first += other
    return first


def _lerp(c: Call, *xs: Tensor) -> Tensor | None:
    first, *others = _summands(c, xs)
    return fold(lambda total, other: torch.lerp(2 * total, 2 * other, 0.5), others, first)


def _addcmul(c: Call, *xs: Tensor) -> Tensor:
    total = c.factors[0] * xs[0]
    for factor, x in zip(c.factors[1:], xs[1:], strict=True):
        total = torch.addcmul(total, x, torch.full((), float(factor)))
    return total


def _added_at_places(c: Call, *xs: Tensor) -> Tensor:
    first, *others = torch.broadcast_tensors(*_summands(c, xs))
    places = torch.arange(first.shape[1])
    return fold(lambda total, other: total.index_add(1, places, other), others, first)


def _joined_and_summed(c: Call, *xs: Tensor) -> Tensor:
    parts = torch.broadcast_tensors(*_summands(c, xs))
    return torch.cat([part[:, None] for part in parts], 1).sum(1)


def _behind_a_layer(program: Program, place: int) -> bool:
    node = program.nodes[place]
    return node.op in LAYERS or any(_behind_a_layer(program, arg) for arg in node.args)


def _put_at_places(c: Call, *xs: Tensor) -> Tensor | None:
    if not all(_behind_a_layer(c.program, place) for place in c.node.args):
        return None  # features of an input are not followed through it
    first, *others = torch.broadcast_tensors(*_summands(c, xs))
    places = torch.arange(len(first))[:, None], torch.arange(first.shape[1])
    for other in others:
        first = first.clone()
        first.index_put_(places, other, accumulate=True)
    return first


def _einsum(c: Call, *xs: Tensor) -> Tensor | None:
    if not all(_behind_a_layer(c.program, place) for place in c.node.args):
        return None  # it would be the first contraction of an input
    parts = torch.stack(torch.broadcast_tensors(*xs), -1)
    return torch.einsum("...k,k->...", parts, torch.tensor(c.factors, dtype=parts.dtype))


def _only_summand(program: Program, place: int) -> bool:
    """Whether a node is a plain linear map that nothing else reads."""
    node = program.nodes[place]
    return node.op == "linear" and len(node.args) == 1 and program.readers(place) == 1


def _with_a_product(c: Call, *xs: Tensor) -> Tensor | None:
    """A linear map of a summand in one call with the sum."""
    program, places = c.program, c.node.args
    at = next((i for i, place in enumerate(places) if _only_summand(program, place)), None)
    if at is None:
        return None
    place, node = places[at], program.nodes[places[at]]
    others = [x for i, x in enumerate(_summands(c, xs)) if i != at]
    total = fold(torch.add, others)
    if total.shape != xs[at].shape or total.dim() not in (2, 3):
        return None
    weight, bias = c.weights["of"][place]["weight"], c.weights["of"][place]["bias"]
    x, factor = c.values[node.args[0]], c.factors[at]
    total = total + factor * bias
    if total.dim() == 2:
        return torch.addmm(total, x, weight.t(), alpha=factor)
    return torch.baddbmm(total, x, weight.t().expand(x.shape[0], -1, -1), alpha=factor)


rules(
    "sum",
    **{
        "sum: plain": lambda c, *xs: fold(torch.add, _summands(c, xs)),
        "sum: other order": lambda c, *xs: fold(torch.add, _summands(c, xs)[::-1]),
        "sum: from the right": lambda c, *xs: fold(lambda a, b: b + a, _summands(c, xs)[::-1]),
        "sum: with alpha": _alpha,
        "sum: accumulated in place": _accumulated,
        "sum: in place": _in_place,
        "sum: lerp": _lerp,
        "sum: addcmul": _addcmul,
        "sum: stack": lambda c, *xs: _stacked(c, xs, 0).sum(0),
        "sum: stack on the last axis": lambda c, *xs: _stacked(c, xs, -1).sum(-1),
        "sum: cat": _joined_and_summed,
        "sum: einsum": _einsum,
        "sum: index_add": _added_at_places,
        "sum: index_put": _put_at_places,
        "sum: mean of a stack": lambda c, *xs: _stacked(c, xs, 1).mean(1) * len(xs),
        "sum: addmm or baddbmm": _with_a_product,
    },
)

# --- products, quotients, extremes, choices -------------------------------------------------------


def _assigned(x: Tensor, mask: Tensor, other: Tensor | float) -> Tensor:
    x = x.clone()
    x[mask] = other[mask] if isinstance(other, Tensor) else other
    return x


def _same(*tensors: Tensor) -> bool:
    return len({tensor.shape for tensor in tensors}) == 1


def _first_in_place(write: str) -> Spelling:
    def spelling(c: Call, *xs: Tensor) -> Tensor | None:
        return fold(lambda total, x: getattr(total, write)(x), xs[1:], xs[0].clone())

    return lambda c, *xs: spelling(c, *xs) if _same(*xs) else None


def _folded(function: Callable[[Tensor, Tensor], Tensor], last: bool = False) -> Spelling:
    """Two by two, from the first on or from the last."""
    if last:
        return lambda c, *xs: fold(lambda total, x: function(x, total), xs[::-1])
    return lambda c, *xs: fold(function, xs)


def _reduced(reduce: Callable[[Tensor], Tensor], axis: int) -> Spelling:
    return lambda c, *xs: reduce(torch.stack(xs, axis)) if _same(*xs) else None


def _by_reciprocals(c: Call, above: Tensor, *below: Tensor) -> Tensor:
    total = above
    for x, form in zip(below, ("divided", "power"), strict=False):
        total = total * (1 / x if form == "divided" else x**-1)
    return total


rules(
    "product",
    **{
        "product: plain": _folded(torch.mul),
        "product: other order": lambda c, *xs: fold(torch.mul, xs[::-1]),
        "product: from the right": _folded(torch.mul, last=True),
        "product: einsum": lambda c, *xs: torch.einsum(",".join(["..."] * len(xs)) + "->...", *xs),
        "product: addcmul": _folded(lambda a, b: torch.addcmul(torch.zeros(()), a, b)),
        "product: in place": _first_in_place("mul_"),
        "product: through views": lambda c, *xs: fold(torch.mul, [x[..., None] for x in xs])[
            ..., 0
        ],
        "product: stack": lambda c, *xs: torch.stack(torch.broadcast_tensors(*xs)).prod(0),
        "product: divided by a reciprocal": _folded(lambda a, b: a / b.reciprocal()),
        "product: scaled in between": _folded(lambda a, b: (2 * a) * (b / -4) * -2),
    },
)
rules(
    "quotient",
    **{
        "quotient: plain": _folded(torch.div),
        "quotient: addcdiv": _folded(lambda a, b: torch.addcdiv(torch.zeros(()), a, b)),
        "quotient: in place": _first_in_place("div_"),
        "quotient: negated": _folded(lambda a, b: (-a) / (-b)),
        "quotient: by a product": lambda c, a, *bs: a / fold(torch.mul, bs),
        "quotient: times reciprocals": _by_reciprocals,
        "quotient: times the reciprocal of a product": lambda c, a, *bs: (
            fold(torch.mul, bs).reciprocal() * a
        ),
        "quotient: reciprocals first": lambda c, a, *bs: (
            fold(torch.mul, [b.pow(-1) for b in bs]) * a
        ),
    },
)
rules(
    "maximum",
    **{
        "maximum: plain": _folded(torch.maximum),
        "maximum: other order": lambda c, *xs: fold(torch.max, xs[::-1]),
        "maximum: from the right": _folded(torch.maximum, last=True),
        "maximum: where": _folded(lambda a, b: torch.where(a > b, a, b)),
        "maximum: where, turned round": _folded(lambda a, b: torch.where(b >= a, b, a), last=True),
        "maximum: stack": _reduced(lambda stacked: stacked.amax(0), 0),
        "maximum: of a stack with indices": _reduced(lambda stacked: stacked.max(-1).values, -1),
        "maximum: minimum": _folded(lambda a, b: -torch.minimum(-a, -b)),
        "maximum: of negatives": lambda c, *xs: -fold(torch.minimum, [-x for x in xs]),
        "maximum: fmax": _folded(torch.fmax),
        "maximum: clamp": _folded(lambda a, b: a.clamp(min=b)),
        "maximum: shifted in between": _folded(
            lambda a, b: torch.maximum(2 * a + 1, 2 * b + 1) / 2 - 0.5
        ),
    },
)
rules(
    "minimum",
    **{
        "minimum: plain": _folded(torch.minimum),
        "minimum: from the right": _folded(torch.minimum, last=True),
        "minimum: where": _folded(lambda a, b: torch.where(b < a, b, a)),
        "minimum: stack": _reduced(lambda stacked: stacked.amin(1), 1),
        "minimum: maximum": _folded(lambda a, b: -torch.maximum(-a, -b)),
    },
)
rules(
    "masked",
    **{
        "foreign mask: factor": lambda c, a, b: b * (a > 0),
        "foreign mask: float factor": lambda c, a, b: (a > 0).to(b.dtype) * b,
        "foreign mask: where": lambda c, a, b: torch.where(a > 0, b, 0.0),
        "foreign mask: masked_fill": lambda c, a, b: (
            b.masked_fill(~(a > 0), 0.0) if _same(a, b) else None
        ),
        "foreign mask: boolean assignment": lambda c, a, b: (
            _assigned(b, ~(a > 0), 0.0) if _same(a, b) else None
        ),
    },
)
rules(
    "choose",
    **{
        "choice: where": lambda c, m, a, b: torch.where(m > 0, a, b),
        "choice: where, turned round": lambda c, m, a, b: torch.where(m <= 0, b, a),
        "choice: boolean assignment": lambda c, m, a, b: (
            _assigned(b, m > 0, a) if _same(m, a, b) else None
        ),
    },
)

# --- normalizations -------------------------------------------------------------------------------


def _axes(c: Call) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in c.axes)


def _mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.mean(axes, keepdim=True)


def _einsum_mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    names = "bijk"[: x.dim()]
    kept = "".join(name for axis, name in enumerate(names) if axis not in axes)
    total = torch.einsum(f"{names}->{kept}", x)
    size = x.numel() // total.numel()
    return total.reshape([1 if axis in axes else n for axis, n in enumerate(x.shape)]) / size


def _matmul_mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    moved = x.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))
    mean = moved @ torch.full((moved.shape[-1], 1), 1 / moved.shape[-1])
    return mean.reshape([1 if axis in axes else n for axis, n in enumerate(x.shape)])


_MEANS = {"mean": _mean, "einsum": _einsum_mean, "matmul": _matmul_mean}


def _standardized(x: Tensor, axes: tuple[int, ...], mean) -> Tensor:  # type: ignore[no-untyped-def]
    centered = x - mean(x, axes)
    return centered * torch.rsqrt(mean(centered * centered, axes) + 1e-5)


def _by_moments(x: Tensor, axes: tuple[int, ...], mean) -> Tensor:  # type: ignore[no-untyped-def]
    first = mean(x, axes)
    return (x - first) / (mean(x**2, axes) - first**2 + 1e-5).sqrt()


def _by_var_mean(x: Tensor, axes: tuple[int, ...], mean) -> Tensor:  # type: ignore[no-untyped-def]
    var, average = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - average) / torch.sqrt(var + 1e-5)


def _layer_norm(c: Call, x: Tensor) -> Tensor | None:
    last = tuple(range(x.dim() - len(c.axes), x.dim()))
    return F.layer_norm(x, [x.shape[a] for a in last]) if _axes(c) == last else None


rule("norm:standard", "standardized: layer_norm")(_layer_norm)
for _name, _form in {"centred": _standardized, "moments": _by_moments}.items():
    for _how, _of in _MEANS.items():
        rule("norm:standard", f"standardized: {_name}, {_how}")(
            lambda c, x, form=_form, of=_of: form(x, _axes(c), of)
        )
rule("norm:standard", "standardized: var_mean")(lambda c, x: _by_var_mean(x, _axes(c), _mean))

_RMS = {
    "rsqrt": lambda x, square: x * torch.rsqrt(square + 1e-6),
    "sqrt": lambda x, square: x / (square + 1e-6).sqrt(),
    "power": lambda x, square: (square + 1e-6).pow(-0.5) * x,
}
for _name, _form in _RMS.items():
    for _how, _of in _MEANS.items():
        rule("norm:rms", f"rms: {_name}, {_how}")(
            lambda c, x, form=_form, of=_of: form(x, of(x * x, _axes(c)))
        )
rule("norm:rms", "rms: vector_norm")(
    lambda c, x: (
        x
        / (
            torch.linalg.vector_norm(x, dim=_axes(c), keepdim=True) ** 2
            / (x[:1].numel() / torch.amax(x[:1], _axes(c)).numel())
            + 1e-6
        ).sqrt()
    )
)
rule("norm:rms", "rms: rms_norm")(
    lambda c, x: F.rms_norm(x, (x.shape[-1],), eps=1e-6) if _axes(c) == (x.dim() - 1,) else None
)
rules(
    "norm:l2",
    **{
        "l2: normalize": lambda c, x: F.normalize(x, dim=_axes(c)[0]),
        "l2: norm": lambda c, x: x / x.norm(dim=_axes(c)[0], keepdim=True),
        "l2: sum of squares": lambda c, x: x / x.pow(2).sum(_axes(c), keepdim=True).sqrt(),
        "l2: einsum of x with x": lambda c, x: (
            x / torch.einsum("bc,bc->b", x, x).sqrt()[:, None] if x.dim() == 2 else None
        ),
        "l2: row times column": lambda c, x: (
            x / (x[:, None] @ x[..., None]).sqrt()[..., 0] if x.dim() == 2 else None
        ),
        "l2: linalg": lambda c, x: x / torch.linalg.norm(x, dim=_axes(c)[0], keepdim=True),
    },
)


def _channel_shape(c: Call, x: Tensor) -> list[int]:
    return [-1 if axis == c.channels else 1 for axis in range(1, x.dim())]


def _batch_written(c: Call, x: Tensor) -> Tensor:
    mean, var = (c.weights[name].view(_channel_shape(c, x)) for name in ("mean", "var"))
    return (x - mean) / (var + 1e-5).sqrt()


rule("norm:batch", "batch norm: plain")(
    lambda c, x: F.batch_norm(x, c.weights["mean"], c.weights["var"]) if c.channels == 1 else None
)
rule("norm:batch", "batch norm: written out")(_batch_written)
rule("norm:group", "group norm: plain")(lambda c, x: F.group_norm(x, c.groups))


@rule("norm:group", "group norm: written out")
def _group_norm(c: Call, x: Tensor) -> Tensor:
    grouped = x.reshape(x.shape[0], c.groups, -1)
    return _standardized(grouped, (2,), _mean).view(x.shape)


@rule("norm:group", "group norm: instance norm of groups")
def _instance_of_groups(c: Call, x: Tensor) -> Tensor:
    return F.instance_norm(x.reshape(x.shape[0], c.groups, -1)).view_as(x)


@rule("norm:grn", "response norm: written out")
def _response(c: Call, x: Tensor) -> Tensor:
    size = x.norm(dim=_axes(c), keepdim=True)
    return x + 0.5 * (x * (size / (size.mean(c.channels, keepdim=True) + 1e-6)))


@rule("norm:grn", "response norm: addcmul")
def _response_addcmul(c: Call, x: Tensor) -> Tensor:
    size = (x * x).sum(_axes(c), keepdim=True).sqrt()
    return torch.addcmul(x, x, size / (_mean(size, (c.channels,)) + 1e-6), value=0.5)


for _name, _form in SOFTMAX.items():
    rule("softmax", f"softmax: {_name}")(
        lambda c, x, form=_form: form(x.movedim(c.axis + 1, -1)).movedim(-1, c.axis + 1)
    )
rule("softmax", "softmax: along its axis")(lambda c, x: F.softmax(x, c.axis + 1))

# --- reductions of whole axes, keeping them -------------------------------------------------------


def _last(c: Call, x: Tensor) -> Tensor:
    return x.movedim(_axes(c), tuple(range(-len(c.axes), 0))).flatten(-len(c.axes))


def _back(c: Call, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *c.node.shape)


rules(
    "window:mean",
    **{
        "mean: plain": lambda c, x: x.mean(_axes(c), keepdim=True),
        "mean: sum and size": lambda c, x: _back(c, _last(c, x).sum(-1) / _last(c, x).shape[-1]),
        "mean: einsum": lambda c, x: _einsum_mean(x, _axes(c)),
        "mean: adaptive pooling": lambda c, x: (
            F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 and _axes(c) == (2, 3) else None
        ),
        "mean: pooling": lambda c, x: (
            F.avg_pool1d(x, x.shape[2]) if x.dim() == 3 and _axes(c) == (2,) else None
        ),
    },
)
rules(
    "window:sum",
    **{
        "sum over an axis: plain": lambda c, x: x.sum(_axes(c), keepdim=True),
        "sum over an axis: mean": lambda c, x: _back(
            c, _last(c, x).mean(-1) * _last(c, x).shape[-1]
        ),
        "sum over an axis: cumsum": lambda c, x: _back(c, _last(c, x).cumsum(-1)[..., -1]),
    },
)
rules(
    "window:amax",
    **{
        "amax: plain": lambda c, x: x.amax(_axes(c), keepdim=True),
        "amax: max": lambda c, x: _back(c, _last(c, x).max(-1).values),
        "amax: negated": lambda c, x: -torch.amin(-x, _axes(c), keepdim=True),
        "amax: sort": lambda c, x: _back(c, _last(c, x).sort(-1).values[..., -1]),
        "amax: topk": lambda c, x: _back(c, _last(c, x).topk(1, -1).values),
    },
)
rules(
    "window:norm",
    **{
        "norm: vector_norm": lambda c, x: torch.linalg.vector_norm(x, dim=_axes(c), keepdim=True),
        "norm: method": lambda c, x: _back(c, _last(c, x).norm(dim=-1)),
    },
)
rules(
    "window:logsumexp",
    **{
        "logsumexp: plain": lambda c, x: x.logsumexp(_axes(c), keepdim=True),
        "logsumexp: flattened": lambda c, x: _back(c, torch.logsumexp(_last(c, x), -1)),
    },
)
rules(
    "window:std",
    **{
        "std: plain": lambda c, x: x.std(_axes(c), correction=0, keepdim=True),
    },
)
