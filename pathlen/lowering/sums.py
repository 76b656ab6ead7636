"""Functions of one tensor among the summands of a sum: they meet before anything else does."""

import itertools
from collections.abc import Sequence

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import constant_labels
from pathlen.lowering.regions import Region, find_region
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value, varying_operands

_FOLLOWED = frozenset({"elementwise", "normalization", "movement"})


def grouped(call: Call, summands: Sequence[Value], constants: Constants) -> list[Value | Region]:
    """Summands, and a region in place of those that are functions of one tensor together.

    Args:
        call: the sum.
        summands: of it.
        constants: gives the indices of movements.
    """
    found: list[Value | Region] = list(summands)
    left = list(range(len(summands)))
    for places in _with_common_origin(summands):
        candidates = [places, *itertools.combinations(places, 2)]
        for chosen in candidates:
            if any(place not in left for place in chosen):
                continue
            region = _region(call, [summands[place] for place in chosen], constants)
            if region is not None:
                found[chosen[0]] = region
                left = [place for place in left if place == chosen[0] or place not in chosen]
                break
    return [found[place] for place in left]


def _with_common_origin(summands: Sequence[Value]) -> list[tuple[int, ...]]:
    """Groups of summands, by their positions, that are computed from one tensor."""
    of_origin: dict[int, list[int]] = {}
    for place, summand in enumerate(summands):
        for origin in _origins(summand):
            of_origin.setdefault(origin, []).append(place)
    groups = {tuple(places) for places in of_origin.values() if len(places) > 1}
    return sorted(groups, key=lambda places: (-len(places), places))


def _origins(value: Value) -> set[int]:
    """The tensors, by identity, from which a value is computed element by element."""
    seen: set[int] = set()
    found: set[int] = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if current.call is None or current.merge or kind_of(current) not in _FOLLOWED:
            found.add(id(current))
        else:
            stack += varying_operands(current.call)
    return found


def _region(call: Call, summands: list[Value], constants: Constants) -> Region | None:
    """The sum of some summands as a scalar function of one tensor, None where it is none."""
    first, *rest = summands
    start = max(value.order for value in summands)
    last = call
    for number, summand in enumerate(rest, start=1):
        arguments = {"self": first, "other": summand, "alpha": 1}
        last = Call(torch.ops.aten.add.Tensor, "aten.add", arguments, call.node)
        first = Value(
            constant_labels(call.shape),
            call.output.dtype,
            True,
            call.node,
            last,
            start + number / (len(summands) + 1),
        )
    return find_region(last, varying_operands(last), constants)
