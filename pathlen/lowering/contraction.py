"""Contractions: products of matrices, of any number of axes; `products` has the operations.

Every contraction is brought to the form  out[b, i, j] = sum_k A[b, i, k] * B[b, k, j].
Two path tensors give one new unit for each distinct pair (set of labels in a row of A, set of
labels in a column of B), behind a hub over each set. With a constant B it is a layer, which
`matrix_layers` lowers.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from pathlen.lowering.bilinear import read_by_weights, side_with_weights
from pathlen.lowering.chosen import chosen_over
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import elementwise
from pathlen.lowering.flat import have_common_origin
from pathlen.lowering.indexing import function_by_masks
from pathlen.lowering.labels import (
    CONSTANT,
    LabelSets,
    broadcast,
    collapse,
    compact,
    constant_labels,
    distinct,
    is_position_axis,
    label_sets,
    one_along,
    sets_of_rows,
    without_repeats,
)
from pathlen.lowering.letters import Letters, permuted
from pathlen.lowering.lookups import is_step, one_hot_look_up
from pathlen.lowering.matrix_layers import layer
from pathlen.lowering.one_hot import numbers_of_one_hot
from pathlen.lowering.reduction import function_along, reduction
from pathlen.lowering.regions import find_region
from pathlen.lowering.several import of_rows
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.written_views import with_axes
from pathlen.lowering.zeros import zeros_of


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a contraction: the labels with axes in the order (batch, free, contracted).

    Attributes:
        labels: permuted; batch axes have the same sizes on both sides, or size 1.
        batch: number of batch axes.
        free: number of axes that only this side has.
        functions: numbers that tell apart rows of several functions of the same elements, along
            contracted axes the same; None where each row has other elements.
    """

    labels: torch.Tensor
    batch: int
    free: int
    functions: torch.Tensor | None = None


def contract(call: Call, letters: Letters, lowering: Lowering) -> Value:
    """Lower a contraction given by letters, as in einsum.

    Args:
        call: the call site.
        letters: of the two tensors, of which one at least is a path tensor.
        lowering: the lowering at work.
    """
    chosen = _chosen(call, letters, lowering)
    if chosen is not None:
        return chosen
    without_path = [n for n in (0, 1) if not letters.operands[n].is_path]
    if len(without_path) == 2:
        return lowering.result(call, constant_labels(call.shape))
    without_path = without_path or [n for n in (0, 1) if is_step(letters.operands[n])]
    if without_path:
        if functions_of_one(letters, 1 - without_path[0], lowering):
            return _product_and_sum(call, letters, lowering)
        if adds_nothing(letters, 1 - without_path[0], lowering):
            return _product(call, letters, lowering)
        return layer(call, letters, 1 - without_path[0], lowering)
    if all(letters.sizes[a] == 1 for a in letters.summed):
        return _product(call, letters, lowering)
    if _of_itself(call, letters, lowering) or _at_several_places(letters, lowering):
        return _product_and_sum(call, letters, lowering)
    in_einsum = call.node.graph in lowering.einsums
    sides = [_side(letters, n, lowering, in_einsum=in_einsum) for n in (0, 1)]
    weighted = side_with_weights(letters, call.node.graph, lowering)
    merged = contraction_labels(call, sides[0], sides[1], lowering, weighted=weighted)
    order = [*letters.batch, *letters.free(0), *letters.free(1)]
    result = merged.permute([order.index(a) for a in letters.out]).expand(call.shape)
    zero = _zeros(call, letters, lowering)
    if zero is None:
        return lowering.result(call, result)
    value = lowering.result(call, collapse(torch.where(zero, CONSTANT, result)))
    value.zeros = zero
    return value


def _side(
    letters: Letters, position: int, lowering: Lowering, *, in_einsum: bool = False
) -> Operand:
    """An operand with its axes in order; without units where the policy drops its paths.

    Args:
        letters: of the product.
        position: of the operand.
        lowering: the lowering at work.
        in_einsum: whether it is of an einsum of several tensors, of which weights that an operand
            has met already tell apart the features of the result.
    """
    value, batch, free = letters.operands[position], letters.batch, letters.free(position)
    labels = value.labels
    if lowering.policy.attention == "value" and value.softmax == "whole":
        labels = constant_labels(value.shape)  # attention written out: its scores are dropped
    own, order = letters.own[position], [*batch, *free, *letters.summed]
    axes = [own.index(a) for a in letters.summed]
    several = None
    if in_einsum and lowering.weights is None:
        several = of_rows(value, axes, lowering.variants, lowering.constants)
    functions = None
    if several is not None and several.functions is not None:
        numbers = several.functions - several.functions.min()
        functions = permuted(numbers.expand(labels.shape), own, order)
    return Operand(permuted(labels, own, order), len(batch), len(free), functions)


def _chosen(call: Call, letters: Letters, lowering: Lowering) -> Value | None:
    """A product of one-hot vectors with a matrix: a look-up, which may be a scalar function."""
    for n in (0, 1):
        (one, other), (own, others) = letters.operands[:: 1 - 2 * n], letters.own[:: 1 - 2 * n]
        found = None if other.is_path else one_hot_look_up(call, one, own, other, others)
        value = None if found is None else function_by_masks(found, lowering)
        if value is not None:
            order = others.replace(own[-1], own[:-1])
            return with_axes(call, value, order, letters.out)
    return _one_of_several(call, letters, lowering)


def _one_of_several(call: Call, letters: Letters, lowering: Lowering) -> Value | None:
    """A product with one-hot vectors that choose one of several results along an axis."""
    summed = [a for a in letters.summed if letters.sizes[a] > 1]
    for n in (0, 1) if len(summed) == 1 else ():
        (one, other), (own, others) = letters.operands[:: 1 - 2 * n], letters.own[:: 1 - 2 * n]
        known = others.replace(summed[0], "")
        if one.is_path or not other.is_path or not {*known} <= {*letters.out}:
            continue
        numbers = numbers_of_one_hot(one, own.index(summed[0]), lowering.constants)
        if numbers is not None:
            axis = others.index(summed[0])
            labels = chosen_over(call, other, other.labels, [axis], [numbers], lowering)
            labels = labels.squeeze(axis)
            order = [a for a in letters.out if a in known]
            labels = permuted(labels, known, order)
            for axis, letter in enumerate(letters.out):
                labels = labels if letter in known else labels.unsqueeze(axis)
            return lowering.result(call, broadcast(labels, call.shape))
    return None


def _product(call: Call, letters: Letters, lowering: Lowering) -> Value:
    """A contraction that adds up nothing: a product element by element, or an outer one."""
    product = elementwise(_elements(call, letters), lowering)
    assert isinstance(product, Value)
    return product


def adds_nothing(letters: Letters, path: int, lowering: Lowering) -> bool:
    """Whether a product with weights adds up an axis of length 1: a product element by element.

    Of a single unit it is a linear layer of one feature.

    Args:
        letters: of the product.
        path: which operand is the path tensor.
        lowering: the lowering at work.
    """
    source, own = letters.operands[path], letters.own[path]
    gone = [axis for axis, letter in enumerate(own) if letter not in letters.out]
    if not gone or any(letters.sizes[own[axis]] > 1 for axis in gone):
        return False
    return len(distinct(lowering.unified(source.labels))) > 1


def functions_of_one(letters: Letters, path: int, lowering: Lowering) -> bool:
    """Whether a product with a vector adds up several functions of one element.

    Args:
        letters: of the product.
        path: which operand is the path tensor.
        lowering: the lowering at work.
    """
    source, own = letters.operands[path], letters.own[path]
    axes = [axis for axis, letter in enumerate(own) if letter not in letters.out]
    if not axes or any(letters.sizes[a] > 1 for a in letters.out if a not in own):
        return False
    if one_along(lowering.unified(source.labels), axes) is not None:
        return False
    elements = lowering.variants.elements(source)
    return elements is not None and one_along(elements, axes) is not None


def _of_itself(call: Call, letters: Letters, lowering: Lowering) -> bool:
    """Whether functions of one tensor are multiplied element by element, as in a sum of squares."""
    free = (*letters.free(0), *letters.free(1))
    if any(letters.sizes[a] > 1 for a in free) or not have_common_origin(letters.operands):
        return False
    whole = replace(letters, out=letters.out + "".join(letters.summed))
    product = _elements(call, whole)
    return find_region(product, varying_operands(product), lowering.constants) is not None


def _at_several_places(letters: Letters, lowering: Lowering) -> bool:
    """Whether places of one unit meet other units each: a gate an expert, whose products add up.

    Scores of attention are a matrix, with a row for each of several queries.
    """
    summed = [a for a in letters.summed if letters.sizes[a] > 1]

    def varies(position: int) -> bool:
        labels = lowering.unified(letters.operands[position].labels)
        own = letters.own[position]
        return any(not is_position_axis(labels, own.index(letter)) for letter in summed)

    for position, value in enumerate(letters.operands):
        is_matrix = any(letters.sizes[letter] > 1 for letter in letters.free(position))
        if is_matrix or varies(position) or not varies(1 - position):
            continue
        places, own = lowering.variants.places(value), letters.own[position]
        repeated = [places.repeats_along(own.index(letter)) is not None for letter in summed]
        if places.key is None and not any(repeated):
            return True
    return False


def _elements(call: Call, letters: Letters) -> Call:
    """The product of two tensors element by element, all axes of which stay."""
    one, other = (
        with_axes(call, operand, own, letters.out)
        for operand, own in zip(letters.operands, letters.own, strict=True)
    )
    like = torch.empty(
        [letters.sizes[a] for a in letters.out], dtype=call.output.dtype, device="meta"
    )
    multiply = torch.ops.aten.mul.Tensor
    return Call(multiply, "aten.mul", {"self": one, "other": other}, call.node, like)


def _product_and_sum(call: Call, letters: Letters, lowering: Lowering) -> Value:
    """A contraction as a product of elements that is added up."""
    out = letters.out
    summed = "".join(dict.fromkeys(a for own in letters.own for a in own if a not in out))
    product = _product(call, replace(letters, out=out + summed), lowering)
    arguments = {"self": product, "dim": [*range(len(out), len(out + summed))], "keepdim": False}
    func = torch.ops.aten.sum.dim_IntList
    total = Call(func, "aten.sum", {**arguments, "dtype": None}, call.node, call.output)
    found = function_along(total, lowering) or reduction(total, lowering)
    assert isinstance(found, Value)
    return found


def _zeros(call: Call, letters: Letters, lowering: Lowering) -> torch.Tensor | None:
    """Where a contraction adds up zeros of the program only; None for nowhere."""
    found, out = [], letters.out
    for operand, own in zip(letters.operands, letters.own, strict=True):
        zero = zeros_of(operand, lowering.constants)
        if zero is not None:
            axes = [axis for axis, letter in enumerate(own) if letter not in out]
            zero = zero.all(axes) if axes else zero
            kept = [a for a in own if a in out]
            zero = zero[(..., *[None] * (len(out) - len(kept)))]
            kept += [a for a in out if a not in own]
            found.append(zero.permute([kept.index(a) for a in out]).expand(call.shape))
    return collapse(torch.stack(found).any(0)) if found else None


def contraction_labels(
    call: Call,
    one: Operand,
    other: Operand,
    lowering: Lowering,
    operation: str = "",
    weighted: int | None = None,
) -> torch.Tensor:
    """Adds the units of a contraction; returns labels with axes (batch, free, other's free).

    Args:
        call: the call site.
        one: a side of it.
        other: the other side.
        lowering: the lowering at work.
        operation: its name in tables.
        weighted: which side holds the weights of a bilinear layer; None for neither.
    """
    lowering.by_data()
    one, other = (replace(side, labels=lowering.unified(side.labels)) for side in (one, other))
    several = max(_number_of_functions(side) for side in (one, other))
    one, other = (_told_apart(side, several) for side in (one, other))
    batch_sizes = np.maximum(one.labels.shape[: one.batch], other.labels.shape[: one.batch])
    # tokens in a few runs of equal units (a class token, patches) meet once a run, not once each
    (rows, run_of_row), (columns, run_of_column) = (
        without_repeats(side, axis=1) for side in _aligned(one, other)
    )
    sets, of = _sets_of_both(rows, columns)
    sets = LabelSets(sets.members // several, sets.sizes)
    base = len(sets.sizes) + 1  # one number for a pair: sorting rows of two is far slower
    keys = (of[0][:, :, None] - CONSTANT) * base + (of[1][:, None, :] - CONSTANT)  # (b, i, j)
    distinct_keys, number = np.unique(keys, return_inverse=True)
    distinct_pairs = np.stack(np.divmod(distinct_keys, base), axis=-1) + CONSTANT
    lowering.layer(call, operation)
    hubs = _hubs(sets, of, distinct_keys, weighted, call, lowering)
    predecessors = sets_of_rows(np.take_along_axis(hubs, distinct_pairs, axis=0))
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


def _number_of_functions(side: Operand) -> int:
    return 1 if side.functions is None else int(side.functions.max()) + 1


def _told_apart(side: Operand, several: int) -> Operand:
    """A side with other labels for each function; divided by their number they are its own."""
    if several == 1:
        return side
    functions = torch.zeros((), dtype=torch.int64) if side.functions is None else side.functions
    labels = torch.where(side.labels == CONSTANT, CONSTANT, side.labels * several + functions)
    return replace(side, labels=collapse(labels))


def _hubs(
    sets: LabelSets,
    of: tuple[np.ndarray, np.ndarray],
    pairs: np.ndarray,
    weighted: int | None,
    call: Call,
    lowering: Lowering,
) -> np.ndarray:
    """A node over each set, for either side; `CONSTANT` is -1, the last one.

    Args:
        sets: of both sides.
        of: the number of the set of every row and column.
        pairs: the distinct pairs of these.
        weighted: see `contraction_labels`.
        call: the call site.
        lowering: the lowering at work.

    Returns:
        # (sets + 1, 2)
    """
    nodes = np.full((len(sets.sizes) + 1, 2), CONSTANT)
    if weighted is not None:
        rows, columns = len(np.unique(of[weighted])), len(np.unique(of[1 - weighted]))
        several = rows > 1 or call.node.graph in lowering.einsums
        if several and len(pairs) == rows * columns:  # each of the features meets all of the other
            nodes[:-1, weighted] = read_by_weights(sets, of[weighted], lowering.builder)
    left = (nodes[:-1] == CONSTANT).all(axis=1)
    if weighted is not None:
        left |= np.isin(np.arange(len(left)), of[1 - weighted])
    own = LabelSets(sets.members[np.repeat(left, sets.sizes)], sets.sizes[left])
    hubs = np.full(len(left), CONSTANT)
    hubs[left] = lowering.builder.hubs(own)
    nodes[:-1] = np.where(nodes[:-1] == CONSTANT, hubs[:, None], nodes[:-1])
    return nodes


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
