"""Reads many slopes at once, where they live: a few operations for all call sites together.

All slopes are laid end to end. What each of them adds to the averages if its unit is active was
known before, so the averages are one product of a matrix of two rows with zeros and ones, and
active units by layer are differences of one running sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pathlen.errors import ActivityError
from pathlen.monitor.sites import Slopes
from pathlen.monitor.sources import Source
from pathlen.tracing.sharded import is_sharded

Key = tuple[torch.device, torch.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """What the units of some call sites add.

    Attributes:
        average: To the average path length.
        normalized: To the normalized one.
        active: Active units of each site, in order.
        doubtful: Whether a blend is so close to the tolerance that it has to be evaluated.
    """

    average: float
    normalized: float
    active: list[int]
    doubtful: bool


class SlopeReader:
    """Call sites of one kind: PReLUs, or blends.

    Args:
        sites: The sites.
        shares: Of every node, in both averages.  # (2, num_nodes)
        tolerance: See `Policy`.
    """

    def __init__(self, sites: Sequence[Slopes], shares: np.ndarray, tolerance: float) -> None:
        self.sites = tuple(sites)
        self._shares = shares
        self._tolerance = tolerance
        self._sources = list(dict.fromkeys(site.source for site in sites))
        simple = all(len(s.keys) == 1 and not s.tied for s in self._sources)
        self._places = [(s.attributes, s.keys[0]) for s in self._sources] if simple else None
        self._shapes = [source.shape for source in self._sources]
        self._parts: dict[tuple[Key, ...], list[_Part]] = {}

    def read(self) -> "list[tuple[_Part, Tensor]]":
        """Numbers of the parts that live on different devices or in different precisions.

        Nothing waits for a device here; `total` takes the numbers once they have arrived.

        Raises:
            MonitorError: A slope is gone, has another shape or is sharded over devices.
        """
        tensors = self._tensors()
        keys = {(tensor.device, tensor.dtype) for tensor in tensors}
        every = tuple(keys) if len(keys) == 1 else tuple((t.device, t.dtype) for t in tensors)
        if every not in self._parts:
            self._parts = {every: self._split(every)}
        of_source = dict(zip(self._sources, tensors, strict=True)) if len(keys) > 1 else None
        return [
            (
                part,
                part.read(tensors if of_source is None else [of_source[s] for s in part.sources]),
            )
            for part in self._parts[every]
        ]

    def _tensors(self) -> list[Tensor]:
        if self._places is not None:
            try:
                tensors = [attributes[key] for attributes, key in self._places]
                same = [tensor.shape for tensor in tensors] == self._shapes
                if same and not any(map(is_sharded, tensors)):
                    return tensors
            except (KeyError, AttributeError):
                pass  # what is missing is told below
        return [source.read() for source in self._sources]

    def _split(self, keys: tuple[Key, ...]) -> "list[_Part]":
        """Parts of one device and precision each."""
        if len(keys) == 1:
            return [
                _Part(self.sites, range(len(self.sites)), self._shares, self._tolerance, keys[0])
            ]
        key_of = dict(zip(self._sources, keys, strict=True))
        parts = []
        for key in dict.fromkeys(keys):
            chosen = [n for n, site in enumerate(self.sites) if key_of[site.source] == key]
            sites = [self.sites[number] for number in chosen]
            parts.append(_Part(sites, chosen, self._shares, self._tolerance, key))
        return parts


class _Part:
    """Call sites whose slopes live on one device in one precision.

    A slot is a slope together with a site: several units of the site may share the slope.

    Attributes:
        sources: The tensors, in the order in which they are laid end to end.
        numbers: Which of the reader's sites these are.
    """

    def __init__(
        self,
        sites: Sequence[Slopes],
        numbers: Sequence[int],
        shares: np.ndarray,
        tolerance: float,
        key: Key,
    ) -> None:
        self.sources = list(dict.fromkeys(site.source for site in sites))
        self.numbers = numbers
        self._tolerance = tolerance
        self._is_meta = key[0].type == "meta"
        device = torch.device("cpu") if self._is_meta else key[0]
        sizes = [source.shape.numel() for source in self.sources]
        first = dict(zip(self.sources, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        slots = [_slots(site, first[site.source], shares) for site in sites]
        index = np.concatenate([slot for slot, _ in slots])
        table = np.concatenate([columns for _, columns in slots], axis=1)
        in_order = len(index) == sum(sizes) and (np.diff(index) == 1).all()
        self._index = None if in_order else torch.from_numpy(index).to(device)
        self._table = torch.from_numpy(table[:2].copy()).to(device)
        counts = torch.from_numpy(table[2].copy()).to(device)
        self._counts = None if (table[2] == 1).all() else counts
        lengths = [len(slot) for slot, _ in slots]
        self._last = torch.from_numpy(np.cumsum(lengths) - 1).to(device)
        self._flat = all(len(source.shape) == 1 for source in self.sources)
        self._middle = self._reach = None
        if sites[0].between is not None:
            bounds = np.repeat(np.array([site.between for site in sites]), lengths, axis=0)
            middle = torch.from_numpy(bounds.mean(axis=1))
            self._reach = (torch.from_numpy(bounds[:, 1]) - middle).to(device, key[1])
            self._middle = middle.to(device, key[1])
        self._margin = 1e-9 + 64 * torch.finfo(key[1]).eps

    def read(self, tensors: list[Tensor]) -> Tensor:
        """Both sums, running numbers of active units, then the largest slope and doubts: float64.

        Args:
            tensors: One a source.
        """
        if self._is_meta:  # without values: taken as active
            tensors = [torch.full(tensor.shape, torch.inf) for tensor in tensors]
        slopes = torch.cat(tensors if self._flat else [tensor.reshape(-1) for tensor in tensors])
        if self._middle is None or self._reach is None:
            beyond = (1 - slopes).abs()
            largest = beyond.amax()  # NaN if any is
            active, doubts = beyond > self._tolerance, []
            if self._index is not None:
                active = active.index_select(0, self._index)
        else:
            largest = slopes.amax()
            alpha = slopes if self._index is None else slopes.index_select(0, self._index)
            beyond = (alpha - self._middle).abs_().sub_(self._reach)
            active = beyond > 0
            doubts = [(beyond.abs_() <= self._margin).any().double().unsqueeze(0)]
        ones = active.double()
        sums = self._table @ ones
        if self._counts is not None:
            ones = ones * self._counts
        running = ones.cumsum(0).index_select(0, self._last)
        return torch.cat([sums, running, largest.double().unsqueeze(0), *doubts])

    def total(self, numbers: Sequence[float]) -> Total:
        """What `read` found, once it is here.

        Raises:
            ActivityError: A slope is not a number.
        """
        average, normalized, *running = numbers[: 2 + len(self.numbers)]
        largest, *doubts = numbers[2 + len(self.numbers) :]
        if largest != largest:
            raise ActivityError(_nan_message(self.sources))
        active = [int(n - m) for n, m in zip(running, [0.0, *running[:-1]], strict=True)]
        return Total(average, normalized, active, any(doubts))


def _slots(site: Slopes, first: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slots of a site: positions of their slopes, and shares and numbers of their units."""
    elements, slot = np.unique(site.element, return_inverse=True)
    columns = [np.bincount(slot, share[site.nodes]) for share in shares]
    return first + elements, np.stack([*columns, np.bincount(slot)])


def _nan_message(sources: Sequence[Source]) -> str:
    wrong = [source.name for source in sources if bool(source.read().isnan().any())]
    return (
        f"parameter {wrong[0]!r} holds NaN, so that it cannot be told which units are active;"
        f" {len(wrong)} parameter(s) do; repair them"
    )
