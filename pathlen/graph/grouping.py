"""Group the nodes of a user's graph into layers that can follow each other in order."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphError
from pathlen.graph.check import row_numbers
from pathlen.graph.parts import IntArray, Kind, Layer
from pathlen.graph.rows import circle, compressed, generations

# How the nodes of a layer are called where its name alone would not tell them apart.
_ROLE = {Kind.INPUT: "input", Kind.UNIT: "unit", Kind.OUTPUT: "output"}


def table(names: Sequence[str], operations: Sequence[str], counts: IntArray) -> tuple[Layer, ...]:
    """Rows of a layers table; `counts` holds the number of nodes of each."""
    firsts = np.cumsum(counts) - counts
    rows = zip(names, operations, firsts.tolist(), counts.tolist(), strict=True)
    return tuple(Layer(*row) for row in rows)


def chain(names: Sequence[object]) -> str:
    """A cycle as text, shortened in the middle."""
    shown = [str(name) for name in [*names, names[0]]]
    if len(shown) > 10:
        shown[5:-4] = [f"... ({len(shown) - 9} more)"]
    return " -> ".join(shown)


def arrange(
    indptr: IntArray,
    indices: IntArray,
    kind: IntArray,
    generation: IntArray,
    names: Sequence[str] | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[Layer, ...]]:
    """Order nodes topologically with consecutive layers, input layers first and outputs last.

    Args:
        indptr: int[n + 1], rows of predecessors.
        indices: int[e], predecessors.
        kind: int[n], values of `Kind`.
        generation: int[n], topological generation of each node.
        names: Layer name of each node. Inputs, outputs and other nodes of one name make
            different layers. None makes a layer of each generation.

    Returns:
        order int64[n] of the nodes, layer int64[n] of the nodes in that order, layers table.

    Raises:
        GraphError: Named layers feed each other in a circle.
    """
    if names is None:
        # All outputs are one layer, whatever their generation; inputs are generation 0.
        code = np.where(kind == Kind.OUTPUT, generation.max() + 1, generation)
        used, code = np.unique(code, return_inverse=True)
        labels = ["inputs", *(f"generation {number}" for number in used[1:-1]), "outputs"]
        roles = [Kind.INPUT, *([Kind.UNIT] * (len(used) - 2)), Kind.OUTPUT]
        rank = np.arange(len(used))
    else:
        codes: dict[tuple[str, int], int] = {}
        parts = zip(names, kind.tolist(), strict=True)
        code = np.array([codes.setdefault(part, len(codes)) for part in parts], dtype=np.int64)
        labels = _labels(list(codes))
        roles = [Kind(role) for _, role in codes]
        rank = _rank(indptr, indices, code, labels, np.array(roles))
    order = np.lexsort((generation, rank[code]))
    layer = rank[code][order]
    by_rank = np.argsort(rank).tolist()
    rows = table(
        [labels[row] for row in by_rank], [_ROLE[roles[row]] for row in by_rank], np.bincount(layer)
    )
    return order, layer, rows


def _labels(codes: Sequence[tuple[str, int]]) -> list[str]:
    """Distinct layer names; a name shared by terminals and units gets the role of the former."""
    plain = Counter(name for name, _ in codes)
    taken: set[str] = set()
    labels = []
    for name, role in codes:
        shared = plain[name] > 1 and role != Kind.UNIT
        label = f"{name}.{_ROLE[Kind(role)]}" if shared else name
        while label in taken or (shared and label in plain):
            label += "#2"
        taken.add(label)
        labels.append(label)
    return labels


def _rank(
    indptr: IntArray,
    indices: IntArray,
    code: npt.NDArray[np.int64],
    labels: Sequence[str],
    roles: IntArray,
) -> npt.NDArray[np.int64]:
    """Position of each layer in an order in which every layer follows those that feed it."""
    rows, columns = code[row_numbers(indptr)], code[indices]
    across = rows != columns
    layer_indptr, layer_indices = compressed(rows[across], columns[across], len(labels))
    generation = generations(layer_indptr, layer_indices)
    if (generation < 0).any():
        names = [labels[row] for row in circle(layer_indptr, layer_indices, generation)]
        raise GraphError(
            f"layers feed each other in a circle: {chain(names)}; the nodes of a layer must be "
            "able to follow each other, so give its parts different names"
        )
    # Terminals have no edges among themselves: sorting by role first keeps the order valid.
    rank = np.empty(len(labels), dtype=np.int64)
    rank[np.lexsort((generation, roles))] = np.arange(len(labels))
    return rank
