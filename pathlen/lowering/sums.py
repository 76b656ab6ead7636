"""Functions of one tensor among the summands of a sum: they meet before anything else does."""

import itertools
from collections.abc import Sequence

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import constant_labels
from pathlen.lowering.regions import Region, find_region
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value, varying_operands

Factor = float | torch.Tensor
"""A number, or one for each element in a shape that broadcasts."""
Term = tuple[Value, Factor]
RegionTerm = tuple[Region, Factor]

_FOLLOWED = frozenset({"elementwise", "normalization", "movement"})


def have_common_origin(summands: Sequence[Value]) -> bool:
    """Whether some of the summands are computed from one tensor."""
    return bool(_with_common_origin(summands))


def grouped(call: Call, terms: Sequence[Term], constants: Constants) -> list[Term | RegionTerm]:
    """Terms of a sum, and a region in place of those that are functions of one tensor together.

    Args:
        call: the sum.
        terms: of it, each tensor once.
        constants: gives the indices of movements.
    """
    found: list[Term | RegionTerm] = list(terms)
    left = list(range(len(terms)))
    for places in _with_common_origin([summand for summand, _ in terms]):
        candidates = [places, *itertools.combinations(places, 2)]
        for chosen in candidates:
            if any(place not in left for place in chosen):
                continue
            own = [terms[place] for place in chosen]
            common = _common([factor for _, factor in own])
            last = added_up(call, [(summand, factor / common) for summand, factor in own])
            region = find_region(last, varying_operands(last), constants)
            if region is not None:
                found[chosen[0]] = region, common
                left = [place for place in left if place == chosen[0] or place not in chosen]
                break
    return [found[place] for place in left]


def _common(factors: list[Factor]) -> Factor:
    """The absolute value of factors that have one, else 1: then they are part of the function."""
    sizes = [torch.as_tensor(factor).abs() for factor in factors]
    same = all(torch.equal(size, sizes[0]) for size in sizes) and bool((sizes[0] != 0).all())
    return sizes[0] if same else 1.0


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


def added_up(call: Call, terms: Sequence[Term]) -> Call:
    """A call that adds up tensors, each times a factor, as operators of torch write it.

    Args:
        call: whose result it gives.
        terms: one or more; the tensors have the shape of the result or are broadcast to it.
    """
    order = max(value.order for value, _ in terms)

    def made(inner: Call) -> Value:
        nonlocal order
        order += 2.0**-20  # behind all summands, before what comes next in the program
        return Value(constant_labels(call.shape), call.output.dtype, True, call.node, inner, order)

    summands = [
        value if isinstance(factor, float) and factor == 1 else made(_times(call, value, factor))
        for value, factor in terms
    ]
    last, total = _times(call, *terms[0]), summands[0]
    for number, summand in enumerate(summands[1:], start=2):
        arguments = {"self": total, "other": summand, "alpha": 1}
        last = Call(torch.ops.aten.add.Tensor, "aten.add", arguments, call.node, call.like)
        total = total if number == len(summands) else made(last)
    return last


def _times(call: Call, value: Value, factor: Factor) -> Call:
    arguments = {"self": value, "other": factor}
    return Call(torch.ops.aten.mul.Tensor, "aten.mul", arguments, call.node, call.like)
