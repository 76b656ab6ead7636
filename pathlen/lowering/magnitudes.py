"""Factors of single elements, where edges carry weights: how often each element is its unit.

Labels give a unit one factor in a tensor, the largest. A sum of products with constants is a layer,
whose weights are the factors of the elements that it adds up: they are followed here from where the
elements began, as `variants` follows functions.
"""

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.gains import gains, normalization_gain
from pathlen.lowering.labels import CONSTANT, broadcast, compact
from pathlen.lowering.moving import item_of, moved_operands, run_movement
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
    if not below:
        labels = compact(value.labels)
        return torch.from_numpy(scales.split(labels.numpy())[1]).expand(value.shape)
    assert value.call is not None
    kind = kind_of(value)
    if kind == "movement":
        return _moved(value, below, known, scales, constants)
    if kind == "normalization":
        gain = normalization_gain(value.call, constants).abs()
    else:
        (gain,) = gains(value.call, below, constants)
    before = compact(broadcast(known[below[0]], value.shape))
    return (before * gain).expand(value.shape)


def _moved(
    value: Value,
    below: list[Value],
    known: dict[Value, torch.Tensor],
    scales: Scales,
    constants: Constants,
) -> torch.Tensor:
    """Factors after a movement: their numbers are moved, as the rule of the call moves labels."""
    assert value.call is not None
    numbers = {id(v): torch.full((), CONSTANT).expand(v.shape) for v in moved_operands(value.call)}
    laid_out: list[torch.Tensor] = []
    start = 0
    for operand in below:
        small = compact(known[operand])
        number = torch.arange(start, start + small.numel()).view(small.shape)
        numbers[id(operand)] = number.expand(operand.shape)
        laid_out.append(small.reshape(-1))
        start += small.numel()
    moved = run_movement(value.call, numbers, constants)
    if moved is None:  # which elements are where is not known: the labels hold the largest
        labels = compact(value.labels)
        return torch.from_numpy(scales.split(labels.numpy())[1]).expand(value.shape)
    number = compact(moved[item_of(value) or 0])
    found = torch.cat([*laid_out, torch.zeros(1, dtype=torch.float64)])[number]
    return found.expand(value.shape)
