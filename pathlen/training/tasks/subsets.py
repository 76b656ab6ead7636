"""Parts of data sets, chosen by a seed; smaller ones lie in larger ones."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from pathlen.errors import SettingsError


def stratified_subset(classes: NDArray[numpy.int64], size: int, seed: int) -> NDArray[numpy.int64]:
    """Choose items so that each class has the share that it has of all items, but for rounding.

    Item k of the n of a class, in an order drawn for the class, comes at (k + 1/2) / n of a list
    of all items, the beginning of which is chosen: so a smaller subset is part of a larger one.

    Args:
        classes: Of the items, [n]; all 0 where there are none.
        size: How many items, at most n.
        seed: Decides which.

    Returns:
        Their indices in ascending order, [size].

    Raises:
        SettingsError: The seed is negative.
    """
    if seed < 0:
        raise SettingsError(f"subset_seed must not be negative, not {seed}")
    places = numpy.empty(len(classes))
    for label in numpy.unique(classes):
        items = numpy.flatnonzero(classes == label)
        order = numpy.random.default_rng((seed, int(label))).permutation(len(items))
        places[items] = (order + 0.5) / len(items)
    # Classes of one size meet at the same places; which goes first there is drawn as well.
    ties = numpy.random.default_rng(seed).random(len(classes))
    return numpy.sort(numpy.lexsort((ties, places))[:size])


def stratified_share(
    classes: NDArray[numpy.int64], share: float, seed: int
) -> NDArray[numpy.bool_]:
    """Choose the same share of each class, rounded, but at least one item; the rest remains.

    Args:
        classes: Of the items, [n].
        share: Between 0 and 1.
        seed: Decides which items of a class.

    Raises:
        SettingsError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise SettingsError(f"test_share must be between 0 and 1, not {share}")
    chosen = numpy.zeros(len(classes), dtype=bool)
    for label in numpy.unique(classes):
        places = numpy.flatnonzero(classes == label)
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        random = numpy.random.default_rng((seed, int(label)))
        chosen[random.permutation(places)[:count]] = True
    return chosen
