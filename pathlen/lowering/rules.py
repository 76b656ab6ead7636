"""The table of operation rules: one dict, a decorator that fills it, and a look-up.

A rule turns one call into the labels of its result, and adds to the graph what the call makes.
Operators with no rule of their own are covered by what their schema says: pointwise operators by
the elementwise rule, views by the movement rule. No operator is ever guessed to be elementwise.
Derivatives (threshold_backward) are pointwise too, but hold comparisons and activations: they are
written out as torch decomposes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from pathlen.lowering.operations import functional, operation_name, viewed_argument
from pathlen.lowering.values import Call, Value, once
from pathlen.tracing.pure import allow

if TYPE_CHECKING:
    from pathlen.lowering.context import Lowering

Kind = Literal[
    "elementwise",  # each element of the result comes from one element of each operand
    "normalization",  # elementwise once its statistics are held fixed
    "reduction",  # a statistic: sums, means, maxima, pooling
    "movement",  # elements change places only
    "softmax",
    "layer",
    "contraction",
    "cut",
]
Result = Value | tuple[Value, ...]
Apply = Callable[[Call, "Lowering"], Result | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How to lower an operation.

    Attributes:
        kind: what sort of operation it is; the canonical forms look through some sorts.
        apply: computes the values of the results and adds nodes to the graph; or gives None for a
            call that is to be written out in others.
    """

    kind: Kind
    apply: Apply


_RULES: dict[str, Rule] = {}
_FOUND: dict[Any, Rule | None] = {}  # by operator, until another rule is registered


def rule(kind: Kind, *names: str) -> Callable[[Apply], Apply]:
    """Decorator: the function lowers the operations of these names.

    Args:
        kind: what sort of operation they are.
        names: "aten.relu" for all overloads of an operator, or "aten.max.other" for one.
    """

    def register(apply: Apply) -> Apply:
        for name in names:
            _RULES[name] = Rule(kind, apply)
            allow(name)
        _FOUND.clear()
        return apply

    return register


def find_rule(func: Any) -> Rule | None:
    """The rule for an operator overload, None where neither table nor schema knows it."""
    if func in _FOUND:
        return _FOUND[func]
    own = getattr(func, "rule", None)
    if isinstance(own, Rule):  # a function of the lowering's own
        return own
    return _FOUND.setdefault(func, _look_up(func))


def _look_up(func: Any) -> Rule | None:
    name = operation_name(func)
    for key in (f"{name}.{func._overloadname}", name):
        if key in _RULES:
            return _RULES[key]
    tags = {*func.tags, *functional(func).tags}  # in-place forms may lack some (copysign_)
    if torch.Tag.pointwise in tags and not name.endswith("_backward"):
        return _RULES["elementwise"]
    if viewed_argument(func) is not None:
        return _RULES["movement"]
    return None


def rule_named(name: str) -> Rule:
    """The rule registered under a name."""
    return _RULES[name]


@once
def kind_of_call(call: Call) -> Kind | None:
    """The sort of operation of a call, None for an operation without a rule."""
    found = find_rule(call.func)
    return found.kind if found else None


def kind_of(value: Value) -> Kind | None:
    """The sort of operation that made a value, None for inputs, parameters and unknown ones."""
    if value.layer:
        return "layer"
    return None if value.call is None else kind_of_call(value.call)
