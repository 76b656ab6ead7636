"""Bilinear layers in several calls: a product with weights, then one of two tensors.

In `einsum("bi,oij,bj->bo", x, w, y)` and `(x @ w) @ y[..., None]`, with a matrix for each of
several features, it is no matter which of x and y meets the weights first: the features have a hub
over each. A single product of a linear map with another tensor stays one, and so do those of two
linear maps, which queries and keys are.
"""

import numpy as np
import torch
from torch import fx

from pathlen.lowering.builder import GraphBuilder
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import CONSTANT, LabelSets
from pathlen.lowering.letters import Letters
from pathlen.lowering.moving import item_of, moved_operands
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Value


def side_with_weights(letters: Letters, graph: fx.Graph, lowering: Lowering) -> int | None:
    """Which of two tensors was multiplied by the weights of a bilinear layer; None for neither.

    The one that more linear maps lead to, of which nothing else reads the results. Inside of an
    einsum of three tensors only its own products count.
    """
    if lowering.weights is not None:  # each weight is an edge
        return None
    within = graph if graph in lowering.einsums else None
    one, other = (_linear_maps(value, within, lowering) for value in letters.operands)
    return None if one == other else int(other > one)


def read_by_weights(sets: LabelSets, of: np.ndarray, builder: GraphBuilder) -> np.ndarray:
    """What a linear map reads, for each set of two or more of its units.

    Args:
        sets: of units.
        of: the numbers of the sets that may be of a linear map, `CONSTANT` among them.
        builder: has the units.

    Returns:
        A node for each set, `CONSTANT` for sets of other units.
    """
    mine = np.isin(np.arange(len(sets.sizes)), of) & (sets.sizes > 1)
    number = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    before = np.full(len(sets.members), CONSTANT)
    before[mine[number]] = builder.only_predecessors(sets.members[mine[number]])
    starts = np.cumsum(sets.sizes) - sets.sizes
    first = before[starts]
    mixed = np.bincount(number, before != first[number], len(first)) > 0
    return np.where(mixed, CONSTANT, first)


def _linear_maps(value: Value, within: fx.Graph | None, lowering: Lowering) -> int:
    """How many linear maps with weights lead to a tensor, one after the other."""
    count = 0
    readers = lowering.readers
    while value.call is not None and readers.get(id(value.node), 0) == 1:
        if within is not None and value.node.graph is not within:
            break
        kind = kind_of(value)
        path = [operand for operand in moved_operands(value.call) if operand.is_path]
        if len(path) != 1 or (kind == "movement" and _is_one_of_several(value)):
            break
        if kind in ("layer", "contraction"):
            count += 1
        elif kind != "movement" and (kind != "elementwise" or value.function or value.merge):
            break  # scaling by numbers goes on
        value = path[0]
    return count


def _is_one_of_several(value: Value) -> bool:
    assert value.call is not None
    return not isinstance(value.call.node.meta["val"], torch.Tensor) or item_of(value) is None
