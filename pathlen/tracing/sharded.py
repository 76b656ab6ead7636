"""Models whose parameters are spread over devices: what each process holds is not the model."""

from collections.abc import Mapping
from typing import Any

import torch

from pathlen.errors import TraceError

PART = "so that this process has a part of it only"
"""What is said of a tensor that is sharded."""

_MANAGED = "_is_fsdp_managed_module"  # so FSDP marks the modules whose parameters it shards


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor, whose class is not imported for that."""
    return hasattr(tensor, "full_tensor")


def holds_shards(attributes: Mapping[str, Any]) -> bool:
    """Whether FSDP shards the parameters of a module with these attributes.

    It shows whole tensors from a forward on, which it throws away after the pass backward: what is
    read from these may be right, and what is written to them is lost.
    """
    return _MANAGED in attributes


def refuse_sharded(model: torch.nn.Module) -> None:
    """Refuse a model of whose parameters this process has a part.

    Traced on tensors without data, it would be measured wrongly: its slopes would read as 0.

    Raises:
        TraceError: It is one.
    """
    modules = list(model.named_modules())
    sharded = [n for n, module in modules if hasattr(module, "_fsdp_wrapped_module")]
    if not sharded:
        managed = {n for n, module in modules if holds_shards(vars(module))}
        tensors = [*model.named_parameters(), *model.named_buffers()]
        sharded = [
            name
            for name, tensor in tensors
            if is_sharded(tensor)
            or (isinstance(tensor, torch.nn.Parameter) and name.rpartition(".")[0] in managed)
        ]
    if sharded:
        raise TraceError(
            f"{type(model).__name__} is sharded over devices ({sharded[0] or 'the whole model'!r}"
            f" and {len(sharded) - 1} more), so that this process has parts of its parameters only;"
            " measure it before it is sharded, or load its full state_dict into a plain copy"
        )
