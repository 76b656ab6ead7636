"""Products of a path tensor with one without a path: layers along the axes that are contracted."""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import merged
from pathlen.lowering.flat import combined
from pathlen.lowering.gains import meta_error
from pathlen.lowering.labels import CONSTANT, collapse, compact, is_position_axis, label_sets
from pathlen.lowering.layer_weights import arranged, weights_of
from pathlen.lowering.layers import dense_layer, rows_read
from pathlen.lowering.letters import Letters, permuted
from pathlen.lowering.operators import Meeting
from pathlen.lowering.reduction import reshaped
from pathlen.lowering.stacks import scaled_pieces_along
from pathlen.lowering.taken_apart import rows_of
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_layers import grouped_units, members_of
from pathlen.lowering.written_views import in_shape


@dataclass(frozen=True, slots=True)
class Product:
    """A product of a path tensor with weights.

    Attributes:
        call: the call site.
        source: the path tensor; along axes that both have it is as long as the weights.
        weight: the other tensor.
        own: letters of the path tensor.
        others: letters of the weights.
        out: letters of the result.
    """

    call: Call
    source: Value
    weight: Value
    own: str
    others: str
    out: str

    @property
    def sizes(self) -> dict[str, int]:
        """Of the axes of the result."""
        return dict(zip(self.out, self.call.shape, strict=True))

    @property
    def kept(self) -> list[str]:
        """Letters of the path tensor that the result has too."""
        return [a for a in self.own if a in self.out]

    @property
    def summed(self) -> list[str]:
        """Letters of the path tensor that the result has not."""
        return [a for a in self.own if a not in self.out]

    @property
    def created(self) -> list[str]:
        """Letters of the result that the path tensor has not."""
        return [a for a in self.out if a not in self.own]

    def has_own_weights(self, letters: list[str]) -> bool:
        """Whether weights differ along some axes of the path tensor."""
        sizes = dict(zip(self.others, self.weight.shape, strict=True))
        return any(sizes.get(a, 1) > 1 for a in letters)

    def arranged(self, tensor: torch.Tensor, places: list[str]) -> torch.Tensor:
        """The weights for each position: # (positions, features out, features in)."""
        roles = (places, self.created, self.summed)
        return arranged(tensor, self.others, roles, self.own, self.source.shape)


def layer(call: Call, letters: Letters, path: int, lowering: Lowering) -> Value:
    """Lower a product with a tensor that has no path.

    Args:
        call: the call site.
        letters: of the product.
        path: which operand is the path tensor.
        lowering: the lowering at work.
    """
    source, weight = letters.operands[path], letters.operands[1 - path]
    own, others = letters.own[path], letters.own[1 - path]
    product = Product(
        call, _repeated(call, source, own, weight, others), weight, own, others, letters.out
    )
    if _adds_up(product):
        axis = own.index(product.summed[0])
        stacked = scaled_pieces_along(product.source, axis, lowering.constants)
        if stacked is not None:
            return _weighted_sum(call, *stacked, weight, lowering)
    shared = [a for a in own if a in others and a in letters.out and _splits(product, a, lowering)]
    if shared:
        return _grouped(product, shared, lowering)
    return _dense(product, lowering)


def _repeated(call: Call, source: Value, own: str, weight: Value, others: str) -> Value:
    """The path tensor, broadcast along the axes along which weights differ."""
    sizes = dict(zip(others, weight.shape, strict=True))
    shape = [
        sizes.get(a, size) if size == 1 else size for a, size in zip(own, source.shape, strict=True)
    ]
    return in_shape(call, source, torch.Size(shape))


def _splits(product: Product, letter: str, lowering: Lowering) -> bool:
    """Whether each index of an axis has a matrix of its own, and units or copies of its own.

    Places of one unit (positions of queries) have none.
    """
    axis, val = product.others.index(letter), product.weight.node.meta["val"]
    if product.weight.shape[axis] < 2 or val.stride(axis) == 0:
        return False
    axis = product.own.index(letter)
    units = lowering.unified(product.source.labels)
    varies = not is_position_axis(units, axis)
    return varies or lowering.variants.repeats(product.source, axis) is not None


def _adds_up(product: Product) -> bool:
    """Whether a product with a constant only adds up slices along one axis, each scaled."""
    sizes = {product.sizes[a] for a in product.created}
    in_order = product.kept == [a for a in product.out if a in product.own]
    return not product.weight.varies and len(product.summed) == 1 and sizes <= {1} and in_order


def _weighted_sum(
    call: Call, pieces: list[Value], factor: float, weights: Value, lowering: Lowering
) -> Value:
    """A sum of tensors, each times a number and all times a factor."""
    try:
        numbers = lowering.constants.of(weights).reshape(-1).tolist()
    except UnknownConstantError as error:
        if lowering.weights is not None:
            raise meta_error(weights, call) from error
        numbers = []
    if len(numbers) != len(pieces):
        numbers = [1.0] * len(pieces)  # one sort of connection as good as any
    terms = [
        (reshaped(call, piece, lowering), float(number) * factor)
        for piece, number in zip(pieces, numbers, strict=True)
        if piece.is_path
    ]
    last = combined(call, "sum", terms)
    return merged(last, Meeting("sum", [summand for summand, _ in terms], (last,)), lowering)


def _dense(product: Product, lowering: Lowering) -> Value:
    """One layer for all indices of the axes that are kept."""
    call, kept, summed, sizes = product.call, product.kept, product.summed, product.sizes
    rows = rows_read(product.source, [product.own.index(a) for a in summed], lowering)
    features = torch.Size([prod(sizes[a] for a in product.created)])

    def matrix() -> torch.Tensor | None:
        found = weights_of(call, product.weight, lowering)
        return None if found is None else product.arranged(found, kept)

    is_last = not summed or product.own[-1] in summed

    def on(read: torch.Tensor, functions: torch.Tensor | None = None) -> torch.Tensor:
        axis = read.ndim - 1
        return dense_layer(
            call, read, axis, features, matrix, lowering, is_last=is_last, functions=functions
        )

    made = on(rows.labels, rows.functions)
    order = [[*kept, *product.created].index(a) for a in product.out]

    def arranged_out(tensor: torch.Tensor) -> torch.Tensor:
        split = tensor.reshape([*tensor.shape[:-1], *(sizes[a] for a in product.created)])
        return split.permute(order).expand(call.shape)

    value = lowering.result(call, arranged_out(made))
    begun = rows.begun_of(made, lowering)
    if begun is not None:
        value.begun = begun.changed(arranged_out)
    whole = rows.functions is None and len(product.created) == 1
    if whole and not product.has_own_weights(kept):
        value.rows = rows_of(rows.labels, made, on, lowering, order)
    return value


def _grouped(product: Product, shared: list[str], lowering: Lowering) -> Value:
    """A weight with a matrix of its own for each index of `shared` axes: a grouped layer.

    Indices at which the same units stand at other positions (of a batch) are one group; the same
    elements, repeated, are read by a group each.
    """
    call, source, own, sizes = product.call, product.source, product.own, product.sizes
    kept = [a for a in product.kept if a not in shared]
    groups = prod(sizes[a] for a in shared)
    features = prod(sizes[a] for a in product.created)
    ordered = permuted(lowering.unified(source.labels), own, [*shared, *kept, *product.summed])
    rows = compact(ordered, range(len(shared), ordered.ndim)).reshape(groups, -1).numpy()
    sets, of_index = label_sets(rows)
    keys = np.column_stack([of_index, _copies(source, own, shared, lowering).reshape(-1)])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    lowering.layer(call)
    if lowering.weights is not None:
        nodes = _weighted_groups(product, shared, first, group.reshape(-1), lowering)
    else:
        hubs = lowering.builder.hubs(sets)
        read = of_index[first]
        alive = read != CONSTANT
        nodes = np.full((len(first), features), CONSTANT, dtype=np.int64)
        units = lowering.builder.units(np.repeat(hubs[read[alive]], features))
        nodes[alive] = units.reshape(-1, features)
    shape = [*(sizes[a] for a in shared), *(1 for _ in kept), *(sizes[a] for a in product.created)]
    order = [*shared, *kept, *product.created]
    labels = torch.from_numpy(nodes[group.reshape(-1)]).view(shape)
    result = collapse(labels.permute([order.index(a) for a in product.out]).expand(call.shape))
    return lowering.result(call, result)


def _weighted_groups(
    product: Product, shared: list[str], first: np.ndarray, group: np.ndarray, lowering: Lowering
) -> np.ndarray:
    """The units of each group, where edges carry weights.

    Args:
        product: the product.
        shared: letters of the axes whose indices are in groups.
        first: the first index of each group.
        group: of each index.
        lowering: the lowering at work.

    Returns:
        # (groups, features out)
    """
    kept = [a for a in product.kept if a not in shared]
    slices = permuted(product.source.labels, product.own, [*shared, *kept, *product.summed])
    slices = compact(slices, range(len(shared), len(shared) + len(kept)))
    behind = slices.shape[len(shared) + len(kept) :]
    slices = slices.reshape(len(group), -1, prod(behind))
    found = weights_of(product.call, product.weight, lowering)
    if found is None:  # it varies
        found = torch.ones(product.weight.shape)
    matrix = product.arranged(found, [*shared, *kept]).unflatten(0, (len(group), -1))
    members = members_of(group)
    return grouped_units(
        product.call,
        slices.numpy()[members].reshape(len(first), -1, slices.shape[2]),
        matrix[torch.from_numpy(members)].flatten(1, 2),
        lowering,
    )


def _copies(source: Value, letters: str, shared: list[str], lowering: Lowering) -> np.ndarray:
    """Numbers that tell apart indices of shared axes at which the same elements are repeated."""
    first = tuple(slice(None) if a in shared else 0 for a in letters)
    order = [a for a in letters if a in shared]
    total = torch.zeros((), dtype=torch.int64)
    for letter in shared:
        repeats = lowering.variants.repeats(source, letters.index(letter))
        if repeats is not None:
            own = repeats.expand(source.shape)[first].permute([order.index(a) for a in shared])
            total = total * source.shape[letters.index(letter)] + own
    copies: np.ndarray = total.expand([source.shape[letters.index(a)] for a in shared]).numpy()
    return copies
