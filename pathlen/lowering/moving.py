"""Runs movements on other integers than labels: on numbers of elements, or of functions."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pathlen.errors import PathlenError
from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import compact
from pathlen.lowering.rules import find_rule, kind_of
from pathlen.lowering.states import COPIES
from pathlen.lowering.values import Call, Value, once

INDICES = ("index", "indices", "mask", "repeats")
"""Arguments that say where, and are not moved themselves."""


class _Labels:
    """Stands for the lowering where a rule is run for its labels alone."""

    weights = None

    def __init__(self, constants: Constants) -> None:
        self.constants = constants

    def result(
        self, call: Call, labels: torch.Tensor, *, dtype: torch.dtype | None = None, **_: Any
    ) -> Value:
        """A value with these labels, which nobody else sees."""
        return Value(labels, dtype or call.output.dtype, True, call.node, call)

    def site(self, call: Call) -> str:
        """Where a call is, for messages."""
        return call.name


def run_movement(
    call: Call, tensors: Mapping[int, torch.Tensor], constants: Constants
) -> list[torch.Tensor] | None:
    """The results of a movement whose operands hold other integers.

    Args:
        call: of a rule of kind "movement".
        tensors: by the identity of each tensor that is moved, int64 of its shape, -1 for what is
            left out; elements that the call itself fills in are -1.
        constants: gives the indices.

    Returns:
        One tensor a result; None where the input decides on the places.
    """
    if any(value.varies for value in places_of(call)):
        return None

    def given(value: Value) -> Value:
        if id(value) not in tensors:
            return value
        return value.changed(labels=tensors[id(value)], varies=True, _path=None)

    arguments = {
        name: argument if name in INDICES else pytree.tree_map_only(Value, given, argument)
        for name, argument in call.arguments.items()
    }
    found = find_rule(call.func)
    assert found is not None
    moved = dataclasses.replace(call, arguments=arguments)
    try:
        result = found.apply(moved, _Labels(constants))  # type: ignore[arg-type]
    except (AttributeError, PathlenError, RuntimeError):
        return None  # at places that are not known, or of complex numbers, which no integers are
    return [value.labels for value in pytree.tree_leaves(result) if isinstance(value, Value)]


def moved_numbers(
    call: Call, tensors: Mapping[int, torch.Tensor], item: int, constants: Constants
) -> torch.Tensor | None:
    """A result of a movement whose operands hold real numbers, 0 where they hold nothing.

    Args:
        call: of a rule of kind "movement".
        tensors: by the identity of the tensors that are moved, float64 of their shapes.
        item: which of the results.
        constants: gives the indices.

    Returns:
        float64, of the result's shape; None where the input decides on the places.
    """
    numbers = {id(v): torch.full((), -1).expand(v.shape) for v in moved_operands(call)}
    laid_out: list[torch.Tensor] = []
    start = 0
    for key, tensor in tensors.items():
        small = compact(tensor)
        number = torch.arange(start, start + small.numel()).view(small.shape)
        numbers[key] = number.expand(tensor.shape)
        laid_out.append(small.reshape(-1))
        start += small.numel()
    moved = run_movement(call, numbers, constants)
    if moved is None:
        return None
    number = moved[item]
    found = torch.cat([*laid_out, torch.zeros(1, dtype=torch.float64)])[compact(number)]
    return found.expand(number.shape)  # -1 is the last


@once
def places_of(call: Call) -> tuple[Value, ...]:
    """The tensors that say where a movement reads or writes."""
    named = (call.arguments.get(name) for name in INDICES)
    leaves = [leaf for one in named if one is not None for leaf in pytree.tree_leaves(one)]
    return tuple(leaf for leaf in leaves if isinstance(leaf, Value))


@once
def moved_operands(call: Call) -> tuple[Value, ...]:
    """The tensors whose elements a movement moves, each once."""
    where = {id(value) for value in places_of(call)}
    if call.name == "aten.copy":  # whatever was there before
        where.add(id(call["self"]))
    return tuple({id(v): v for v in call.values() if id(v) not in where}.values())


def before_moves(value: Value) -> Value:
    """A value before it was copied, cast or moved."""
    while value.call is not None and value.function is None and not value.merge:
        moves = kind_of(value) == "movement"
        operands = moved_operands(value.call) if moves else list(value.call.values())
        varying = [operand for operand in operands if operand.varies]
        if len(varying) != 1 or not (moves or value.call.name in COPIES):
            break
        value = varying[0]
    return value


def item_of(value: Value) -> int | None:
    """Which of the results of its call a value is; None where that is not known."""
    assert value.call is not None
    returns = list(getattr(getattr(value.call.func, "_schema", None), "returns", ()))
    of_one = len(returns) == 1 and str(returns[0].type) == "Tensor"
    if of_one or isinstance(value.call.node.meta["val"], torch.Tensor):
        return 0
    node = value.node
    if node.target is operator.getitem and node.args[0] is value.call.node:
        return int(node.args[1])  # type: ignore[arg-type]
    return None
