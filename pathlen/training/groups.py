"""Parameter groups for optimizers: slopes never decay."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pathlen.errors import PathlenError
from pathlen.printable import listed
from pathlen.training.slopes import slopes_of


def parameter_groups(
    model: nn.Module, weight_decay: float, *, slope_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Two groups for an optimizer: slopes without weight decay, and all else with it.

    Decay would pull slopes toward 0, that is, make units nonlinear again.

    Args:
        model: A model with slopes.
        weight_decay: Of all parameters but slopes.
        slope_learning_rate: Of the slopes; that of the optimizer by default.
    """
    slopes = [own.parameter for own in slopes_of(model)]
    known = {id(slope) for slope in slopes}
    rest = [p for p in model.parameters() if id(p) not in known]
    own: dict[str, Any] = {"params": slopes, "weight_decay": 0.0}
    if slope_learning_rate is not None:
        own["lr"] = slope_learning_rate
    return [{"params": rest, "weight_decay": weight_decay}, own]


def rate_of_slopes(slopes: Iterable[Tensor], optimizers: Iterable[Optimizer]) -> float | None:
    """The learning rate of the parameter groups that hold slopes, which a proximal step takes.

    It is to be read before a scheduler changes it for the next step.

    Returns:
        The rate, None where no group holds slopes.

    Raises:
        PathlenError: Slopes have different learning rates.
    """
    known = {id(slope) for slope in slopes}
    rates = {
        float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        if any(id(parameter) in known for parameter in group["params"])
    }
    if len(rates) > 1:
        raise PathlenError(
            f"slopes have the learning rates {sorted(rates)}, and a proximal step takes one; put"
            " them into one group (pathlen.training.parameter_groups)"
        )
    return rates.pop() if rates else None


def warn_of_decay(model: nn.Module, optimizer: Optimizer) -> None:
    """Warn of slopes that an optimizer would decay, by name."""
    names = {id(own.parameter): own.parameter_name for own in slopes_of(model)}
    decayed = [
        names[id(parameter)]
        for group in optimizer.param_groups
        if group.get("weight_decay", 0)
        for parameter in group["params"]
        if id(parameter) in names
    ]
    if decayed:
        warnings.warn(
            f"weight decay pulls {len(decayed)} slope(s) away from 1: {listed(decayed, 3)};"
            " make the optimizer from pathlen.training.parameter_groups(model, weight_decay)",
            stacklevel=2,
        )
