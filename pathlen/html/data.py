"""What of a report goes into its page: plain data, in columns, with floats of six digits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathlen import __version__
from pathlen.errors import BackendError
from pathlen.html.strips import strips
from pathlen.report import statistics
from pathlen.report.layer_graph import layer_graph
from pathlen.show.text import count_text, number_text

if TYPE_CHECKING:
    from pathlen.report.layer_graph import LayerEdge, LayerGraph
    from pathlen.report.report import Report

NEVER = 1e-12
"""Lengths at either end that are rarer than this under every weighting are left out."""

_QUANTILES = (0.05, 0.5, 0.95)


def page_data(report: Report, title: str, memory_limit: int | None) -> dict[str, Any]:
    """The data of a page.

    Args:
        report: What is shown.
        title: Name of the page.
        memory_limit: Bytes that the distribution of path lengths may use; None for no limit. Where
            they do not do, the page says so in its place.
    """
    weightings = list(report.weightings)
    layers = layer_graph(report)
    return {
        "title": title,
        "version": __version__,
        "headline": [
            {"label": label, "value": value, "about": about}
            for label, value, about in _headline(report)
        ],
        "trace": {
            "status": report.status,
            "causes": list(report.causes),
            "tracer": report.tracer,
            "backend": report.backend,
            "seconds": {stage: _short(value) for stage, value in report.seconds.items()},
            "exact": report.exact,
        },
        "dead": [
            {"layer": row.layer, "dead": len(row.indices), "units": row.units}
            for row in report.dead_units
        ],
        "weightings": weightings,
        "averages": {name: _short(report.average(name)) for name in weightings},
        "effective_width": _short(report.effective_width),
        "layers": _layer_columns(report, layers, weightings),
        "edges": _edge_columns(layers.edges, weightings),
        "distribution": _distribution(report, weightings, memory_limit),
    }


def _headline(report: Report) -> list[tuple[str, str, str]]:
    """The first numbers of the page: what it is, the number, and what that means."""
    lines = [
        (
            "Normalized average path length",
            number_text(report.normalized_average_path_length),
            "active nonlinearities on a path, every branch weighing the same",
        ),
        (
            "Average path length",
            number_text(report.average_path_length),
            "active nonlinearities on a path, every path weighing the same",
        ),
        (
            "Longest, shortest path",
            f"{number_text(report.longest_path)}, {number_text(report.shortest_path)}",
            "the depth in the usual sense, and the way by all skip connections",
        ),
        ("Paths", count_text(report.log10_path_count), "from an input unit to an output unit"),
        (
            "Active units",
            f"{report.num_active:,}",
            f"of {report.num_units:,} units of all layers",
        ),
        (
            "Effective width",
            number_text(report.effective_width),
            "active units a layer, weighted by contribution",
        ),
    ]
    if report.magnitude_average_path_length is not None:
        average = number_text(report.magnitude_average_path_length)
        lines.insert(2, ("By magnitude", average, "every path weighing as much as its weights"))
    return lines


def _layer_columns(report: Report, layers: LayerGraph, weightings: Sequence[str]) -> dict[str, Any]:
    """The layers, in order, as columns."""
    drawn = strips(report)
    return {
        "name": [node.name for node in layers.nodes],
        "operation": [node.operation for node in layers.nodes],
        "kind": [node.kind.name.lower() for node in layers.nodes],
        "units": [node.units for node in layers.nodes],
        "active": [node.active for node in layers.nodes],
        "dead": [node.dead for node in layers.nodes],
        "activation": [int(node.activation or node.active > 0) for node in layers.nodes],
        "strip": [drawn.get(node.name, []) for node in layers.nodes],
        "contribution": {
            name: _shorts(node.contributions[name] for node in layers.nodes) for name in weightings
        },
    }


def _edge_columns(edges: Sequence[LayerEdge], weightings: Sequence[str]) -> dict[str, Any]:
    """The edges between layers, whose ends are positions among the layers, as columns."""
    return {
        "source": [edge.source for edge in edges],
        "target": [edge.target for edge in edges],
        "skip": [int(edge.skip) for edge in edges],
        "share": {name: _shorts(edge.shares[name] for edge in edges) for name in weightings},
    }


def _distribution(
    report: Report, weightings: Sequence[str], memory_limit: int | None
) -> dict[str, Any]:
    """The share of each length from `start` on, or why there is none."""
    try:
        found = {name: _shares(report, name, memory_limit) for name in weightings}
    except BackendError as error:
        return {"absent": str(error)}
    occurring = np.flatnonzero(np.max(list(found.values()), axis=0) >= NEVER)
    first, last = int(occurring[0]), int(occurring[-1])
    return {
        "start": first,
        "share": {name: _shorts(shares[first : last + 1]) for name, shares in found.items()},
        "quantiles": {
            name: [statistics.quantile(shares, q) for q in _QUANTILES]
            for name, shares in found.items()
        },
    }


def _shares(report: Report, weighting: str, memory_limit: int | None) -> np.ndarray[Any, Any]:
    """The distribution in floats, also of a report whose own would be slow fractions."""
    if not report.exact:
        return report.path_length_distribution(weighting, memory_limit=memory_limit)
    return statistics.length_distribution(
        report.graph,
        weighting,
        report._solution.direction,
        backend="auto",
        exact=False,
        memory_limit=memory_limit,
    )


def _shorts(values: Iterable[Any]) -> list[float]:
    """Floats of six digits."""
    return [_short(value) for value in values]


def _short(value: Any) -> float:
    """A float of six digits: the page shows no more, and they take a third of the place."""
    return float(f"{float(value):.6g}")
