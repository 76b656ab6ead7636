"""Scaled units: labels that say by which factor a tensor carries a unit.

With `edges="weights"` a pass may scale: batch norm in eval mode, a gain, `x * 0.5`. It adds no
node. The result gets labels of its own, each of which stands for a unit (its root) and a factor;
movements carry these about like any others, and whatever adds a node multiplies the factor into
the edge. So the nodes of the graph are those of `edges="connections"`.
"""

import numpy as np
import torch

from pathlen.lowering.labels import (
    CONSTANT,
    broadcast,
    collapse,
    compact,
    distinct,
    distinct_tuples,
    rename,
)

_FIRST = 1 << 40  # ids of nodes stay below, and float64 holds what is above exactly
_SMALLEST = float(np.nextafter(0, 1))


class Scales:
    """What the labels of scaled units stand for."""

    def __init__(self) -> None:
        self._roots = np.empty(1024, dtype=np.int64)
        self._factors = np.empty(1024)
        self._count = 0

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The root of each label and its factor; any other label is its own root, with factor 1."""
        roots, factors = labels.astype(np.int64), np.ones(labels.shape)
        scaled = labels >= _FIRST
        if scaled.any():
            numbers = labels[scaled] - _FIRST
            roots[scaled], factors[scaled] = self._roots[numbers], self._factors[numbers]
        return roots, factors

    def times(self, labels: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
        """Labels of the same units, scaled by factors of at least 0; constants stay constants."""
        roots, before = self.split(labels)
        after = product(before, np.broadcast_to(factors, labels.shape))
        new = (after != 1) & (roots != CONSTANT)
        needed = self._count + int(np.count_nonzero(new))
        if needed > len(self._roots):
            size = max(needed, 2 * len(self._roots))
            self._roots = np.resize(self._roots, size)
            self._factors = np.resize(self._factors, size)
        self._roots[self._count : needed] = roots[new]
        self._factors[self._count : needed] = after[new]
        roots[new] = np.arange(_FIRST + self._count, _FIRST + needed)
        self._count = needed
        return roots

    def scaled(self, labels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Labels of a tensor multiplied by factors.

        A unit whose elements are scaled differently (at several positions) counts with the largest
        factor, so that what is one unit without weights stays one.

        Args:
            labels: of the result.
            factors: at least 0, in a shape that broadcasts to that of the labels.
        """
        if labels.numel() == 0 or bool((factors.numpy() == 1).all()):
            return labels
        units, largest = largest_factors(labels, broadcast(factors, labels.shape))
        if not len(units):
            return labels
        return collapse(rename(labels, units, self.times(units, largest)))

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """The nodes that the labels of a tensor stand for, whatever the factors are."""
        units = distinct(labels)
        if not len(units) or units[-1] < _FIRST:
            return labels
        return collapse(rename(labels, units, self.split(units)[0]))

    def by_function(
        self, labels: torch.Tensor, factors: torch.Tensor, functions: torch.Tensor
    ) -> torch.Tensor:
        """Labels in which each function of a unit has one factor, the largest that it has.

        Args:
            labels: of a tensor.
            factors: by how much each of its elements is its unit; of the same shape, as are
            functions: numbers that tell apart the affine functions of one element.
        """
        pairs, spread = distinct_tuples([self.roots(labels), functions])
        known = pairs[:, 0] != CONSTANT
        _, largest = largest_factors(spread(np.where(known, np.arange(len(pairs)), -1)), factors)
        named = np.full(len(pairs), CONSTANT)
        named[known] = self.times(pairs[known, 0], largest)
        return spread(named)

    def unified(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels in which each unit has one factor only, the largest that it has in the tensor.

        Two elements then have one label where they have one without weights.
        """
        units = distinct(labels)
        roots, factors = self.split(units)
        order = np.lexsort((factors, roots))
        last = np.append(roots[order][1:] != roots[order][:-1], True)[: len(order)]
        if last.all():
            return labels
        largest = units[order][last]
        place = np.searchsorted(roots[order][last], roots)
        return collapse(rename(labels, units, largest[place]))


def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Products of factors, of which none vanishes by underflow."""
    result: np.ndarray = one * other
    lost = (result == 0) & (one != 0) & (other != 0)
    result[lost] = _SMALLEST
    return result


def largest_factors(labels: torch.Tensor, factors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, constants left out, and the largest factor of each.

    Args:
        labels: non-empty label tensor.
        factors: float64, of the same shape.

    Returns:
        # (labels that occur,), ascending; (labels that occur,)
    """
    known, number = np.unique(compact(factors).numpy(), return_inverse=True)
    numbers = torch.from_numpy(number.reshape(compact(factors).shape)).expand(factors.shape)
    pairs, _ = distinct_tuples([labels, numbers])
    pairs = pairs[pairs[:, 0] != CONSTANT]
    units, first = np.unique(pairs[:, 0], return_index=True)
    # pairs ascend, and so do the factors behind their numbers: the last of a unit is the largest
    last = np.append(first[1:], len(pairs)) - 1
    return units, known[pairs[last, 1]] if len(pairs) else np.empty(0)
