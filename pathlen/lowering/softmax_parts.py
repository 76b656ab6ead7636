"""Which part of a softmax a tensor is, however it is written: exp(x) over the sum of these."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch

from pathlen.lowering.operations import aten
from pathlen.lowering.operators import divides
from pathlen.lowering.states import (
    CONSTANT,
    PRODUCTS,
    QUOTIENTS,
    SAME,
    SUMS,
    State,
    is_exponential,
)
from pathlen.lowering.values import Call, Value

_KEEP_SUM = SAME | SUMS | PRODUCTS | frozenset(aten("clamp clamp_min maximum"))
_KEEP_SIGN = frozenset(aten("masked_fill where abs"))


def scale_of(call: Call, states: Mapping[str, State]) -> tuple[Any, ...]:
    """What the elements of an entry are multiplied by after a call."""
    carriers = {n: s for n, s in states.items() if s.degree or s.part}
    if len({state.scale for state in carriers.values()}) > 1 or not carriers:
        return (1.0, call.node)  # of its own
    name, state = next(iter(carriers.items()))
    if len(carriers) > 1:
        return state.scale if {s.part for s in carriers.values()} == {"sum"} else (1.0, call.node)
    factor, *others = state.scale
    inverted = _is_reciprocal(call) or (call.name in QUOTIENTS and name == "other")
    if state.part == "exp" and inverted:
        return (-factor, *others)
    if state.part in ("exp", "sum", "inverse", "log", "-log") or is_exponential(call):
        return state.scale
    if call.name in ("aten.neg", "aten.negative"):
        return (-factor, *others)
    if call.name in SUMS:
        second = name == ("self" if call.name == "aten.rsub" else "other")
        sign = -1.0 if second and call.name != "aten.add" else 1.0
        return (factor * sign * (call.arguments.get("alpha", 1) if second else 1), *others)
    if call.name in PRODUCTS | QUOTIENTS:
        other = call["other" if name == "self" else "self"]
        if isinstance(other, Value):
            return (factor, *others, call.name, other.node)
        if isinstance(other, torch.Tensor):
            return (factor, *others, call.name, id(other))
        return (factor * other if call.name in PRODUCTS else factor / other, *others)
    return state.scale if call.name in SAME else (*state.scale, call.node)


def part_of(call: Call, states: Mapping[str, State]) -> str:
    """Which part of a softmax the result of an elementwise call is."""
    varying = {name: state for name, state in states.items() if state.places}
    parts = {state.part for state in varying.values()}
    if is_exponential(call) and len(varying) == 1:
        (state,) = varying.values()
        if state.part == "shifted":
            return "softmax"
        return "exp" if state.degree == 1 and not state.part else ""
    if call.name == "aten.log" and parts == {"sum"}:
        return "log"
    if _is_reciprocal(call) and parts == {"sum"}:
        return "inverse"
    if _is_reciprocal(call) and parts == {"exp"}:
        return "exp"
    if len(varying) == 1 and parts <= {"log", "-log"} and _negates(call):
        return "-log" if parts == {"log"} else "log"
    above, below = states.get("self", CONSTANT), states.get("other", CONSTANT)
    if call.name in QUOTIENTS and call.arguments.get("rounding_mode") is None:
        if below.part == "sum":
            if above.part == "exp" and above.scale == below.scale:
                return "softmax"
            return "inverse" if not above.places else ""
        if below.part == "exp" and not above.places:
            return "exp"
        return above.part if not below.places and above.part != "shifted" else ""
    if call.name in PRODUCTS and parts == {"exp", "inverse"}:
        return "softmax" if above.scale == below.scale else ""
    if call.name in SUMS and _is_shifted(call, above, below):
        return "shifted"
    return _kept_part(call, list(varying.values()))


def _is_shifted(call: Call, one: State, other: State) -> bool:
    """Whether a sum takes from exponents the logarithm of the sum of their exponentials.

    What statistics are added to it makes no difference.
    """
    alpha = call.arguments.get("alpha", 1)
    signs = {"aten.add": (1, alpha), "aten.rsub": (-alpha, 1)}.get(call.name, (1, -alpha))
    for (whole, own), (log, sign) in itertools.permutations(zip((one, other), signs, strict=True)):
        if own != 1:
            continue
        if whole.part == "shifted" and not log.degree:
            return True
        subtracted = {"log": -1, "-log": 1}.get(log.part)
        if sign == subtracted and whole.degree == 1 and not whole.part:
            return whole.scale == log.scale
    return False


def _is_reciprocal(call: Call) -> bool:
    return divides(call) and call.name not in QUOTIENTS


def _negates(call: Call) -> bool:
    if call.name in ("aten.neg", "aten.negative"):
        return True
    factor = call.arguments.get("other")
    return call.name in PRODUCTS and not isinstance(factor, Value) and factor == -1


def _kept_part(call: Call, varying: list[State]) -> str:
    """The part of a softmax that a call keeps: it scales, masks or shifts it."""
    parts = {state.part for state in varying if state.part}
    if len(parts) != 1:
        return ""
    (part,) = parts
    carriers = [state for state in varying if state.part]
    others = [state for state in varying if not state.part]
    if any(state.degree for state in others):
        return ""
    if len(carriers) > 1:
        same = len({state.scale for state in carriers}) == 1
        return part if part == "sum" and same and call.name in SUMS else ""
    if part == "exp" or part == "inverse":
        return part if call.name in SAME | PRODUCTS | _KEEP_SIGN else ""
    if part == "sum":
        return part if call.name in _KEEP_SUM else ""
    if part in ("log", "-log"):  # of a sum of shifted exponents, to which the shift is added again
        return part if call.name in SAME | SUMS else ""
    return part if call.name in SAME and not _negates(call) else ""
