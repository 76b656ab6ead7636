"""How many of the paths of a measured graph take each of its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathlen.graph.check import row_numbers
from pathlen.graph.parts import FloatArray

if TYPE_CHECKING:
    from pathlen.backends.protocol import Scaled
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.report import Report


def edge_share(report: Report, weighting: str) -> FloatArray:
    """The share of the paths, or the chance of a walk, that takes each edge: float64[e].

    The shares of the edges into a node add up to the node's own share, and so do those of the
    edges out of it. They are in the order of `PathGraph.indices`. O(nodes + edges).

    Args:
        report: Of a graph with e edges.
        weighting: See `Report`.

    Raises:
        BackendError: There is no such weighting, or none by magnitude for this report.
    """
    graph, share = report.graph, node_share(report, weighting)
    before, node = graph.indices, row_numbers(graph.indptr)
    if weighting == "normalized" and report.direction == "forward":
        return share[before] / np.bincount(before, minlength=graph.num_nodes)[before]
    if weighting == "normalized":
        return share[node] / np.diff(graph.indptr)[node]
    from pathlen.backends import _numba, _numba_magnitude

    if graph.weights is None or weighting == "uniform":
        return share[node] * _part_of_count(graph, _numba.counts_from_inputs(graph), 1.0)
    return share[node] * _part_of_count(graph, _numba_magnitude.magnitudes(graph)[0], graph.weights)


def node_share(report: Report, weighting: str) -> FloatArray:
    """`Report.centrality` in floats, whatever the report holds: float64[n]."""
    share = report.centrality(weighting)
    if isinstance(share, np.ndarray):
        return share
    return np.array([float(value) for value in share], dtype=np.float64)


def _part_of_count(graph: PathGraph, counts: Scaled, weights: FloatArray | float) -> FloatArray:
    """The part of the paths to a node that comes by each edge, weight(u, v) F(u) / F(v): [e]."""
    before, node = graph.indices, row_numbers(graph.indptr)
    mantissa, power = np.frexp(weights * (counts.mantissa[before] / counts.mantissa[node]))
    power = power + counts.exponent[before].astype(np.int64) - counts.exponent[node]
    with np.errstate(under="ignore"):
        # What is too small for float64 becomes 0; nothing is above 1.
        part: FloatArray = np.ldexp(mantissa, np.clip(power, -5000, 1).astype(np.int32))
    return part
