"""Moving averages of weights (EMA, SWA): what is linear in the model becomes linear in them.

A slope that is set to 1 in the model only creeps toward 1 in an average of it, so that an averaged
network stays as deep as before for as long as the average remembers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pathlen.errors import PathlenError
from pathlen.printable import shown
from pathlen.training.slopes import slopes_of


@torch.no_grad()
def copy_frozen_slopes(model: nn.Module, average: nn.Module | Mapping[str, Tensor]) -> None:
    """Set those slopes of an averaged model to 1 that are 1 in the model itself.

    Call it after each update of the average, or at the latest before it is evaluated or saved. All
    else of the average stays as it is. Running statistics of batch norms are of the network that
    the average was before: `renew_batch_norm(average, batches)` computes them anew.

    Args:
        model: The model that is trained, with slopes.
        average: `torch.optim.swa_utils.AveragedModel`, timm's `ModelEma`, `ModelEmaV2` or
            `ModelEmaV3`, a copy of the model, any module that holds one; or tensors by the names of
            the model's parameters, as a `state_dict`.

    Raises:
        PathlenError: The average holds no copy of the slopes, or several, or is none.
    """
    slopes = slopes_of(model)
    if not slopes:
        raise PathlenError("the model has no slopes; give it some with make_linearizable")
    tensors = dict(average.named_parameters()) if isinstance(average, nn.Module) else average
    if not isinstance(tensors, Mapping):
        raise PathlenError(
            f"{shown(average)} is no average of the model that can be told by names; give a module,"
            " or a mapping from the names of its parameters to tensors"
        )
    of_model = {_unwrapped(own.parameter_name): own.parameter for own in slopes}
    prefix = _prefix(of_model, tensors)
    for name, slope in of_model.items():
        copy = tensors[prefix + name]
        copy.masked_fill_((slope == 1).to(copy.device), 1.0)


def _unwrapped(name: str) -> str:
    """A name without what DistributedDataParallel and `torch.compile` put before it."""
    while name.startswith(("module.", "_orig_mod.")):
        name = name.partition(".")[2]
    return name


def _prefix(slopes: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What stands before the names of slopes in an average: wrappers put "module." there."""
    first = next(iter(slopes))
    found = [
        name[: len(name) - len(first)]
        for name, tensor in tensors.items()
        # some averages hold the model itself beside its copy
        if (name == first or name.endswith("." + first)) and tensor is not slopes[first]
    ]
    fitting = [
        prefix
        for prefix in found
        if all(
            prefix + name in tensors and tensors[prefix + name].shape == slope.shape
            for name, slope in slopes.items()
        )
    ]
    if len(fitting) != 1:
        held = "several copies" if fitting else "no copy"
        raise PathlenError(
            f"the average holds {held} of the slopes of the model, such as {shown(first)}; give an"
            " average that was made after make_linearizable, and the model that it is of"
        )
    return fitting[0]
