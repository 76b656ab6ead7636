"""Other ways to write single calls, which are the same by what torch says of its operators.

A rule looks at a recorded call and gives a function that makes the call otherwise, or None where
it does not apply. Rules know nothing of path graphs. Where one is not the same for some numbers
(0 * inf), that shows when it is run beside the call; see `respell`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from pathlen.verification.respelled import Call, Spelling
from pathlen.verification.rewrites_back import is_linear

aten = torch.ops.aten
Rule = Callable[[fx.Node], Spelling | None]
_REDUCTIONS: dict[Any, Any] = {
    aten.add.Tensor: torch.sum,
    aten.mul.Tensor: torch.prod,
    aten.maximum.default: torch.amax,
    aten.minimum.default: torch.amin,
}
_COMMUTES = tuple(_REDUCTIONS)
_OPPOSITES: dict[Any, Any] = {
    aten.maximum.default: torch.minimum,
    aten.minimum.default: torch.maximum,
}


def result_of(node: fx.Node) -> torch.Tensor | None:
    """The floating-point tensor that a call makes, None where it makes anything else."""
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor) or val.layout is not torch.strided:
        return None
    return val if val.is_floating_point() and val.numel() else None


def arguments(node: fx.Node, *allowed: str) -> dict[str, Any] | None:
    """Arguments of a recorded call by name, defaults included.

    Returns:
        None if any but those allowed differs from its default.
    """
    schema = node.target._schema  # type: ignore[union-attr]
    found = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    given = dict(zip((a.name for a in schema.arguments), node.args))  # noqa: B905
    given.update(node.kwargs)
    if any(found.get(key, given) != given[key] for key in given if key not in allowed):
        return None
    return {**found, **given}


# ------------------------------------------------------------------ operands


def swapped_operands(node: fx.Node) -> Spelling | None:
    """Write a + b as b + a."""
    known = arguments(node, "self", "other")
    if node.target not in _COMMUTES or known is None or result_of(node) is None:
        return None
    if not all(isinstance(known[name], fx.Node) for name in ("self", "other")):
        return None
    return lambda call: call.node.target(call.args[1], call.args[0])  # type: ignore[operator]


def in_another_order(node: fx.Node) -> Spelling | None:
    """Write (a + b) + c as a + (b + c), where nothing else reads a + b; products and maxima too."""
    known, meet = arguments(node, "self", "other"), node.target
    if meet not in _COMMUTES or known is None:
        return None
    inner, last = known["self"], known["other"]
    if not isinstance(inner, fx.Node) or not isinstance(last, fx.Node) or len(inner.users) > 1:
        return None
    parts = arguments(inner, "self", "other") if inner.target is meet else None
    if parts is None or not all(isinstance(parts[n], fx.Node) for n in ("self", "other")):
        return None
    return lambda call: meet(  # type: ignore[operator]
        call.known[parts["self"]],
        meet(call.known[parts["other"]], call.known[last]),  # type: ignore[operator]
    )


def difference_as_sum(node: fx.Node) -> Spelling | None:
    """Write a - b as a + (-b)."""
    if node.target is not aten.sub.Tensor or arguments(node, "self", "other") is None:
        return None
    return lambda call: call.args[0] + (-1) * call.args[1]


def of_a_stack(node: fx.Node) -> Spelling | None:
    """Write a + b of one shape as stack([a, b]).sum(0); products and maxima too."""
    reduce: Any = _REDUCTIONS.get(node.target)
    known = arguments(node, "self", "other") if reduce is not None else None
    if known is None:
        return None
    one, other = (
        result_of(n) if isinstance(n, fx.Node) else None for n in (known["self"], known["other"])
    )
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return None
    return lambda call: reduce(torch.stack(list(call.args[:2])), 0)


def quotient_as_product(node: fx.Node) -> Spelling | None:
    """Write a / b as a * (1 / b)."""
    known = arguments(node, "self", "other")
    if node.target is not aten.div.Tensor or known is None or result_of(node) is None:
        return None
    if not isinstance(known["other"], fx.Node) or result_of(known["other"]) is None:
        return None
    return lambda call: call.args[0] * (1 / call.args[1])


def extreme_of_negatives(node: fx.Node) -> Spelling | None:
    """Write maximum(a, b) as -minimum(-a, -b), and a minimum in the same way."""
    other = _OPPOSITES.get(node.target)
    if other is None or result_of(node) is None:
        return None
    return lambda call: -other(-call.args[0], -call.args[1])


def reciprocal(node: fx.Node) -> Spelling | None:
    """Write h * c as h / (1 / c), and h / c as h * (1 / c), with a number c."""
    known = arguments(node, "self", "other")
    if node.target not in (aten.mul.Tensor, aten.div.Tensor) or known is None:
        return None
    number = known["other"]
    if result_of(node) is None or not isinstance(number, (int, float)) or not number:
        return None
    if node.target is aten.mul.Tensor:
        return lambda call: call.args[0] / (1 / number)
    return lambda call: call.args[0] * (1 / number)


# ------------------------------------------------------------------ layers


def _rank(node: Any) -> int:
    val = node.meta.get("val") if isinstance(node, fx.Node) else None
    return val.ndim if isinstance(val, torch.Tensor) else 0


def _plus(product: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    return product if len(args) < 3 or args[2] is None else product + args[2]


def linear_as_matmul(node: fx.Node) -> Spelling | None:
    """Write it as x @ W.T + b."""
    if node.target is not aten.linear.default or node.kwargs:
        return None
    return lambda call: _plus(call.args[0] @ call.args[1].mT, call.args)


def linear_as_einsum(node: fx.Node) -> Spelling | None:
    """The same by einsum."""
    if node.target is not aten.linear.default or node.kwargs:
        return None
    return lambda call: _plus(torch.einsum("...i,oi->...o", *call.args[:2]), call.args)


def linear_as_product_and_sum(node: fx.Node) -> Spelling | None:
    """(x[:, None] * W).sum(-1) + b, for an input of two axes: tokens may be of several kinds.

    A sum for a single output is a reduction, which has no unit of its own.
    """
    if node.target is not aten.linear.default or node.kwargs or _rank(node.args[0]) != 2:
        return None
    if node.args[1].meta["val"].shape[0] == 1:  # type: ignore[union-attr]
        return None
    return lambda call: _plus((call.args[0].unsqueeze(-2) * call.args[1]).sum(-1), call.args)


def linear_as_convolution(node: fx.Node) -> Spelling | None:
    """A convolution of size 1, for an input of two axes."""
    if node.target is not aten.linear.default or node.kwargs or _rank(node.args[0]) != 2:
        return None

    def convolution(call: Call) -> Any:
        return F.conv1d(call.args[0][..., None], call.args[1][..., None], *call.args[2:])[..., 0]

    return convolution


def matmul_as_product_and_sum(node: fx.Node) -> Spelling | None:
    """Write x @ y as (x[..., None] * y).sum(-2), for matrices of which one is a constant."""
    if node.target not in (aten.mm.default, aten.matmul.default):
        return None
    if [_rank(operand) for operand in node.args] != [2, 2] or not is_linear(node.args):
        return None
    return lambda call: (call.args[0][..., None] * call.args[1]).sum(-2)


# ------------------------------------------------------------------ functions

_FUNCTIONS: dict[Any, tuple[Callable[[torch.Tensor], torch.Tensor], ...]] = {
    aten.relu.default: (
        lambda h: h.clamp_min(0),
        lambda h: h * (h > 0),
        lambda h: torch.where(h < 0, 0.0, h),
        lambda h: h.masked_fill(h < 0, 0.0),
        lambda h: (h + h.abs()) / 2,
    ),
    aten.silu.default: (lambda h: h * h.sigmoid(), lambda h: h / (1 + (-h).exp())),
    aten.sigmoid.default: (lambda h: 1 / (1 + (-h).exp()), lambda h: (1 + (h / 2).tanh()) / 2),
    aten.tanh.default: (lambda h: 2 * (2 * h).sigmoid() - 1,),
    aten.gelu.default: (lambda h: h * 0.5 * (1 + (h / 2**0.5).erf()),),
    aten.hardswish.default: (lambda h: h * (h + 3).clamp(0, 6) / 6,),
}


def _schemas(names: str) -> frozenset[str]:
    return frozenset(f"aten::{name}" for name in names.split())


_LAYERS = _schemas(
    "linear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d"
    " addmm mm bmm matmul batch_norm layer_norm group_norm"
)
_ON_THE_WAY = _schemas(
    "view reshape flatten permute transpose unsqueeze squeeze contiguous clone dropout mul div add"
    " sub neg"
)


def reads_a_layer(node: fx.Node) -> bool:
    """Whether a call reads a layer, with scalings and views in between at most.

    There begins whatever it computes. Behind an activation arithmetic would belong to that, and a
    function by name would not (docs/choices.md): there, to write it out makes another graph.
    """
    before: Any = node.args[0]
    while isinstance(before, fx.Node) and isinstance(before.target, torch._ops.OpOverload):
        name = before.target._schema.name
        if name in _LAYERS:
            return True
        if name not in _ON_THE_WAY or sum(isinstance(a, fx.Node) for a in before.args) > 1:
            return False
        before = before.args[0]
    return False


def _function(number: int) -> Rule:
    def written_out(node: fx.Node) -> Spelling | None:
        """An activation in other words."""
        ways = _FUNCTIONS.get(node.target, ())
        if number >= len(ways) or len(node.args) != 1 or node.kwargs or not reads_a_layer(node):
            return None
        return lambda call: ways[number](call.args[0])

    written_out.__name__ = f"written_out_{number + 1}"
    return written_out


def _softmax(node: fx.Node) -> bool:
    return node.target is aten.softmax.int and len(node.args) == 2 and not node.kwargs


def softmax_by_logsumexp(node: fx.Node) -> Spelling | None:
    """exp(a - logsumexp(a))."""
    if not _softmax(node):
        return None
    return lambda call: (call.args[0] - call.args[0].logsumexp(call.args[1], keepdim=True)).exp()


def softmax_by_log_softmax(node: fx.Node) -> Spelling | None:
    """exp(log_softmax(a))."""
    return (lambda call: F.log_softmax(*call.args).exp()) if _softmax(node) else None


def softmax_as_quotient(node: fx.Node) -> Spelling | None:
    """exp(a - max) / sum(exp(a - max))."""
    if not _softmax(node):
        return None

    def quotient(call: Call) -> Any:
        a, axis = call.args
        above = (a - a.amax(axis, keepdim=True)).exp()
        return above / above.sum(axis, keepdim=True)

    return quotient


def layer_norm_written_out(node: fx.Node) -> Spelling | None:
    """(x - mean) * rsqrt(variance + eps) * weight + bias."""
    if node.target is not aten.layer_norm.default:
        return None

    def normalized(call: Call) -> Any:
        given = {"weight": None, "bias": None, "eps": 1e-5, **_named(call)}
        x, axes = given["input"], tuple(range(-len(given["normalized_shape"]), 0))
        centred = x - x.mean(axes, keepdim=True)
        y = centred * (centred.square().mean(axes, keepdim=True) + given["eps"]).rsqrt()
        y = y if given["weight"] is None else y * given["weight"]
        return y if given["bias"] is None else y + given["bias"]

    return normalized


def batch_norm_written_out(node: fx.Node) -> Spelling | None:
    """The scale and shift that a batch norm in eval mode is."""
    if node.target is not aten.batch_norm.default or node.args[5]:
        return None

    def normalized(call: Call) -> Any:
        x, weight, bias, mean, variance, _, _, eps = call.args[:8]
        shape = (1, -1, *[1] * (x.ndim - 2))
        y = (x - mean.view(shape)) / (variance.view(shape) + eps).sqrt()
        y = y if weight is None else y * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    return normalized


def mean_as_sum(node: fx.Node) -> Spelling | None:
    """Write it as sum / n."""
    if node.target is not aten.mean.dim or "dtype" in node.kwargs or len(node.args) > 3:
        return None

    def mean(call: Call) -> Any:
        result = torch.sum(*call.args, **call.kwargs)
        return result / (call.args[0].numel() / max(result.numel(), 1))

    return mean


def _named(call: Call) -> dict[str, Any]:
    names = [argument.name for argument in call.node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names, call.args)), **call.kwargs}  # noqa: B905


RULES: tuple[Rule, ...] = (
    swapped_operands,
    in_another_order,
    difference_as_sum,
    of_a_stack,
    quotient_as_product,
    extreme_of_negatives,
    reciprocal,
    linear_as_matmul,
    linear_as_einsum,
    linear_as_product_and_sum,
    linear_as_convolution,
    matmul_as_product_and_sum,
    *map(_function, range(max(map(len, _FUNCTIONS.values())))),
    softmax_by_logsumexp,
    softmax_by_log_softmax,
    softmax_as_quotient,
    layer_norm_written_out,
    batch_norm_written_out,
    mean_as_sum,
)
"""Ways to write a call otherwise; none changes what it writes to."""
