"""What a layer that reads an input tells of its features, and the numbers of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from pathlen.lowering.labels import CONSTANT, collapse, compact
from pathlen.lowering.origins import NOWHERE, Origin


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """The features at which a layer reads the elements of an input.

    Attributes:
        axes: of the input, along which the features lie.
        features: by the coordinates along these; CONSTANT where the layer reads nothing.  # the
            sizes of the axes
        positions: for each axis of the input, whether the layer reads something at a coordinate;
            None where it does at each, and for the axes of the features.  # (size of the axis,)
        along: whether each coordinate is a feature of its own, the same one for all such layers.
    """

    axes: tuple[int, ...]
    features: np.ndarray
    positions: tuple[np.ndarray | None, ...]
    along: bool

    @property
    def is_whole(self) -> bool:
        """Whether all elements of the input are read."""
        return all(p is None for p in self.positions) and bool((self.features != CONSTANT).all())


def read(origin: Origin, axes: Sequence[int]) -> Read | None:
    """What a layer tells that reads a tensor; None where it tells nothing.

    The features are the coordinates along the axes of the input along which the contracted axes
    run. Where positions run along these too (patches, windows of a signal), they are the places
    that the layer tells apart: an element that it reads at several makes these one.

    Args:
        origin: of the tensor.
        axes: of the tensor, that the layer contracts.
    """
    axes = sorted({axis % len(origin.shape) for axis in axes})
    ndim = len(origin.mixed)
    small = [compact(k).numpy() for k in origin.coordinates[:ndim]]
    found: tuple[int, ...] | None
    found = tuple(a for a in range(ndim) if any(small[a].shape[axis] > 1 for axis in axes))
    found = found or _beside(origin, small)
    if found is None or not any(origin.takes_part(a).any() for a in range(ndim)):
        return None
    part = [origin.takes_part(a) for a in range(ndim)]
    positions = tuple(None if a in found or part[a].all() else part[a] for a in range(ndim))
    sizes = [len(part[a]) for a in found]
    own = np.broadcast_arrays(*[small[a] for a in found]) if found else []
    along = not found or all(size == 1 or axis in axes for axis, size in enumerate(own[0].shape))
    if along and len(found) < 2:
        features = np.arange(prod(sizes)).reshape(sizes)
        if found:
            features[~part[found[0]]] = CONSTANT
        return Read(found, features, positions, along)
    is_read = np.logical_and.reduce([k != NOWHERE for k in own])
    elements = np.ravel_multi_index([k[is_read] - 1 for k in own], sizes)
    if along:
        features = np.full(prod(sizes), CONSTANT)
        features[elements] = elements
    else:
        lengths = [own[0].shape[axis] if axis in axes else 1 for axis in range(own[0].ndim)]
        places = np.broadcast_to(np.arange(prod(lengths)).reshape(lengths), own[0].shape)
        features = _told_apart(elements, places[is_read], prod(sizes))
    features = _with_mixed(features.reshape(sizes), origin, found, along)
    return Read(found, features, positions, along)


def number_features(reads: Sequence[Read], shape: torch.Size) -> torch.Tensor:
    """The feature of each element of an input, counted from 0.

    Each element has the feature at which the first layer reads it. Features along the same axes
    are the same in all layers: those of the second step that a cell reads are those of the first.
    What no layer reads is one feature.

    Args:
        reads: of all layers, in order.
        shape: of the input.
    """
    classes = [_classes(reads, axis, size) for axis, size in enumerate(shape)]
    feature = np.full([int(c.max()) + 1 for c in classes], CONSTANT)
    first: dict[tuple[int, ...], int] = {}
    count = 0
    for one in reads:
        start = first.setdefault(one.axes, count) if one.along else count
        if start == count:
            count += prod(one.features.shape) if one.along else int(one.features.max()) + 1
        region = np.ix_(
            *[
                np.arange(feature.shape[axis]) if p is None else np.unique(classes[axis][p])
                for axis, p in enumerate(one.positions)
            ]
        )
        sizes = [size if axis in one.axes else 1 for axis, size in enumerate(shape)]
        told = one.features.reshape(sizes)
        block = feature[region]
        free = (block == CONSTANT) & (told != CONSTANT)
        feature[region] = np.where(free, told + start, block)
    if len(reads) > 1 or (feature == CONSTANT).any():
        feature[feature == CONSTANT] = count
        feature = np.unique(feature, return_inverse=True)[1].reshape(feature.shape)
    labels = torch.from_numpy(feature)
    for axis, own in enumerate(classes):
        if 1 < labels.shape[axis] < len(own):
            labels = labels.index_select(axis, torch.from_numpy(own))
    return collapse(labels.expand(shape))


def _beside(origin: Origin, small: Sequence[np.ndarray]) -> tuple[int, ...] | None:
    """The axes of the features where what a layer contracts runs along no axis of the input.

    It reads one feature: the only one of an input (a grey image), or one of several (`x[:, :1]`).
    Or what it reads was made of all of them, as distances are: features lie along the one axis
    that was reduced; where there were several, nothing tells. Along a new axis, all the input is
    one feature.
    """
    sizes = [len(m) for m in origin.mixed]
    reduced = [a for a, m in enumerate(origin.mixed) if m.any() and small[a].size == 1]
    single = [a for a, k in enumerate(small) if k.size == 1 and a and a not in reduced]
    if any(sizes[a] == 1 for a in single):
        return (max(a for a in single if sizes[a] == 1),)
    if reduced:
        return (reduced[0],) if len(reduced) == 1 else None
    return (min(single, key=lambda a: (sizes[a], -a)),) if single else ()


def _told_apart(elements: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The feature of each element, where all that are read at one place belong to one feature.

    Args:
        elements: that are read, with repetitions.
        places: where each is read.
        count: the number of elements.
    """
    features = np.full(count, CONSTANT)
    features[elements] = places
    if not (features[elements] == places).all():  # overlapping windows
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes = count + int(places.max()) + 1
        ones = np.ones(len(elements), dtype=np.int32)
        links = coo_array((ones, (elements, places + count)), (nodes, nodes))
        features[elements] = connected_components(links, directed=False)[1][elements]
    features[elements] = np.unique(features[elements], return_inverse=True)[1]
    return features


def _with_mixed(
    features: np.ndarray, origin: Origin, axes: tuple[int, ...], along: bool
) -> np.ndarray:
    """Features of elements too that took part in what was read: those of the nearest before."""
    if not any(origin.mixed[a].any() for a in axes):
        return features
    part = np.ix_(*[np.flatnonzero(origin.takes_part(a)) for a in axes])
    if along:
        every = np.arange(features.size).reshape(features.shape)
        features[part] = every[part]
        return features
    nearest = []
    for a in axes:
        own = np.flatnonzero(origin.seen(a))
        last = np.searchsorted(own, np.flatnonzero(origin.takes_part(a)), "right") - 1
        nearest.append(own[last.clip(min=0)])
    result = np.full_like(features, CONSTANT)
    result[part] = features[np.ix_(*nearest)]
    return result


def _classes(reads: Sequence[Read], axis: int, size: int) -> np.ndarray:
    """A number for each coordinate of an axis, the same for those that all layers read alike."""
    if any(axis in one.axes for one in reads):
        return np.arange(size)
    classes = np.zeros(size, dtype=np.int64)
    for one in reads:
        positions = one.positions[axis]
        if positions is not None:
            classes = np.unique(2 * classes + positions, return_inverse=True)[1]
    return classes
