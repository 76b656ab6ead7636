"""Two measurements of a network side by side, layer by layer: before and after training, say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathlen.errors import GraphError, PathlenError
from pathlen.graph.path_graph import PathGraph
from pathlen.report.report import Report
from pathlen.show.names import entry
from pathlen.show.text import (
    aligned,
    html_summary,
    html_table,
    labelled,
    number_text,
    without_middle,
)

if TYPE_CHECKING:
    from pathlen.report.layers import LayerRow, Number

_COLUMNS = ("layer", "active", "of average", "change", "of normalized", "change")


@dataclass(frozen=True, slots=True)
class LayerPair:
    """One layer in both reports; at least one of them has it.

    Attributes:
        name: Of the layer.
        before: Its row in the first report, or None.
        after: Its row in the second report, or None.
    """

    name: str
    before: LayerRow | None
    after: LayerRow | None

    @property
    def active_change(self) -> int:
        """How many more active units the second has; a layer that is not there has none."""
        return (self.after.active if self.after else 0) - (self.before.active if self.before else 0)

    @property
    def contribution_change(self) -> Number:
        """How much more the second adds to the average path length."""
        return self._change(lambda row: row.contribution)

    @property
    def normalized_contribution_change(self) -> Number:
        """How much more the second adds to the normalized average path length."""
        return self._change(lambda row: row.normalized_contribution)

    def _change(self, number: Callable[[LayerRow], Number]) -> Number:
        """Second minus first."""
        return (number(self.after) if self.after else 0) - (
            number(self.before) if self.before else 0
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from one report to another; changes are second minus first.

    The changes of the layers add up to the changes of the averages, because contributions add up
    to averages and a layer that one of them lacks counts as 0 there.

    Attributes:
        before: The first report.
        after: The second report.
        layers: Every layer that one of them has, those of the first one first.
    """

    before: Report
    after: Report
    layers: tuple[LayerPair, ...]

    @property
    def average_change(self) -> Number:
        """Of the average path length."""
        return self.after.average_path_length - self.before.average_path_length

    @property
    def normalized_average_change(self) -> Number:
        """Of the normalized average path length."""
        return (
            self.after.normalized_average_path_length - self.before.normalized_average_path_length
        )

    @property
    def only_before(self) -> tuple[str, ...]:
        """Names of the layers that only the first report has."""
        return tuple(pair.name for pair in self.layers if pair.after is None)

    @property
    def only_after(self) -> tuple[str, ...]:
        """Names of the layers that only the second report has."""
        return tuple(pair.name for pair in self.layers if pair.before is None)

    def to_dict(self) -> dict[str, Any]:
        """Give the comparison as plain data for JSON; Fractions are as in `Report.to_dict`."""
        return {
            **_numbers("average_path_length", self, lambda report: report.average_path_length),
            **_numbers(
                "normalized_average_path_length",
                self,
                lambda report: report.normalized_average_path_length,
            ),
            "num_active_before": self.before.num_active,
            "num_active_after": self.after.num_active,
            "num_active_change": self.after.num_active - self.before.num_active,
            "layers": [_record(pair) for pair in self.layers],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
        }

    def __str__(self) -> str:
        """The averages, and a table of the layers with an activation in either report."""
        lines = labelled(self._summary())
        table = self._table()
        if table:
            lines += ["", *aligned(table, texts=1)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same for notebooks, as HTML."""
        table = self._table()
        return html_summary(self._summary()) + (html_table(table) if table else "")

    def _summary(self) -> list[tuple[str, str]]:
        """What changed in the whole, as pairs of label and value."""
        first, second = self.before, self.after
        lines = [
            (label, f"{number_text(value)} -> {number_text(other)}")
            for label, value, other in (
                ("average path length", first.average_path_length, second.average_path_length),
                (
                    "normalized average path length",
                    first.normalized_average_path_length,
                    second.normalized_average_path_length,
                ),
                ("active units", first.num_active, second.num_active),
            )
        ]
        for when, names in (("before", self.only_before), ("after", self.only_after)):
            if names:
                lines.append((f"layers only {when}", _listed(names)))
        return lines

    def _table(self) -> list[tuple[str, ...]]:
        """The layers as cells, the head first; empty where none has an activation."""
        cells = [_cells(pair) for pair in self.layers if _shown(pair)]
        return [_COLUMNS, *without_middle(cells)] if cells else []


def compare(before: Report | PathGraph, after: Report | PathGraph) -> Comparison:
    """Set two reports side by side, layer by layer, by the names of the layers.

    Args:
        before: A report, or a graph, which is measured.
        after: Another one, of the same network or of one with some of its layers.

    Raises:
        GraphError: They have no layer in common, inputs and outputs aside.
        PathlenError: An argument is neither a report nor a graph.
    """
    first, second = (_report(given) for given in (before, after))
    rows = [{row.name: row for row in report.layers} for report in (first, second)]
    inner = [{row.name for row in report.layers if _is_inner(row)} for report in (first, second)]
    if all(inner) and inner[0].isdisjoint(inner[1]):
        raise GraphError(
            "the reports are of different networks: no layer of one has the name of a layer of the"
            f" other ({_listed(tuple(sorted(inner[0])))} and {_listed(tuple(sorted(inner[1])))})"
        )
    names = dict.fromkeys([*rows[0], *rows[1]])
    pairs = (LayerPair(name, rows[0].get(name), rows[1].get(name)) for name in names)
    return Comparison(first, second, tuple(pairs))


def _report(given: Report | PathGraph) -> Report:
    """A report as it is, or that of a graph."""
    if isinstance(given, Report):
        return given
    if isinstance(given, PathGraph):
        from pathlen.api import measure

        return measure(given)
    raise PathlenError(
        f"reports or path graphs can be compared, not {type(given).__name__}; measure the model"
        " first (pathlen.measure)"
    )


def _is_inner(row: LayerRow) -> bool:
    """Whether a layer is neither an input nor an output: their names are much the same."""
    return row.operation not in ("input", "output")


def _shown(pair: LayerPair) -> bool:
    """Whether a layer has an activation in one of the reports."""
    return any(row is not None and (row.activation or row.active) for row in _rows(pair))


def _rows(pair: LayerPair) -> tuple[LayerRow | None, LayerRow | None]:
    return pair.before, pair.after


def _cells(pair: LayerPair) -> tuple[str, ...]:
    """A layer's line of the table."""

    def pair_of(text: Callable[[LayerRow], str]) -> str:
        return " -> ".join(text(row) if row else "none" for row in _rows(pair))

    return (
        pair.name,
        pair_of(lambda row: f"{row.active:,}"),
        pair_of(lambda row: f"{float(row.contribution):.4f}"),
        f"{float(pair.contribution_change):+.4f}",
        pair_of(lambda row: f"{float(row.normalized_contribution):.4f}"),
        f"{float(pair.normalized_contribution_change):+.4f}",
    )


def _numbers(
    name: str, comparison: Comparison, number: Callable[[Report], Number]
) -> dict[str, Any]:
    """A number of both reports and its change, as entries of a record."""
    first, second = number(comparison.before), number(comparison.after)
    return {
        **entry(f"{name}_before", first),
        **entry(f"{name}_after", second),
        **entry(f"{name}_change", second - first),
    }


def _record(pair: LayerPair) -> dict[str, Any]:
    """A layer as plain data: null where a report does not have it."""
    record: dict[str, Any] = {"name": pair.name}
    for when, row in (("before", pair.before), ("after", pair.after)):
        record[f"units_{when}"] = row.units if row else None
        record[f"active_{when}"] = row.active if row else None
        for name in ("contribution", "normalized_contribution"):
            record |= (
                entry(f"{name}_{when}", getattr(row, name)) if row else {f"{name}_{when}": None}
            )
    record["active_change"] = pair.active_change
    record |= entry("contribution_change", pair.contribution_change)
    return record | entry("normalized_contribution_change", pair.normalized_contribution_change)


def _listed(names: tuple[str, ...]) -> str:
    """Some names, shortened."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
