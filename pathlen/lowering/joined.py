"""Sums that were put side by side: a sum of tensors put side by side.

`cat([a + b, c + d])` is `cat([a, c]) + cat([b, d])`, and what was written to memory slice by slice,
`y[:, t] += p[:, t]`, is `y + p`. Summands that are of one tensor stand side by side again.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace

from pathlen.lowering.constants import Constants
from pathlen.lowering.labels import constant_labels
from pathlen.lowering.memory import Assembled
from pathlen.lowering.moving import before_moves, run_movement
from pathlen.lowering.stacks import JOINS
from pathlen.lowering.values import Call, Value

_COPIES = {"aten.copy": "src", "aten.clone": "self"}
Summands = dict[Hashable, Value]


def joined_summands(
    value: Value, readers: Mapping[int, int], constants: Constants
) -> tuple[Value, ...]:
    """The summands of sums that were put side by side; none where a value is no such thing.

    Args:
        value: of any call.
        readers: how many calls read the result of a node.
        constants: gives the places of what is written.
    """
    call = value.call
    if call is None or call.name not in JOINS or not value.dtype.is_floating_point:
        return ()
    pieces = list({id(piece): piece for piece in call["tensors"]}.values())
    split = {id(piece): summands_of(piece, readers) for piece in pieces if piece.varies}
    if all(len(summands) < 2 for summands in split.values()):
        return ()
    names = list(dict.fromkeys(name for summands in split.values() for name in summands))
    found = [_joined(value, call, name, split, constants) for name in names]
    return () if None in found else tuple(one for one in found if one and one.is_path)


def number_of_readers(value: Value, readers: Mapping[int, int]) -> int:
    """How many calls read a tensor; of memory, after the last part of it was written."""
    if value.call is None or not isinstance(value.call.func, Assembled):
        return readers.get(id(value.node), 0)
    written = [one.node for one in value.call["tensors"][1:] if one.node.graph is value.node.graph]
    return sum(all(node < user for node in written) for user in value.node.users)


def summands_of(piece: Value, readers: Mapping[int, int]) -> Summands:
    """The summands of a tensor by name, itself where it is no sum or is read elsewhere too."""
    inner, alone = piece, True
    while not inner.merge and inner.call is not None and inner.call.name in _COPIES:
        alone = alone and readers.get(id(inner.node), 0) < 2
        inner = inner.call[_COPIES[inner.call.name]]
    alone = alone and readers.get(id(inner.node), 0) < 2
    is_sum = alone and inner.merge and inner.operator == "sum"
    parts = inner.parts if is_sum else (piece,)
    if any(part.shape != piece.shape for part in parts):
        parts = (piece,)
    counts, found = Counter[int](), Summands()
    for part in parts:
        whole = id(before_moves(part))
        counts[whole] += 1
        found[whole, counts[whole]] = part
    return found


def _joined(
    value: Value,
    call: Call,
    name: Hashable,
    split: Mapping[int, Summands],
    constants: Constants,
) -> Value | None:
    """The summands of one name side by side, nothing where there are none."""
    new: dict[int, Value] = {}
    for piece in call["tensors"]:
        summand = split.get(id(piece), {}).get(name)
        nothing = piece.changed(
            labels=constant_labels(piece.shape), varies=False, call=None, parts=(), operator=""
        )
        new[id(piece)] = nothing if summand is None else summand
    own = replace(call, arguments=call.replace_values(lambda one: new.get(id(one), one)))
    labels = {id(summand): summand.labels for summand in new.values()}
    moved = run_movement(own, labels, constants)
    if moved is None:
        return None
    return value.changed(
        labels=moved[0], call=own, operator="", parts=(), rooted=None, step=None, _path=None
    )
