"""Make the arrays of a path graph from edges in any order, or from arrays to be pruned."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from pathlen.errors import ActivityError, GraphError, PathlenError
from pathlen.graph.check import (
    checked_activity,
    checked_weights,
    row_numbers,
    structure_problems,
)
from pathlen.graph.grouping import arrange, chain, table
from pathlen.graph.parts import BoolArray, FloatArray, IntArray, Kind, Layer
from pathlen.graph.rows import circle, compressed_weights, generations, on_path, restricted

NO_PATH = (
    "no path from input to output is left; check that the outputs depend on the inputs, "
    "and which nodes are declared as either"
)


class Parts(TypedDict):
    """Arguments of `PathGraph` that a builder has made."""

    indptr: npt.NDArray[np.int64]
    indices: IntArray
    activity: FloatArray
    kind: npt.NDArray[np.uint8]
    layer: npt.NDArray[np.int32]
    layers: tuple[Layer, ...]
    node_ids: npt.NDArray[np.int64] | None
    weights: FloatArray | None


def parts_from_arrays(
    indptr: npt.ArrayLike,
    indices: npt.ArrayLike,
    activity: npt.ArrayLike,
    kind: npt.ArrayLike,
    layer_of_node: npt.ArrayLike,
    layers: Sequence[Layer],
    weights: npt.ArrayLike | None = None,
) -> Parts:
    """See `PathGraph.from_arrays`."""
    kinds = np.asarray(kind)
    values = checked_activity(activity, len(kinds))
    columns = np.asarray(indices, dtype=np.int64)
    rows, columns, magnitudes = _sorted_rows(
        np.asarray(indptr, dtype=np.int64),
        columns,
        None if weights is None else checked_weights(weights, len(columns)),
        len(kinds),
    )
    layer = np.asarray(layer_of_node, dtype=np.int64)
    if layer.shape != kinds.shape or ((layer < 0) | (layer >= len(layers))).any():
        raise GraphError(f"every node needs a layer among the {len(layers)} rows of the table")
    keep = on_path(rows, columns, kinds == Kind.INPUT, kinds == Kind.OUTPUT)
    if not keep.any():
        raise GraphError(NO_PATH)
    rows, columns, magnitudes = restricted(rows, columns, keep, magnitudes)
    counts = np.bincount(layer[keep], minlength=len(layers))
    used = [layers[row] for row in np.flatnonzero(counts).tolist()]
    return {
        "indptr": rows,
        "indices": columns,
        "activity": values[keep],
        "kind": kinds[keep],
        "layer": (np.cumsum(counts > 0) - 1)[layer[keep]].astype(np.int32),
        "layers": table(
            [row.name for row in used], [row.operation for row in used], counts[counts > 0]
        ),
        "node_ids": None,
        "weights": magnitudes,
    }


def _sorted_rows(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    weights: FloatArray | None,
    size: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray | None]:
    """Rows with ascending and distinct entries; GraphError if they are no predecessor lists."""
    problems = structure_problems(indptr, indices, size)
    vanishing = weights is not None and not weights.all()
    if not problems and not vanishing:
        return indptr, indices, weights
    usable = len(indptr) == size + 1 and indptr[-1] == len(indices) and (np.diff(indptr) >= 0).all()
    if usable and not ((indices < 0) | (indices >= size)).any():
        rows = row_numbers(indptr)
        if weights is not None:
            there = weights > 0
            rows, indices, weights = rows[there], indices[there], weights[there]
        indptr, indices, weights = compressed_weights(rows, indices, weights, size)
        problems = structure_problems(indptr, indices, size)
    if problems:
        raise GraphError("not a path graph:\n  " + "\n  ".join(problems))
    return indptr, indices, weights


def parts_from_edges(
    edges: npt.ArrayLike,
    num_nodes: int | None,
    activity: Sequence[float] | npt.NDArray[Any] | Mapping[int, float] | None,
    inputs: Sequence[int] | npt.NDArray[Any] | None,
    outputs: Sequence[int] | npt.NDArray[Any] | None,
    layers: Sequence[str] | Mapping[int, str] | None,
    weights: npt.ArrayLike | None = None,
) -> Parts:
    """See `PathGraph.from_edges`."""
    ids, pairs, starts, ends = _identified(edges, inputs, outputs)
    if num_nodes is None:
        num_nodes = int(ids[-1]) + 1 if ids.size else 0
    elif ids.size and ids[-1] >= num_nodes:
        raise GraphError(f"node id {ids[-1]} does not fit num_nodes={num_nodes}")

    # Numbers below are positions in `ids`, later in `kept`.
    is_source, is_sink = np.ones(len(ids), dtype=bool), np.ones(len(ids), dtype=bool)
    is_source[pairs[:, 1]] = is_sink[pairs[:, 0]] = False
    is_input = is_source if starts is None else np.isin(ids, starts)
    is_output = is_sink if ends is None else np.isin(ids, ends)
    indptr, indices, magnitudes = _rows_of(pairs, weights, len(ids))
    keep = on_path(indptr, indices, is_input, is_output)
    indptr, indices, magnitudes = restricted(indptr, indices, keep, magnitudes)
    kept = ids[keep]
    indptr, indices, magnitudes, kind, origin = _with_terminals(
        indptr, indices, magnitudes, is_input[keep], is_output[keep]
    )
    added = np.arange(len(kind)) >= len(kept)
    generation = _acyclic_generations(indptr, indices, kept[origin])
    if not kept.size:
        raise GraphError(NO_PATH)

    values = (kind == Kind.UNIT).astype(np.float64)
    if activity is not None:
        given = _per_node(activity, ids, num_nodes, "activity", ActivityError)
        values = np.where(added, 0.0, checked_activity(given, len(ids))[keep][origin])
    labels = None
    if layers is not None:
        given = _per_node(layers, kept, num_nodes, "layers", GraphError)
        labels = [str(given[node]) for node in origin.tolist()]
    order, layer, rows = arrange(indptr, indices, kind, generation, labels)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    indptr, indices, magnitudes = compressed_weights(
        position[row_numbers(indptr)], position[indices], magnitudes, len(order)
    )
    return {
        "indptr": indptr,
        "indices": indices,
        "activity": values[order],
        "kind": kind[order],
        "layer": layer.astype(np.int32),
        "layers": rows,
        "node_ids": np.where(added, -1, kept[origin])[order],
        "weights": magnitudes,
    }


def _identified(
    edges: npt.ArrayLike,
    inputs: Sequence[int] | npt.NDArray[Any] | None,
    outputs: Sequence[int] | npt.NDArray[Any] | None,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64] | None,
    npt.NDArray[np.int64] | None,
]:
    """Ids mentioned, ascending; edges [e, 2] as positions among them; ids of inputs and outputs."""
    pairs = _checked_pairs(edges)
    starts, ends = (None if given is None else _checked_ids(given) for given in (inputs, outputs))
    mentioned = [pairs, *(given for given in (starts, ends) if given is not None)]
    ids, compact = np.unique(
        np.concatenate([given.ravel() for given in mentioned]), return_inverse=True
    )
    return ids, compact[: pairs.size].reshape(pairs.shape), starts, ends


def _rows_of(
    pairs: npt.NDArray[np.int64], weights: npt.ArrayLike | None, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray | None]:
    """Predecessor lists of edges [e, 2], and what they weigh; edges of weight 0 are left out."""
    if weights is None:
        return compressed_weights(pairs[:, 1], pairs[:, 0], None, size)
    given = checked_weights(weights, len(pairs))
    there = given > 0
    pairs, given = pairs[there], given[there]
    return compressed_weights(pairs[:, 1], pairs[:, 0], given, size)


def _acyclic_generations(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], names: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Topological generations, or GraphError naming a cycle."""
    generation = generations(indptr, indices)
    if (generation < 0).any():
        cycle = chain(names[circle(indptr, indices, generation)].tolist())
        raise GraphError(f"the edges have a cycle: {cycle}; remove one of these edges")
    return generation


def _with_terminals(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    weights: FloatArray | None,
    is_input: BoolArray,
    is_output: BoolArray,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    FloatArray | None,
    npt.NDArray[np.uint8],
    npt.NDArray[np.int64],
]:
    """Tell inputs and outputs from other nodes, adding a node for each that is also another.

    Returns:
        indptr, indices, weights and kind with the added nodes last (their edges have weight 1);
        origin, the node each stands for.
    """
    size = len(is_input)
    has_before = np.diff(indptr) > 0
    has_after = np.bincount(indices, minlength=size) > 0
    entered = np.flatnonzero(is_input & has_before)
    left = np.flatnonzero(is_output & (has_after | is_input))
    origin = np.concatenate([np.arange(size), entered, left])
    kind = np.full(len(origin), Kind.UNIT, dtype=np.uint8)
    kind[:size][~has_after] = Kind.OUTPUT
    kind[:size][~has_before] = Kind.INPUT
    kind[left[has_before[left]]] = Kind.UNIT
    kind[size : size + len(entered)] = Kind.INPUT
    kind[size + len(entered) :] = Kind.OUTPUT
    if len(origin) > size:
        added = np.arange(size, len(origin))
        rows = np.concatenate([row_numbers(indptr), entered, added[len(entered) :]])
        columns = np.concatenate([indices, added[: len(entered)], left])
        if weights is not None:
            weights = np.concatenate([weights, np.ones(len(added))])
        indptr, indices, weights = compressed_weights(rows, columns, weights, len(origin))
    return indptr, indices, weights, kind, origin


def _checked_ids(ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Node ids as int64, or GraphError."""
    given = np.asarray(ids)
    if given.size == 0:
        return np.zeros(given.shape, dtype=np.int64)
    if given.dtype.kind not in "iu":
        raise GraphError(f"node ids must be integers, not {given.dtype}")
    if int(given.min()) < 0 or int(given.max()) > np.iinfo(np.int64).max:
        raise GraphError(
            f"node ids must lie in [0, 2**63); they run from {given.min()} to {given.max()}"
        )
    return given.astype(np.int64)


def _checked_pairs(edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Edges as int64[e, 2], or GraphError."""
    try:
        pairs = _checked_ids(edges)
    except ValueError as error:
        if isinstance(error, PathlenError):
            raise
        raise GraphError(f"edges must be pairs of node ids (from, to): {error}") from error
    if pairs.size == 0:
        return pairs.reshape(0, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise GraphError(f"edges must have shape [e, 2], (from, to) in a row; not {pairs.shape}")
    return pairs


def _per_node(
    values: Sequence[Any] | npt.NDArray[Any] | Mapping[int, Any],
    ids: npt.NDArray[np.int64],
    num_nodes: int,
    what: str,
    error: type[PathlenError],
) -> Sequence[Any]:
    """Values of the nodes `ids`, from a sequence over all ids or a mapping from ids."""
    if isinstance(values, Mapping):
        missing = [node for node in ids.tolist() if node not in values]
        if missing:
            raise error(f"{what} has no entry for node {missing[0]} ({len(missing)} in all)")
        return [values[node] for node in ids.tolist()]
    if len(values) != num_nodes:
        raise error(f"{what} has {len(values)} entries; it needs one a node, {num_nodes}")
    return [values[node] for node in ids.tolist()]
