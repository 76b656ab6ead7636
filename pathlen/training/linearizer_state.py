"""What a state of a prior or a baseline says of how it was made, checked when it is loaded.

Frozen slopes alone do not go on as before: a target that was "half of what is there" would be half
of what is left, and another plan, power or threshold would freeze others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pathlen.errors import PathlenError
from pathlen.printable import printable, shown
from pathlen.training.slope_vector import SlopeVector
from pathlen.training.targets import Budget, Plan
from pathlen.training.values import require_number

Plain = dict[str, float | int | str | None]


def goal_settings(budget: Budget | None, plan: Plan | None) -> Plain:
    """The target, as a number, and the plan: plain values by name."""
    found: Plain = {"target": None, "target_value": None}
    if budget is not None:
        found = {"target": budget.target.quantity, "target_value": budget.goal}
    for name in ("steps", "begin", "end", "seed", "ahead"):
        found[f"plan_{name}"] = None if plan is None else getattr(plan, name)
    return found


def frozen_in(state: Mapping[str, Any], keys: set[str], slopes: SlopeVector, who: str) -> Tensor:
    """The slopes that are frozen in a state: bool[slopes].

    Args:
        state: Is to have `keys`, and no others.
        keys: "frozen" among them.
        slopes: That it is to be of.
        who: It is to be the state of.

    Raises:
        PathlenError: It is of other slopes, or lacks something, or has more than it should.
    """
    found = slopes.from_names(state["frozen"]).bool() if "frozen" in state else torch.empty(0)
    apart = sorted(map(str, keys ^ state.keys()))
    if apart:
        raise PathlenError(
            f"this is no state of {who} as this release of pathlen writes it: the keys"
            f" {shown(apart)} are not in both"
        )
    return found


def numbers_in(state: Mapping[str, Any], who: str) -> tuple[float, int]:
    """The strength and the number of steps in a state.

    Raises:
        PathlenError: One is no number, or none that they can be.
    """
    omega, done = require_number(state["omega"], f"omega in the state of {who}"), state["step"]
    if not 0 <= omega < math.inf:
        raise PathlenError(f"this is no state of {who}: its omega is {shown(omega)}")
    if not isinstance(done, int) or done < 0:
        raise PathlenError(f"this is no state of {who}: its step is {shown(done)}")
    return float(omega), done


def require_same(saved: object, own: Plain, who: str) -> None:
    """Check that a state is of something made with the same settings.

    Raises:
        PathlenError: It is not; all that differ are named.
    """
    if not isinstance(saved, Mapping):
        raise PathlenError(f"this is no state of {who}: its settings are {shown(saved)}")
    apart = [
        f"{printable(name)} is {own.get(name)!r} here and {shown(saved.get(name))} in the state"
        for name in [*own, *sorted(map(str, saved.keys() - own.keys()))]
        if not _same(own.get(name), saved.get(name))
    ]
    if apart:
        raise PathlenError(
            f"this state is of {who} made in another way: {'; '.join(apart[:8])}. Make it as it was"
            ' made then (a share such as Target("units", "50 %") is one of the network with all'
            " units active, however many are left), or begin anew without the state"
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        try:
            return math.isclose(one, other, rel_tol=1e-9)
        except OverflowError:  # an integer beyond all floats
            return False
    return isinstance(other, str | None) and bool(one == other)
