"""What a backend is and what it returns; the pieces that every floating-point backend shares."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pathlen.errors import BackendError
from pathlen.graph.parts import BoolArray
from pathlen.graph.path_graph import Kind, PathGraph

DIRECTIONS = ("backward", "forward")
WEIGHTINGS = ("uniform", "normalized", "magnitude")

FloatArray = npt.NDArray[np.float64]
_CHUNK = 1 << 20  # nodes

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        exact: Whether results are integers and fractions instead of floats.
        summary: How it works, in one line.
        distribution: Whether it has `distribution`.
    """

    exact: bool
    summary: str
    distribution: bool = False


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
        magnitude_average: Mean length with each path weighted by the product of the weights of
            its edges; None for a graph without weights, and so are the next two.
        magnitude_share: [n], share of that weight on the paths that pass each node.
        log10_magnitude: Decimal logarithm of the sum of those products (the path norm).
        contribution: [layers], what the nodes of each row of the layers table add to the average;
            None where a backend leaves that sum of activity * share to others, and so are the next
            two.
        normalized_contribution: [layers], to the normalized average.
        magnitude_contribution: [layers], to the average weighted by magnitudes.
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
    magnitude_average: float | Fraction | None = None
    magnitude_share: FloatArray | Sequence[Fraction] | None = None
    log10_magnitude: float | None = None
    contribution: FloatArray | Sequence[Fraction] | None = None
    normalized_contribution: FloatArray | Sequence[Fraction] | None = None
    magnitude_contribution: FloatArray | Sequence[Fraction] | None = None


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


class HasDistribution(Backend, Protocol):
    """A backend whose capabilities say `distribution`."""

    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> FloatArray | list[Fraction]:
        """The share of paths (or chance of walks) of each length 0, 1, ... longest.

        A unit of activity a between 0 and 1 counts with chance a, independently of others, so
        that the mean is the average whatever the activities are.

        Args:
            graph: The path graph.
            weighting: "uniform" (each path the same), "normalized" (chances of the random walk)
                or "magnitude" (products of the edges' weights).
            direction: Of the random walk.
            memory_limit: Bytes that may be used beside the graph; by default, no limit.

        Raises:
            BackendError: There is no such weighting or direction, the graph has no weights, or
                more memory is needed than the limit allows (said before the work starts).
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


def starts_of_walks(graph: PathGraph, direction: str) -> tuple[IntArray, IntArray]:
    """Where the random walk can start: nodes, ascending, and one over the chance of each: int64.

    The walk starts at a terminal tensor (a layer of outputs, or of inputs for "forward") picked
    uniformly, then at one of its nodes picked uniformly.

    Raises:
        BackendError: There is no such direction.
    """
    check_direction(direction)
    kind = Kind.OUTPUT if direction == "backward" else Kind.INPUT
    nodes = np.flatnonzero(graph.kind == int(kind))  # as an enumeration it is compared slowly
    layers = graph.layer[nodes]
    size_of_layer = np.bincount(layers)
    one_over_chances = np.count_nonzero(size_of_layer) * size_of_layer[layers]
    return nodes.astype(np.int64, copy=False), one_over_chances.astype(np.int64, copy=False)


def walk_starts(graph: PathGraph, direction: str) -> IntArray:
    """One over the chance that the random walk starts at each node; 0 where it cannot: int64[n].

    Raises:
        BackendError: There is no such direction.
    """
    nodes, one_over_chances = starts_of_walks(graph, direction)
    starts = np.zeros(graph.num_nodes, dtype=np.int64)
    starts[nodes] = one_over_chances
    return starts


def start_chances(graph: PathGraph, direction: str) -> FloatArray:
    """Chance that the random walk starts at each node: float64[n]; see `walk_starts`."""
    starts = walk_starts(graph, direction)
    return np.divide(1.0, starts, out=np.zeros(len(starts)), where=starts > 0)


def check_direction(direction: str) -> None:
    """Raise BackendError unless the random walk can go that way."""
    if direction not in DIRECTIONS:
        raise BackendError(f"no direction {direction!r}; use one of {', '.join(DIRECTIONS)}")


def check_weighting(graph: PathGraph, weighting: str) -> None:
    """Raise BackendError unless a graph can be measured under a weighting."""
    if weighting not in WEIGHTINGS:
        raise BackendError(f"no weighting {weighting!r}; use one of {', '.join(WEIGHTINGS)}")
    if weighting == "magnitude" and graph.weights is None:
        raise BackendError(
            "weighting 'magnitude' needs a graph whose edges have weights: trace the model with"
            " edges='weights', or give weights to PathGraph.from_edges"
        )


def check_memory(needed: int, limit: int | None, what: str) -> None:
    """Raise BackendError where more bytes are needed than a limit allows."""
    if limit is not None and needed > limit:
        raise BackendError(
            f"{what} needs {needed / 2**20:.1f} MiB, more than the memory limit of"
            f" {limit / 2**20:.1f} MiB; raise memory_limit, or measure a part of the graph"
            " (PathGraph.between)"
        )


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
    magnitudes: tuple[Scaled, Scaled] | None = None,
) -> Solution:
    """Put together the result of a floating-point backend.

    Averages are sums over shares, whose terms are all positive: no digits cancel.

    Args:
        graph: The path graph, of n nodes.
        direction: Of the walk.
        from_inputs: F, number of paths from the inputs to each node: [n].
        to_outputs: R, number of paths from each node to the outputs: [n].
        walk_share: float64[n].
        longest: Largest length of a path.
        shortest: Smallest length of a path.
        magnitudes: F and R again, with paths weighted by the product of the edges' weights.
    """
    path_share, log10_paths = _shares(graph, from_inputs, to_outputs)
    # Rounding may lift the share of a node that every walk passes above 1 by the last digit.
    walk_share = np.minimum(walk_share, 1.0, out=walk_share)
    walk_share.setflags(write=False)
    solution = Solution(
        direction=direction,
        average=float(np.sum(graph.activity * path_share)),
        normalized_average=float(np.sum(graph.activity * walk_share)),
        path_count=None,
        log10_path_count=log10_paths,
        longest_path=float(longest) + 0.0,  # turns -0.0 into 0.0
        shortest_path=float(shortest) + 0.0,
        path_share=path_share,
        walk_share=walk_share,
    )
    return solution if magnitudes is None else with_magnitudes(solution, graph, *magnitudes)


def with_magnitudes(
    solution: Solution, graph: PathGraph, from_inputs: Scaled, to_outputs: Scaled
) -> Solution:
    """The same solution with the measures of paths weighted by their edges.

    Args:
        solution: In floats.
        graph: The path graph, of n nodes.
        from_inputs: Numbers of paths from the inputs to each node, weighted: [n].
        to_outputs: From each node to the outputs: [n].
    """
    share, log10_magnitude = _shares(graph, from_inputs, to_outputs)
    return dataclasses.replace(
        solution,
        magnitude_average=float(np.sum(graph.activity * share)),
        magnitude_share=share,
        log10_magnitude=log10_magnitude,
    )


def _shares(graph: PathGraph, from_inputs: Scaled, to_outputs: Scaled) -> tuple[FloatArray, float]:
    """The share F(v) R(v) / T of each node, where T is the sum of F over outputs; log10 T."""
    ends = graph.kind == Kind.OUTPUT
    total, log10_total = total_of(from_inputs, ends)
    share = np.empty(graph.num_nodes)
    for first in range(0, graph.num_nodes, _CHUNK):  # bounds what a large graph needs in between
        part = slice(first, first + _CHUNK)
        exponent = from_inputs.exponent[part].astype(np.int64) + to_outputs.exponent[part]
        share[part] = _shifted(
            from_inputs.mantissa[part] * to_outputs.mantissa[part] / total.mantissa[0],
            exponent - total.exponent[0],
        )
    np.minimum(share, 1.0, out=share)  # rounding may lift it above by the last digit
    share.setflags(write=False)
    return share, log10_total


def total_of(counts: Scaled, ends: BoolArray) -> tuple[Scaled, float]:
    """The sum of the counts of some nodes, as an array of one, and its decimal logarithm."""
    largest = int(counts.exponent[ends].max())
    sum_of_ends = _shifted(counts.mantissa[ends], counts.exponent[ends] - largest).sum()
    mantissa, shift = np.frexp(np.array([sum_of_ends]))
    exponent = np.array([largest + int(shift[0])], dtype=np.int64)
    log10 = float(np.log10(mantissa[0]) + exponent[0] * np.log10(2.0))
    return Scaled(mantissa, exponent), log10


def _shifted(mantissa: FloatArray, exponent: IntArray) -> FloatArray:
    """Mantissa * 2**exponent; what is too small for float64 becomes 0."""
    with np.errstate(under="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -5000, 5000).astype(np.int32))
