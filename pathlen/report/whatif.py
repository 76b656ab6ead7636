"""What would happen if some units were linear, and which ones matter most (no training involved).

Averages are linear in the activities, and the shares c(u) do not depend on these, so what a set of
units adds to an average is the sum of what each of them adds: docs/algorithms/what-if.md.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pathlen import backends
from pathlen.errors import ActivityError, GraphError
from pathlen.graph.path_graph import Kind, PathGraph
from pathlen.graph.select import Names, positions_of, rows_of
from pathlen.printable import message
from pathlen.report.statistics import share_of


def linearize(
    graph: PathGraph,
    *,
    layers: Names | None = None,
    units: int | npt.ArrayLike | Iterable[int] | None = None,
) -> PathGraph:
    """The graph with some units linear, that is, with activity 0.

    Args:
        graph: The path graph.
        layers: Whole layers, by name, pattern ("layer1.*"), module path or row of the table, or
            several of these. The path of a module stands for all layers in it.
        units: Nodes by their ids: those of `graph.node_ids`, or positions where it has none.

    Raises:
        GraphError: Nothing is named, or there is no such layer or module (the nearest names are
            given) or node.
        ActivityError: A node given by its id is a hub, which has no activity.
    """
    if layers is None and units is None:
        raise GraphError("say what to linearize: layers=... or units=...")
    activity = graph.activity.copy()
    if layers is not None:
        activity[np.isin(graph.layer, rows_of(graph, layers))] = 0.0
    if units is not None:
        ids = list(units) if isinstance(units, set | frozenset | range) else units
        nodes = positions_of(graph, ids)
        hubs = nodes[graph.kind[nodes] == Kind.HUB]
        if hubs.size:
            raise ActivityError(
                f"node {_ids(graph, hubs)[0]} is a hub, a layer's sum, which has no activity; give"
                " the ids of units, such as graph.units_of(layer)"
            )
        activity[nodes] = 0.0
    return graph.with_activity(activity)


@dataclass(frozen=True, slots=True, eq=False)
class Linearization:
    """An order in which units can be linearized, and what each step leaves of the average.

    Attributes:
        graph: The graph before the first step.
        weighting: Of the paths in the average.
        target: What the average was to be brought to.
        units: int64[steps], the units in order, as ids that `linearize` takes.
        averages: [steps + 1], the average before the first step and after each: floats, or
            Fractions as objects from an exact backend.
        layers: [steps], the name of the layer of each unit.
    """

    graph: PathGraph
    weighting: str
    target: float | Fraction
    units: npt.NDArray[np.int64]
    averages: npt.NDArray[Any]
    layers: tuple[str, ...]

    def linearized(self, steps: int | None = None) -> PathGraph:
        """The graph after the first steps; after all of them by default."""
        units = self.units[:steps]
        return linearize(self.graph, units=units) if units.size else self.graph

    def units_of_layer(self) -> dict[str, int]:
        """How many units of each layer are linearized, in the order of the layers' first one."""
        return dict(Counter(self.layers))

    def __str__(self) -> str:
        """What it takes, in one line and one for each layer."""
        before, after = float(self.averages[0]), float(self.averages[-1])
        lines = [
            f"{len(self.units):,} of {self.graph.num_active:,} active units linear: average"
            f" ({self.weighting}) {before:.6g} -> {after:.6g}, target {float(self.target):.6g}"
        ]
        lines += [f"  {name}: {count:,}" for name, count in self.units_of_layer().items()]
        return message("\n".join(lines))


def greedy_linearization(
    graph: PathGraph,
    target: float | Fraction,
    weighting: str = "normalized",
    *,
    layers: Names | None = None,
    backend: str = "auto",
) -> Linearization:
    """The order of units that lowers an average fastest per unit, until it is at most `target`.

    After any number of steps no other choice of as many units leaves a smaller average, so no
    fewer units reach the target. Units that add equal numbers come in the order of their nodes.
    What the accuracy of the network does meanwhile is another question: this one is about
    structure alone.

    Args:
        graph: The path graph.
        target: At least 0; where the average is at most that already, no step is needed.
        weighting: Of the paths: "normalized", "uniform" or "magnitude".
        layers: The layers to choose units from (see `linearize`); by default all.
        backend: Name of the solver, "auto" to let pathlen choose; "exact" gives Fractions.

    Raises:
        GraphError: The target is no number of at least 0, the layers cannot reach it even when they
            are all linear, or there is no such layer.
        BackendError: There is no such weighting or backend, or the graph has no weights.
    """
    if (
        not isinstance(target, int | float | Fraction | np.integer | np.floating)
        or not 0 <= target < np.inf
    ):
        raise GraphError(f"the target must be a finite number of at least 0, not {target!r}")
    solver = backends.choose(graph)[0] if backend == "auto" else backends.get(backend)
    shares = share_of(graph, solver.solve(graph), weighting)
    exact = solver.capabilities.exact
    active = np.flatnonzero(graph.activity)
    added = _contributions(graph, active, shares, exact)
    allowed = np.ones(len(active), dtype=bool)
    if layers is not None:
        allowed = np.isin(graph.layer[active], rows_of(graph, layers))
    order = np.argsort(-added[allowed], kind="stable")
    averages = _remaining(added[allowed][order], added[~allowed], exact)
    reached = np.flatnonzero(averages <= target)
    if not reached.size:
        raise GraphError(
            f"the target {float(target):.6g} cannot be reached: the average is still"
            f" {float(averages[-1]):.6g} when every unit that may become linear is linear; name"
            " more layers"
        )
    steps = int(reached[0])
    nodes = active[allowed][order[:steps]]
    return Linearization(
        graph=graph,
        weighting=weighting,
        target=target,
        units=_frozen(_ids(graph, nodes)),
        averages=_frozen(averages[: steps + 1]),
        layers=tuple(graph.layers[row].name for row in graph.layer[nodes].tolist()),
    )


def _contributions(
    graph: PathGraph, nodes: npt.NDArray[np.int64], shares: Any, exact: bool
) -> npt.NDArray[Any]:
    """What each of some nodes adds to the average: activity * share."""
    if not exact:
        products: npt.NDArray[np.float64] = graph.activity[nodes] * np.asarray(shares)[nodes]
        return products
    activity = graph.activity[nodes].tolist()
    values = [Fraction(a) * shares[u] for a, u in zip(activity, nodes.tolist(), strict=True)]
    return np.array(values, dtype=object)


def _remaining(ordered: npt.NDArray[Any], kept: npt.NDArray[Any], exact: bool) -> npt.NDArray[Any]:
    """The average before the first step and after each: the sum of what is not linear yet.

    Sums begin with the smallest terms, which are the last to go: nothing is subtracted, so what is
    left at the end has all of its digits.

    Args:
        ordered: [steps], what is taken away in each step, descending.
        kept: What stays.
        exact: Whether these are Fractions.
    """
    number = object if exact else np.longdouble  # more digits, where the machine has them
    base = sum(np.sort(kept).tolist(), Fraction(0)) if exact else np.sum(np.sort(kept))
    terms = np.array([base, *ordered[::-1]], dtype=number)
    sums = np.cumsum(terms)[::-1]
    return sums if exact else sums.astype(np.float64)


def _ids(graph: PathGraph, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ids of nodes at these positions."""
    return nodes if graph.node_ids is None else graph.node_ids[nodes]


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array that cannot be written to."""
    array = array.copy()
    array.setflags(write=False)
    return array
