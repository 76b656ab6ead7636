"""Reading and writing at indices: by constant indices a movement, by computed ones a mixture."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merge_labels, scalar_function
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    channel_labels,
    collapse,
    compact,
    constant_labels,
    distinct,
)
from pathlen.lowering.layer_weights import looked_up
from pathlen.lowering.mixing import mixed
from pathlen.lowering.movement import run_on_labels
from pathlen.lowering.moving import places_of
from pathlen.lowering.operations import aten, functional
from pathlen.lowering.reduction import union_over
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import rule
from pathlen.lowering.values import Call, Value, varying_operands

_PLACES = ("index", "indices", "mask")
_PUTS = aten("index_put _index_put_impl _unsafe_index_put")
_ADDS = aten("scatter_add scatter_reduce index_add index_reduce")


@rule("movement", *aten("gather index_select take_along_dim"))
def gather(call: Call, lowering: Lowering) -> Value:
    """Elements along one axis: at constant indices a movement, else any of them."""
    source, places = call["self"], _constant_places(call, lowering)
    if not source.is_path:
        return _looked_up(call, lowering)
    if places is not None:
        return _moved(call, places, lowering)
    if call.arguments.get("dim") is None:
        return _any_element(call, source, lowering)
    return lowering.result(call, mixed(call, source, [call["dim"]], lowering), softmax_of=source)


@rule("movement", *aten("index _unsafe_index masked_select"))
def index(call: Call, lowering: Lowering) -> Value:
    """The elements `x[indices]`; an entry None keeps its axis whole."""
    source, places = call["self"], _constant_places(call, lowering)
    if not source.is_path:
        return _looked_up(call, lowering)
    if places is not None:
        return _moved(call, places, lowering)
    indices = call["indices"] if "indices" in call.arguments else [call["mask"]]
    if any(i is not None and i.dtype == torch.bool for i in indices):
        return _any_element(call, source, lowering)
    axes = [axis for axis, i in enumerate(indices) if i is not None]
    merged = union_over(call, source.labels, axes, lowering)
    return _moved(call, {"self": merged, "indices": _first(indices)}, lowering)


def _looked_up(call: Call, lowering: Lowering) -> Value:
    """Elements of a table at places that the input decides on: an embedding of the indices.

    One new unit per feature of the table, the last of its axes that is looked at whole. A table
    that the input decides on too, though only by comparing and counting, is no table of
    parameters: what is read there, the degrees of the nodes of a graph, has no path either.
    """
    table = call["self"]
    if table.varies:
        return lowering.result(call, constant_labels(call.shape))
    read = [distinct(lowering.unified(v.labels)) for v in call.values() if v.is_path]
    hub_over = np.unique(np.concatenate(read))
    given = {name: call[name] for name in _PLACES if name in call.arguments}
    axis = _feature_axis(call, table, given)
    lowering.layer(call)
    hub = np.full(1 if axis is None else table.shape[axis], lowering.builder.hub(hub_over))
    if lowering.weights is None:
        units = lowering.builder.units(hub)
    else:
        units = lowering.weights.units(hub, weights=looked_up(call, table, axis, lowering))
    if axis is None:
        return lowering.result(call, torch.full((), int(units[0])).expand(call.shape))
    labels = channel_labels(units, table.shape, axis)
    return _moved(call, {"self": labels, **_first(given)}, lowering)


def _feature_axis(call: Call, table: Value, given: dict[str, Any]) -> int | None:
    """The last axis of a table that no index is for and along which it was not expanded, if any."""
    indices = given.get("indices")
    if indices is None:
        axis = call.arguments.get("dim")
        looked_up = set(range(table.labels.ndim)) if axis is None else {axis % table.labels.ndim}
    elif any(i is not None and i.dtype == torch.bool for i in indices):
        return None
    else:
        looked_up = {axis for axis, i in enumerate(indices) if i is not None}
    strides = table.node.meta["val"].stride()
    whole = [a for a in range(table.labels.ndim) if a not in looked_up and strides[a] != 0]
    return max(whole, default=None)


@rule(
    "movement",
    *_PUTS,
    *_ADDS,
    *aten("scatter index_copy index_fill masked_scatter"),
)
def scatter(call: Call, lowering: Lowering) -> Value:
    """A tensor with elements written to it.

    At constant indices an assignment is a movement. Otherwise what may stand at an element is what
    was there and what may be written there, and both are predecessors.
    """
    if any(place.varies and place.dtype == torch.bool for place in places_of(call)):
        region = find_region(call, varying_operands(call), lowering.constants)
        if region is not None and not region.affine:  # a mask made from the tensor itself
            return scalar_function(region, lowering)
    target, written = call["self"], _written(call)
    adds = call.name in _ADDS or call.arguments.get("accumulate")
    places = _constant_places(call, lowering)
    if places is not None and not adds and call.name != "aten.masked_scatter":
        return _moved(call, places, lowering)
    if written is None or not written.is_path:
        return lowering.result(call, target.labels, softmax_of=target)
    if adds:
        lowering.uncertain(call, "how many elements are added up at an index")
    labels = _written_at(call, written.labels, places) if places is not None else None
    if labels is None:
        labels = _written_anywhere(call, written, lowering)
        if places is not None:
            lowering.remark(f"{lowering.site(call)}: taken to write anywhere on its axis", "bound")
    source = lowering.result(call, labels)
    if not target.is_path:
        return source
    return lowering.result(call, merge_labels(call, [target, source], lowering))


def _written_at(call: Call, labels: torch.Tensor, places: dict[str, Any]) -> torch.Tensor | None:
    """Labels of what is added at constant places; None where different units meet at one place.

    They are assigned and read again: where the same comes back everywhere, nothing met.
    """
    target = torch.full(call.shape, CONSTANT)
    if call.name in _PUTS:
        index = tuple(slice(None) if i is None else i for i in places["indices"])
        target[index] = labels
        read = target[index]
    elif call.name == "aten.index_add":
        target = target.index_copy(call["dim"], places["index"], labels.contiguous())
        read = target.index_select(call["dim"], places["index"])
    elif call.name in aten("scatter_add scatter_reduce"):
        labels = labels[tuple(slice(size) for size in places["index"].shape)]
        target = target.scatter(call["dim"], places["index"], labels.contiguous())
        read = target.gather(call["dim"], places["index"])
    else:
        return None
    return collapse(target) if bool((read == labels).all()) else None


def _written_anywhere(call: Call, written: Value, lowering: Lowering) -> torch.Tensor:
    """Labels of what may be written to each element of the target.

    Axes of what is written that are also axes of the target keep their elements apart.
    """
    shape, axes = call.shape, range(written.labels.ndim)
    if call.name in _PUTS:
        kept = len(shape) - len(call["indices"])
        axes = range(max(written.labels.ndim - kept, 0))
    elif "dim" in call.arguments:
        axes = range(call["dim"] % len(shape), call["dim"] % len(shape) + 1)
    elif written.shape[-1:] == shape[-1:]:  # whole rows are written, as embeddings of tokens
        axes = range(written.labels.ndim - 1)
        lowering.remark(f"{lowering.site(call)}: taken to write whole rows", "bound")
    small = compact(union_over(call, written.labels, axes, lowering))
    small = small.reshape(small.shape[max(small.ndim - len(shape), 0) :])
    if any(s not in (1, t) for s, t in zip(small.shape[::-1], shape[::-1], strict=False)):
        small = compact(union_over(call, small, range(small.ndim), lowering)).reshape(())
        lowering.remark(f"{lowering.site(call)}: any element may be written anywhere", "bound")
    return small.expand(shape)


def _written(call: Call) -> Value | None:
    for name in ("src", "source", "values", "value"):
        value = call.arguments.get(name)
        if isinstance(value, Value):
            return value
    return None


def _first(indices: Any) -> Any:
    """Zeros in place of all indices."""
    return pytree.tree_map_only(Value, lambda i: torch.zeros(i.shape, dtype=torch.int64), indices)


def _any_element(call: Call, source: Value, lowering: Lowering) -> Value:
    """Positions are picked by the data; features on the last axis stay apart if it stays whole."""
    labels, shape = source.labels, call.shape
    keeps_last = len(shape) > 0 and labels.ndim > 1 and shape[-1] == labels.shape[-1]
    axes: Iterable[int] = range(labels.ndim - 1) if keeps_last else range(labels.ndim)
    merged = union_over(call, labels, axes, lowering)
    row = [1] * (len(shape) - 1) + [labels.shape[-1]] if keeps_last else [1] * len(shape)
    if not keeps_last and len(distinct(labels)) > 1:
        lowering.remark(f"{lowering.site(call)}: may read any element", "bound")
    return lowering.result(call, merged.reshape(row).expand(shape))


def _constant_places(call: Call, lowering: Lowering) -> dict[str, Any] | None:
    """The index arguments with their values; None if the input decides on them."""

    def tensor(value: Value) -> torch.Tensor:
        if value.varies:
            raise UnknownConstantError(value.node.name)
        return lowering.constants.of(value)

    try:
        return {
            name: pytree.tree_map_only(Value, tensor, call[name])
            for name in _PLACES
            if name in call.arguments
        }
    except UnknownConstantError:
        return None


def _moved(call: Call, replaced: dict[str, Any], lowering: Lowering) -> Value:
    """The operation run on labels; numbers and constants that it writes are -1."""
    arguments = {**call.replace_values(lambda value: value.labels), **replaced}
    if isinstance(arguments.get("value"), (int, float)):
        arguments["value"] = CONSTANT
    labels = run_on_labels(functional(call.func), arguments)
    return lowering.result(call, broadcast(labels, call.shape), softmax_of=call["self"])
