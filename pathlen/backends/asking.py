"""Ask a backend for what not every one gives; nothing is computed here."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

from pathlen.errors import BackendError

if TYPE_CHECKING:
    from pathlen.backends.protocol import Backend, FloatArray, HasDistribution
    from pathlen.graph.path_graph import PathGraph

NEEDS = ("solution", "distribution")
"""What a backend can be asked for; see `gives`."""


def gives(backend: Backend, need: str) -> bool:
    """Whether a backend can be asked for a "solution" (each can) or a "distribution".

    Raises:
        BackendError: There is no such need.
    """
    if need not in NEEDS:
        raise BackendError(f"no need {need!r}; use one of {', '.join(NEEDS)}")
    return need == "solution" or bool(getattr(backend.capabilities, need, False))


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
    if not gives(backend, "distribution"):
        from pathlen.backends import registry  # asks `gives`, so it imports this module first

        others = ", ".join(repr(name) for name in registry.built_in_that_give("distribution"))
        raise BackendError(
            f"backend {backend.name!r} gives no distribution; these do: {others} (or leave the"
            " choice to pathlen with 'auto')"
        )
    return cast("HasDistribution", backend).distribution(graph, weighting, direction, memory_limit)
