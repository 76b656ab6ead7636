"""Factors of single elements, where edges carry weights: how often each element is its unit.

Labels give a unit one factor in a tensor, the largest. A sum of products with constants is a layer,
whose weights are the factors of the elements that it adds up: they are followed here from where the
elements began, as `variants` follows functions.
"""

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.gains import gains, normalization_gain
from pathlen.lowering.labels import CONSTANT, broadcast, compact
from pathlen.lowering.moving import item_of, moved_numbers
from pathlen.lowering.rules import kind_of
from pathlen.lowering.scales import Scales
from pathlen.lowering.values import Value
from pathlen.lowering.variants import operands_first, passed_on


def factors_of(value: Value, scales: Scales, constants: Constants) -> torch.Tensor:
    """By how much each element of a value is its unit: float64 of its shape, at least 0.

    Args:
        value: a path tensor.
        scales: what labels stand for.
        constants: gives the parameters.
    """
    known: dict[Value, torch.Tensor] = {}
    for current in operands_first(value, known):
        known[current] = _found(current, known, scales, constants)
    return known[value]


def _found(
    value: Value, known: dict[Value, torch.Tensor], scales: Scales, constants: Constants
) -> torch.Tensor:
    below = passed_on(value)
    if not below or value.passes is not None:
        return _of_labels(value, scales)
    assert value.call is not None
    kind = kind_of(value)
    if kind == "movement":
        own = {id(operand): known[operand] for operand in below}
        moved = moved_numbers(value.call, own, item_of(value) or 0, constants)
        return _of_labels(value, scales) if moved is None else moved
    if kind == "normalization":
        gain = normalization_gain(value.call, constants).abs()
    elif len(below) > 1:
        scaled = [
            known[operand] * gain
            for operand, gain in zip(below, gains(value.call, below, constants), strict=True)
        ]
        return _side_by_side(below, scaled, value.shape)
    else:
        (gain,) = gains(value.call, below, constants)
    before = compact(broadcast(known[below[0]], value.shape))
    return (before * gain).expand(value.shape)


def _side_by_side(
    values: list[Value], factors: list[torch.Tensor], shape: torch.Size
) -> torch.Tensor:
    """The factors in a sum of tensors at each of whose elements one of them is no constant."""
    shown = [
        torch.where(broadcast(value.labels, shape) != CONSTANT, broadcast(factor, shape), 0)
        for value, factor in zip(values, factors, strict=True)
    ]
    return torch.stack(shown).sum(0)


def _of_labels(value: Value, scales: Scales) -> torch.Tensor:
    labels = compact(value.labels)
    return torch.from_numpy(scales.split(labels.numpy())[1]).expand(value.shape)
