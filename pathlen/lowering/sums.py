"""What a sum adds up: flat, whatever adds, and functions of one tensor before anything else."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.follow import followed_operands
from pathlen.lowering.labels import broadcast, constant_labels, expands
from pathlen.lowering.moving import item_of, run_movement
from pathlen.lowering.places import identity
from pathlen.lowering.regions import EXPANDABLE, Region, find_region, region_of
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value, varying_operands

Factor = float | torch.Tensor
"""A number, or one for each element in a shape that broadcasts."""
Term = tuple[Value, Factor]
RegionTerm = tuple[Region, Factor]


def flattened(
    call: Call,
    operands: list[Value],
    readers: Mapping[int, int],
    constants: Constants,
    *,
    weighted: bool = False,
) -> list[tuple[Value, Value]]:
    """Operands of a sum, those that are sums read by nobody else replaced by their summands.

    (a + b) + c with no other reader of a + b is one merge of three. A scaling, cast, dropout
    (inactive in eval mode) or movement in between is one of each summand.

    Args:
        call: the sum.
        operands: its own; what it was written out in has the call's node.
        readers: how many calls read the result of a node.
        constants: gives the indices of movements.
        weighted: whether labels tell by how much units are scaled.

    Returns:
        The summands, each with the tensor of the program that has its factor in the sum: itself,
        or the operand where it was moved with that.
    """
    flat: list[tuple[Value, Value]] = []
    for operand in operands:
        own = operand.node is call.node or readers.get(id(operand.node), 0) == 1
        found = _inner_sum(operand, readers, constants) if own else None
        summands = [] if found is None else _summands(*found, operand, constants, weighted)
        flat += summands or [(operand, operand)]
    return flat


def _summands(
    inner: Value, between: list[Value], operand: Value, constants: Constants, weighted: bool
) -> list[tuple[Value, Value]]:
    """The summands of a sum where an operand has them; none where that is not known."""
    if not between or _stays(inner, between, constants):
        found = [_unviewed(summand, operand.shape) for summand in inner.summands]
        if None not in found:
            return [(summand, summand) for summand in found if summand is not None]
    if weighted and any(kind_of(value) != "movement" for value in between):
        return []
    found = [_along(summand, inner, between, constants) for summand in inner.summands if between]
    return [] if None in found else [(one, operand) for one in found if one is not None]


def _inner_sum(
    value: Value, readers: Mapping[int, int], constants: Constants
) -> tuple[Value, list[Value]] | None:
    """The sum that a value is, and what it went through since; None where something reads it too.

    It was scaled, copied or moved, in calls that are in order and end with the value.
    """
    inner, between = value, list[Value]()
    while not inner.summands:
        if inner.call is None or kind_of(inner) not in ("elementwise", "movement"):
            return None
        region = find_region(inner.call, followed_operands(inner.call), constants)
        if region is None or not region.affine or region.normalization:
            return None
        reads = sum(region.entry in varying_operands(call) for call in region.calls)
        if readers.get(id(region.entry.node), 0) != reads:
            return None
        between += [*region.between, inner]
        inner = region.entry
    return inner, sorted(between, key=lambda one: one.order)


def _stays(inner: Value, between: list[Value], constants: Constants) -> bool:
    """Whether elements are where they were after some calls."""
    last = between[-1]
    assert last.call is not None
    whole = region_of(last.call, inner, between[:-1], constants)
    return whole is not None and whole.state.places == (identity(last.shape),)


def _unviewed(value: Value, shape: torch.Size) -> Value | None:
    """The tensor of a shape that a value is, or is a view of; None where it is none."""
    below = varying_operands(value.call) if value.call is not None else []
    viewed = below if len(below) == 1 and kind_of(value) == "movement" else []
    exact = [one for one in (value, *viewed) if one.shape == shape]
    fitting = [one for one in (value, *viewed) if expands(one.shape, shape)]
    return next(iter(exact + fitting), None)


def _along(
    summand: Value, inner: Value, between: list[Value], constants: Constants
) -> Value | None:
    """A summand of a sum after the calls that the sum went through; None where they are unknown."""
    known = {id(inner): summand}
    if summand.shape != inner.shape:
        size = {"self": summand, "size": list(inner.shape), "implicit": False}
        like = torch.empty(inner.shape, dtype=summand.dtype, device="meta")
        expand = Call(torch.ops.aten.expand.default, "aten.expand", size, inner.node, like)
        labels = broadcast(summand.labels, inner.shape)
        known[id(inner)] = replace(summand, labels=labels, call=expand, order=inner.order)
    for value in between:
        assert value.call is not None
        operand = next(known[id(v)] for v in value.call.values() if id(v) in known)
        arguments = value.call.replace_values(lambda v: known.get(id(v), v))
        call = replace(value.call, arguments=arguments)
        labels = operand.labels
        if kind_of(value) == "movement":
            moved = run_movement(call, {id(operand): labels}, constants)
            if moved is None:
                return None
            labels = moved[item_of(value) or 0]
        known[id(value)] = replace(
            value, labels=broadcast(labels, value.shape), call=call, summands=(), _path=None
        )
    return known[id(between[-1])]


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
    """The tensors, by identity, at which a region may begin that ends in a value."""
    seen: set[int] = set()
    found: set[int] = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if current.call is None or current.merge or kind_of(current) not in EXPANDABLE:
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
