"""Sums of the same tensors at several places, put side by side: one sum, with one unit a feature.

`stack([h[:, t] + p[:, t] for t in ...], 1)` is `h + p`, also where it is written to memory in a
loop. Where the same elements are added in two ways, `cat([h + p, h - p], 1)`, they are two.
"""

import torch

from pathlen.errors import TraceError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_columns
from pathlen.lowering.gains import terms
from pathlen.lowering.joined import Summands, joined_summands, summands_of
from pathlen.lowering.memory import Assembled
from pathlen.lowering.stacks import JOINS, are_at_different_places
from pathlen.lowering.values import Call, Value


def as_one_sum(call: Call, value: Value, lowering: Lowering) -> None:
    """Give tensors that were put side by side the units of one sum, where they are one.

    Args:
        call: that has put them together.
        value: the result; changed.
        lowering: the lowering at work.
    """
    if call.name not in JOINS or lowering.weights is not None or lowering.steps is not None:
        return
    tensors = call["tensors"]
    if isinstance(call.func, Assembled) and call.func.covers:
        tensors = tensors[1:]
    pieces = {id(piece): piece for piece in tensors if piece.varies}
    split = [summands_of(piece, lowering.readers) for piece in pieces.values()]
    if len(split) < 2 or len(split[0]) < 2 or any(one.keys() != split[0].keys() for one in split):
        return
    apart = any(
        are_at_different_places([one[k] for one in split], lowering.constants) for k in split[0]
    )
    if not apart or not _have_one_form(split, list(pieces.values()), lowering):
        return
    summands = joined_summands(value, lowering.readers, lowering.constants)
    if summands:
        value.labels = merge_columns(call, [one.labels for one in summands], lowering)
        value.merge, value.operator, value.parts = True, "sum", summands


def _have_one_form(split: list[Summands], pieces: list[Value], lowering: Lowering) -> bool:
    """Whether all are the same sum of their summands, with the same factors."""
    forms = []
    for summands, piece in zip(split, pieces, strict=True):
        assert piece.call is not None
        try:
            found = terms(piece.call, [*summands.values()], lowering.constants)
        except TraceError:
            return False
        forms.append([found.get(id(one)) for one in summands.values()])
    return all(
        a is not None and b is not None and a.shape == b.shape and torch.equal(a, b)
        for form in forms
        for a, b in zip(form, forms[0], strict=True)
    )
