"""What a measurement says: the numbers, one row a layer, and their forms as data.

A report is built from a path graph and a backend's solution of it. Everything in it is read off
those two, except the exact number of paths, which is counted when it is first asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import BackendError
from pathlen.graph import Kind
from pathlen.rendering import report_html, report_text

if TYPE_CHECKING:
    from pathlen.backends.protocol import FloatArray, Solution
    from pathlen.graph import PathGraph

Number = float | Fraction
"""An average: a float, or a Fraction where ``exact=True`` was asked for."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a report.

    Attributes:
        name: Module path of the call site, unique in the graph.
        operation: What the layer does: "relu", "conv2d", "input", ...
        units: Number of its units; hubs are not units.
        active: Number of its units with an activity above 0.
        contribution: The layer's part of the average path length.
        normalized_contribution: The layer's part of the normalized average path length.
        activation: Whether the layer applies functions of one unit each, that is, whether it is
            a place where a nonlinearity is or, once linearized, was.
    """

    name: str
    operation: str
    units: int
    active: int
    contribution: Number
    normalized_contribution: Number
    activation: bool


@dataclass(frozen=True, eq=False)
class Report:
    """The measures of one path graph.

    Averages are floats, or Fractions after ``exact=True``. The contributions of all layers add
    up to the averages.

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
        status: "exact", "bound" or "opaque": the worst status of a lowered operation.
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
    _known_path_count: int | None = field(repr=False)

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
        layers = _layer_rows(graph, solution, exact)
        number = Fraction if exact else float
        return cls(
            average_path_length=number(solution.average),
            normalized_average_path_length=number(solution.normalized_average),
            log10_path_count=float(solution.log10_path_count),
            longest_path=_length(solution.longest_path, exact),
            shortest_path=_length(solution.shortest_path, exact),
            num_units=graph.num_units,
            num_active=graph.num_active,
            effective_width=_effective_width(layers, exact),
            layers=layers,
            status=graph.info.status if graph.info else "exact",
            causes=graph.info.causes if graph.info else (),
            tracer=graph.info.tracer if graph.info else None,
            backend=backend,
            seconds=dict(seconds),
            graph=graph,
            _known_path_count=solution.path_count,
        )

    @cached_property
    def path_count(self) -> int:
        """The number of paths, exactly; counted when first read unless the backend knew it."""
        if self._known_path_count is not None:
            return self._known_path_count
        # Imported here: a report whose count is never read does not need the exact backend.
        from pathlen import backends

        count = backends.get("exact").solve(self.graph).path_count
        if count is None:
            raise BackendError("the backend registered as 'exact' does not count paths exactly")
        return count

    @property
    def activation_layers(self) -> tuple[LayerRow, ...]:
        """The rows of the layers where a nonlinearity is or, once linearized, was."""
        return tuple(row for row in self.layers if row.activation or row.active)

    @property
    def width_profile(self) -> tuple[int, ...]:
        """Active units of each of the ``activation_layers``, in order."""
        return tuple(row.active for row in self.activation_layers)

    def to_dict(self) -> dict[str, Any]:
        """Give the whole report as plain data that JSON can hold.

        The number of paths is a string of digits, because few JSON readers take integers of any
        size. A Fraction stands as a float under its own name and as a string "a/b" under that
        name with ``_exact`` added.
        """
        record: dict[str, Any] = {
            "path_count": _digits(self.path_count),
            "log10_path_count": self.log10_path_count,
            **_entry("average_path_length", self.average_path_length),
            **_entry("normalized_average_path_length", self.normalized_average_path_length),
            **_entry("longest_path", self.longest_path),
            **_entry("shortest_path", self.shortest_path),
            "num_units": self.num_units,
            "num_active": self.num_active,
            **_entry("effective_width", self.effective_width),
            "width_profile": list(self.width_profile),
            "layers": [_row_record(row) for row in self.layers],
            "status": self.status,
            "causes": list(self.causes),
            "tracer": self.tracer,
            "backend": self.backend,
            "seconds": dict(self.seconds),
        }
        return record

    def to_json(self, indent: int | None = 2) -> str:
        """Give ``to_dict()`` as JSON text; it never holds NaN or infinities."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        """A summary and a table of the activation layers, in plain text."""
        return report_text(self)

    def _repr_html_(self) -> str:
        """The same for notebooks, as HTML."""
        return report_html(self)


def _layer_rows(graph: PathGraph, solution: Solution, exact: bool) -> tuple[LayerRow, ...]:
    """One row for each layer that has a node other than hubs."""
    count = len(graph.layers)
    is_hub = graph.kind == Kind.HUB
    units = np.bincount(graph.layer[~is_hub], minlength=count)
    active = np.bincount(graph.layer[graph.activity > 0], minlength=count)
    functions = np.bincount(graph.layer[_functions_of_one_unit(graph)], minlength=count)
    contributions = _contributions(graph, solution.path_share, exact)
    normalized = _contributions(graph, solution.walk_share, exact)
    return tuple(
        LayerRow(
            name=layer.name,
            operation=layer.operation,
            units=int(units[index]),
            active=int(active[index]),
            contribution=contributions[index],
            normalized_contribution=normalized[index],
            activation=bool(functions[index] == units[index]),
        )
        for index, layer in enumerate(graph.layers)
        if units[index]
    )


def _functions_of_one_unit(graph: PathGraph) -> npt.NDArray[np.bool_]:
    """Mark the units whose only predecessor is a unit or an input: shape [num_nodes].

    A linear layer's unit reads a hub and a merge's unit reads several nodes, so a layer of nothing
    but such units is a place where an activation is applied. A sum with a zero-padded shortcut
    has some of them, not all.
    """
    alone: npt.NDArray[np.bool_] = (np.diff(graph.indptr) == 1) & (graph.kind == Kind.UNIT)
    predecessor_kind = graph.kind[graph.indices[graph.indptr[:-1][alone]]]
    alone[alone] = (predecessor_kind == Kind.UNIT) | (predecessor_kind == Kind.INPUT)
    return alone


def _contributions(
    graph: PathGraph, share: FloatArray | Sequence[Fraction], exact: bool
) -> list[Number]:
    """Sum activity * share over the nodes of each layer."""
    if not exact:
        weights = graph.activity * np.asarray(share, dtype=np.float64)
        sums = np.bincount(graph.layer, weights=weights, minlength=len(graph.layers))
        return [float(value) for value in sums]
    totals: list[Number] = [Fraction(0)] * len(graph.layers)
    # The nodes of a layer have few different shares, and adding fractions of hundreds of digits
    # is what takes time: so equal ones are counted first.
    nodes = np.flatnonzero(graph.activity).tolist()
    alike = Counter((int(graph.layer[u]), float(graph.activity[u]), share[u]) for u in nodes)
    for (layer, activity, node_share), times in alike.items():
        totals[layer] += Fraction(activity) * node_share * times
    return totals


def _effective_width(layers: Sequence[LayerRow], exact: bool) -> Number:
    """Average the active units of the layers with normalized contributions as weights."""
    zero: Number = Fraction(0) if exact else 0.0
    total = sum((row.normalized_contribution for row in layers), zero)
    if not total:
        return zero
    return sum((row.normalized_contribution * row.active for row in layers), zero) / total


def _length(value: int | Number, exact: bool) -> int | Number:
    """Give the length of one path: an int wherever it is whole."""
    if value == int(value):
        return int(value)
    return Fraction(value) if exact else float(value)


def _digits(value: int) -> str:
    """Write an integer of any size in decimal.

    ``str`` refuses integers of more than 4300 digits by default; path counts have more.
    """
    return format(Decimal(value), "f")


def _entry(name: str, value: int | Number) -> dict[str, Any]:
    """Give a number as the entries of ``to_dict`` that stand for it."""
    if isinstance(value, Fraction):
        exact = f"{_digits(value.numerator)}/{_digits(value.denominator)}"
        return {name: float(value), f"{name}_exact": exact}
    return {name: value}


def _row_record(row: LayerRow) -> dict[str, Any]:
    """Give a layer's row as plain data."""
    return {
        "name": row.name,
        "operation": row.operation,
        "units": row.units,
        "active": row.active,
        **_entry("contribution", row.contribution),
        **_entry("normalized_contribution", row.normalized_contribution),
        "activation": row.activation,
    }
