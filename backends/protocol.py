"""What a backend is and what it returns; the pieces that every floating-point backend shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pathlen.errors import BackendError
from pathlen.graph import Kind, PathGraph

DIRECTIONS = ("backward", "forward")

FloatArray = npt.NDArray[np.float64]
_CHUNK = 1 << 20  # nodes

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        exact: Whether results are integers and fractions instead of floats.
        summary: How it works, in one line.
    """

    exact: bool
    summary: str


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The measures of one path graph of n nodes.

    Both averages are linear in the activities: average = sum of activity * share over the nodes.
    The shares depend on structure alone.

    Attributes:
        direction: Where the random walk goes: "backward" starts at the outputs.
        average: Average path length: mean over all paths, each with the same weight.
        normalized_average: Normalized average path length: expected length of the random walk.
        path_count: Number of paths, from exact backends only.
        log10_path_count: Decimal logarithm of the number of paths.
        longest_path: Largest length of a path.
        shortest_path: Smallest length of a path.
        path_share: [n], share of all paths that pass each node.
        walk_share: [n], chance that the random walk passes each node.
    """

    direction: str
    average: float | Fraction
    normalized_average: float | Fraction
    path_count: int | None
    log10_path_count: float
    longest_path: float | Fraction
    shortest_path: float | Fraction
    path_share: FloatArray | Sequence[Fraction]
    walk_share: FloatArray | Sequence[Fraction]


@runtime_checkable
class Backend(Protocol):
    """Anything with a name, capabilities and `solve`; see `register` and the entry points."""

    @property
    def name(self) -> str:
        """What `get` finds it by."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph.

        Args:
            graph: The path graph.
            direction: "backward" (the walk starts at the outputs) or "forward".
        """


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Positive numbers too large for float64: mantissa * 2**exponent.

    Attributes:
        mantissa: float64[n] in [0.5, 1), or 0.
        exponent: int64[n], or int32[n] where twice the largest fits.
    """

    mantissa: FloatArray
    exponent: IntArray


def walk_starts(graph: PathGraph, direction: str) -> IntArray:
    """One over the chance that the random walk starts at each node; 0 where it cannot: int64[n].

    The walk starts at a terminal tensor (a layer of outputs, or of inputs for "forward") picked
    uniformly, then at one of its nodes picked uniformly.

    Raises:
        BackendError: There is no such direction.
    """
    if direction not in DIRECTIONS:
        raise BackendError(f"no direction {direction!r}; use one of {', '.join(DIRECTIONS)}")
    is_start = graph.kind == (Kind.OUTPUT if direction == "backward" else Kind.INPUT)
    size_of_layer = np.bincount(graph.layer[is_start], minlength=len(graph.layers))
    tensors = np.count_nonzero(size_of_layer)
    return np.where(is_start, tensors * size_of_layer[graph.layer], 0).astype(np.int64)


def start_chances(graph: PathGraph, direction: str) -> FloatArray:
    """Chance that the random walk starts at each node: float64[n]; see `walk_starts`."""
    starts = walk_starts(graph, direction)
    return np.divide(1.0, starts, out=np.zeros(len(starts)), where=starts > 0)


def out_degrees(graph: PathGraph) -> IntArray:
    """Number of successors of each node: int64[n]."""
    return np.bincount(graph.indices, minlength=graph.num_nodes).astype(np.int64)


def float_solution(
    graph: PathGraph,
    direction: str,
    *,
    from_inputs: Scaled,
    to_outputs: Scaled,
    walk_share: FloatArray,
    longest: float,
    shortest: float,
) -> Solution:
    """Put together the result of a floating-point backend.

    With F(v) paths from the inputs to v, R(v) paths from v to the outputs and T paths in all,
    the share of all paths that pass v is F(v) R(v) / T. Averages are sums over shares, whose
    terms are all positive: no digits cancel.

    Args:
        graph: The path graph, of n nodes.
        direction: Of the walk.
        from_inputs: F, [n].
        to_outputs: R, [n].
        walk_share: float64[n].
        longest: Largest length of a path.
        shortest: Smallest length of a path.
    """
    ends = graph.kind == Kind.OUTPUT
    largest = int(from_inputs.exponent[ends].max())
    total, shift = np.frexp(
        _shifted(from_inputs.mantissa, from_inputs.exponent - largest)[ends].sum()
    )
    total_exponent = largest + int(shift)
    path_share = np.empty(graph.num_nodes)
    for first in range(0, graph.num_nodes, _CHUNK):  # bounds what a large graph needs in between
        part = slice(first, first + _CHUNK)
        exponent = from_inputs.exponent[part].astype(np.int64) + to_outputs.exponent[part]
        path_share[part] = _shifted(
            from_inputs.mantissa[part] * to_outputs.mantissa[part] / total,
            exponent - total_exponent,
        )
    # Rounding may lift the share of a node that every path passes above 1 by the last digit.
    np.minimum(path_share, 1.0, out=path_share)
    walk_share = np.minimum(walk_share, 1.0, out=walk_share)
    for share in (path_share, walk_share):
        share.setflags(write=False)
    return Solution(
        direction=direction,
        average=float(np.sum(graph.activity * path_share)),
        normalized_average=float(np.sum(graph.activity * walk_share)),
        path_count=None,
        log10_path_count=float(np.log10(total) + total_exponent * np.log10(2.0)),
        longest_path=float(longest) + 0.0,  # turns -0.0 into 0.0
        shortest_path=float(shortest) + 0.0,
        path_share=path_share,
        walk_share=walk_share,
    )


def _shifted(mantissa: FloatArray, exponent: IntArray) -> FloatArray:
    """Mantissa * 2**exponent; what is too small for float64 becomes 0."""
    with np.errstate(under="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -5000, 5000).astype(np.int32))
