"""Which calls wait to be lowered.

A sum of n tensors in n - 1 calls, or a polynomial in 2 n, is one merge or one function: what only
the next such call reads need not be known by itself. To lower it all the same would take time with
the square of n. Such a value waits (`Waiting`). Where a region or a flat sum goes through it, its
call is enough; whoever asks for its labels, or for what became of it, has it lowered then.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from pathlen.lowering.context import Lowering
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import PRODUCTS, SUMS
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.waiting import Waiting, scaled_sum

_ARITHMETIC = SUMS | PRODUCTS
_LONGEST = 8
"""Calls of one tensor after each other that wait; lowered, each has the next one lowered first."""


class Waits:
    """Tells which calls wait, as a program is lowered.

    Args:
        lowering: the lowering at work.
    """

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering
        self._origins: dict[int, tuple[Value, Value]] = {}  # with the value, which keeps its id

    def waiting(self, call: Call, lower: Callable[[], Any]) -> Waiting | None:
        """The value of a call that waits, None for a call that does not.

        Args:
            call: the call.
            lower: lowers it.
        """
        lowering = self._lowering
        if lowering.weights is not None or lowering.steps is not None:
            return None
        if call.name not in _ARITHMETIC or not _is_plain(call):
            return None
        operands = varying_operands(call)
        reader = self._only_reader(call.node)
        origin = self._origin(operands)
        before = [value for value in operands if isinstance(value, Waiting) and value.waits]
        length = 0 if len(operands) > 1 else max((one.length for one in before), default=-1) + 1
        if reader is None:
            return None
        if before and scaled_sum(call) is before[0]:
            waits = _NAMES[reader.target] in SUMS
        elif len(operands) == 2 and call.name in SUMS and _adds_or_scales(reader):
            waits = True
        else:
            repeats = bool(before) or len(operands) > 1
            waits = origin is not None and repeats and length <= _LONGEST
        return Waiting(call, lowering.next_order(), origin, length, lower) if waits else None

    def note(self, call: Call, value: Any) -> None:
        """Remember what a value is computed from element by element, if that is one tensor."""
        if not isinstance(value, Value) or value.merge:
            return
        operands = varying_operands(call)
        alone = len(operands) == 1 and operands[0].shape == value.shape
        if call.name in _ARITHMETIC or (alone and kind_of(value) == "elementwise"):
            origin = self._origin(operands)
            if origin is not None:
                self._origins[id(value)] = value, origin

    def _origin(self, operands: Iterable[Value]) -> Value | None:
        found = {id(own): own for own in map(self._origin_of, operands)}
        return next(iter(found.values())) if len(found) == 1 else None

    def _origin_of(self, value: Value) -> Value | None:
        if isinstance(value, Waiting) and value.waits:
            return value.origin
        return self._origins.get(id(value), (value, value))[1]

    def _only_reader(self, node: fx.Node) -> fx.Node | None:
        """The call of arithmetic that alone reads a node, once; None where there is none."""
        if len(node.users) != 1 or self._lowering.readers.get(id(node), 0) != 1:
            return None
        reader = next(iter(node.users))
        if reader.op != "call_function" or reader.target not in _NAMES:
            return None
        result, own = reader.meta["val"], node.meta["val"]
        same = result.shape == own.shape and result.dtype == own.dtype
        return reader if same and sum(read is node for read in reader.args) == 1 else None


_NAMES: dict[Any, str] = {
    overload: f"aten.{packet.__name__}"
    for packet in (torch.ops.aten.add, torch.ops.aten.sub, torch.ops.aten.mul)
    for overload in (packet.Tensor,)
}
"""The overloads that wait, and read what waits."""


def _is_plain(call: Call) -> bool:
    """Whether a call is one of theirs, on tensors of numbers of the shape of its result."""
    if call.func not in _NAMES or call.like is not None or not call.output.is_floating_point():
        return False
    return all(
        value.shape == call.shape and value.dtype == call.output.dtype
        for value in varying_operands(call)
    )


def _adds_or_scales(reader: fx.Node) -> bool:
    """Whether a call adds something to what it reads, or multiplies it by a number."""
    return _NAMES[reader.target] in SUMS or not isinstance(reader.args[1], fx.Node)
