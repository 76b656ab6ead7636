"""What was seen: one row of numbers a unit, and what follows for the path graph."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import ActivityError
from pathlen.show.text import aligned, labelled, number_text, without_middle

if TYPE_CHECKING:
    from pathlen.graph.parts import BoolArray, FloatArray
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.report import Report

_COLUMNS = ("layer", "operation", "units", "nonlinearity", "negative", "dead", "always on")
_ARRAYS = ("nodes", "samples", "nonlinearity", "negative_share", "always_on", "dead")


@dataclass(frozen=True, slots=True)
class LayerActivity:
    """One layer of activations.

    Attributes:
        name: Its name in the path graph.
        operation: What it does.
        units: Number of its units.
        mean_nonlinearity: Mean over its units.
        negative_share: Mean over its units.
        dead: Number of units whose output never changed.
        always_on: Number of units that acted affinely.
        samples: Pairs of input and output that a unit was seen with; the fewest of any unit.
    """

    name: str
    operation: str
    units: int
    mean_nonlinearity: float
    negative_share: float
    dead: int
    always_on: int
    samples: int


@dataclass(frozen=True, eq=False)
class EmpiricalActivity:
    """How the u units of a model's activations act on data; all arrays are read-only.

    Attributes:
        nominal: The path graph of the model, with the activities that it is traced with.
        nodes: int64[u], ids of the units in the path graph, ascending.
        samples: int64[u], pairs of input and output that were seen, over samples and positions.
        nonlinearity: float64[u] in [0, 1], the share of the variance of the output that its best
            affine fit on the input leaves over, 1 - R^2; 0 for an output that never changes.
        negative_share: float64[u], share of the inputs below 0.
        always_on: bool[u], whether the unit acts affinely on all of the data up to rounding: for
            a ReLU, that no input is negative.
        dead: bool[u], whether the output is constant on all of the data up to rounding.
        slope: float64[u], of the best affine fit.
        intercept: float64[u], of the best affine fit.
        batches: Number of batches.
        unseen: Layers whose active units could not be seen and keep their nominal activity.
    """

    nominal: PathGraph = field(repr=False)
    nodes: npt.NDArray[np.int64] = field(repr=False)
    samples: npt.NDArray[np.int64] = field(repr=False)
    nonlinearity: FloatArray = field(repr=False)
    negative_share: FloatArray = field(repr=False)
    always_on: BoolArray = field(repr=False)
    dead: BoolArray = field(repr=False)
    slope: FloatArray = field(repr=False)
    intercept: FloatArray = field(repr=False)
    batches: int
    unseen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def activity(self, threshold: float | None = None) -> FloatArray:
        """Activities for `PathGraph.with_activity`.

        Nodes that are no units of activations, and units that could not be seen, keep their
        nominal activity.

        Args:
            threshold: None for soft activities, the nonlinearity of each unit; else units are
                active (1) where it is above the threshold, a number in [0, 1), and linear (0)
                elsewhere.

        Returns:
            One activity a node.  # (num_nodes,)

        Raises:
            ActivityError: The threshold is not in [0, 1).
        """
        if threshold is not None and not 0 <= threshold < 1:
            raise ActivityError(f"threshold={threshold!r} must lie in [0, 1), or be None")
        seen = self.nonlinearity if threshold is None else self.nonlinearity > threshold
        values: FloatArray = self.nominal.activity.copy()
        values[self.nodes] = seen
        return values

    @cached_property
    def graph(self) -> PathGraph:
        """The path graph with the soft activities."""
        return self.nominal.with_activity(self.activity())

    def report(
        self, threshold: float | None = None, *, backend: str = "auto", exact: bool = False
    ) -> Report:
        """The measures of the path graph with these activities.

        Args:
            threshold: See `activity`.
            backend: See `pathlen.measure`.
            exact: See `pathlen.measure`.

        Raises:
            ActivityError: The threshold is not in [0, 1).
            BackendError: See `pathlen.measure`.
        """
        from pathlen.api import measure

        graph = self.graph
        if threshold is not None:
            graph = self.nominal.with_activity(self.activity(threshold))
        return measure(graph, backend=backend, exact=exact)

    @cached_property
    def layers(self) -> tuple[LayerActivity, ...]:
        """One row for each layer of activations, in topological order."""
        rows = self.nominal.layer[self.nodes]
        count = len(self.nominal.layers)
        units = np.bincount(rows, minlength=count)
        present = np.flatnonzero(units)
        sums = {
            name: np.bincount(rows, weights=getattr(self, name), minlength=count)
            for name in ("nonlinearity", "negative_share", "dead", "always_on")
        }
        fewest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(fewest, rows, self.samples)
        return tuple(
            LayerActivity(
                name=self.nominal.layers[row].name,
                operation=self.nominal.layers[row].operation,
                units=int(units[row]),
                mean_nonlinearity=float(sums["nonlinearity"][row] / units[row]),
                negative_share=float(sums["negative_share"][row] / units[row]),
                dead=int(sums["dead"][row]),
                always_on=int(sums["always_on"][row]),
                samples=int(fewest[row]),
            )
            for row in present.tolist()
        )

    def to_dict(self, *, units: bool = False) -> dict[str, Any]:
        """Everything as plain data that JSON can hold.

        Args:
            units: Whether to give the numbers of every unit too, not only of the layers.
        """
        empirical, nominal = self._reports
        record: dict[str, Any] = {
            "average_path_length": empirical.average_path_length,
            "normalized_average_path_length": empirical.normalized_average_path_length,
            "nominal_average_path_length": nominal.average_path_length,
            "nominal_normalized_average_path_length": nominal.normalized_average_path_length,
            "batches": self.batches,
            "num_units": len(self.nodes),
            "dead": int(self.dead.sum()),
            "always_on": int(self.always_on.sum()),
            "unseen": list(self.unseen),
            "layers": [
                {entry.name: getattr(row, entry.name) for entry in fields(row)}
                for row in self.layers
            ],
        }
        if units:
            names = (*_ARRAYS, "slope", "intercept")
            record["units"] = {name: getattr(self, name).tolist() for name in names}
        return record

    @cached_property
    def _reports(self) -> tuple[Report, Report]:
        """Measures with the soft activities, and with the nominal ones."""
        from pathlen.api import measure

        return self.report(), measure(self.nominal)

    def __str__(self) -> str:
        """A summary and a table of the layers of activations, in plain text."""
        empirical, nominal = self._reports
        averages = [
            (
                label,
                f"{number_text(getattr(empirical, name))} on data,"
                f" {number_text(getattr(nominal, name))} nominal",
            )
            for label, name in (
                ("average path length", "average_path_length"),
                ("normalized average path length", "normalized_average_path_length"),
            )
        ]
        dead, always_on = int(self.dead.sum()), int(self.always_on.sum())
        fewest = int(self.samples.min())
        summary = [
            *averages,
            ("units", f"{len(self.nodes):,}, {dead:,} of them dead, {always_on:,} always on"),
            ("data", f"{self.batches:,} batches, {fewest:,} values of each unit or more"),
        ]
        if self.unseen:
            summary.append(("not seen", ", ".join(self.unseen)))
        lines = labelled(summary)
        cells = [_cells(row) for row in self.layers]
        return "\n".join([*lines, "", *aligned([_COLUMNS, *without_middle(cells)])])


def _cells(row: LayerActivity) -> tuple[str, ...]:
    return (
        row.name,
        row.operation,
        f"{row.units:,}",
        f"{row.mean_nonlinearity:.4f}",
        f"{row.negative_share:.4f}",
        f"{row.dead:,}",
        f"{row.always_on:,}",
    )
