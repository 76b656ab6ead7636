"""Models whose parameters are spread over devices: what each process holds is not the model."""

import torch

from pathlen.errors import TraceError


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor, whose class is not imported for that."""
    return hasattr(tensor, "full_tensor")


def refuse_sharded(model: torch.nn.Module) -> None:
    """Refuse a model of whose parameters this process has a part.

    Traced on tensors without data, it would be measured wrongly: its slopes would read as 0.

    Raises:
        TraceError: It is one.
    """
    sharded = [
        *(n for n, tensor in model.named_parameters() if is_sharded(tensor)),
        *(n for n, tensor in model.named_buffers() if is_sharded(tensor)),
        *(n for n, module in model.named_modules() if hasattr(module, "_fsdp_wrapped_module")),
    ]
    if sharded:
        raise TraceError(
            f"{type(model).__name__} is sharded over devices ({sharded[0] or 'the whole model'!r}"
            f" and {len(sharded) - 1} more), so that this process has parts of its parameters only;"
            " measure it before it is sharded, or load its full state_dict into a plain copy"
        )
