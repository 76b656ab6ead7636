"""Values that are lowered when they are asked for, and many are never (see `waits`)."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeGuard

import torch

from pathlen.lowering.labels import constant_labels
from pathlen.lowering.states import PRODUCTS
from pathlen.lowering.values import Call, Value, varying_operands

_KNOWN = ("dtype", "varies", "node", "call", "order")
_LATER = ("labels", "operator", "parts", "zeros", "passes")


class Waiting(Value):
    """A value that is lowered when somebody asks for what is only known then.

    Until then it is no merge and no activation, which is what those who walk through its call want
    to know.

    Attributes:
        origin: the tensor that it is a function of; None where it is a sum of several.
        length: how many calls of one tensor wait for each other, it the last of them.
    """

    __slots__ = ("_lower", "_shape", "length", "origin")

    def __init__(
        self, call: Call, order: float, origin: Value | None, length: int, lower: Callable[[], Any]
    ) -> None:
        self._lower: Callable[[], Any] | None = None
        like = call.output
        super().__init__(constant_labels(like.shape), like.dtype, True, call.node, call, order)
        self._lower, self._shape, self.origin, self.length = lower, like.shape, origin, length
        self._path = any(value.is_path for value in varying_operands(call))

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self._shape

    @property
    def waits(self) -> bool:
        """Whether nobody has asked for it so far."""
        return self._lower is not None

    @property
    def is_sum(self) -> bool:
        """Whether it waits, and is a sum of several tensors, or one times a number."""
        return self.waits and self.origin is None

    def settle(self) -> None:
        """Lower the call, and be its result."""
        lower, self._lower = self._lower, None
        if lower is not None:
            result = lower()
            for field in fields(Value):
                if field.name not in _KNOWN:
                    setattr(self, field.name, getattr(result, field.name))


def _settled(name: str) -> property:
    """An attribute of a value, which is lowered first."""
    slot = getattr(Value, name)

    def get(value: Waiting) -> Any:
        value.settle()
        return slot.__get__(value)

    def put(value: Waiting, new: Any) -> None:
        value._lower = None  # it need not be lowered any more
        slot.__set__(value, new)

    return property(get, put)


for _name in _LATER:
    setattr(Waiting, _name, _settled(_name))


def is_waiting_sum(value: object) -> TypeGuard[Waiting]:
    """Whether a value is a sum that nobody has asked for so far, and need not be lowered."""
    return isinstance(value, Waiting) and value.is_sum


def scaled_sum(call: Call) -> Waiting | None:
    """The sum that waits and that a call multiplies by a number, None for other calls."""
    if call.name not in PRODUCTS or not isinstance(call["other"], int | float):
        return None
    inner = call["self"]
    return inner if is_waiting_sum(inner) else None
