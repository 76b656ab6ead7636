"""What meets in a sum, a product, a maximum or a minimum: flat, whatever the order and nesting.

Functions of one tensor meet before anything else.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from pathlen.lowering.activity import function_values
from pathlen.lowering.choices import LEAVES_OUT, leaves_out, left_over
from pathlen.lowering.constants import Constants
from pathlen.lowering.follow import follow, followed_operands
from pathlen.lowering.joined import joined_summands, number_of_readers
from pathlen.lowering.labels import broadcast, constant_labels, expands
from pathlen.lowering.lookups import is_step
from pathlen.lowering.moving import item_of, run_movement
from pathlen.lowering.operators import TURNED, Meeting, inverted, meeting_of, reciprocal
from pathlen.lowering.places import Places, identity
from pathlen.lowering.regions import EXPANDABLE, Region, find_region, region_of
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import COPIES, PRODUCTS, QUOTIENTS, SAME
from pathlen.lowering.values import Call, Operator, Value, varying_operands
from pathlen.lowering.waiting import is_waiting_sum

Factor = float | torch.Tensor
"""A number, or one for each element in a shape that broadcasts."""
Term = tuple[Value, Factor]
RegionTerm = tuple[Region, Factor]

_LINEAR = SAME | PRODUCTS | QUOTIENTS

_CALLS: dict[Operator, tuple[Any, str]] = {
    "sum": (torch.ops.aten.add.Tensor, "aten.add"),
    "product": (torch.ops.aten.mul.Tensor, "aten.mul"),
    "maximum": (torch.ops.aten.maximum.default, "aten.maximum"),
    "minimum": (torch.ops.aten.minimum.default, "aten.minimum"),
}


def flattened(
    call: Call,
    meeting: Meeting,
    readers: Mapping[int, int],
    constants: Constants,
    *,
    weighted: bool = False,
    kept: Collection[int] = (),
) -> list[tuple[Value, Value]]:
    """What meets in a call: its operands, or their parts where these are of the same operator.

    (a + b) + c with no other reader of a + b is one merge of three. A scaling, cast, dropout
    (inactive in eval mode) or movement in between is one of each part.

    Args:
        call: the call.
        meeting: its operator and operands; what it was written out in has the call's node.
        readers: how many calls read the result of a node.
        constants: gives the indices of movements.
        weighted: whether labels tell by how much units are scaled.
        kept: ids of operands that are no more than one part.

    Returns:
        The parts, each with the tensor of the program that has its factor in the result: itself,
        or the operand where it was moved with that.
    """
    flat: list[tuple[Value, Value]] = []
    compared_alone = all(readers.get(id(one.node), 0) == 1 for one in meeting.calls[1:])
    operands = list(_with_waiting(call, meeting))
    for reader, met, operand in operands:
        below = inverted(operand)
        value = operand if below is None else below
        reads = sum(value in varying_operands(one) for one in met.calls)
        alone = compared_alone and number_of_readers(value, readers) == max(reads, 1)
        own = (alone or value.node is reader.node) and id(value) not in kept
        found = inner_with_parts(value, meeting.operator, readers, constants) if own else None
        if found is not None and _meets_itself(found[0], value, [one for *_, one in operands]):
            found = None
        parts = [] if found is None else _parts(*found, value, constants, weighted)
        if below is not None:
            parts = [(reciprocal(part), carrier) for part, carrier in parts]
        flat += parts or [(operand, value)]
    return flat if meeting.operator == "product" else [*dict(flat).items()]  # max(a, a) is a


def _with_waiting(call: Call, meeting: Meeting) -> Iterator[tuple[Call, Meeting, Value]]:
    """The operands of a sum and of those in it that wait, each with the call that it is read in."""
    stack = [(call, meeting, operand) for operand in meeting.operands[::-1]]
    while stack:
        call, meeting, operand = stack.pop()
        inner = None
        if meeting.operator == "sum" and is_waiting_sum(operand):
            assert operand.call is not None
            inner = meeting_of(operand.call)
        if inner is not None and operand.call is not None:
            of_sum = replace(inner, operator="sum")  # a scaled one is a product by itself
            stack += [(operand.call, of_sum, below) for below in inner.operands[::-1]]
        else:
            yield call, meeting, operand


def _parts(
    inner: Value, between: list[Value], value: Value, constants: Constants, weighted: bool
) -> list[tuple[Value, Value]]:
    """The parts of an inner value where another one has them; none where that is not known."""
    calls = [one.call for one in between if one.call and kind_of(one) != "movement"]
    names = {call.name for call in calls}
    scales_out = inner.operator in ("sum", "product")
    scales_out = scales_out and not any(leaves_out(call, constants) for call in calls)
    stays = bool(between) and _stays(inner, between, constants)
    if not between or (scales_out and stays):
        found = [_unviewed(part, value.shape) for part in inner.parts]
        if None not in found:
            return [(part, inverted(part) or part) for part in found if part is not None]
    if weighted and not stays and not names <= SAME:
        return []
    found = [moved_along(part, inner, between, constants) for part in inner.parts if between]
    carriers = inner.parts if stays else [value] * len(found)
    pairs = zip(found, carriers, strict=True)
    return [] if None in found else [(one, carrier) for one, carrier in pairs if one is not None]


def inner_with_parts(
    value: Value, operator: Operator, readers: Mapping[int, int], constants: Constants
) -> tuple[Value, list[Value]] | None:
    """The value with parts that a value is, and what it went through since; None where it is none.

    It was scaled, copied or moved, in calls that are in order and end with the value; nothing else
    reads it. Its operator is the one that does to the parts what a given one does behind the calls.
    """
    inner, between = value, list[Value]()
    while not inner.parts:
        summands = joined_summands(inner, readers, constants)
        if summands:
            inner.operator, inner.parts = "sum", summands
            break
        if inner.call is None or kind_of(inner) not in ("elementwise", "movement"):
            return None
        region = find_region(inner.call, followed_operands(inner.call), constants)
        if region is None or not region.affine or region.normalization:
            return None
        reads = sum(region.entry in varying_operands(call) for call in region.calls)
        if number_of_readers(region.entry, readers) != reads:
            return None
        between += [*region.between, inner]
        inner = region.entry
    between.sort(key=lambda one: one.order)
    if inner.operator not in (operator, TURNED.get(operator)):
        return None
    return (inner, between) if operator == _behind_calls(inner, between, constants) else None


def _meets_itself(inner: Value, part: Value, operands: Sequence[Value]) -> bool:
    """Whether elements that were taken from a tensor meet others of it: before anything else."""
    if part.shape.numel() == inner.shape.numel():
        return False
    seen, stack = {part}, list(operands)
    while stack:
        value = stack.pop()
        if value is inner:
            return True
        if value not in seen:
            seen.add(value)
            stack += _behind(value)[1:]
            stack += value.parts if value.operator == inner.operator else ()
    return False


def _behind_calls(inner: Value, between: list[Value], constants: Constants) -> Operator:
    """The operator that does behind affine calls what that of a value does before them.

    A sum is one of scaled parts, a product has a factor more, and the largest of what is negated is
    the smallest, negated. Empty where there is none; parameters may have any sign.
    """
    calls = [one.call for one in between if one.call is not None and kind_of(one) != "movement"]
    if inner.operator == "sum" or all(call.name in COPIES for call in calls):
        return inner.operator
    if inner.operator == "product" and all(call.name in _LINEAR for call in calls):
        return inner.operator
    last = between[-1].call
    whole = None if last is None else region_of(last, inner, between[:-1], constants)
    if whole is None or (inner.operator != "product" and _reads_parameters(whole, constants)):
        return ""
    functions = function_values(whole, constants)
    if functions is None or functions[1].is_complex():
        return ""
    points, values = functions[0], functions[1].double().flatten(1)
    slopes = (values[-1] - values[0]) / (points[-1] - points[0])
    if inner.operator == "product":
        is_linear = torch.allclose(values, points[:, None] * slopes, rtol=1e-6, atol=1e-6)
        return "product" if is_linear else ""
    if bool((slopes >= 0).all()):
        return inner.operator
    return TURNED[inner.operator] if bool((slopes <= 0).all()) else ""


def _reads_parameters(region: Region, constants: Constants) -> bool:
    read = constants.attributes_behind(region.constants).values()
    return any(isinstance(tensor, torch.nn.Parameter) for tensor in read)


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


def moved_along(
    summand: Value, inner: Value, between: list[Value], constants: Constants
) -> Value | None:
    """A summand of a sum after the calls that the sum went through; None where they are unknown."""
    known = {id(inner): summand}
    if summand.shape != inner.shape:
        size = {"self": summand, "size": list(inner.shape), "implicit": False}
        like = torch.empty(inner.shape, dtype=summand.dtype, device="meta")
        expand = Call(torch.ops.aten.expand.default, "aten.expand", size, inner.node, like)
        labels = broadcast(summand.labels, inner.shape)
        known[id(inner)] = summand.changed(
            labels=labels,
            call=expand,
            order=inner.order,
            operator="",
            parts=(),
            passes=None,
        )
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
        elif call.name in LEAVES_OUT and len(varying_operands(call)) == 1:
            shown = broadcast(labels, value.shape)
            labels = left_over(call, operand, shown, _places, constants)
        known[id(value)] = value.changed(
            labels=broadcast(labels, value.shape),
            call=call,
            operator="",
            parts=(),
            rooted=None,
            step=None,
            _path=None,
        )
    return known[id(between[-1])]


def _places(value: Value) -> Places:
    return identity(value.shape)


def have_common_origin(parts: Sequence[Value]) -> bool:
    """Whether some of the parts are computed from one tensor."""
    return bool(_with_common_origin(parts))


def grouped(
    call: Call, operator: Operator, terms: Sequence[Term], constants: Constants
) -> list[Term | RegionTerm]:
    """Terms that meet, and a region in place of those that are functions of one tensor together.

    Args:
        call: where they meet.
        operator: of the call.
        terms: of it; each tensor of a sum, a maximum or a minimum once.
        constants: gives the indices of movements.
    """

    def region_of_some(chosen: Sequence[int]) -> RegionTerm | None:
        own = [terms[place] for place in chosen]
        if all(not value.is_path or _only_chooses(value, operator) for value, _ in own):
            return None
        factors = [factor for _, factor in own]
        common = _common(factors) if operator == "sum" else _largest(factors)
        if operator == "sum":
            own = [(value, factor / common) for value, factor in own]
        else:
            own = [(value, 1.0) for value, _ in own]
        last = combined(call, operator, own)
        region = find_region(last, varying_operands(last), constants)
        return None if region is None else (region, common)

    found: dict[int, Term | RegionTerm] = dict(enumerate(terms))
    grouped_before = set[int]()
    for origin, places in _with_common_origin([value for value, _ in terms]):
        free = [place for place in places if place not in grouped_before]
        where = {place: _place_in(origin, terms[place][0], call, constants) for place in free}
        for chosen in _of_one_element(where, region_of_some):
            term = region_of_some(chosen)
            if term is not None:
                grouped_before |= {*chosen}
                found = {place: one for place, one in found.items() if place not in chosen}
                found[chosen[0]] = term
    return [found[place] for place in sorted(found)]


def _only_chooses(value: Value, operator: Operator) -> bool:
    return operator == "product" and is_step(value)


def _of_one_element(
    where: Mapping[int, Places | None], region_of_some: Callable[[Sequence[int]], Any]
) -> list[list[int]]:
    """Sets of terms, by their positions, that are functions of the same elements together.

    Args:
        where: the elements that a term is of, None where that takes a closer look.
        region_of_some: gives the region of some of the terms.
    """
    everything = list(where)
    if len({*where.values()} - {None}) < 2 and region_of_some(everything) is not None:
        return [everything]
    sets = {place: [place] for place in where}
    for one, other in itertools.combinations(where, 2):
        differ = None not in (where[one], where[other]) and where[one] != where[other]
        if not differ and sets[one] is not sets[other] and region_of_some([one, other]) is not None:
            both = sorted(sets[one] + sets[other])
            sets.update(dict.fromkeys(both, both))
    return [own for place, own in sets.items() if len(own) > 1 and own[0] == place]


def _place_in(origin: Value, value: Value, call: Call, constants: Constants) -> Places | None:
    """The elements of an origin that those of a value are functions of, broadcast to a result.

    None for statistics, and where it is not known.
    """
    if value.call is None or value is origin:
        return identity(origin.shape).expanded(call.shape)
    inner = [one for one in _behind(value)[1:] if not _is_origin(one)]
    between = tuple(sorted(inner, key=lambda one: one.order))
    state = follow(origin, between, value.call, constants)
    if state is None or not state.degree or len(state.places) != 1:
        return None
    places = state.places[0].expanded(call.shape)
    return places if places.numbers is None and places.key is None else None


def _common(factors: list[Factor]) -> Factor:
    """The absolute value of factors that have one, else 1: then they are part of the function."""
    sizes = [torch.as_tensor(factor).abs() for factor in factors]
    same = all(torch.equal(size, sizes[0]) for size in sizes) and bool((sizes[0] != 0).all())
    return sizes[0] if same else 1.0


def _largest(factors: list[Factor]) -> Factor:
    sizes = [torch.as_tensor(factor, dtype=torch.float64).abs() for factor in factors]
    return torch.stack(torch.broadcast_tensors(*sizes)).amax(0)


def _with_common_origin(parts: Sequence[Value]) -> list[tuple[Value, tuple[int, ...]]]:
    """Tensors, and the parts, by their positions, that are computed from each; most parts first."""
    of_origin: dict[Value, list[int]] = {}
    for place, part in enumerate(parts):
        for origin in filter(_is_origin, _behind(part)):
            of_origin.setdefault(origin, []).append(place)
    groups = {tuple(places): origin for origin, places in of_origin.items() if len(places) > 1}
    return [(groups[p], p) for p in sorted(groups, key=lambda places: (-len(places), places))]


def _behind(value: Value) -> list[Value]:
    """A value and what it is computed from, up to the tensors at which a region may begin."""
    seen: dict[Value, None] = {}
    stack = [value]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen[current] = None
            if not _is_origin(current) and current.call is not None:
                stack += varying_operands(current.call)
    return list(seen)


def _is_origin(value: Value) -> bool:
    return value.call is None or value.merge or kind_of(value) not in EXPANDABLE


def combined(call: Call, operator: Operator, terms: Sequence[Term]) -> Call:
    """A call in which tensors meet, each times a factor, as operators of torch write it.

    Args:
        call: whose result it gives.
        operator: of the tensors; a single one is a sum or a product.
        terms: one or more; the tensors have the shape of the result or are broadcast to it.
    """
    order = max(value.order for value, _ in terms)

    def made(inner: Call) -> Value:
        nonlocal order
        order += 2.0**-20  # behind all parts, before what comes next in the program
        return Value(constant_labels(call.shape), call.output.dtype, True, call.node, inner, order)

    parts = [
        value if isinstance(factor, float) and factor == 1 else made(_times(call, value, factor))
        for value, factor in terms
    ]
    func, name = _CALLS[operator]
    last, total = _times(call, *terms[0]), parts[0]
    for number, part in enumerate(parts[1:], start=2):
        arguments: dict[str, Any] = {"self": total, "other": part}
        if operator == "sum":
            arguments["alpha"] = 1
        last = Call(func, name, arguments, call.node, call.like)
        total = total if number == len(parts) else made(last)
    return last


def _times(call: Call, value: Value, factor: Factor) -> Call:
    arguments = {"self": value, "other": factor}
    return Call(torch.ops.aten.mul.Tensor, "aten.mul", arguments, call.node, call.like)
