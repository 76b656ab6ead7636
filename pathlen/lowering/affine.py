"""By how much each element of a tensor is its unit: a factor, and a constant that is added.

Parameters have random values here, so that functions that are the same for these are the same for
any; those that happen to be the same for the values of a model are several all the same.
"""

from collections.abc import Callable, Iterable

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.generic import generic_constants
from pathlen.lowering.labels import broadcast, compact
from pathlen.lowering.moving import item_of, moved_numbers
from pathlen.lowering.operations import call_by_name, functional, widened
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import COPIES
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.variants import operands_first, passed_on

Form = tuple[torch.Tensor, torch.Tensor]
"""Factors and what is added to them, float64, of the shape of a tensor."""


def forms(values: Iterable[Value], constants: Constants) -> list[Form] | None:
    """The affine function of its unit that each element of some tensors is.

    Args:
        values: path tensors.
        constants: gives the parameters.

    Returns:
        A form a value; None where a constant has no value, or numbers are complex.
    """
    values = list(values)
    steps: dict[Value, None] = {}
    for value in values:
        for step in operands_first(value, steps):
            steps[step] = None
    if any(step.dtype.is_complex for step in steps):
        return None
    calls = [step.call for step in steps if step.call is not None and passed_on(step)]
    read = [operand for call in calls for operand in call.values() if not operand.varies]
    generic = generic_constants(read, constants)
    known: dict[Value, Form] = {}
    try:
        for step in steps:
            known[step] = _form(step, known, generic, constants)
    except UnknownConstantError:
        return None
    return [known[value] for value in values]


def in_call(
    call: Call, operands: list[Value], constants: Constants, *, linear: bool
) -> list[torch.Tensor] | None:
    """What constants between some tensors and a call do to them.

    Args:
        call: a sum of the tensors, each times a constant, or another function.
        operands: the tensors.
        constants: gives the parameters.
        linear: whether it is a sum.

    Returns:
        Of a sum the factor of each tensor and what is added to them; else what the call gives for
        ones. None where constants have no values. float64, in shapes that broadcast to the
        result's.
    """
    between, stack = dict[int, Value](), [*varying_operands(call)]
    given = {id(operand) for operand in operands}
    while stack:
        value = stack.pop()
        if id(value) in given or id(value) in between:
            continue
        if value.call is None or kind_of(value) not in ("elementwise", "movement"):
            return None
        between[id(value)] = value
        stack += varying_operands(value.call)
    calls = [call, *(value.call for value in between.values() if value.call is not None)]
    read = [v for one in calls for v in one.values() if not v.varies]
    order = sorted(between.values(), key=lambda value: value.order)
    own = _Evaluation(order, generic_constants(read, constants), constants)
    one = torch.ones((), dtype=torch.float64)
    zero = torch.zeros_like(one)
    try:
        if not linear:
            return [own.at(call, {id(operand): one for operand in operands})]
        shift = own.at(call, {id(operand): zero for operand in operands})
        names = [id(operand) for operand in operands]
        return [
            *(
                own.at(call, {n: one if n == name else zero for n in names}) - shift
                for name in names
            ),
            shift,
        ]
    except UnknownConstantError:
        return None


class _Evaluation:
    """Computes a call from numbers in place of some tensors."""

    def __init__(self, between: list[Value], generic: Constants, constants: Constants) -> None:
        self._between, self._generic, self._constants = between, generic, constants

    def at(self, call: Call, given: dict[int, torch.Tensor]) -> torch.Tensor:
        known = dict(given)
        for value in self._between:
            assert value.call is not None
            if kind_of(value) == "movement":
                operands = [v for v in varying_operands(value.call) if id(v) in known]
                tensors = {id(v): known[id(v)].expand(v.shape) for v in operands}
                moved = moved_numbers(value.call, tensors, item_of(value) or 0, self._constants)
                if moved is None:
                    raise UnknownConstantError(value.node.name)
                known[id(value)] = moved
            else:
                known[id(value)] = self._run(value.call, known)
        return self._run(call, known)

    def _run(self, call: Call, known: dict[int, torch.Tensor]) -> torch.Tensor:
        return run_with(call, lambda v: known[id(v)] if v.varies else self._generic.of(v))


def run_with(call: Call, number: Callable[[Value], torch.Tensor]) -> torch.Tensor:
    """The result of an elementwise call, computed from other numbers in float64."""
    arguments = call.replace_values(lambda value: widened(number(value)))
    result: torch.Tensor = call_by_name(functional(call.func), arguments)
    return widened(result)


def _form(value: Value, known: dict[Value, Form], generic: Constants, constants: Constants) -> Form:
    below = passed_on(value)
    if not below:
        return _begun(value)
    assert value.call is not None
    kind = kind_of(value)
    if kind == "movement":
        moved = [
            moved_numbers(
                value.call,
                {id(operand): known[operand][part] for operand in below},
                item_of(value) or 0,
                constants,
            )
            for part in (0, 1)
        ]
        return _begun(value) if moved[0] is None or moved[1] is None else (moved[0], moved[1])
    if kind == "normalization" or value.passes is not None:
        return known[below[0]]
    scale, shift = (compact(part) for part in known[below[0]])
    if len(below) > 1:  # each element is of one of them
        parts = [broadcast(known[operand][0], value.shape) for operand in below]
        shifts = [broadcast(known[operand][1], value.shape) for operand in below]
        return torch.stack(parts).sum(0), torch.stack(shifts).sum(0)
    if value.call.name in COPIES or len(varying_operands(value.call)) > 1:
        return broadcast(scale, value.shape), broadcast(shift, value.shape)

    call = value.call
    zero = run_with(call, lambda v: shift if v is below[0] else generic.of(v))
    one = run_with(call, lambda v: scale + shift if v is below[0] else generic.of(v))
    return (one - zero).expand(value.shape), zero.expand(value.shape)


def _begun(value: Value) -> Form:
    """The form of a tensor whose elements begin there."""
    begun = value.begun
    if begun is not None and begun.scale.shape == value.shape:
        return begun.scale, begun.shift
    one = torch.ones((), dtype=torch.float64)
    return one.expand(value.shape), torch.zeros_like(one).expand(value.shape)
