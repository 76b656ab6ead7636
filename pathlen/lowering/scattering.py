"""Writing at indices: at constant indices a movement, at computed ones a mixture."""

import itertools
from typing import Any

import numpy as np
import torch

from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_columns, merge_labels, merged, scalar_function
from pathlen.lowering.equal import equal
from pathlen.lowering.flat import combined
from pathlen.lowering.follow import followed_operands
from pathlen.lowering.indexing import Picked, constant_places, moved
from pathlen.lowering.labels import CONSTANT, broadcast, collapse, constant_labels
from pathlen.lowering.masks import chosen_from, mask_of
from pathlen.lowering.operations import aten
from pathlen.lowering.operators import Meeting
from pathlen.lowering.ranks import written_by_rank
from pathlen.lowering.reduced import union_over
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import Result, kind_of, rule
from pathlen.lowering.values import Call, Value

_PUTS = aten("index_put _index_put_impl _unsafe_index_put")
_ALONG_AN_AXIS = aten("index_add index_reduce")
_ADDS = (*_ALONG_AN_AXIS, *aten("scatter_add scatter_reduce"))
_READS = {  # what reads the elements that an assignment writes
    **dict.fromkeys(_PUTS, aten("index _unsafe_index")),
    "aten.scatter": aten("gather"),
    "aten.index_copy": aten("index_select"),
}
_ASSIGNS: dict[str, tuple[Any, str]] = {  # what writes at indices where others add
    **dict.fromkeys(_PUTS, (torch.ops.aten.index_put.default, "aten.index_put")),
    "aten.index_add": (torch.ops.aten.index_copy.default, "aten.index_copy"),
    "aten.scatter_add": (torch.ops.aten.scatter.src, "aten.scatter"),
    "aten.scatter_reduce": (torch.ops.aten.scatter.src, "aten.scatter"),
}
_HOW_MANY = "how many elements are added up at an index"
_MOST_PAIRS = 1 << 24
_MOST_AT_ONE_PLACE = 64


@rule(
    "movement",
    *_PUTS,
    *_ADDS,
    *aten("scatter index_copy index_fill masked_scatter put"),
)
def scatter(call: Call, lowering: Lowering) -> Value:
    """A tensor with elements written to it.

    At constant indices an assignment is a movement. Otherwise what may stand at an element is what
    was there and what may be written there, and both are predecessors.
    """
    if written_by_rank(call) is not None and any(value.is_path for value in call.values()):
        region = find_region(call, followed_operands(call), lowering.constants)
        if region is not None:
            return scalar_function(region, lowering)
    mask = mask_of(call)
    if mask is not None and mask.varies:
        chosen = _where_a_mask_says(call, lowering)
        if chosen is not None:
            return chosen
    target, written = call["self"], _written(call)
    adds = call.name in _ADDS or call.arguments.get("accumulate") or call.arguments.get("reduce")
    places = constant_places(call, lowering)
    if places is not None and not adds:
        return moved(call, places, lowering)
    if places is not None and call.arguments.get("include_self") is False:
        target = _without(target, call, places, lowering)
    if written is None or not written.is_path:
        return lowering.result(call, target.labels, softmax_of=target)
    if adds and places is not None:
        added = _sum_of_two(call, target, written, places, lowering)
        if added is not None:
            return added
    if adds:
        lowering.uncertain(call, _HOW_MANY)
    columns = _added_at(call, written.labels, places) if places is not None else None
    if columns is not None:
        columns.append(broadcast(target.labels, call.shape))
        return lowering.result(call, merge_columns(call, columns, lowering))
    if places is not None:
        lowering.remark(f"{lowering.site(call)}: taken to write anywhere on its axis", "bound")
    if not adds:
        written = _added_to_what_was_there(call, written, lowering) or written
    source = lowering.result(call, _written_anywhere(call, written, lowering))
    if not target.is_path:
        return source
    return lowering.result(call, merge_labels(call, [target, source], lowering))


@rule("movement", "aten.segment_reduce")
def segments(call: Call, lowering: Lowering) -> Result | None:
    """Sums, or the like, of runs of rows: each row is added up at the index of its run.

    None where the lengths of the runs depend on the inputs, or differ along several axes.
    """
    lengths, offsets = call["lengths"], call["offsets"]
    try:
        known = None if lengths is None else lowering.constants.of(lengths)
        if offsets is not None and not offsets.varies:
            known = lowering.constants.of(offsets).diff()
    except UnknownConstantError:
        return None
    if known is None or known.ndim != 1 or (lengths is not None and lengths.varies):
        return None
    target = lowering.value(call.node, constant_labels(call.shape), call.output.dtype, varies=False)
    index = torch.arange(len(known)).repeat_interleave(known)
    arguments = {"self": target, "dim": call["axis"], "index": index, "source": call["data"]}
    if call["reduce"] == "sum":
        func, name = torch.ops.aten.index_add.default, "aten.index_add"
    else:
        func, name = torch.ops.aten.index_reduce.default, "aten.index_reduce"
    return scatter(Call(func, name, arguments, call.node), lowering)


def _sum_of_two(
    call: Call, target: Value, written: Value, places: dict[str, Any], lowering: Lowering
) -> Value | None:
    """What is added at known places, no two of them the same, as a sum with what is moved there.

    None where several elements meet in one place, and for other operations than sums.
    """
    assign = _ASSIGNS.get(call.name)
    if call.arguments.get("reduce", "sum") not in ("sum", "add") or assign is None:
        return None
    if call.arguments.get("include_self") is False:
        return None
    at = _places_written(call, torch.arange(call.shape.numel()).view(call.shape), places)
    if at.unique().numel() < at.numel():
        return None
    func, name = assign
    settings = {"accumulate": False} if call.name in _PUTS else {}
    keys = [argument.name for argument in func._schema.arguments]
    arguments = {key: call.arguments[key] for key in keys if key in call.arguments} | settings
    arguments["self"] = torch.zeros(call.shape, device="meta")  # constants beside what is moved
    if name == "aten.scatter":
        arguments["src"] = written
    move = Call(func, name, arguments, call.node, call.output)
    own = moved(move, places, lowering)
    terms = [(target, 1.0)] if target.varies else []
    terms.append((own, float(call.arguments.get("alpha", 1))))
    last = combined(call, "sum", terms)
    operands = [value for value, _ in terms]
    return merged(last, Meeting("sum", operands, (last,)), lowering)


def _where_a_mask_says(call: Call, lowering: Lowering) -> Value | None:
    """What a mask of computed values writes, where it is known element by element.

    The mask is one of the tensor itself, so that all is a scalar function of it; or the same mask
    chose what is written from another tensor.
    """
    region = find_region(call, followed_operands(call), lowering.constants)
    if region is not None and not region.affine:
        return scalar_function(region, lowering)
    other = chosen_from(call)
    if other is None:
        return None
    columns = [call["self"].labels, other.labels]
    labels = merge_columns(call, columns, lowering, passes="beside constants")
    return lowering.result(call, labels)


def _added_to_what_was_there(call: Call, written: Value, lowering: Lowering) -> Value | None:
    """What an assignment adds to the elements that it writes to; None for any other assignment.

    `out[b] += y` reads elements, adds to them and writes them back: they are predecessors already.
    """
    if written.call is not None and written.call.name == "aten.view":  # without axes of length 1
        written = written.call["self"]
    summands = [v for v in written.parts if written.operator == "sum" and v.is_path]
    found = [summand for summand in summands if not _reads_at(summand, call)]
    read = {id(summand) for summand in summands} - {id(summand) for summand in found}
    if not (read and found) or any(id(summand.function_of) in read for summand in found):
        return None
    lowering.uncertain(call, _HOW_MANY)
    factors = written.terms or {}
    labels = [broadcast(summand.labels, written.shape) for summand in found]
    labels = [
        lowering.scaled(own, factors[id(summand)].abs()) if id(summand) in factors else own
        for own, summand in zip(labels, found, strict=True)
    ]
    return lowering.result(call, merge_columns(call, labels, lowering))


def _reads_at(value: Value, call: Call) -> bool:
    """Whether a value is what stood in a tensor where an assignment writes to it."""
    read = value.call
    if read is None or read.name not in _READS.get(call.name, ()):
        return False
    pairs = [(read["self"], call["self"])]
    if "indices" in call.arguments:
        pairs += itertools.zip_longest(read["indices"], call["indices"])
    else:
        pairs += [(read["index"], call["index"])]
        if read["dim"] % len(call.shape) != call["dim"] % len(call.shape):
            return False
    return all(
        one is other or (isinstance(one, Value) and isinstance(other, Value) and equal(one, other))
        for one, other in pairs
    )


def _without(target: Value, call: Call, places: dict[str, Any], lowering: Lowering) -> Value:
    """A target that nothing is left of where something is written."""
    elements = torch.arange(call.shape.numel()).view(call.shape)
    labels = target.labels.contiguous().clone()
    labels.view(-1)[_places_written(call, elements, places).reshape(-1)] = CONSTANT
    return lowering.result(call, collapse(labels))


def _places_written(call: Call, elements: torch.Tensor, places: dict[str, Any]) -> torch.Tensor:
    """Which of the elements of the target each element that is written goes to."""
    if call.name in _PUTS:
        chosen = tuple(slice(None) if i is None else i for i in places["indices"])
        return elements[chosen]
    if call.name in _ALONG_AN_AXIS:
        return elements.index_select(call["dim"], places["index"])
    if call.name == "aten.put":
        return elements.reshape(-1)[places["index"]]
    return elements.gather(call["dim"], places["index"])


def _added_at(
    call: Call, labels: torch.Tensor, places: dict[str, Any]
) -> list[torch.Tensor] | None:
    """The units that are added up at constant places, each in one of several label tensors.

    Returns:
        Tensors of the shape of the target, each element with its units in ascending order, or None
        where there are too many to tell them apart.
    """
    elements = torch.arange(call.shape.numel()).view(call.shape)
    at = _places_written(call, elements, places)
    if call.name in aten("scatter scatter_add scatter_reduce"):
        labels = labels[tuple(slice(size) for size in at.shape)]
    places_of, units = at.reshape(-1).numpy(), labels.expand(at.shape).reshape(-1).numpy()
    only = np.full(call.shape.numel(), CONSTANT)
    only[places_of] = units
    if (only[places_of] == units).all():  # the same comes back everywhere: nothing met
        return [collapse(torch.from_numpy(only).view(call.shape))]
    if len(units) > _MOST_PAIRS:
        return None
    pairs = np.stack([places_of, units])[:, units != CONSTANT]
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    new_place = np.append(True, pairs[0, 1:] != pairs[0, :-1])[: pairs.shape[1]]
    new = new_place | np.append(True, pairs[1, 1:] != pairs[1, :-1])[: pairs.shape[1]]
    pairs, new_place = pairs[:, new], new_place[new]
    first = np.flatnonzero(new_place)
    rank = np.arange(pairs.shape[1]) - np.repeat(first, np.diff(np.append(first, len(new_place))))
    count = int(rank.max(initial=0)) + 1
    if count > _MOST_AT_ONE_PLACE:
        return None
    columns = np.full((count, call.shape.numel()), CONSTANT)
    columns[rank, pairs[0]] = pairs[1]
    return [collapse(torch.from_numpy(column).view(call.shape)) for column in columns]


def _written_anywhere(call: Call, written: Value, lowering: Lowering) -> torch.Tensor:
    """Labels of what may be written to each element of the target.

    Axes of what is written that are also axes of the target keep their elements apart.
    """
    labels, shape = written.labels, call.shape
    if call.name in _PUTS:
        picked = Picked.by(call["indices"])
        ndim = len(shape) - len(picked.axes) + picked.count
        labels = labels.reshape([1] * (ndim - labels.ndim) + list(labels.shape))
        axes = range(picked.first, picked.first + picked.count)
        return picked.in_source(union_over(call, labels, axes, lowering), shape)
    if "dim" in call.arguments:
        index = call["index"].shape
        if len(index) == labels.ndim and call.name not in (*_ALONG_AN_AXIS, "aten.index_copy"):
            labels = labels[tuple(map(slice, index))]
        axis = call["dim"] % max(len(shape), 1)
        merged = union_over(call, labels, [axis] if labels.ndim else [], lowering)
        for other, (size, whole) in enumerate(zip(merged.shape, shape, strict=False)):
            if other != axis and size < whole:  # nothing is written to what lies behind
                border = [0, 0] * (merged.ndim - 1 - other) + [0, whole - size]
                merged = torch.nn.functional.pad(merged, border, value=CONSTANT)
        return merged.expand(shape)
    if labels.shape[-1:] == shape[-1:] and _writes_rows(call):
        return union_over(call, labels, range(labels.ndim - 1), lowering).reshape(-1).expand(shape)
    nodes = lowering.builder.num_nodes
    merged = union_over(call, labels, range(labels.ndim), lowering)
    if lowering.builder.num_nodes > nodes:  # different units met in hubs
        lowering.remark(f"{lowering.site(call)}: any element may be written anywhere", "bound")
    return merged.reshape(()).expand(shape)


def _writes_rows(call: Call) -> bool:
    """Whether whole rows are written, each of them a row of what is written."""
    return call.name == "aten.masked_scatter" and _same_along_last(call["mask"])


def _same_along_last(mask: Value) -> bool:
    """Whether a mask is known to be the same along its last axis, so that it chooses whole rows."""
    val = mask.node.meta["val"]
    if not val.ndim or val.shape[-1] == 1 or val.stride(-1) == 0:
        return True
    if mask.call is None or kind_of(mask) not in ("elementwise", "movement"):
        return False
    sources = [value for value in mask.call.values() if len(value.shape)]
    if mask.call.name == "aten.repeat":
        return sources[0].shape[-1] == 1
    return kind_of(mask) == "elementwise" and all(map(_same_along_last, sources))


def _written(call: Call) -> Value | None:
    for name in ("src", "source", "values", "value"):
        value = call.arguments.get(name)
        if isinstance(value, Value):
            return value
    return None
