"""States: what a tensor is as a function of the elements of an earlier one."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places
from pathlen.lowering.values import Call, Value

NONLINEAR = math.inf
SUMS = frozenset(aten("add sub rsub subtract"))
NEGATIONS = frozenset(aten("neg negative"))
SAME = frozenset(
    aten(
        "neg negative positive clone alias detach contiguous to _to_copy type_as dropout"
        " feature_dropout alpha_dropout feature_alpha_dropout nan_to_num lift_fresh_copy"
    )
)
COPIES = SAME - NEGATIONS
_EXPONENTIALS = frozenset(aten("exp exp2"))
PRODUCTS = frozenset(aten("mul multiply"))
QUOTIENTS = frozenset(aten("div divide true_divide"))
TOTALS = frozenset(aten("sum mean nansum"))


@dataclass(frozen=True, slots=True)
class State:
    """What a value is as a function of the elements of an entry.

    Attributes:
        degree: 0 for a statistic, 1 for an affine function, `NONLINEAR` for another one.
        places: of the elements in the entry; of a statistic, of all that went into it.
        part: which part of a softmax it is: "exp" of an affine function, the "sum" of these, its
            "inverse", the "log" of a sum, the same negated ("-log"), "shifted" by that (log
            softmax) or a "softmax"; or that elements are "ordered" by size, of which one alone is a
            statistic.
        scale: what the elements are multiplied by in an affine function, or in the exponent: a
            number, and what else; two are equal only if they are known to be.
    """

    degree: float
    places: tuple[Places, ...]
    part: str = ""
    scale: tuple[Any, ...] = (1.0,)


CONSTANT = State(0, ())
Of = Callable[[Any], State | None]
"""From an argument of a call to its state; None where it is no function of single elements."""


def meeting(states: list[State], shape: torch.Size) -> tuple[Places, ...] | None:
    """Places of elements that meet in a tensor of a shape; None where those of different places do.

    Args:
        states: of the tensors that meet.
        shape: that they are broadcast to.
    """
    moving = {p.expanded(shape) for s in states if s.degree for p in s.places}
    held = {p.expanded(shape) for s in states if not s.degree for p in s.places}
    if any(s.part == "ordered" and any(p.repeats() for p in s.places) for s in states):
        return None
    if not moving:
        return tuple(sorted(_united(held), key=hash))
    places = moving.pop()
    for other in moving:
        joined = places.joined(other)
        if joined is None:
            return None
        places = joined
    return (places,) if all(one.includes(places) for one in held) else None


def _united(held: set[Places]) -> set[Places]:
    """Places of statistics; parts that lie side by side are one of the whole."""
    for one, other in itertools.combinations(held, 2):
        joined = one.and_beside(other)
        if joined is not None:
            return _united({*held, joined} - {one, other})
    return held


def is_exponential(call: Call) -> bool:
    """Whether a call raises a number to what it is given."""
    if call.name == "aten.pow":
        base = call["self"]
        return not (isinstance(base, Value) and base.varies)
    return call.name in _EXPONENTIALS


def degree_by_name(call: Call, of: Mapping[str, float]) -> float:
    """Degree of the result of an elementwise call, from those of its arguments."""
    highest = max(of.values(), default=0)
    if highest == 0 or call.name in SAME | SUMS or call.name == "aten.complex":
        return NONLINEAR if highest and _rounds(call) else highest
    if call.name in PRODUCTS:
        return highest if sum(d != 0 for d in of.values()) == 1 else NONLINEAR
    if call.name in QUOTIENTS:
        rounds = call.arguments.get("rounding_mode") is not None
        return NONLINEAR if of["other"] or rounds else highest
    if call.name in ("aten.where", "aten.masked_fill", "aten.lerp"):
        control = {"aten.where": "condition", "aten.masked_fill": "mask", "aten.lerp": "weight"}
        return NONLINEAR if of[control[call.name]] else highest
    if call.name == "aten.addcmul":
        return NONLINEAR if of["tensor1"] and of["tensor2"] else highest
    if call.name == "aten.addcdiv":
        return NONLINEAR if of["tensor2"] else highest
    return NONLINEAR


def _rounds(call: Call) -> bool:
    """Whether real numbers become integers; integers that stay integers lose nothing."""
    output = call.output
    return not (output.is_floating_point() or output.is_complex()) and any(
        value.dtype.is_floating_point for value in call.values()
    )
