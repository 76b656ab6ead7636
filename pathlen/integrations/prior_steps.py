"""The learning rate of slopes, which a proximal step of a sparsity prior takes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from pathlen.errors import PathlenError
from pathlen.training.slopes import slopes_of


def rate_of_slopes(model: nn.Module, optimizers: Iterable[Optimizer]) -> float | None:
    """The learning rate of the parameter groups that hold slopes of a model.

    It is to be read before a scheduler changes it for the next step.

    Returns:
        The rate, None where no group holds slopes.

    Raises:
        PathlenError: Slopes have different learning rates.
    """
    slopes = {id(own.parameter) for own in slopes_of(model)}
    rates = {
        float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        if any(id(parameter) in slopes for parameter in group["params"])
    }
    if len(rates) > 1:
        raise PathlenError(
            f"slopes have the learning rates {sorted(rates)}, and a proximal step takes one; put"
            " them into one group (pathlen.training.parameter_groups)"
        )
    return rates.pop() if rates else None
