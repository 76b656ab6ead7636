"""Gains: the constant factors by which a call scales the tensors that it passes on.

A sum of tensors, each times a constant, is kept as its terms: the factor of every tensor in it.
What depends on the data counts as 1: the other factor of a product, a statistic that is held
fixed, a mask computed from the input; constants are read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pathlen.errors import TraceError
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.moving import item_of, moved_numbers
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import NEGATIONS, SAME
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.waiting import is_waiting_sum, scaled_sum

Terms = Mapping[int, torch.Tensor]
"""By the id of a value: the factor of each of its elements, in a shape that broadcasts."""

_SIGNS = {"add": (1, 1), "sub": (1, -1), "subtract": (1, -1), "rsub": (-1, 1)}
_FACTORS = frozenset(aten("mul multiply"))
_DIVISIONS = frozenset(aten("div divide true_divide"))
_EXTREMES = frozenset(aten("maximum minimum fmax fmin max min clamp clamp_min clamp_max"))
_CHANNEL_NORMS = frozenset(aten("batch_norm instance_norm group_norm"))


def gains(call: Call, operands: Sequence[Value], constants: Constants) -> list[torch.Tensor]:
    """By how much an elementwise call scales each of some values that it is computed from.

    Args:
        call: the call; between it and the values stand elementwise calls and statistics only.
        operands: the values.
        constants: gives the parameters.

    Returns:
        Absolute factors in shapes that broadcast to that of the result, 1 for a value that the
        call is no affine function of.

    Raises:
        TraceError: a factor is not finite, or depends on a tensor without values.
    """
    found = terms(call, operands, constants)
    one = torch.ones((), dtype=torch.float64)
    factors = [found.get(id(operand), one) for operand in operands]
    require_finite(call, factors)
    return [factor.abs() for factor in factors]


def require_finite(call: Call, factors: Sequence[torch.Tensor]) -> None:
    """Refuse factors that are no numbers.

    Raises:
        TraceError: one is NaN or infinite.
    """
    if not all(bool(factor.isfinite().all()) for factor in factors):
        raise TraceError(
            f"{call.name} at node {call.node.name!r} scales by a factor that is not finite;"
            " look for NaN, infinities or divisions by 0 in the model's parameters"
        )


def terms(call: Call, operands: Sequence[Value], constants: Constants) -> Terms:
    """The factors of some values in an elementwise call, with their signs; see `gains`."""
    return _Forms({id(operand) for operand in operands}, constants).of_call(call)


def normalization_gain(call: Call, constants: Constants) -> torch.Tensor:
    """What a normalization multiplies by, in a shape that broadcasts to the result's.

    Its weight, divided by the standard deviation where this is a constant (batch norm in eval
    mode); a statistic of the data counts as 1.
    """
    gain = torch.ones((), dtype=torch.float64)
    if isinstance(call.arguments.get("weight"), Value):
        gain = gain * constant(call["weight"], call, constants)
    statistics = call.arguments.get("use_input_stats", call.arguments.get("training", True))
    if not statistics and isinstance(call.arguments.get("running_var"), Value):
        gain = gain / (constant(call["running_var"], call, constants) + call["eps"]).sqrt()
    if call.name in _CHANNEL_NORMS and gain.ndim == 1:
        gain = gain.view(-1, *[1] * (len(call.shape) - 2))
    return gain


def constant(value: Value, call: Call, constants: Constants) -> torch.Tensor:
    """The tensor behind a constant in float64 (or complex128); 1 for what depends on the data.

    Raises:
        TraceError: the constant has no values.
    """
    if value.varies:
        return torch.ones((), dtype=torch.float64)
    try:
        tensor = constants.of(value)
    except UnknownConstantError as error:
        raise meta_error(value, call) from error
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def meta_error(value: Value, call: Call) -> TraceError:
    """The error for a constant that has no values."""
    return TraceError(
        f"edges='weights' needs the values of {value.node.name!r}, which {call.name} at node"
        f" {call.node.name!r} reads and which has none (meta device); load the model's weights"
        " or leave edges at 'connections'"
    )


def _factors_of_sum(call: Call) -> dict[str, Any]:
    """What a sum multiplies its operands by."""
    signs, alpha = _SIGNS[call.operation], call.arguments.get("alpha", 1)
    scaled = "self" if call.operation == "rsub" else "other"
    factors = {"self": signs[0], "other": signs[1]}
    factors[scaled] *= alpha
    return factors


class _Forms:
    """Writes values as sums of some values, each times a factor.

    Args:
        entries: ids of the values to stop at.
        constants: gives the parameters.
    """

    def __init__(self, entries: set[int], constants: Constants) -> None:
        self._entries = entries
        self._constants = constants
        self._known: dict[int, Terms] = {}

    def of(self, value: Any) -> Terms:
        """The terms of a value; none for a constant, a number or a statistic."""
        if not isinstance(value, Value) or not value.varies:
            return {}
        if id(value) in self._entries:
            return {id(value): torch.ones((), dtype=torch.float64)}
        if value.terms is not None and value.terms.keys() <= self._entries:
            return value.terms
        if id(value) not in self._known:
            self._known[id(value)] = {} if value.call is None else self._of_made(value, value.call)
        return self._known[id(value)]

    def _of_made(self, value: Value, call: Call) -> Terms:
        kind = kind_of(value)
        if kind == "elementwise":
            return self.of_call(call)
        if kind == "normalization":
            source = next(operand for operand in call.values() if operand.varies)
            return _scaled(self.of(source), normalization_gain(call, self._constants))
        if kind == "movement":
            return self._moved(value, call)
        return {}

    def _moved(self, value: Value, call: Call) -> Terms:
        """Factors in other places; 0 where something else is."""
        item, found = item_of(value), dict[int, torch.Tensor]()
        for operand in varying_operands(call):
            for key, gain in self.of(operand).items():
                if gain.numel() == 1 and value.labels.numel() == operand.labels.numel():
                    moved: torch.Tensor | None = gain
                else:
                    own = {id(operand): gain.expand(operand.shape)}
                    moved = moved_numbers(call, own, item or 0, self._constants)
                moved = gain.abs().amax() if moved is None else moved  # whatever went where
                found[key] = found[key] + moved if key in found else moved
        return found

    def of_call(self, call: Call) -> Terms:
        """The terms of the result of an elementwise call."""
        name, arguments = call.name, call.arguments
        if name in SAME:
            source = self.of(next(call.values()))
            return _scaled(source, -1) if name in NEGATIONS else source
        if call.operation in _SIGNS and name.startswith("aten."):
            return self._of_sum(call)
        if name in _FACTORS:
            one, other = arguments["self"], arguments["other"]
            return self._of_product(call, one, other, 1)
        if name in _DIVISIONS:
            above, below = arguments["self"], arguments["other"]
            divided = _scaled(self.of(above), 1 / self._number(below, call))
            return _added(divided, self.of(below))
        if name in ("aten.addcmul", "aten.addcdiv"):
            return self._of_added_product(call)
        if name in ("aten.where", "aten.masked_fill", "aten.lerp"):
            return self._of_choice(call)
        if name in _EXTREMES:
            return _largest(*map(self.of, call.values()))
        return {
            key: torch.ones((), dtype=torch.float64) for v in call.values() for key in self.of(v)
        }

    def _of_sum(self, call: Call) -> Terms:
        """Those of its summands, where sums among these wait those of theirs."""
        sums, found = [(call, 1)], list[Terms]()
        while sums:
            inner, factor = sums.pop()
            scaled = scaled_sum(inner)
            if scaled is not None and id(scaled) not in self._entries:
                assert scaled.call is not None
                sums.append((scaled.call, factor * inner["other"]))
                continue
            if inner.name in _FACTORS:
                found.append(_scaled(self.of_call(inner), factor))
                continue
            for side, own in _factors_of_sum(inner).items():
                value = inner[side]
                if is_waiting_sum(value) and id(value) not in self._entries:
                    assert value.call is not None
                    sums.append((value.call, factor * own))
                else:
                    found.append(_scaled(self.of(value), factor * own))
        return _added(*found)

    def _of_product(self, call: Call, one: Any, other: Any, factor: Any) -> Terms:
        return _added(
            _scaled(self.of(one), factor * self._number(other, call)),
            _scaled(self.of(other), factor * self._number(one, call)),
        )

    def _of_added_product(self, call: Call) -> Terms:
        """Self + value * tensor1 * tensor2, or divided by tensor2."""
        value, second = call["value"], call["tensor2"]
        if call.name == "aten.addcdiv":
            quotient = _scaled(self.of(call["tensor1"]), value / self._number(second, call))
            return _added(self.of(call["self"]), quotient, _scaled(self.of(second), value))
        product = self._of_product(call, call["tensor1"], second, value)
        return _added(self.of(call["self"]), product)

    def _of_choice(self, call: Call) -> Terms:
        """Either of two tensors, element by element, or a point between the two."""
        names = {
            "aten.where": ("condition", "self", "other"),
            "aten.lerp": ("weight", "end", "self"),
        }
        control, if_true, if_false = names.get(call.name, ("mask", "value", "self"))
        chosen, rest = self.of(call[if_true]), self.of(call[if_false])
        weight = call[control]
        if isinstance(weight, Value) and weight.varies:  # each element may come from either
            return _largest(chosen, rest)
        share = self._number(weight, call)
        return _added(_scaled(chosen, share), _scaled(rest, 1 - share))

    def _number(self, value: Any, call: Call) -> Any:
        """A constant factor as a tensor or number; 1 for what depends on the data."""
        if isinstance(value, Value):
            return constant(value, call, self._constants)
        is_complex = isinstance(value, complex)
        return torch.as_tensor(value, dtype=torch.complex128 if is_complex else torch.float64)


_ZERO = torch.zeros((), dtype=torch.float64)


def _scaled(form: Terms, factor: Any) -> Terms:
    return {key: gain * factor for key, gain in form.items()}


def _largest(one: Terms, *others: Terms) -> Terms:
    """Factors where each element may come from any of some tensors."""
    total = {key: gain.abs() for key, gain in one.items()}
    for other in others:
        for key, gain in other.items():
            total[key] = torch.maximum(total.get(key, _ZERO), gain.abs())
    return total


def _added(*forms: Terms) -> Terms:
    total: dict[int, torch.Tensor] = {}
    for form in forms:
        for key, gain in form.items():
            total[key] = total[key] + gain if key in total else gain
    return total
