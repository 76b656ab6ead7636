"""Validation of a path graph: every problem is found, so that one error can list them all."""

from collections.abc import Sequence

import numpy as np

from pathlen.errors import ActivityError, GraphError
from pathlen.graph.parts import BoolArray, FloatArray, IntArray, Kind, Layer

_CHUNK = 1 << 18  # nodes


def row_numbers(indptr: IntArray) -> IntArray:
    """The row of every stored entry of a compressed sparse row structure: int64[e]."""
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))


def checked_activity(values: object, size: int) -> FloatArray:
    """Activities as float64[size].

    Raises:
        ActivityError: Not numbers, of another length, not finite or outside [0, 1].
    """
    try:
        activity = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ActivityError(f"activities must be numbers in [0, 1], one a node: {error}") from error
    if activity.shape != (size,):
        raise ActivityError(f"expected {size} activities, one a node; got shape {activity.shape}")
    wrong = ~((activity >= 0) & (activity <= 1))  # NaN fails both comparisons
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ActivityError(
            f"activities must lie in [0, 1]; {_count(wrong)}, with value {activity[place]}"
        )
    return activity


def checked_weights(values: object, num_edges: int) -> FloatArray:
    """Weights of edges as float64[num_edges], 0 where an edge is to be left out.

    Raises:
        GraphError: Not numbers, of another length, not finite or negative.
    """
    try:
        weights = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GraphError(f"weights must be numbers, one an edge: {error}") from error
    if weights.shape != (num_edges,):
        raise GraphError(f"expected {num_edges} weights, one an edge; got shape {weights.shape}")
    wrong = ~((weights >= 0) & (weights < np.inf))  # NaN fails both comparisons
    if wrong.any():
        place = int(np.argmax(wrong))
        raise GraphError(
            f"weights must be finite and not negative; {int(wrong.sum())} of {num_edges} are not, "
            f"the first at edge {place} with {weights[place]} (give absolute values)"
        )
    return weights


def structure_problems(indptr: IntArray, indices: IntArray, num_nodes: int) -> list[str]:
    """What is wrong with predecessor lists that must be sorted, distinct and topological."""
    if len(indptr) != num_nodes + 1:
        return [f"indptr has {len(indptr)} entries for {num_nodes} nodes; it needs one more"]
    if indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        return [f"indptr must rise from 0 to the number of edges, {len(indices)}"]
    outside: list[IntArray] = []
    unsorted: list[IntArray] = []
    for first in range(0, num_nodes, _CHUNK):  # bounds what a large graph needs in between
        ends = indptr[first : first + _CHUNK + 1]
        rows = first + row_numbers(ends)
        columns = indices[ends[0] : ends[-1]]
        outside.append(np.unique(rows[(columns < 0) | (columns >= rows)]))
        disordered = (columns[1:] <= columns[:-1]) & (rows[1:] == rows[:-1])
        unsorted.append(np.unique(rows[1:][disordered]))
    problems = []
    if any(len(nodes) for nodes in outside):
        problems.append(
            "predecessors must have smaller ids than their node (topological order) and not be "
            f"negative; wrong at {_some(np.concatenate(outside))}"
        )
    if any(len(nodes) for nodes in unsorted):
        nodes = np.concatenate(unsorted)
        problems.append(f"predecessors must be ascending and distinct; wrong at {_some(nodes)}")
    return problems


def kind_problems(indptr: IntArray, indices: IntArray, kind: IntArray) -> list[str]:
    """What is wrong with the kinds: inputs are the sources, outputs are the sinks.

    In a directed acyclic graph this implies that every node lies on an input-output path.
    """
    problems = []
    unknown = kind > max(Kind)
    if unknown.any():
        problems.append(f"kinds must be 0 to {int(max(Kind))}; {_count(unknown)}")
    has_successor = np.zeros(len(kind), dtype=bool)
    has_successor[indices] = True
    for terminal, label, missing, ends in (
        (Kind.INPUT, "input", "predecessors", indptr[1:] == indptr[:-1]),
        (Kind.OUTPUT, "output", "successors", ~has_successor),
    ):
        declared = kind == terminal
        if not declared.any():
            problems.append(f"there is no {label} node")
        stray = ends & ~declared
        if stray.any():
            problems.append(f"only an {label} node may have no {missing}; {_count(stray)}")
        inner = declared & ~ends
        if inner.any():
            problems.append(f"an {label} node must have no {missing}; {_count(inner)}")
    return problems


def activity_problems(activity: FloatArray, kind: IntArray) -> list[str]:
    """What is wrong with the activities: in [0, 1], and 0 at hubs."""
    problems = []
    wrong = ~((activity >= 0) & (activity <= 1))
    if wrong.any():
        problems.append(f"activities must be finite and lie in [0, 1]; {_count(wrong)}")
    active_hub = (kind == Kind.HUB) & (activity != 0)
    if active_hub.any():
        problems.append(f"hubs must have activity 0; {_count(active_hub)}")
    return problems


def layer_problems(layers: Sequence[Layer], layer: IntArray, kind: IntArray) -> list[str]:
    """What is wrong with the layers table: it must cover the nodes in order, without mixing."""
    problems = []
    names = [row.name for row in layers]
    if len(set(names)) < len(names):
        repeated = next(name for position, name in enumerate(names) if name in names[:position])
        problems.append(f"layer names must differ; {repeated!r} occurs twice")
    counts = np.array([row.count for row in layers], dtype=np.int64)
    firsts = np.array([row.first for row in layers], dtype=np.int64)
    if (counts < 1).any() or not np.array_equal(firsts, np.cumsum(counts) - counts):
        problems.append("layers must follow each other from node 0 on, each with at least one node")
    elif counts.sum() != len(kind) or not _are_rows(layer, firsts, counts):
        problems.append(
            f"the layers table covers {counts.sum()} nodes of {len(kind)}, and the layer of "
            "every node must be the row that covers it"
        )
    else:
        lowest, highest = np.minimum.reduceat(kind, firsts), np.maximum.reduceat(kind, firsts)
        mixed = (lowest != highest) & ((lowest == Kind.INPUT) | (highest == Kind.OUTPUT))
        if mixed.any():
            problems.append(
                "a layer must not mix input or output nodes with others; "
                f"see layer {names[int(np.argmax(mixed))]!r}"
            )
    return problems


def _are_rows(layer: IntArray, firsts: IntArray, counts: IntArray) -> bool:
    """Whether the layer of each node is the row of the table that covers it."""
    rows = np.arange(len(firsts))
    ends = np.array_equal(layer[firsts], rows), np.array_equal(layer[firsts + counts - 1], rows)
    return all(ends) and bool((layer[1:] >= layer[:-1]).all())


def id_problems(node_ids: IntArray | None, num_nodes: int) -> list[str]:
    """What is wrong with the caller's numbering: distinct ids, -1 for a node that was added."""
    if node_ids is None:
        return []
    if len(node_ids) != num_nodes:
        return [f"node_ids has {len(node_ids)} entries for {num_nodes} nodes"]
    known = np.sort(node_ids[node_ids != -1])
    if (known < 0).any() or (known[1:] == known[:-1]).any():
        return ["node_ids must be distinct and not negative, or -1 for a node that was added"]
    return []


def weight_problems(weights: FloatArray | None, num_edges: int) -> list[str]:
    """What is wrong with the weights of the edges: finite and above 0."""
    if weights is None:
        return []
    if len(weights) != num_edges:
        return [f"weights has {len(weights)} entries for {num_edges} edges"]
    wrong = ~((weights > 0) & (weights < np.inf))
    if wrong.any():
        place = int(np.argmax(wrong))
        return [
            "weights must be finite and above 0 (leave out the edge instead); the one of edge"
            f" {place} is {weights[place]}"
        ]
    return []


def _some(nodes: IntArray) -> str:
    """Name a few nodes of a longer list."""
    text = ", ".join(str(node) for node in nodes[:3])
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"node{'s' if len(nodes) > 1 else ''} {text}{more}"


def _count(wrong: BoolArray) -> str:
    """Say where a mask over the nodes is set."""
    return f"wrong at {_some(np.flatnonzero(wrong))}"
