"""Contractions: products of matrices, of any number of axes; `products` has the operations.

Every contraction is brought to the form  out[b, i, j] = sum_k A[b, i, k] * B[b, k, j].
Two path tensors give one new unit for each distinct pair (set of labels in a row of A, set of
labels in a column of B), behind a hub over each set. With a constant B it is a layer.
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import elementwise, merged
from pathlen.lowering.flat import combined
from pathlen.lowering.gains import meta_error
from pathlen.lowering.indexing import function_by_masks
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    collapse,
    compact,
    constant_labels,
    is_position_axis,
    label_sets,
    sets_of_rows,
    without_repeats,
)
from pathlen.lowering.layer_weights import arranged, weights_of
from pathlen.lowering.layers import dense_layer
from pathlen.lowering.lookups import is_step, one_hot_look_up
from pathlen.lowering.operators import Meeting
from pathlen.lowering.reduction import reshaped
from pathlen.lowering.stacks import pieces_along
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_layers import grouped_units
from pathlen.lowering.written_views import with_axes
from pathlen.lowering.zeros import zeros_of


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a contraction: the labels with axes in the order (batch, free, contracted).

    Attributes:
        labels: permuted; batch axes have the same sizes on both sides, or size 1.
        batch: number of batch axes.
        free: number of axes that only this side has.
    """

    labels: torch.Tensor
    batch: int
    free: int


def contract(
    call: Call,
    operands: tuple[Value, Value],
    letters: tuple[str, str],
    out: str,
    lowering: Lowering,
) -> Value:
    """Lower a contraction given by letters, as in einsum.

    Args:
        call: the call site.
        operands: the two tensors, of which one at least is a path tensor.
        letters: one letter an axis of each.
        out: the letters of the result.
        lowering: the lowering at work.
    """
    chosen = _chosen(call, operands, letters, out, lowering)
    if chosen is not None:
        return chosen
    if not any(operand.is_path for operand in operands):
        return lowering.result(call, constant_labels(call.shape))
    labels = [operand.labels for operand in operands]
    if lowering.policy.attention == "value":  # attention written out: its scores are dropped
        for position, operand in enumerate(operands):
            if operand.softmax == "whole" and operands[1 - position].is_path:
                labels[position] = constant_labels(operand.shape)
    batch = [a for a in letters[0] if a in letters[1] and a in out]
    summed = [a for a in letters[0] if a in letters[1] and a not in out]
    free = [[a for a in own if a not in batch and a not in summed] for own in letters]
    without_path = [position for position in (0, 1) if not operands[position].is_path]
    without_path = without_path or [position for position in (0, 1) if is_step(operands[position])]
    if without_path:
        other = without_path[0]
        weight, path = operands[other], 1 - other
        units = lowering.unified(labels[path])
        shared = [
            a
            for a in batch
            if _tells_apart(weight, letters[other], a)
            and (
                _varies_along(units, letters[path], a)
                or lowering.variants.repeats(operands[path], letters[path].index(a)) is not None
            )
        ]
        form = (letters[path], letters[other], out)
        if _adds_up(operands, path, form, summed, call):
            pieces = pieces_along(
                operands[path], letters[path].index(summed[0]), lowering.constants
            )
            if pieces is not None:
                return _weighted_sum(call, pieces, operands[other], lowering)
        if shared:
            return _grouped_by_weights(call, operands[path], weight, form, shared, lowering)
        return _by_weights(call, labels[path], weight, form, lowering)
    sizes = dict(zip("".join(letters), (*operands[0].shape, *operands[1].shape), strict=True))
    if all(sizes[a] == 1 for a in summed):
        return _product(call, operands, letters, out, lowering)
    sides = [
        Operand(
            _permuted(labels[n], letters[n], [*batch, *free[n], *summed]), len(batch), len(free[n])
        )
        for n in (0, 1)
    ]
    merged = contraction_labels(call, sides[0], sides[1], lowering)
    order = [*batch, *free[0], *free[1]]
    result = merged.permute([order.index(letter) for letter in out]).expand(call.shape)
    zero = _zeros(call, operands, letters, out, lowering)
    if zero is None:
        return lowering.result(call, result)
    value = lowering.result(call, collapse(torch.where(zero, CONSTANT, result)))
    value.zeros = zero
    return value


def _chosen(
    call: Call,
    operands: tuple[Value, Value],
    letters: tuple[str, str],
    out: str,
    lowering: Lowering,
) -> Value | None:
    """A product of one-hot vectors with a matrix: a look-up, which may be a scalar function."""
    for n in (0, 1):
        (one, other), (own, others) = operands[:: 1 - 2 * n], letters[:: 1 - 2 * n]
        found = None if other.is_path else one_hot_look_up(call, one, own, other, others)
        value = None if found is None else function_by_masks(found, lowering)
        if value is not None:
            order = others.replace(own[-1], own[:-1])
            return with_axes(call, value, order, out)
    return None


def _product(
    call: Call,
    operands: tuple[Value, Value],
    letters: tuple[str, str],
    out: str,
    lowering: Lowering,
) -> Value:
    """A contraction that adds up nothing: a product element by element, or an outer one."""
    one, other = (
        with_axes(call, operand, own, out) for operand, own in zip(operands, letters, strict=True)
    )
    multiply, arguments = torch.ops.aten.mul.Tensor, {"self": one, "other": other}
    product = elementwise(Call(multiply, "aten.mul", arguments, call.node, call.output), lowering)
    assert isinstance(product, Value)
    return product


def _zeros(
    call: Call,
    operands: tuple[Value, Value],
    letters: tuple[str, str],
    out: str,
    lowering: Lowering,
) -> torch.Tensor | None:
    """Where a contraction adds up zeros of the program only; None for nowhere."""
    found = []
    for operand, own in zip(operands, letters, strict=True):
        zero = zeros_of(operand, lowering.constants)
        if zero is not None:
            axes = [axis for axis, letter in enumerate(own) if letter not in out]
            zero = zero.all(axes) if axes else zero
            kept = [a for a in own if a in out]
            zero = zero[(..., *[None] * (len(out) - len(kept)))]
            kept += [a for a in out if a not in own]
            found.append(zero.permute([kept.index(a) for a in out]).expand(call.shape))
    return collapse(torch.stack(found).any(0)) if found else None


def _weighted_sum(call: Call, pieces: list[Value], weights: Value, lowering: Lowering) -> Value:
    """A sum of tensors, each times a number."""
    try:
        numbers = lowering.constants.of(weights).reshape(-1).tolist()
    except UnknownConstantError as error:
        if lowering.weights is not None:
            raise meta_error(weights, call) from error
        numbers = []
    if len(numbers) != len(pieces):
        numbers = [1.0] * len(pieces)  # one sort of connection as good as any
    terms = [
        (reshaped(call, piece, lowering), float(number))
        for piece, number in zip(pieces, numbers, strict=True)
        if piece.is_path
    ]
    last = combined(call, "sum", terms)
    return merged(last, Meeting("sum", [summand for summand, _ in terms], (last,)), lowering)


def _adds_up(
    operands: tuple[Value, Value],
    path: int,
    form: tuple[str, str, str],
    summed: list[str],
    call: Call,
) -> bool:
    """Whether a product with a constant only adds up slices along one axis, each scaled."""
    own, _, out = form
    created = [size for a, size in zip(out, call.shape, strict=True) if a not in own]
    kept = "".join(a for a in own if a not in summed)
    in_order = kept == "".join(a for a in out if a in own)
    return not operands[1 - path].varies and len(summed) == 1 and set(created) <= {1} and in_order


def contraction_labels(
    call: Call, one: Operand, other: Operand, lowering: Lowering, operation: str = ""
) -> torch.Tensor:
    """Adds the units of a contraction; returns labels with axes (batch, free, other's free)."""
    lowering.by_data()
    one, other = (replace(side, labels=lowering.unified(side.labels)) for side in (one, other))
    batch_sizes = np.maximum(one.labels.shape[: one.batch], other.labels.shape[: one.batch])
    # tokens in a few runs of equal units (a class token, patches) meet once a run, not once each
    (rows, run_of_row), (columns, run_of_column) = (
        without_repeats(side, axis=1) for side in _aligned(one, other)
    )
    sets, of = _sets_of_both(rows, columns)
    base = len(sets.sizes) + 1  # one number for a pair: sorting rows of two is far slower
    keys = (of[0][:, :, None] - CONSTANT) * base + (of[1][:, None, :] - CONSTANT)  # (b, i, j)
    distinct_keys, number = np.unique(keys, return_inverse=True)
    distinct_pairs = np.stack(np.divmod(distinct_keys, base), axis=-1) + CONSTANT
    lowering.layer(call, operation)
    hubs = np.append(lowering.builder.hubs(sets), CONSTANT)  # CONSTANT is -1: the last entry
    predecessors = sets_of_rows(hubs[distinct_pairs])
    alive = predecessors.sizes > 0
    both = (distinct_pairs != CONSTANT).all(axis=1)[alive] & lowering.policy.counts("product")
    units = np.full(len(distinct_pairs), CONSTANT, dtype=np.int64)
    units[alive] = lowering.builder.merges(
        LabelSets(predecessors.members, predecessors.sizes[alive]), both.astype(np.float64)
    )
    small_batch = [
        max(pair) for pair in zip(*(_small(s)[: s.batch] for s in (one, other)), strict=True)
    ]
    small = [*small_batch, *_small(one)[one.batch : one.batch + one.free]]
    small += _small(other)[other.batch : other.batch + other.free]
    free = [
        *one.labels.shape[one.batch :][: one.free],
        *other.labels.shape[other.batch :][: other.free],
    ]
    labels = units[number.reshape(keys.shape)][:, run_of_row][:, :, run_of_column]
    return torch.from_numpy(labels).view(small).expand([*map(int, batch_sizes), *free])


def _sets_of_both(
    rows: np.ndarray, columns: np.ndarray
) -> tuple[LabelSets, tuple[np.ndarray, np.ndarray]]:
    """The distinct label sets of two families of rows, numbered together.

    Args:
        rows: # (b, i, k)
        columns: # (b, j, k)

    Returns:
        The sets, and the number of the set of every row and column.  # ((b, i), (b, j))
    """
    rows, columns = without_repeats(rows, axis=2)[0], without_repeats(columns, axis=2)[0]
    count = rows.shape[0] * rows.shape[1]
    both = np.full(
        (count + columns.shape[0] * columns.shape[1], max(rows.shape[2], columns.shape[2])),
        CONSTANT,
    )
    both[:count, : rows.shape[2]] = rows.reshape(count, -1)
    both[count:, : columns.shape[2]] = columns.reshape(-1, columns.shape[2])
    sets, of = label_sets(both)
    return sets, (of[:count].reshape(rows.shape[:2]), of[count:].reshape(columns.shape[:2]))


def _small(operand: Operand) -> list[int]:
    """Sizes of an operand's axes once position axes are cut to length 1."""
    return [
        1 if is_position_axis(operand.labels, axis) else size
        for axis, size in enumerate(operand.labels.shape)
    ]


def _aligned(one: Operand, other: Operand) -> tuple[np.ndarray, np.ndarray]:
    """Both operands as (batch, free, contracted), batch axes kept only where either varies."""
    small = [_small(one), _small(other)]
    batch = [max(sizes) for sizes in zip(small[0][: one.batch], small[1][: one.batch], strict=True)]
    aligned = []
    for operand in (one, other):
        labels = compact(operand.labels)
        labels = labels.expand([*batch, *labels.shape[operand.batch :]])
        free = int(np.prod(labels.shape[operand.batch :][: operand.free]))
        summed = int(np.prod(labels.shape[operand.batch + operand.free :]))
        aligned.append(labels.reshape(int(np.prod(batch)), free, summed).numpy())
    return aligned[0], aligned[1]


def _by_weights(
    call: Call,
    labels: torch.Tensor,
    weight: Value,
    form: tuple[str, str, str],
    lowering: Lowering,
) -> Value:
    """A contraction with a tensor without a path is a layer along the contracted axes.

    Args:
        call: the call site.
        labels: of the path tensor.
        weight: the other tensor.
        form: letters of the path tensor, of the weight and of the result.
        lowering: the lowering at work.
    """
    own, others, out = form
    summed = [a for a in own if a not in out]
    kept = [a for a in own if a in out]
    created = [a for a in out if a not in own]
    sizes = dict(zip(out, call.shape, strict=True))
    merged = _permuted(labels, own, [*kept, *summed])
    merged = merged.flatten(len(kept)) if summed else merged.unsqueeze(-1)
    features = torch.Size([int(np.prod([sizes[a] for a in created]))])

    def matrix() -> torch.Tensor | None:
        found = weights_of(call, weight, lowering)
        roles = (kept, created, summed)
        return None if found is None else arranged(found, others, roles, own, labels.shape)

    is_last = not summed or own[-1] in summed
    result = dense_layer(call, merged, len(kept), features, matrix, lowering, is_last=is_last)
    result = result.reshape([*result.shape[:-1], *(sizes[a] for a in created)])
    order = [*kept, *created]
    return lowering.result(call, result.permute([order.index(a) for a in out]).expand(call.shape))


def _grouped_by_weights(
    call: Call,
    source: Value,
    weight: Value,
    form: tuple[str, str, str],
    shared: list[str],
    lowering: Lowering,
) -> Value:
    """A weight with a matrix of its own for each index of `shared` axes: a grouped layer.

    Indices at which the same units stand at other positions (of a batch) are one group; the same
    elements, repeated, are read by a group each.
    """
    own, constant, out = form
    others = [a for a in own if a not in shared]
    created = [a for a in out if a not in own]
    sizes = dict(zip(out, call.shape, strict=True))
    groups = prod(sizes[a] for a in shared)
    features = prod(sizes[a] for a in created)
    kept = [a for a in others if a in out]
    ordered = _permuted(lowering.unified(source.labels), own, [*shared, *others])
    rows = compact(ordered, range(len(shared), ordered.ndim)).reshape(groups, -1).numpy()
    sets, of_index = label_sets(rows)
    keys = np.column_stack([of_index, _copies(source, own, shared, lowering).reshape(-1)])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    lowering.layer(call)
    if lowering.weights is not None:
        summed = [a for a in others if a not in out]
        slices = _permuted(source.labels, own, [*shared, *kept, *summed])
        slices = compact(slices, _axes(shared, kept))
        slices = slices.reshape(groups, -1, prod(slices.shape[len(shared) + len(kept) :]))
        found = weights_of(call, weight, lowering)
        if found is None:  # it varies
            found = torch.ones(weight.shape)
        roles = ([*shared, *kept], created, summed)
        matrix = arranged(found, constant, roles, own, source.shape).unflatten(0, (groups, -1))
        members = _members(group.reshape(-1))
        nodes = grouped_units(
            call,
            slices.numpy()[members].reshape(len(first), -1, slices.shape[2]),
            matrix[torch.from_numpy(members)].flatten(1, 2),
            lowering,
        )
    else:
        hubs = lowering.builder.hubs(sets)
        read = of_index[first]
        alive = read != CONSTANT
        nodes = np.full((len(first), features), CONSTANT, dtype=np.int64)
        units = lowering.builder.units(np.repeat(hubs[read[alive]], features))
        nodes[alive] = units.reshape(-1, features)
    shape = [*(sizes[a] for a in shared), *(1 for _ in kept), *(sizes[a] for a in created)]
    order = [*shared, *kept, *created]
    labels = torch.from_numpy(nodes[group.reshape(-1)]).view(shape)
    result = collapse(labels.permute([order.index(a) for a in out]).expand(call.shape))
    return lowering.result(call, result)


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


def _members(group: np.ndarray) -> np.ndarray:
    """The indices that are of each group, the first repeated where others have more.

    Args:
        group: of each index.  # (indices,)

    Returns:
        # (groups, most members)
    """
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    places = np.arange(sizes.max())
    members: np.ndarray = order[starts[:, None] + np.where(places < sizes[:, None], places, 0)]
    return members


def _tells_apart(weight: Value, letters: str, letter: str) -> bool:
    """Whether a weight has a matrix of its own for each index of a batch axis."""
    axis = letters.index(letter)
    val = weight.node.meta["val"]
    return bool(weight.shape[axis] > 1 and val.stride(axis) != 0)


def _varies_along(labels: torch.Tensor, letters: str, letter: str) -> bool:
    """Whether units differ along an axis; places of one unit (positions of queries) do not."""
    return not is_position_axis(labels, letters.index(letter))


def _permuted(labels: torch.Tensor, letters: str, order: list[str]) -> torch.Tensor:
    return labels.permute([letters.index(letter) for letter in order])


def _axes(shared: list[str], kept: list[str]) -> range:
    """Which axes of (shared, kept, summed) are kept."""
    return range(len(shared), len(shared) + len(kept))
