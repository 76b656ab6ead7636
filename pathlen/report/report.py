"""What a measurement says: the numbers, one row a layer, and their forms as data.

A report is built from a path graph and a backend's solution of it. What can be read off those is
there at once; the exact number of paths, the distribution of path lengths and examples of paths
are computed when they are first asked for, and kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import BackendError
from pathlen.graph.parts import Kind
from pathlen.optional import optional
from pathlen.report import statistics
from pathlen.report.data import layer_columns, report_record
from pathlen.report.layers import LayerRow, Number, effective_width, layer_rows, layer_sums
from pathlen.show.names import weighted_name
from pathlen.show.text import report_html, report_text

if TYPE_CHECKING:
    import pandas

    from pathlen.backends.protocol import FloatArray, Solution
    from pathlen.graph.parts import DeadUnits
    from pathlen.graph.path_graph import PathGraph

PAGE_MEMORY = 2**31
"""Bytes that the distribution of path lengths of a page may use, unless more are allowed."""


@dataclass(frozen=True, eq=False)
class Report:
    """The measures of one path graph.

    Averages are floats, or Fractions after ``exact=True``. The contributions of all layers add
    up to the averages.

    Where a weighting of the paths is asked for, it is "uniform" (every path counts the same),
    "normalized" (the random walk: every branch counts the same) or "magnitude" (a path counts as
    much as the product of the weights of its edges, for a graph that has weights).

    A report holds on to its graph and to the shares that the backend found, two numbers a node
    (three with weights): nothing is copied, but they stay in memory as long as the report does.

    Attributes:
        average_path_length: Mean length over all paths, each with the same weight.
        normalized_average_path_length: Mean length of a random walk, for which every branch
            counts the same however wide it is.
        log10_path_count: Decimal logarithm of the number of paths.
        longest_path: Largest length: the depth in the usual sense.
        shortest_path: Smallest length.
        num_units: Number of units, inputs and outputs not among them.
        num_active: Number of nodes with an activity above 0.
        effective_width: Active units a layer, averaged over the layers with their contributions
            to the normalized average as weights; 0 if no unit is active.
        layers: One row for every layer that has units, in topological order.
        status: "exact", "example", "bound" or "opaque"; see `TraceInfo`.
        causes: What caused a status other than exact.
        tracer: Which tracer read the model, or None for a graph made by hand.
        backend: Which backend did the counting.
        seconds: Time taken by each stage.
        graph: The graph that was measured.
    """

    average_path_length: Number
    normalized_average_path_length: Number
    log10_path_count: float
    longest_path: int | Number
    shortest_path: int | Number
    num_units: int
    num_active: int
    effective_width: Number
    layers: tuple[LayerRow, ...] = field(repr=False)
    status: str
    causes: tuple[str, ...]
    tracer: str | None
    backend: str
    seconds: Mapping[str, float] = field(repr=False)
    graph: PathGraph = field(repr=False)
    _solution: Solution = field(repr=False)
    _found: dict[object, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def build(
        cls,
        graph: PathGraph,
        solution: Solution,
        *,
        backend: str,
        seconds: Mapping[str, float],
        exact: bool,
    ) -> Report:
        """Make the report of a graph from a backend's solution of it.

        Args:
            graph: The graph that was solved.
            solution: What the backend found, with both shares for every node.
            backend: Name of the backend.
            seconds: Time taken by each stage.
            exact: Whether averages and contributions are to be Fractions.

        Returns:
            The report.

        Raises:
            BackendError: ``exact`` is asked for and the solution holds floats.
        """
        if exact and isinstance(solution.average, float):
            raise BackendError(
                f"backend {backend!r} answers in floats, but exact=True needs integers and "
                "fractions; use backend='exact'"
            )
        layers = layer_rows(graph, solution, exact)
        number = Fraction if exact else float
        return cls(
            average_path_length=number(solution.average),
            normalized_average_path_length=number(solution.normalized_average),
            log10_path_count=float(solution.log10_path_count),
            longest_path=_length(solution.longest_path, exact),
            shortest_path=_length(solution.shortest_path, exact),
            num_units=graph.num_units,
            num_active=sum(row.active for row in layers),
            effective_width=effective_width(layers, exact),
            layers=layers,
            status=graph.info.status if graph.info else "exact",
            causes=graph.info.causes if graph.info else (),
            tracer=graph.info.tracer if graph.info else None,
            backend=backend,
            seconds=dict(seconds),
            graph=graph,
            _solution=solution,
        )

    @cached_property
    def path_count(self) -> int:
        """The number of paths, exactly; counted when first read unless the backend knew it."""
        if self._solution.path_count is not None:
            return self._solution.path_count
        # Imported here: a report whose count is never read does not need an exact backend.
        from pathlen import backends

        solver, _ = backends.choose(self.graph, exact=True)
        count = solver.solve(self.graph).path_count
        if count is None:
            raise BackendError(f"the exact backend {solver.name!r} does not count paths exactly")
        return count

    @property
    def exact(self) -> bool:
        """Whether averages are Fractions."""
        return isinstance(self.average_path_length, Fraction)

    @property
    def direction(self) -> str:
        """Where the random walk goes: "backward", from the outputs, or "forward"."""
        return self._solution.direction

    @property
    def weightings(self) -> tuple[str, ...]:
        """The weightings that the report has averages for."""
        by_magnitude = self.magnitude_average_path_length is not None
        return ("uniform", "normalized", "magnitude")[: 3 if by_magnitude else 2]

    @property
    def dead_units(self) -> tuple[DeadUnits, ...]:
        """Units that dropped out of the traced model because weights are 0, layer by layer."""
        return self.graph.info.dead if self.graph.info else ()

    @property
    def magnitude_average_path_length(self) -> Number | None:
        """The average under the weighting "magnitude"; None where there is none."""
        return self._solution.magnitude_average

    @property
    def log10_magnitude(self) -> float | None:
        """Decimal logarithm of the path norm: the sum over paths of the product of weights."""
        return self._solution.log10_magnitude

    def average(self, weighting: str = "uniform") -> Number:
        """The average path length under a weighting.

        Raises:
            BackendError: There is no such weighting, or none by magnitude for this report.
        """
        return statistics.average_of(self.graph, self._solution, weighting)

    def centrality(self, weighting: str = "uniform") -> FloatArray | Sequence[Fraction]:
        """The share c(u) of the paths, or the chance of a walk, that passes each node u.

        The average is the sum of activity(u) * c(u) over the nodes, so c(u) is how much deeper the
        network would be with unit u nonlinear than with u linear. Hubs have a share too.

        Returns:
            float64[num_nodes], read-only, or a sequence of Fractions after ``exact=True``;
            `PathGraph.by_node_id` turns it into a dictionary by ids of one's own.

        Raises:
            BackendError: As for `average`.
        """
        return statistics.share_of(self.graph, self._solution, weighting)

    def layer_centrality(self, weighting: str = "uniform") -> dict[str, Number]:
        """The sum of c(u) over the units u of each layer: how many of them a path passes.

        It is what a layer would contribute if all of its units were active.

        Raises:
            BackendError: As for `average`.
        """
        is_unit = (self.graph.kind != Kind.HUB).astype(np.float64)
        sums = layer_sums(self.graph, is_unit, self.centrality(weighting), self.exact)
        names = {layer.name: value for layer, value in zip(self.graph.layers, sums, strict=True)}
        return {row.name: names[row.name] for row in self.layers}

    def contributions(self, weighting: str = "uniform") -> dict[str, Number]:
        """What each layer adds to the average: the sum of activity(u) * c(u) over its units.

        Raises:
            BackendError: As for `average`.
        """
        self.average(weighting)  # refuses what the rows do not have
        name = weighted_name(weighting, "contribution")
        return {row.name: getattr(row, name) for row in self.layers}

    def path_length_distribution(
        self, weighting: str = "uniform", *, memory_limit: int | None = None
    ) -> npt.NDArray[Any]:
        """The share of paths, or the chance of walks, of each length 0, 1, ... longest.

        A unit of activity a between 0 and 1 counts with chance a, independently of others, so the
        mean is the average whatever the activities are. The backend of the report computes it, or
        that of "auto" where the former cannot.

        Args:
            weighting: See above.
            memory_limit: Bytes that may be used beside the graph; by default, no limit.

        Returns:
            float64[lengths], or an array of Fractions after ``exact=True``, of sum 1; read-only.

        Raises:
            BackendError: As for `average`, or more memory is needed than the limit allows (said
                before the work starts), or no backend has distributions.
        """
        if ("distribution", weighting) not in self._found:
            self._found["distribution", weighting] = statistics.length_distribution(
                self.graph,
                weighting,
                self._solution.direction,
                backend=self.backend,
                exact=self.exact,
                memory_limit=memory_limit,
            )
        shares: npt.NDArray[Any] = self._found["distribution", weighting]
        return shares

    def path_length_variance(
        self, weighting: str = "uniform", *, memory_limit: int | None = None
    ) -> Number:
        """The variance of the path length, of `path_length_distribution`."""
        shares = self.path_length_distribution(weighting, memory_limit=memory_limit)
        return statistics.variance(shares)

    def path_length_quantile(
        self,
        q: float | Fraction,
        weighting: str = "uniform",
        *,
        memory_limit: int | None = None,
    ) -> int:
        """The smallest length that at least a part q of the paths does not exceed.

        Args:
            q: In [0, 1]: 0.5 for the median; 0 and 1 for the smallest and the largest length that
                occur. Give a Fraction where ``exact=True`` is to decide ties.
            weighting: See above.
            memory_limit: As for `path_length_distribution`.

        Raises:
            GraphError: q is no number in [0, 1].
            BackendError: As for `path_length_distribution`.
        """
        shares = self.path_length_distribution(weighting, memory_limit=memory_limit)
        return statistics.quantile(shares, q)

    def example_path_nodes(self, which: str) -> npt.NDArray[np.int64]:
        """The nodes of one longest or shortest path, hubs among them: int64[k], read-only.

        Of several such paths it is the one whose output has the smallest id, and whose node before
        that, and so on, back to its input.

        Args:
            which: "longest" or "shortest".

        Raises:
            GraphError: There is no such example.
        """
        if ("example", which) not in self._found:
            from pathlen.report.extremes import example_path

            nodes = example_path(self.graph, which, self.exact)
            nodes.setflags(write=False)
            self._found["example", which] = nodes
        found: npt.NDArray[np.int64] = self._found["example", which]
        return found

    def example_path(self, which: str = "longest") -> tuple[str, ...]:
        """One longest or shortest path as names of layers, from input to output.

        Every node on the path gives the name of its layer; hubs are left out. See
        `example_path_nodes` for the one that is chosen of several.

        Raises:
            GraphError: There is no such example.
        """
        from pathlen.report.extremes import layer_names

        return layer_names(self.graph, self.example_path_nodes(which))

    @property
    def activation_layers(self) -> tuple[LayerRow, ...]:
        """The rows of the layers where a nonlinearity is or, once linearized, was."""
        return tuple(row for row in self.layers if row.activation or row.active)

    @property
    def width_profile(self) -> tuple[int, ...]:
        """Active units of each of the ``activation_layers``, in order."""
        return tuple(row.active for row in self.activation_layers)

    def to_dict(self) -> dict[str, Any]:
        """Give the whole report as plain data that JSON can hold; see `pathlen.report_schema`.

        The number of paths is a string of digits, because few JSON readers take integers of any
        size. A Fraction stands as a float under its own name and as a string "a/b" under that
        name with ``_exact`` added.
        """
        return report_record(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Give ``to_dict()`` as JSON text; it never holds NaN or infinities."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    def to_html(
        self,
        path: str | PathLike[str],
        *,
        title: str | None = None,
        memory_limit: int | None = PAGE_MEMORY,
    ) -> None:
        """Write the report as one HTML file to explore, which opens without a network.

        It shows the measures, the status of the trace, the graph of the layers, folded by module,
        with the channels of each, the distribution of path lengths, the contribution and the width
        of each layer. It needs plotly: ``pip install 'pathlen[html]'``.

        Args:
            path: The file. One that is there is replaced, all of it or nothing.
            title: Heading of the page; by default, the name of the file without its ending.
            memory_limit: Bytes that the distribution of path lengths may use beside the graph.
                Where it needs more, the page says so in its place. None for no limit.

        Raises:
            ReportError: There is no such folder, the path is a folder, the file cannot be written,
                or plotly is not installed.
        """
        from pathlen.html.page import write_page

        write_page(self, path, title, memory_limit)

    def to_dataframe(self) -> pandas.DataFrame:
        """Give the layers as a pandas.DataFrame, one row each, in order; Fractions as floats.

        Columns are called as in `to_dict`; "dead" is the number of units that weights of 0 cut off.

        Raises:
            ReportError: pandas is not installed.
        """
        frame: pandas.DataFrame = optional("pandas", "pandas").DataFrame(layer_columns(self))
        return frame

    def __str__(self) -> str:
        """A summary and a table of the activation layers, in plain text."""
        return report_text(self)

    def _repr_html_(self) -> str:
        """The same for notebooks, as HTML."""
        return report_html(self)


def _length(value: int | Number, exact: bool) -> int | Number:
    """Give the length of one path: an int wherever it is whole."""
    if value == int(value):
        return int(value)
    return Fraction(value) if exact else float(value)
