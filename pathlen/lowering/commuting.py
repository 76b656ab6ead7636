"""Statistics by which a product of matrices is divided: it could as well be divided before.

`(exp(s) @ v) / exp(s).sum(-1, keepdim=True)` is a softmax times v, and the scores of a cosine
classifier may be divided by the norms of its features before or after the product.
"""

import string
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import scalar_function
from pathlen.lowering.letters import letters_of
from pathlen.lowering.placing import before_views
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import find_rule
from pathlen.lowering.states import PRODUCTS, QUOTIENTS, TOTALS
from pathlen.lowering.statistics import keeps_axes, reduced_axes
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.written_views import first_along, in_shape


def divided_before(call: Call, lowering: Lowering) -> Value | None:
    """A product of matrices times, or over, a statistic of one of them; None for other calls."""
    if call.name not in PRODUCTS | QUOTIENTS or call.arguments.get("rounding_mode") is not None:
        return None
    path = [value for value in varying_operands(call) if value.is_path]
    if len(path) != 2:
        return None
    for product, statistic in (path, path[::-1]):
        if call.name in QUOTIENTS and product is not call["self"]:
            continue
        made = before_views(product, lowering.constants) if product.shape == call.shape else None
        if made is None or made.call is None:
            continue
        beside = in_shape(call, in_shape(call, statistic, product.shape), made.shape)
        for source, own, out in _linear_in(made.call):
            shown = _along(beside, (own, out), source.shape, call)
            replaced = {} if shown is None else {id(product): source, id(statistic): shown}
            divided = _divided(call, source, replaced, lowering) if replaced else None
            if divided is not None:
                found = _again(made.call, source, divided, lowering)
                return lowering.passed(call.node, in_shape(call, found, call.shape))
    return None


def _linear_in(call: Call) -> Iterator[tuple[Value, str, str]]:
    """The tensors in which a call is linear, whose products it adds up.

    Yields:
        Each with letters for its axes, and those for the result's.
    """
    letters = letters_of(call)
    if letters is not None:
        for source, own in zip(letters.operands, letters.own, strict=True):
            if source.is_path:
                yield source, own, letters.out
    if call.name not in TOTALS:
        return
    product = call["self"]
    if product.call is None or product.call.name not in PRODUCTS:
        return
    axes, whole = reduced_axes(call) or [], string.ascii_letters[: len(product.shape)]
    kept = [
        a.upper() if n in axes else a
        for n, a in enumerate(whole)
        if n not in axes or keeps_axes(call)
    ]
    for source in _factors(product):
        lead = len(whole) - len(source.shape)
        shown = zip(whole[lead:], source.shape, product.shape[lead:], strict=True)
        own = "".join(letter if size == now else letter.upper() for letter, size, now in shown)
        if source.is_path:
            yield source, own, "".join(kept)


def _factors(product: Value) -> Iterator[Value]:
    """The tensors that a product is of, and the products among them."""
    if product.call is not None and product.call.name in PRODUCTS:
        for factor in varying_operands(product.call):
            yield factor
            yield from _factors(factor)


def _again(call: Call, source: Value, divided: Value, lowering: Lowering) -> Value:
    """The result of a linear call of another tensor; of a sum of products, of its products too."""
    new = {id(source): divided}
    for value in varying_operands(call) if call.name in TOTALS | PRODUCTS else ():
        if any(factor is source for factor in _factors(value)):
            assert value.call is not None
            new[id(value)] = _again(value.call, source, divided, lowering)
    rule = find_rule(call.func)
    assert rule is not None
    arguments = call.replace_values(lambda value: new.get(id(value), value))
    found = rule.apply(replace(call, arguments=arguments), lowering)
    assert isinstance(found, Value)
    return found


def _divided(
    call: Call, source: Value, replaced: Mapping[int, Value], lowering: Lowering
) -> Value | None:
    """What a linear map reads, divided by what the result is divided by.

    Args:
        call: the quotient.
        source: what the map reads.
        replaced: it, and the statistic beside it, for the operands of the quotient, by identity.
        lowering: the lowering at work.

    Returns:
        None where that is no normalization or softmax.
    """
    arguments = call.replace_values(lambda value: replaced.get(id(value), value))
    like = torch.empty(source.shape, dtype=call.output.dtype, device="meta")
    before = Call(call.func, call.name, arguments, call.node, like)
    region = find_region(before, [*replaced.values()], lowering.constants)
    if region is None or not (region.normalization or region.state.part == "softmax"):
        return None
    return scalar_function(region, lowering)


def _along(beside: Value, letters: tuple[str, str], shape: torch.Size, call: Call) -> Value | None:
    """A statistic beside a product of matrices, laid out beside one of the matrices.

    Along axes that this one does not have it may differ by constants, of which the first stands
    for all: statistics are held fixed.
    """
    own, out = letters
    shown, sizes = beside, dict.fromkeys(own, 1)
    for axis, letter in enumerate(out):
        if letter not in own:
            shown = first_along(call, shown, axis)
        else:
            sizes[letter] = beside.shape[axis]
    kept = [letter for letter in out if sizes.get(letter, 1) > 1]
    if kept != [letter for letter in own if sizes[letter] > 1]:
        return None
    return in_shape(call, shown, torch.Size(sizes.values()))
