"""Steps of training through `torch.compile`, for recipes that ask for it.

Only what a step computes forward and backward is compiled. Evaluation, decoding and the monitor
run the model as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import SettingsError


def compiled(
    model: nn.Module,
    example: Sequence[Tensor],
    device: torch.device,
    backend: str = "inductor",
) -> nn.Module:
    """The model as one compiled graph, sharing its parameters; compiled when it is first called.

    What this process has compiled before is dropped: a phase compiles once for itself, and torch
    takes only some versions of a forward before it gives up. On a GPU, models of fixed sizes run
    as CUDA graphs.

    Args:
        model: The model.
        example: Its arguments. Texts, which hold integers, vary in length: sizes are left open
            from the first batch on, so that a run that goes on compiles what it had.
        device: Where the model is.
        backend: Of `torch.compile`.
    """
    torch.compiler.reset()
    varies = not all(one.is_floating_point() for one in example)
    graphs = device.type == "cuda" and not varies and backend == "inductor"
    mode = "reduce-overhead" if graphs else None
    whole: Any = torch.compile(model, backend=backend, fullgraph=True, dynamic=varies, mode=mode)
    made: nn.Module = whole
    return made


@contextmanager
def compiling(model: nn.Module) -> Iterator[None]:
    """Say of what `torch.compile` raises which setting asked for it.

    Raises:
        SettingsError: The model cannot be compiled, or there is no compiler for it.
    """
    from torch._dynamo.exc import TorchDynamoException  # loaded with the first compiled model

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n")[0].split())  # then come hints for developers
        raise SettingsError(
            f"machine.compile: torch.compile cannot make one graph of {type(model).__name__}:"
            f" {reason}; leave machine.compile out"
        ) from error
