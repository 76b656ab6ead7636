"""Rewrites of what is written out into the call that it is written out of, and of products.

The same as in `rewrites`; most of these look at a call and at the one before it.
"""

from typing import Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - the name that models give it

from pathlen.verification.respelled import Call, Spelling

aten = torch.ops.aten
_TIMES = (aten.mul.Tensor,)
_CHOICES = (aten.argmax.default, aten.argmin.default)


def _shape(node: Any) -> torch.Size | None:
    val = node.meta.get("val") if isinstance(node, fx.Node) else None
    return val.shape if isinstance(val, torch.Tensor) else None


def _is_bool(node: Any) -> bool:
    val = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(val, torch.Tensor) and val.dtype == torch.bool


def _reduces(node: Any, target: Any, axis: Any = None) -> bool:
    """Whether a node is a reduction along one axis that keeps it."""
    if not isinstance(node, fx.Node) or node.target is not target or len(node.args) != 3:
        return False
    return len(node.args[1]) == 1 and node.args[2] is True and not node.kwargs  # type: ignore[arg-type]


def is_linear(operands: Any) -> bool:
    """Whether one of two factors comes from no input, or both are one tensor (a square)."""
    one, other = operands[:2]
    return one is other or _is_constant(one) or _is_constant(other)


def _is_constant(node: Any) -> bool:
    return all(source.op != "placeholder" for source in _sources(node))


def _sources(node: Any, *ends: Any) -> list[fx.Node]:
    """What a node is computed from: nodes that read none, or that call one of the ends."""
    waiting, seen = [node], dict[fx.Node, None]()
    while waiting:
        current = waiting.pop()
        if isinstance(current, fx.Node) and current not in seen:
            seen[current] = None
            waiting += current.all_input_nodes if current.target not in ends else ()
    return [one for one in seen if not one.all_input_nodes or one.target in ends]


# ------------------------------------------------------------------ masks


def choice_by_product(node: fx.Node) -> Spelling | None:
    """Write h * mask as where(mask, h, 0); a constant mask is weights, and is left alone."""
    if node.target not in _TIMES or len(node.args) != 2 or not _is_bool(node.args[1]):
        return None
    if _is_constant(node.args[1]):
        return None
    return lambda call: torch.where(call.args[1], call.args[0], 0.0)


def fill_as_choice(node: fx.Node) -> Spelling | None:
    """Write h[mask] = v, for a mask of the shape of h, as h.copy_(where(mask, v, h))."""
    if node.target is not aten.index_put_.default or len(node.args) != 3:
        return None
    indices: Any = node.args[1]
    if len(indices) != 1 or not _is_bool(indices[0]) or _shape(node.args[2]) != torch.Size(()):
        return None
    if _shape(indices[0]) != _shape(node.args[0]):
        return None
    return lambda call: call.args[0].copy_(torch.where(call.args[1][0], call.args[2], call.args[0]))


def choice_as_fill(node: fx.Node) -> Spelling | None:
    """Write where(mask, h, v) with one number v as h.masked_fill(~mask, v)."""
    if node.target is not aten.where.self or _shape(node.args[2]) != torch.Size(()):
        return None
    if _shape(node.args[1]) != _shape(node):
        return None
    return lambda call: call.args[1].masked_fill(~call.args[0], call.args[2])


# ------------------------------------------------------------------ softmax and statistics


def softmax_of_a_difference(node: fx.Node) -> Spelling | None:
    """Write exp(a - logsumexp(a)) as softmax(a)."""
    inner: Any = node.args[0] if node.args else None
    if node.target is not aten.exp.default or getattr(inner, "target", None) is not aten.sub.Tensor:
        return None
    a, shift = inner.args[:2]
    if not _reduces(shift, aten.logsumexp.default) or shift.args[0] is not a:
        return None
    axis = shift.args[1][0]
    return lambda call: F.softmax(call.known[a], axis)


def softmax_of_a_quotient(node: fx.Node) -> Spelling | None:
    """Write e / sum(e) with e = exp(a) as softmax(a)."""
    if node.target is not aten.div.Tensor or len(node.args) != 2:
        return None
    e: Any = node.args[0]
    total: Any = node.args[1]
    if not _reduces(total, aten.sum.dim_IntList) or total.args[0] is not e:
        return None
    if getattr(e, "target", None) is not aten.exp.default:
        return None
    a, axis = e.args[0], total.args[1][0]
    return lambda call: F.softmax(call.known[a], axis)


def sum_of_a_row(node: fx.Node) -> Spelling | None:
    """Write h.sum() and h.mean() as the same of h.reshape(-1) along its axis."""
    if node.target not in (aten.sum.default, aten.mean.default) or node.kwargs:
        return None
    method = "sum" if node.target is aten.sum.default else "mean"
    return lambda call: getattr(call.args[0].reshape(-1), method)(0)


# ------------------------------------------------------------------ products


def addmm_as_sum(node: fx.Node) -> Spelling | None:
    """Write addmm(a, x, y) as a + x @ y."""
    if node.target is not aten.addmm.default or len(node.args) != 3 or node.kwargs:
        return None
    return lambda call: call.args[0] + call.args[1] @ call.args[2]


def _einsum_of_two(node: fx.Node) -> tuple[list[str], str] | None:
    """The letters of the two operands of an einsum, no letter twice in one, and of its result."""
    if node.target is not aten.einsum.default or node.kwargs:
        return None
    inputs, arrow, output = str(node.args[0]).replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or len(letters) != 2 or "." in inputs:
        return None
    return None if any(len(set(one)) != len(one) for one in letters) else (letters, output)


def einsum_as_product_and_sum(node: fx.Node) -> Spelling | None:
    """Write an einsum of two tensors as a product and a sum over what is contracted."""
    found = _einsum_of_two(node)
    if found is None or not is_linear(node.args[1]):
        return None
    letters, output = found
    contracted = "".join(sorted({*letters[0], *letters[1]} - set(output)))
    order = output + contracted

    def product(call: Call) -> Any:
        factors = []
        for tensor, own in zip(call.args[1], letters, strict=True):
            kept = [letter for letter in order if letter in own]
            moved = tensor.permute([own.index(letter) for letter in kept])
            factors.append(moved[tuple(slice(None) if c in own else None for c in order)])
        result = factors[0] * factors[1]
        return result.sum(tuple(range(len(output), len(order)))) if contracted else result

    return product


def einsum_as_linear(node: fx.Node) -> Spelling | None:
    """Write an einsum with a constant as a linear layer, where they share what is contracted."""
    found = _einsum_of_two(node)
    if found is None or [_is_constant(one) for one in node.args[1]] != [False, True]:  # type: ignore[union-attr]
        return None
    letters, output = found
    shared = set(letters[0]) & set(letters[1])
    kept, created = ([a for a in own if a not in shared] for own in letters)
    if not shared or not created or shared & set(output) or {*kept, *created} != set(output):
        return None
    summed = sorted(shared)

    def layer(call: Call) -> Any:
        x, w = call.args[1]
        x = x.permute([letters[0].index(a) for a in [*kept, *summed]]).flatten(len(kept))
        w = w.permute([letters[1].index(a) for a in [*created, *summed]])
        result = F.linear(x, w.flatten(len(created)).flatten(0, len(created) - 1))
        result = result.unflatten(-1, w.shape[: len(created)])
        return result.permute([[*kept, *created].index(a) for a in output])

    return layer


def chosen_rows_as_constants(node: fx.Node) -> Spelling | None:
    """Write table[argmax(h)] as the rows that it is here: weights that are chosen are weights.

    Equal for the inputs at hand only.
    """
    if node.target is not aten.index.Tensor or not _is_constant(node.args[0]):
        return None
    sources = [s for index in node.args[1] for s in _sources(index, *_CHOICES)]  # type: ignore[union-attr]
    if not any(one.target in _CHOICES for one in sources):
        return None
    if any(one.op == "placeholder" for one in sources):
        return None
    rows: list[torch.Tensor] = []

    def constant(call: Call) -> Any:
        if all(type(index) is torch.Tensor for index in call.args[1] if index is not None):
            rows[:] = [call.plain().detach().clone()]  # else these are tensors without data
        return rows[0]

    return constant


def sum_of_products_as_einsum(node: fx.Node) -> Spelling | None:
    """Write (a * b).sum(axis) as an einsum without the axes along which an operand is repeated."""
    inner: Any = node.args[0] if node.args else None
    if node.target is not aten.sum.dim_IntList or node.kwargs or len(node.args) > 2:
        return None
    if getattr(inner, "target", None) not in _TIMES or len(inner.users) > 1:
        return None
    full = _shape(inner)
    shapes = [_shape(operand) for operand in inner.args[:2]]
    if (
        not is_linear(inner.args)
        or full is None
        or any(shape is None for shape in shapes)
        or len(full) > 20
    ):
        return None
    alphabet = "abcdefghijklmnopqrst"[: len(full)]
    reduced: Any = node.args[1]
    summed = {axis % len(full) for axis in reduced}
    own = [
        [
            n
            for n, size in enumerate(full)
            if n >= len(full) - len(shape or ()) and (shape or ())[n - len(full)] == size
        ]
        for shape in shapes
    ]
    if set(own[0]) | set(own[1]) != set(range(len(full))):
        return None
    terms = ["".join(alphabet[n] for n in axes) for axes in own]
    output = "".join(alphabet[n] for n in range(len(full)) if n not in summed)

    def contraction(call: Call) -> Any:
        factors = [
            call.known[operand].reshape([full[n] for n in axes])
            for operand, axes in zip(inner.args[:2], own, strict=True)
        ]
        return torch.einsum(f"{terms[0]},{terms[1]}->{output}", *factors)

    return contraction


# ------------------------------------------------------------------ windows


def pooling_as_convolution(node: fx.Node) -> Spelling | None:
    """Write an average over windows that do not overlap as a convolution with one kernel."""
    if node.target is not aten.avg_pool2d.default or len(node.args) > 3 or node.kwargs:
        return None

    def convolution(call: Call) -> Any:
        x, kernel = call.args[0], list(call.args[1])
        kernel = kernel * 2 if len(kernel) == 1 else kernel
        stride = list(call.args[2]) if len(call.args) > 2 and call.args[2] else kernel
        weight = torch.full((x.shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=x.dtype)
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1])

    return convolution


RULES_BACK = (
    choice_by_product,
    fill_as_choice,
    choice_as_fill,
    softmax_of_a_difference,
    softmax_of_a_quotient,
    sum_of_a_row,
    addmm_as_sum,
    chosen_rows_as_constants,
    einsum_as_linear,
    einsum_as_product_and_sum,
    sum_of_products_as_einsum,
    pooling_as_convolution,
)
