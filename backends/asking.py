"""Ask a backend for what it can give, by way of what it can do; nothing is computed here.

A third-party backend need not have every method. Averages are read off a solution where a backend
has no `averages` of its own; where it has neither, the error says which backends do.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

from pathlen.backends.protocol import Averages
from pathlen.errors import BackendError

if TYPE_CHECKING:
    from pathlen.backends.protocol import (
        Backend,
        FloatArray,
        HasAverages,
        HasDistribution,
        Solution,
    )
    from pathlen.graph import PathGraph

NEEDS = ("solution", "averages", "distribution")
"""What a backend can be asked for; see `gives`."""


def gives(backend: Backend, need: str) -> bool:
    """Whether a backend can be asked for a "solution", "averages" or a "distribution".

    Capabilities that leave a need unmentioned are taken as in `Capabilities`: `solve` alone.

    Raises:
        BackendError: There is no such need.
    """
    if need not in NEEDS:
        raise BackendError(f"no need {need!r}; use one of {', '.join(NEEDS)}")
    solves = bool(getattr(backend.capabilities, "solution", True))
    if need == "solution":
        return solves
    if need == "averages" and solves:
        return True
    return bool(getattr(backend.capabilities, need, False))


def solution_of(backend: Backend, graph: PathGraph, direction: str = "backward") -> Solution:
    """What `Backend.solve` gives.

    Raises:
        BackendError: The backend gives no solutions.
    """
    require(backend, "solution")
    return backend.solve(graph, direction)


def averages_of(backend: Backend, graph: PathGraph, direction: str = "backward") -> Averages:
    """What `HasAverages.averages` gives, or the same numbers from a whole solution.

    Raises:
        BackendError: The backend gives neither.
    """
    require(backend, "averages")
    if getattr(backend.capabilities, "averages", False):
        return cast("HasAverages", backend).averages(graph, direction)
    solution = backend.solve(graph, direction)
    return Averages(
        direction=solution.direction,
        average=solution.average,
        normalized_average=solution.normalized_average,
        path_count=solution.path_count,
        log10_path_count=solution.log10_path_count,
    )


def distribution_of(
    backend: Backend,
    graph: PathGraph,
    weighting: str = "uniform",
    direction: str = "backward",
    memory_limit: int | None = None,
) -> FloatArray | list[Fraction]:
    """What `HasDistribution.distribution` gives.

    Raises:
        BackendError: The backend gives no distributions, or what that method raises.
    """
    require(backend, "distribution")
    return cast("HasDistribution", backend).distribution(graph, weighting, direction, memory_limit)


def require(backend: Backend, need: str) -> None:
    """Say that a backend does not give what is needed, and which ones do.

    Raises:
        BackendError: It does not.
    """
    if gives(backend, need):
        return
    from pathlen.backends import registry  # asks `gives`, so it imports this module first

    others = ", ".join(repr(name) for name in registry.built_in_that_give(need))
    raise BackendError(
        f"backend {backend.name!r} gives no {need}; these do: {others} (or leave the choice to"
        " pathlen with 'auto')"
    )
