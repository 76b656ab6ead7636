"""How often what goes into each activation is above 0, and below it."""

from __future__ import annotations

from threading import get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn

from pathlen.training.call_actions import Slot
from pathlen.training.interception import Linearization
from pathlen.training.slopes import slopes_of


class SignCounter:
    """Counts signs of pre-activations for each slope while it is open, in the thread it is open in.

    Args:
        model: A model with slopes.
    """

    def __init__(self, model: nn.Module) -> None:
        slopes = slopes_of(model)
        sizes = [own.parameter.numel() for own in slopes]
        self._start = {}
        for place, own in enumerate(slopes):
            self._start[id(own.parameter)] = sum(sizes[:place])
        self._prelus = [
            module
            for module in model.modules()
            if isinstance(module, nn.PReLU) and id(module.weight) in self._start
        ]
        states = {id(s): s for m in model.modules() if (s := getattr(m, "_linearization", None))}
        self._states: list[Linearization] = list(states.values())
        device = slopes[0].parameter.device if slopes else None
        self.counts = torch.zeros(sum(sizes), 2, dtype=torch.int64, device=device)
        """Above 0 and below 0: int64[slopes, 2]."""

    def __enter__(self) -> Self:
        """Begin to count."""
        self._thread = get_ident()
        for state in self._states:
            state.observer = self._observe
        self._hooks = [prelu.register_forward_pre_hook(self._prelu) for prelu in self._prelus]
        return self

    def __exit__(self, *error: object) -> None:
        """Stop counting."""
        for state in self._states:
            state.observer = None
        for hook in self._hooks:
            hook.remove()

    def _observe(self, slot: Slot, module: nn.Module, x: Tensor) -> None:
        parameter = getattr(module, slot.attribute)
        self._count(parameter, x.detach(), slot.view, slot.index)

    def _prelu(self, module: nn.Module, inputs: Any) -> None:
        x: Tensor = inputs[0].detach()
        weight: Any = module.weight
        channels = x.shape[1] if weight.numel() > 1 else 1
        self._count(weight, x, (channels, *[1] * max(0, x.ndim - 2)), None)

    def _count(
        self, parameter: nn.Parameter, x: Tensor, view: tuple[int, ...], index: Tensor | None
    ) -> None:
        if get_ident() != self._thread:  # someone else calls the model meanwhile
            return
        number = parameter.numel()
        start = self._start[id(parameter)]
        for column, found in enumerate((x > 0, x < 0)):
            counts = _summed(found, view).reshape(-1)
            if index is not None:  # the last place is for elements that are no unit's
                places = index.reshape(-1).to(counts.device)
                counts = counts.new_zeros(number + 1).index_add(0, places, counts)[:number]
            self.counts[start : start + number, column] += counts.to(self.counts.device)


def _summed(found: Tensor, view: tuple[int, ...]) -> Tensor:
    """How many are true, over all axes that a shape broadcasts over: int64[view]."""
    before = found.ndim - len(view)
    broadcast = [before + axis for axis, size in enumerate(view) if size == 1]
    axes = [*range(before), *broadcast]
    return found.sum(axes) if axes else found.long()
