"""Layer Folding: one slope a layer, drawn to 1; the layers that come nearest become linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathlen.errors import PathlenError
from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines.base import Baseline
from pathlen.training.linearizer_state import Plain
from pathlen.training.targets import Plan


class FoldedLayers(Baseline):
    """One slope for all units of a layer; at the end, layers become linear by their slopes.

    Ben Dror, Zehngut, Raviv, Artyomov, Vitek & Jevnisek, "Layer Folding: Neural Network Depth
    Reduction using Activation Linearization", BMVC 2022, arXiv:2106.09309, with the
    constants of their published code. An activation becomes alpha * x + (1 - alpha) * sigma(x) with
    one alpha a layer, 0 at first. A trained network is trained on, with lambda * sum |1 - alpha^p|
    in the loss (p = 2) and alpha kept at 0 or above; then activations with alpha above a threshold
    (0.9) are removed, other alphas are fixed, and the rest is finetuned.

    Here lambda is `omega`. Differences: at the `end` of the plan the layers of the largest alpha
    become linear, whatever alpha is, until the target is reached, in the place of a threshold; the
    layer that would go beyond it becomes linear in part where it has a slope for each unit, which
    the gradients tie together until then, and not at all with `granularity="layer"`; layers are not
    merged into one (`pathlen` measures the same depth for both). Layers of equal alphas come in the
    order of the model.

    Args:
        model: A model with slopes; those of a layer are tied from now on.
        plan: Where to stop, and when; its `begin` is not used.
        monitor: For a target of "napl".
        omega: Strength of the penalty.
        p: Power of alpha in it.

    Raises:
        PathlenError: The power is not above 0, or what :class:`Baseline` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        monitor: DepthMonitor | None = None,
        *,
        omega: float = 0.25,
        p: float = 2.0,
    ) -> None:
        super().__init__(model, plan, monitor)
        if not p > 0:
            raise PathlenError(f"p={p!r} must be above 0")
        self.omega, self.p = omega, p
        for slope in self._slopes.parameters():
            if slope.numel() > 1:
                slope.register_hook(_tied)

    def _penalty(self, flat: Tensor) -> Tensor:
        """Omega * sum over layers of |1 - alpha^p|, until the layers are chosen."""
        if self._kept is not None or self._finished:
            return flat.new_zeros(())
        layers = torch.stack([part[0] for part in flat.split(self._slopes.sizes)])
        # the gradient of alpha^p at 0 is infinite for p < 1
        powers = layers.clamp(min=1e-12 if self.p < 1 else 0.0).pow(self.p)
        return self.omega * (1 - powers).abs().sum()

    def _constrained(self, flat: Tensor) -> Tensor:
        if self._kept is not None:
            return flat
        parts = flat.split(self._slopes.sizes)
        return torch.cat([part[:1].clamp(min=0).expand_as(part) for part in parts])

    def _settings(self) -> Plain:
        return super()._settings() | {"p": self.p}

    def _advance(self, flat: Tensor) -> None:
        if self._plan.share(self._done) < 1:
            return
        order = flat.argsort(descending=True, stable=True)  # all of a layer are equal, so together
        self._frozen |= self._budget.first(order, self._frozen, 1.0)
        self._kept = flat.clone()


def _tied(gradient: Tensor) -> Tensor:
    """The gradient of one parameter in the place of several equal ones."""
    return gradient.sum().expand_as(gradient).contiguous()
