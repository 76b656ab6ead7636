"""What a solution and a distribution of path lengths tell, under each weighting of the paths.

The weightings are "uniform" (every path the same), "normalized" (the random walk) and "magnitude"
(every path the product of the weights of its edges); see docs/definitions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from pathlen.backends.protocol import check_weighting
from pathlen.errors import BackendError, GraphError

if TYPE_CHECKING:
    from pathlen.backends.protocol import FloatArray, Solution
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.layers import Number

# Cumulated shares are sums of rounded ones: so near to a quantile they are taken to reach it.
_ROUNDING = 1e-12

_AVERAGES = {
    "uniform": "average",
    "normalized": "normalized_average",
    "magnitude": "magnitude_average",
}
_SHARES = {"uniform": "path_share", "normalized": "walk_share", "magnitude": "magnitude_share"}


def average_of(graph: PathGraph, solution: Solution, weighting: str) -> Number:
    """The average path length of a solved graph under a weighting.

    Raises:
        BackendError: There is no such weighting, the graph has no weights, or the backend that
            solved it does not weigh paths by them.
    """
    return cast("Number", _read(graph, solution, weighting, _AVERAGES))


def share_of(
    graph: PathGraph, solution: Solution, weighting: str
) -> FloatArray | Sequence[Fraction]:
    """The share c of the paths that pass each node of a solved graph: [num_nodes].

    Raises:
        BackendError: As for `average_of`.
    """
    return cast("FloatArray | Sequence[Fraction]", _read(graph, solution, weighting, _SHARES))


def _read(graph: PathGraph, solution: Solution, weighting: str, names: dict[str, str]) -> object:
    """The attribute of a solution that stands for a weighting."""
    check_weighting(graph, weighting)
    value = getattr(solution, names[weighting])
    if value is None:
        raise BackendError(
            "the backend that solved this graph does not weigh paths by magnitude; measure it with"
            " backend='numba'"
        )
    return value


def length_distribution(
    graph: PathGraph,
    weighting: str,
    direction: str,
    *,
    backend: str,
    exact: bool,
    memory_limit: int | None = None,
) -> npt.NDArray[Any]:
    """The share of paths of each length 0, 1, ...: float64, or Fractions as objects; read-only.

    Args:
        graph: The path graph.
        weighting: See above.
        direction: Where the random walk goes.
        backend: Who computes it, if it can; else the one that "auto" stands for.
        exact: Whether Fractions are asked for.
        memory_limit: Bytes that may be used beside the graph; by default, no limit.

    Raises:
        BackendError: There is no such weighting, the graph has no weights, more memory is needed
            than the limit allows (said before the work starts), or no backend can do it.
    """
    from pathlen import backends

    check_weighting(graph, weighting)
    solver = backends.get(backend) if backend in backends.available() else None
    if (
        solver is None
        or solver.capabilities.exact != exact
        or not backends.gives(solver, "distribution")
    ):
        solver, _ = backends.choose(graph, exact, need="distribution")
    found = backends.distribution_of(solver, graph, weighting, direction, memory_limit)
    shares = np.array(found, dtype=object if exact else np.float64)
    shares.setflags(write=False)
    return shares


def variance(shares: npt.NDArray[Any]) -> Number:
    """The variance of a distribution over 0, 1, ...: shares [lengths] of floats or Fractions."""
    lengths = np.arange(len(shares))
    mean = (lengths * shares).sum()
    found: Number = (shares * (lengths - mean) ** 2).sum()
    return found if isinstance(found, Fraction) else float(found)


def quantile(shares: npt.NDArray[Any], q: float | Fraction) -> int:
    """The smallest length that at least a part q of the paths does not exceed.

    Floats are summed from the nearer end, and a sum that misses q (or 1 - q) by less than a part of
    10^-12 counts as reaching it; Fractions are compared as they are.

    Args:
        shares: [lengths], floats or Fractions, of sum 1.
        q: In [0, 1]; 0 gives the smallest length that occurs, 1 the largest.

    Raises:
        GraphError: q is no number in [0, 1].
    """
    try:
        inside = 0 <= q <= 1
    except TypeError:
        inside = False
    if not inside:
        raise GraphError(f"a quantile is asked for by a number q in [0, 1], not {q!r}")
    exact = shares.dtype == object
    part, slack = (Fraction(q), Fraction(0)) if exact else (q, _ROUNDING)
    up_to = np.cumsum(shares)
    above = np.append(np.cumsum(shares[:0:-1])[::-1], 0)
    near_start = up_to >= part * (1 - slack)
    near_end = above <= (1 - part) * (1 + slack)
    reached = (near_start if part <= 0.5 else near_end) & (up_to > 0)
    return int(np.argmax(reached))
