"""Activations that are evaluated again, and constants that the graph itself depends on."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from pathlen.lowering.constants import Constants
from pathlen.lowering.functions import Split
from pathlen.lowering.labels import compact
from pathlen.monitor.sites import Function, Watch, value_of
from pathlen.monitor.slopes import Total
from pathlen.monitor.sources import Source


class FunctionReader:
    """A call site that is evaluated as the lowering did it.

    Args:
        site: The site.
        constants: Values at the time of the lowering.
        shares: Of every node, in both averages.  # (2, num_nodes)
        tolerance: See `Policy`.
    """

    def __init__(
        self, site: Function, constants: Constants, shares: np.ndarray, tolerance: float
    ) -> None:
        self.site = site
        self._tolerance = tolerance
        self._alive = site.numbers >= 0
        self._shares = shares[:, site.numbers[self._alive]]
        self._traced = constants
        self._shape = site.functions(constants, tolerance).shape
        self._split = site.split(self._shape, constants)
        self._unit_of = _numbered(self._split)

    def read(self, constants: Constants) -> Total | None:
        """What the units add now; None where the parameters make other units.

        A parameter that varies along an axis on which units do not makes several units of one.

        Raises:
            ActivityError: A parameter is not a number.
        """
        active = self.site.functions(constants, self._tolerance)
        if active.shape != self._shape:
            split = self.site.split(active.shape, self._traced)
            if not _same(_numbered(split), self._unit_of):
                return None
            self._shape, self._split = active.shape, split
        flags = self._split.of_units(active)[self._alive]
        average, normalized = self._shares @ flags
        return Total(float(average), float(normalized), [int(np.count_nonzero(flags))], False)


def _numbered(split: Split) -> Tensor:
    """The number of its unit for each element of the result."""
    return split.labels_of(np.arange(len(split.entries)))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two collapsed tensors of one shape hold the same numbers."""
    small = compact(one), compact(other)
    return small[0].shape == small[1].shape and bool((small[0] == small[1]).all())


class WatchReader:
    """Constants that decided on the structure of the graph: indices, masks, what was probed.

    Args:
        watches: The constants, with what they were computed from.
    """

    def __init__(self, watches: Iterable[Watch]) -> None:
        self.watches = tuple(watches)
        self._kept: dict[Source, Tensor] = {
            source: tensor for watch in self.watches for source, tensor in watch.sources
        }

    def read(self) -> list[Tensor]:
        """Whether any tensor behind them has changed; nothing waits for a device here."""
        changed = []
        for source, kept in self._kept.items():
            tensor = source.read()
            if tensor.is_meta or kept.is_meta:
                changed.append(torch.full((1,), float(tensor.is_meta != kept.is_meta)).double())
                continue
            if tensor.device != kept.device:
                kept = self._kept[source] = kept.to(tensor.device)
            changed.append((tensor != kept).any().double().view(1))
        return changed

    def still_hold(self, constants: Constants) -> bool:
        """Whether the constants themselves are the same, after what is behind them has changed."""
        for watch in self.watches:
            now = value_of(watch.value, constants)
            if now is None or watch.tensor is None:
                if now is not watch.tensor:
                    return False
            elif not torch.equal(now, watch.tensor):
                return False
        self._kept = {source: source.read().clone() for source in self._kept}
        return True
