"""Reading at indices: by constant indices a movement, by computed ones a mixture."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.lowering.chosen import chosen_over
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import scalar_function
from pathlen.lowering.follow import followed_operands
from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    constant_labels,
    distinct,
)
from pathlen.lowering.layer_weights import looked_up
from pathlen.lowering.lookups import as_look_up, chooser_of, has_root, is_step
from pathlen.lowering.masks import mask_of
from pathlen.lowering.mixing import first_of, ordered_along
from pathlen.lowering.movement import run_on_labels
from pathlen.lowering.operations import aten, functional
from pathlen.lowering.reduced import union_over
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import kind_of_call, rule
from pathlen.lowering.values import Call, Value, carries_path, varying_operands

_PLACES = ("index", "indices", "mask")


@dataclass(frozen=True, slots=True)
class Picked:
    """Along which axes `x[indices]` picks elements of x, and where these lie in the result.

    Attributes:
        axes: of x.
        first: their first axis in the result.
        count: how many axes they have there.
        by_mask: whether a mask picks them.
    """

    axes: tuple[int, ...]
    first: int
    count: int
    by_mask: bool

    @staticmethod
    def by(indices: list[Value | None]) -> "Picked":
        """What a list of indices picks, an entry None keeping its axis whole.

        A mask of several axes stands for as many indices. Axes that are picked along stand where
        the first of them was, if they are neighbours, else in front.
        """
        axes: list[int] = []
        axis, count, masks = 0, 0, False
        for index in indices:
            if index is None:
                axis += 1
                continue
            is_mask = index.dtype in (torch.bool, torch.uint8)
            width = len(index.shape) if is_mask else 1
            axes += range(axis, axis + width)
            axis += width
            count = max(count, 1 if is_mask else len(index.shape))
            masks |= is_mask
        neighbours = axes == list(range(axes[0], axes[0] + len(axes)))
        return Picked(tuple(axes), axes[0] if neighbours else 0, count, masks)

    def in_result(self, labels: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Labels of x, with the axes picked along cut to length 1, as labels of the result."""
        kept = labels.squeeze(self.axes)
        for _ in range(self.count):
            kept = kept.unsqueeze(self.first)
        return kept.expand(shape)

    def in_source(self, labels: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Labels of the result, with the axes of what is picked cut to length 1, as labels of x."""
        kept = labels.squeeze(tuple(range(self.first, self.first + self.count)))
        for axis in self.axes:
            kept = kept.unsqueeze(axis)
        return kept.expand(shape)


@rule("movement", *aten("gather index_select take_along_dim"))
def gather(call: Call, lowering: Lowering) -> Value:
    """Elements along one axis: at constant indices a movement, else any of them."""
    source, places = call["self"], constant_places(call, lowering)
    if _is_table(call):
        return _looked_up(call, lowering)
    if places is not None:
        return moved(call, places, lowering)
    if call.arguments.get("dim") is None:
        labels = union_over(call, source.labels, range(source.labels.ndim), lowering)
        return lowering.result(call, labels.reshape(()).expand(call.shape))
    axis = call["dim"] % max(source.labels.ndim, 1)
    where = [call.arguments.get("index", call.arguments.get("indices"))]
    if call.shape[axis : axis + 1] == source.shape[axis : axis + 1]:
        labels = ordered_along(call, source, axis, lowering)  # an order of all of them
    else:
        chosen = chosen_over(call, source, source.labels, [axis], where, lowering)
        labels = first_of(call, chosen, [axis])
    return lowering.result(call, labels, softmax_of=source)


@rule("movement", *aten("index _unsafe_index masked_select"))
def index(call: Call, lowering: Lowering) -> Value:
    """The elements `x[indices]`; an entry None keeps its axis whole."""
    source, places = call["self"], constant_places(call, lowering)
    if _is_table(call):
        return _looked_up(call, lowering)
    if places is not None:
        return moved(call, places, lowering)
    labels = source.labels
    if call.name == "aten.masked_select":
        labels = labels.expand(torch.broadcast_shapes(labels.shape, call["mask"].shape))
        picked = Picked(tuple(range(labels.ndim)), 0, 1, by_mask=True)
    else:
        picked = Picked.by(call["indices"])
    if call.shape.numel() == 0 and labels.numel() > 0:
        lowering.remark(
            f"{lowering.site(call)}: picks nothing in this example; what another example picks"
            " there has connections that are missing here"
        )
    nodes = lowering.builder.num_nodes
    if picked.by_mask:
        merged = union_over(call, labels, picked.axes, lowering)
    else:
        merged = chosen_over(call, source, labels, picked.axes, _places(call), lowering)
    if picked.by_mask and lowering.builder.num_nodes > nodes:  # different units met in hubs
        made = range(nodes, lowering.builder.num_nodes)
        lowering.remark_on(made, f"{lowering.site(call)}: may read any element", "bound")
    return lowering.result(call, picked.in_result(merged, call.shape), softmax_of=source)


def function_by_masks(call: Call, lowering: Lowering) -> Value | None:
    """A scalar function through comparisons or integers: (h > 0).float(), table[(h > 0).long()].

    None for other calls. Where it is wanted, no path leads to its operands, or integers choose.
    """
    call = as_look_up(call)
    output = call.node.meta["val"] if call.like is None else call.like
    if not carries_path(output):
        return None
    if chooser_of(call) is None and mask_of(call) is None:
        varying = varying_operands(call)
        if kind_of_call(call) != "elementwise" or not all(map(has_root, varying)):
            return None
    region = find_region(call, followed_operands(call), lowering.constants)
    return None if region is None or region.affine else scalar_function(region, lowering)


def _places(call: Call) -> list[Value]:
    return [value for value in call.values() if value is not call["self"]]


def _is_table(call: Call) -> bool:
    """Whether what is read has no paths that count; those of the places may."""
    source = call["self"]
    if not source.is_path:
        return True
    return is_step(source) and any(place.is_path for place in _places(call))


def _looked_up(call: Call, lowering: Lowering) -> Value:
    """Elements of a table at places that the input decides on: an embedding of the indices.

    One new unit per feature of the table, along all of its axes that are looked at whole. A table
    that the input decides on too, though only by comparing and counting, is no table of
    parameters: what is read there, the degrees of the nodes of a graph, has no path either.
    """
    table = call["self"]
    if table.varies and not _holds_parameters(table):
        return lowering.result(call, constant_labels(call.shape))
    read = [distinct(lowering.unified(v.labels)) for v in _places(call) if v.is_path]
    hub_over = np.unique(np.concatenate(read))
    given = {name: call[name] for name in _PLACES if name in call.arguments}
    axes = _feature_axes(call, table, given)
    lowering.layer(call)
    sizes = [table.shape[axis] for axis in axes]
    hub = np.full(prod(sizes), lowering.builder.hub(hub_over))
    if lowering.weights is None:
        units = lowering.builder.units(hub)
    else:
        units = lowering.weights.units(hub, weights=looked_up(call, table, axes, lowering))
    if not axes:
        return lowering.result(call, torch.full((), int(units[0])).expand(call.shape))
    along = [size if axis in axes else 1 for axis, size in enumerate(table.shape)]
    labels = torch.from_numpy(units).view(along).expand(table.shape)
    return moved(call, {"self": labels, **_first(given)}, lowering)


def _holds_parameters(table: Value) -> bool:
    """Whether numbers of the model stand in a table, and not only what was counted or compared."""
    reached, queue = {table.node}, [table.node]
    while queue:
        node = queue.pop()
        if node.op == "get_attr":
            return True
        for operand in node.all_input_nodes:
            val = operand.meta.get("val")
            floating = isinstance(val, torch.Tensor) and (val.is_floating_point())
            if floating and operand not in reached:
                reached.add(operand)
                queue.append(operand)
    return False


def _feature_axes(call: Call, table: Value, given: dict[str, Any]) -> list[int]:
    """The axes of a table that no index is for and along which it was not expanded."""
    indices = given.get("indices")
    if not isinstance(indices, (list, tuple)):  # one for an axis
        axis = call.arguments.get("dim")
        looked_up = set(range(table.labels.ndim)) if axis is None else {axis % table.labels.ndim}
    elif any(i is not None and i.dtype == torch.bool for i in indices):
        return []
    else:
        looked_up = {axis for axis, i in enumerate(indices) if i is not None}
    strides = table.node.meta["val"].stride()
    return [a for a in range(table.labels.ndim) if a not in looked_up and strides[a] != 0]


def _first(indices: Any) -> Any:
    """Zeros in place of all indices."""
    return pytree.tree_map_only(Value, lambda i: torch.zeros(i.shape, dtype=torch.int64), indices)


def constant_places(call: Call, lowering: Lowering) -> dict[str, Any] | None:
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


def moved(call: Call, replaced: dict[str, Any], lowering: Lowering) -> Value:
    """The operation run on labels; numbers and constants that it writes are -1."""
    arguments = {**call.replace_values(lambda value: value.labels), **replaced}
    if isinstance(call["self"], torch.Tensor):  # filled in by the lowering
        arguments["self"] = constant_labels(call.shape)
    if isinstance(arguments.get("value"), (int, float)):
        arguments["value"] = CONSTANT
    labels = run_on_labels(functional(call.func), arguments)
    softmax_of = call["self"] if isinstance(call["self"], Value) else None
    return lowering.result(call, broadcast(labels, call.shape), softmax_of=softmax_of)
