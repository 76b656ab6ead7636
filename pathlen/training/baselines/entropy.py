"""Lowest entropy first: layers whose units are always on, or always off, become linear."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines.gradual import Gradual
from pathlen.training.targets import Plan, ranked


class LowestEntropy(Gradual):
    """Makes layers linear one after another, each time the one of the lowest entropy.

    Quétu, Liao & Tartaglione, "The Simpler The Better: An Entropy-Based Importance Metric To Reduce
    Neural Networks' Depth" (EASIER), ECML PKDD 2024, arXiv:2404.18949; the entropy is
    that of Liao, Quétu, Nguyen & Tartaglione, "Can Unstructured Pruning Reduce the Depth in Deep
    Neural Networks?" (EGP), ICCV workshops 2023, arXiv:2308.06619, and "NEPENTHE", 2024,
    arXiv:2404.16890. The state of a unit for an input is the sign of its pre-activation, 0 left
    out; with p the share of + among its states over the training data, its entropy is
    -p log2 p - (1 - p) log2(1 - p), and that of a layer is the mean over its units. EASIER replaces
    the activation of the layer of the lowest entropy by the identity, trains on, and measures anew.
    (EGP and NEPENTHE prune weights until the entropy of layers is 0.)

    Differences: units of a layer become linear one after another, lowest entropy first, over the
    time that the schedule gives it, and not all at once with a whole training in between; so the
    last layer becomes linear in part, and the target is met. Signs are counted in some batches of
    the training data when a layer is complete, in eval mode. A unit of a convolution is a channel:
    its states are those of all positions, as in their code.

    Args:
        model: A model with slopes, one for each unit.
        plan: Where to stop, and when.
        monitor: For a target of "napl".
        count_signs: How often the input of each slope's activation was above and below 0 over the
            data, the same in each process: int64[slopes, 2].
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        monitor: DepthMonitor | None = None,
        *,
        count_signs: Callable[[], Tensor],
        train_slopes: bool = False,
    ) -> None:
        super().__init__(model, plan, monitor)
        self._count_signs = count_signs
        self._by_entropy: Tensor | None = None
        self._complete = 0
        if not train_slopes:
            self._keep_slopes()

    def _order(self, flat: Tensor) -> Tensor:
        parts = self._frozen.split(self._slopes.sizes)
        complete = sum(bool(part.all()) for part in parts)
        if self._by_entropy is None or complete > self._complete:
            entropy = entropies(self._count_signs().to(flat.device))
            self._by_entropy = self._ordered(entropy, parts)
            self._complete = complete
        return self._by_entropy.to(flat.device)

    def _ordered(self, entropy: Tensor, frozen: tuple[Tensor, ...]) -> Tensor:
        """Layers that are begun first, then by mean entropy; in each, units by theirs."""
        of_layer = torch.stack([part.mean() for part in entropy.split(self._slopes.sizes)])
        begun = torch.tensor([bool(part.any()) for part in frozen], device=entropy.device)
        place = ranked(of_layer.masked_fill(begun, -1.0), self._plan.seed).argsort()
        place = place.repeat_interleave(torch.tensor(self._slopes.sizes, device=entropy.device))
        units = ranked(entropy, self._plan.seed)
        return units[place[units].argsort(stable=True)]

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on besides the model: tensors and numbers only."""
        order = None if self._by_entropy is None else self._by_entropy.clone()
        return super().state_dict() | {"by_entropy": order, "complete": self._complete}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            PathlenError: It is of another method, or of a model with other slopes.
        """
        super().load_state_dict(state)
        self._by_entropy, self._complete = state["by_entropy"], int(state["complete"])
        former = self._slopes.former_numbers(state["frozen"])
        if former is not None and self._by_entropy is not None:
            self._by_entropy = former.argsort()[self._by_entropy]


def entropies(counts: Tensor) -> Tensor:
    """Entropy in bits of the sign of each unit: float64[slopes]; 0 where it was never seen.

    Args:
        counts: int64[slopes, 2], how often it was above and below 0.
    """
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    found: Tensor = torch.special.xlogy(share, share).sum(1)
    return -found / math.log(2)
