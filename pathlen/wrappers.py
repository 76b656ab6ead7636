"""Wrappers of models for several devices and for compilation, which are seen through."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
            continue
        # The class of compiled modules is not imported: torch._dynamo takes seconds.
        original = getattr(model, "_orig_mod", None)
        if not isinstance(original, nn.Module):
            return model
        model = original
