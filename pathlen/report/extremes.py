"""One longest or one shortest path of a graph (docs/algorithms/example-paths.md)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphError
from pathlen.graph.path_graph import Kind, PathGraph
from pathlen.graph.runs import longest_ways

WHICH = ("longest", "shortest")


def example_path(graph: PathGraph, which: str, exact: bool = False) -> npt.NDArray[np.int64]:
    """The nodes of one longest or shortest path, from its input to its output: int64[k].

    Of several such paths it is the one whose output has the smallest id, and whose node before
    that, and so on, back to its input. It does not depend on any backend. O(nodes + edges).

    Args:
        graph: The path graph.
        which: "longest" or "shortest".
        exact: Compare lengths without rounding. Activities of 0 and 1 always are; sums of others
            are rounded to the longest floats of the machine, and paths that are then as long
            count as equal.

    Raises:
        GraphError: There is no such extreme.
    """
    if which not in WHICH:
        raise GraphError(f"no example path {which!r}; ask for one of {', '.join(WHICH)}")
    lengths = _lengths(graph, exact)
    best = longest_ways(graph.indptr, graph.indices, lengths if which == "longest" else -lengths)
    ends = np.flatnonzero(graph.kind == Kind.OUTPUT)
    path = [int(ends[np.argmax(best[ends])])]  # argmax takes the first of equals
    while graph.kind[path[-1]] != Kind.INPUT:
        first, last = graph.indptr[path[-1]], graph.indptr[path[-1] + 1]
        before = graph.indices[first:last]
        path.append(int(before[np.argmax(best[before])]))
    return np.array(path[::-1], dtype=np.int64)


def layer_names(graph: PathGraph, nodes: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """The names of the layers of some nodes, hubs left out."""
    units = nodes[graph.kind[nodes] != Kind.HUB]
    return tuple(graph.layers[row].name for row in graph.layer[units].tolist())


def _lengths(graph: PathGraph, exact: bool) -> npt.NDArray[Any]:
    """Activities as numbers whose sums can be compared: integers wherever they need not round."""
    if np.array_equal(graph.activity, np.floor(graph.activity)):
        return graph.activity.astype(np.int64)
    if not exact:
        return graph.activity.astype(np.longdouble)
    ratios = [value.as_integer_ratio() for value in graph.activity.tolist()]
    # Denominators of floats are powers of two, so the largest is a multiple of all.
    scale = max(denominator for _, denominator in ratios)
    return np.array([top * (scale // bottom) for top, bottom in ratios], dtype=object)
