"""Sums, products, maxima and minima, by whatever operator: what does not depend on an order.

A quotient is a product with a reciprocal. A reciprocal that is a factor passes the units of what
it is the reciprocal of: division is a merge, no activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pathlen.lowering.operations import aten
from pathlen.lowering.states import PRODUCTS, QUOTIENTS, SUMS
from pathlen.lowering.values import Call, Operator, Value, varying_operands

_EXTREMES: dict[str, Operator] = {
    **dict.fromkeys(aten("maximum fmax max clamp_min"), "maximum"),
    **dict.fromkeys(aten("minimum fmin min clamp_max"), "minimum"),
}
TURNED: dict[Operator, Operator] = {"maximum": "minimum", "minimum": "maximum"}
"""The largest of what is negated is the smallest, negated."""
_COMPARISONS: dict[str, Operator] = {
    **dict.fromkeys(aten("gt ge greater greater_equal"), "maximum"),
    **dict.fromkeys(aten("lt le less less_equal"), "minimum"),
}
_FACTORS_OF_SUMS = {
    "aten.lerp": ("weight",),
    "aten.addcmul": ("tensor1", "tensor2"),
    "aten.addcdiv": ("tensor2",),
}
_REDUCTIONS: dict[str, Operator] = {
    **dict.fromkeys(aten("sum mean"), "sum"),
    **dict.fromkeys(aten("amax max"), "maximum"),
    **dict.fromkeys(aten("amin min"), "minimum"),
    "aten.prod": "product",
}


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Tensors that meet in an operator, and whose order is no matter.

    Attributes:
        operator: what is computed of them.
        operands: those that the inputs reach.
        calls: what reads them: one, or a choice and its comparison.
    """

    operator: Operator
    operands: Sequence[Value]
    calls: tuple[Call, ...]

    @property
    def inverts(self) -> bool:
        """Whether it is a reciprocal alone."""
        return len(self.operands) == 1 and inverted(self.operands[0]) is not None


def meeting_of(call: Call) -> Meeting | None:
    """What meets in an elementwise call; None where the order of its operands matters."""
    if adds(call):
        return Meeting("sum", varying_operands(call), (call,))
    if call.name in PRODUCTS:
        return Meeting("product", varying_operands(call), (call,))
    if divides(call):
        above, below = call.arguments.get("self"), call.arguments.get("other", call["self"])
        factors: list[Value] = [above] if below is not above and _varies(above) else []  # type: ignore[list-item]
        factors += [reciprocal(below)] if _varies(below) else []
        return Meeting("product", factors, (call,))
    if call.name in _EXTREMES:
        return Meeting(_EXTREMES[call.name], varying_operands(call), (call,))
    if call.name == "aten.clamp" and None in (call["min"], call["max"]):
        operator: Operator = "maximum" if call["max"] is None else "minimum"
        return Meeting(operator, varying_operands(call), (call,))
    return _chosen(call) if call.name == "aten.where" else None


def operator_along(call: Call) -> Operator:
    """What a reduction computes of tensors that were stacked along its axis."""
    return _REDUCTIONS.get(call.name, "")


def adds(call: Call) -> bool:
    """Whether a call is a sum of its operands, each times a constant."""
    names = _FACTORS_OF_SUMS.get(call.name, ())
    return call.name in SUMS or any(not _varies(call[name]) for name in names)


def has_a_product(call: Call) -> bool:
    """Whether a call is a sum of an operand and a product of others."""
    return call.name in _FACTORS_OF_SUMS


def reciprocal(value: Value) -> Value:
    """The reciprocal of a tensor, as a factor: it has the units of the tensor."""
    below = inverted(value)
    if below is not None:
        return below
    dtype = value.dtype if value.dtype.is_floating_point or value.dtype.is_complex else torch.float
    like = torch.empty(value.shape, dtype=dtype, device="meta")
    divide = torch.ops.aten.reciprocal.default
    call = Call(divide, "aten.reciprocal", {"self": value}, value.node, like)
    order = value.order + 2.0**-24
    return Value(value.labels, dtype, True, value.node, call, order, operator="product")


def inverted(value: Value) -> Value | None:
    """What a factor is the reciprocal of, None where it is no such factor."""
    is_factor = value.operator == "product" and not value.parts and value.call is not None
    return value.call["self"] if is_factor and value.call is not None else None


def divides(call: Call) -> bool:
    """Whether a call is a quotient, or a reciprocal."""
    if call.name in QUOTIENTS:
        return call.arguments.get("rounding_mode") is None
    return call.name == "aten.reciprocal" or (call.name == "aten.pow" and call["exponent"] == -1)


def _varies(argument: object) -> bool:
    return isinstance(argument, Value) and argument.varies


def _chosen(call: Call) -> Meeting | None:
    """The larger or the smaller of two tensors, each where a comparison of them says so."""
    compared = call["condition"].call
    if compared is None or compared.name not in _COMPARISONS:
        return None
    sides = [call["self"], call["other"]]
    if not all(map(_varies, sides)):
        return None
    operator = _COMPARISONS[compared.name]
    if [compared["self"], compared["other"]] == sides[::-1]:
        operator = TURNED[operator]
    elif [compared["self"], compared["other"]] != sides:
        return None
    return Meeting(operator, sides, (call, compared))
