"""Spellings of linear maps, of products of two tensors, and of attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from tests.spelling.rules import Call, rule, rules

# --- along the channels ---------------------------------------------------------------------------


def _experts(call: Call, gate: Tensor) -> Tensor:
    """A matrix for each item of the batch, by the largest value of the gate: (batch, in, out)."""
    return call.weights["experts"][gate.flatten(1).argmax(1) % len(call.weights["experts"])]


def _baddbmm(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
    if gates or x.dim() != 3:
        return None
    weight = c.weights["weight"].t().expand(x.shape[0], -1, -1)
    return torch.baddbmm(c.weights["bias"].view(1, 1, -1), x, weight)


def _addmm(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
    if gates:
        return None
    flat = torch.addmm(c.weights["bias"], x.reshape(-1, x.shape[-1]), c.weights["weight"].t())
    return flat.view(*x.shape[:-1], -1)


def _conv1x1(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
    if gates:
        return None
    columns = x.reshape(x.shape[0], -1, x.shape[-1]).mT
    result = F.conv1d(columns, c.weights["weight"][:, :, None], c.weights["bias"])
    return result.mT.reshape(*x.shape[:-1], -1)


def _by_rows(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
    if gates or x.shape[-1] == 1 or x.dim() > 2:
        return None  # sums over features: of one, they pass it; of tokens that differ, they do
    rows = [(x * row).sum(-1) for row in c.weights["weight"]]
    return torch.stack(rows, -1) + c.weights["bias"]


def _einsum(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
    if gates or x.shape[-1] == 1:  # torch multiplies where one element is added up
        return None
    return torch.einsum("b...i,oi->b...o", x, c.weights["weight"]) + c.weights["bias"]


def _linear_forms() -> None:
    def when_plain(form):  # type: ignore[no-untyped-def]
        return lambda c, x, *gates: (
            None if gates else form(x, c.weights["weight"], c.weights["bias"])
        )

    forms = {
        "linear: plain": F.linear,
        "linear: matmul": lambda x, w, b: x @ w.t() + b,
        "linear: matmul mT": lambda x, w, b: torch.matmul(x, w.mT).add_(b),
        "linear: tensordot": lambda x, w, b: torch.tensordot(x, w, ([-1], [1])) + b,
        "linear: inner": lambda x, w, b: torch.inner(x, w) + b,
        "linear: product and sum": lambda x, w, b: (
            (x[..., None, :] * w).sum(-1) + b if x.shape[-1] > 1 else None
        ),  # of one feature it is a function of that
        "linear: product and sum, other axis": lambda x, w, b: (
            (x[..., None] * w.t()).sum(-2) + b if x.shape[-1] > 1 else None
        ),
        "linear: weights folded": lambda x, w, b: F.linear(x, (2 * w) * 0.5, b),
        "linear: matrix on the left": lambda x, w, b: (w @ x[..., None])[..., 0] + b,
        "linear: weights masked": lambda x, w, b: F.linear(x, w.masked_fill(w.abs() < 1e-9, 0), b),
        "linear: bias in a column of ones": lambda x, w, b: F.linear(
            torch.cat([x, torch.ones(*x.shape[:-1], 1)], -1), torch.cat([w, b[:, None]], 1)
        ),
    }
    for name, form in forms.items():
        rule("linear", name)(when_plain(form))


_linear_forms()
rule("linear", "linear: addmm")(_addmm)
rule("linear", "linear: baddbmm")(_baddbmm)
rule("linear", "linear: convolution of size 1")(_conv1x1)
rule("linear", "linear: row by row")(_by_rows)
rule("linear", "linear: einsum")(_einsum)

_EXPERTS = {
    "experts: bmm": lambda x, w: torch.bmm(x, w),
    "experts: einsum": lambda x, w: torch.einsum("bti,bio->bto", x, w),
    "experts: matmul": lambda x, w: x @ w,
    "experts: product and sum": lambda x, w: (x[..., None] * w[:, None]).sum(-2),
}


def _expert_form(form):  # type: ignore[no-untyped-def]
    def spelling(c: Call, x: Tensor, *gates: Tensor) -> Tensor | None:
        if not gates:
            return None
        rows = x if x.dim() == 3 else x[:, None]
        result = form(rows, _experts(c, gates[0]))
        return result if x.dim() == 3 else result[:, 0]

    return spelling


for _name, _form in _EXPERTS.items():
    rule("linear", _name)(_expert_form(_form))

# --- convolutions, tokens, embeddings -------------------------------------------------------------


def _conv_arguments(c: Call) -> dict[str, int]:
    return {"stride": c.stride, "padding": c.kernel // 2, "groups": c.groups}


@rule("conv", "convolution: plain")
def _conv(c: Call, x: Tensor) -> Tensor:
    name = f"conv{'_transpose' if c.transposed else ''}{x.dim() - 2}d"
    return getattr(F, name)(x, c.weights["weight"], c.weights["bias"], **_conv_arguments(c))


@rule("conv", "convolution: with one more axis")
def _conv_wider(c: Call, x: Tensor) -> Tensor | None:
    if x.dim() != 3:
        return None
    function = F.conv_transpose2d if c.transposed else F.conv2d
    arguments = _conv_arguments(c) | {"padding": (0, c.kernel // 2), "stride": (1, c.stride)}
    weight = c.weights["weight"][:, :, None]
    return function(x[:, :, None], weight, c.weights["bias"], **arguments)[:, :, 0]


@rule("conv", "convolution: padded before")
def _conv_padded(c: Call, x: Tensor) -> Tensor | None:
    if c.transposed:
        return None
    around = c.kernel // 2
    padded = F.pad(x, (around, around) * (x.dim() - 2))
    function = F.conv1d if x.dim() == 3 else F.conv2d
    return function(padded, c.weights["weight"], c.weights["bias"], c.stride, groups=c.groups)


@rule("conv", "convolution: group by group")
def _conv_grouped(c: Call, x: Tensor) -> Tensor | None:
    if c.transposed or c.groups == 1:
        return None
    function = F.conv1d if x.dim() == 3 else F.conv2d
    parts = zip(
        x.chunk(c.groups, 1),
        c.weights["weight"].chunk(c.groups),
        c.weights["bias"].chunk(c.groups),
        strict=True,
    )
    return torch.cat([function(*part, c.stride, c.kernel // 2) for part in parts], 1)


@rule("conv", "convolution: windows and a matrix")
def _conv_unfolded(c: Call, x: Tensor) -> Tensor | None:
    if c.transposed or c.groups > 1 or x.dim() != 4:
        return None
    windows = F.unfold(x, c.kernel, padding=c.kernel // 2, stride=c.stride)
    result = c.weights["weight"].flatten(1) @ windows + c.weights["bias"][:, None]
    return result.view(x.shape[0], *c.node.shape)


@rule("conv", "convolution: windows and einsum")
def _conv_einsum(c: Call, x: Tensor) -> Tensor | None:
    if c.transposed or c.groups > 1 or x.dim() != 3:
        return None
    windows = F.pad(x, (c.kernel // 2,) * 2).unfold(2, c.kernel, c.stride)
    result = torch.einsum("bitk,oik->bot", windows, c.weights["weight"])
    return result + c.weights["bias"][:, None]


@rule("conv", "convolution: size 1 as a linear map")
def _conv_linear(c: Call, x: Tensor) -> Tensor | None:
    if c.kernel != 1 or c.groups > 1 or c.transposed or c.stride > 1:
        return None
    return F.linear(x.movedim(1, -1), c.weights["weight"].flatten(1), c.weights["bias"]).movedim(
        -1, 1
    )


@rule("conv", "convolution: transposed, zeros between")
def _conv_zeros_between(c: Call, x: Tensor) -> Tensor | None:
    if not c.transposed or c.groups > 1 or x.dim() != 3:
        return None
    length = (x.shape[2] - 1) * c.stride + 1
    spread = torch.zeros(*x.shape[:2], length)
    spread[:, :, :: c.stride] = x
    weight = c.weights["weight"].transpose(0, 1).flip(2)
    return F.conv1d(spread, weight, c.weights["bias"], padding=c.kernel - 1 - c.kernel // 2)


def _tokens_last(c: Call, x: Tensor) -> Tensor:
    return x if c.node.layout == "ct" else x.mT


def _mixed(form):  # type: ignore[no-untyped-def]
    def spelling(c: Call, x: Tensor) -> Tensor:
        return _tokens_last(c, form(_tokens_last(c, x), c.weights["weight"]))

    return spelling


for _name, _form in {
    "mixing tokens: linear": lambda x, w: F.linear(x, w),
    "mixing tokens: matmul": lambda x, w: (w @ x.mT).mT,
    "mixing tokens: einsum": lambda x, w: torch.einsum("bct,st->bcs", x, w),
    "mixing tokens: convolution": lambda x, w: F.conv1d(x.mT, w[:, :, None]).mT,
    "mixing tokens: product and sum": lambda x, w: (x[:, :, None] * w).sum(-1),
}.items():
    rule("mixing", _name)(_mixed(_form))

rules(
    "embedding",
    embedding=lambda c, x: F.embedding(x, c.weights["weight"]),
    embedding_as_index=lambda c, x: c.weights["weight"][x],
    embedding_as_index_select=lambda c, x: (
        c.weights["weight"].index_select(0, x.flatten()).view(*x.shape, -1)
    ),
)
rules(
    "bilinear",
    bilinear=lambda c, x, y: F.bilinear(x, y, c.weights["weight"], c.weights["bias"]),
)

# --- two tensors that carry paths -----------------------------------------------------------------


def _matmul(form):  # type: ignore[no-untyped-def]
    def spelling(c: Call, a: Tensor, b: Tensor) -> Tensor:
        return form(a.mT if c.transpose_a else a, b.mT if c.transpose_b else b)

    return spelling


for _name, _form in {
    "matmul: plain": lambda a, b: a @ b,
    "matmul: bmm": lambda a, b: torch.bmm(a, b),
    "matmul: einsum": lambda a, b: torch.einsum("bik,bkj->bij", a, b),
    "matmul: both transposed": lambda a, b: (b.mT @ a.mT).mT,
    "matmul: product and sum": lambda a, b: (a[..., None] * b[:, None]).sum(2),
    "matmul: baddbmm": lambda a, b: torch.baddbmm(torch.zeros(()), a, b),
}.items():
    rule("matmul", _name)(_matmul(_form))


def _heads(c: Call, *tensors: Tensor) -> list[Tensor]:
    return [x.unflatten(-1, (c.heads, -1)).transpose(1, 2) for x in tensors]


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _attention(scores, softmax, values):  # type: ignore[no-untyped-def]
    def spelling(c: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = _heads(c, q, k, v)
        return _joined(values(softmax(scores(q, k) / math.sqrt(q.shape[-1])), v))

    return spelling


_SCORES = {
    "matmul": lambda q, k: q @ k.mT,
    "einsum": lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k),
}
_VALUES = {
    "matmul": lambda a, v: a @ v,
    "einsum": lambda a, v: torch.einsum("bhqk,bhkd->bhqd", a, v),
}
SOFTMAX = {
    "plain": lambda a: a.softmax(-1),
    "exp and sum": lambda a: a.exp() / a.exp().sum(-1, keepdim=True),
    "shifted": lambda a: (lambda e: e / e.sum(-1, keepdim=True))(
        torch.exp(a - a.amax(-1, keepdim=True))
    ),
    "logsumexp": lambda a: (a - a.logsumexp(-1, keepdim=True)).exp(),
    "log_softmax": lambda a: a.log_softmax(-1).exp(),
    "einsum": lambda a: (lambda e: e / torch.einsum("...k->...", e)[..., None])(a.exp()),
    "matmul": lambda a: (lambda e: e / (e @ torch.ones(e.shape[-1], 1)))(a.exp()),
    "normalize": lambda a: F.normalize(a.exp(), p=1.0, dim=-1),
}
for _score, _score_form in _SCORES.items():
    for _soft, _soft_form in SOFTMAX.items():
        _value = "matmul" if len(_soft) % 2 else "einsum"
        rule("attention", f"attention: {_score}, softmax {_soft}, {_value}")(
            _attention(_score_form, _soft_form, _VALUES[_value])
        )


@rule("attention", "attention: scaled_dot_product_attention")
def _sdpa(c: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _joined(F.scaled_dot_product_attention(*_heads(c, q, k, v)))


@rule("attention", "attention: head by head")
def _head_by_head(c: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = zip(*(x.chunk(c.heads, -1) for x in (q, k, v)), strict=True)
    results = []
    for queries, keys, values in parts:
        scores = torch.bmm(queries, keys.mT) * queries.shape[-1] ** -0.5
        results.append(torch.bmm(F.softmax(scores, -1), values))
    return torch.cat(results, -1)
