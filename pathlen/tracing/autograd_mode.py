"""How much of autograd is at work while a model runs, and derivatives that must not come out wrong.

A model is called with gradients on, unless its caller turns them off; so it is run with them where
its forward takes derivatives. Most do not, and are run in `torch.inference_mode`, where nothing is
kept for derivatives. `torch.autograd.grad` says so there, but
`torch.autograd.functional` and, before torch 2.13, `torch.func` give zeros: a forward that takes
derivatives by these would be recorded as one that computes a constant. Forward-mode derivatives
multiply by tangents of parameters that are 0, which would count as connections.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._functorch import eager_transforms
from torch.autograd import forward_ad, functional

from pathlen.errors import TraceError
from pathlen.one_thread import Diverted


def _require_autograd(name: str, original: Any, args: Any, kwargs: Any) -> Any:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "the forward takes derivatives, for which its tensors have to require grad"
        )
    return original(*args, **kwargs)


def _refuse_tangents(name: str, original: Any, args: Any, kwargs: Any) -> Any:
    raise TraceError(
        "the forward takes derivatives in forward mode (dual numbers, torch.func.jvp, jacfwd,"
        " hessian), whose paths cannot be counted: it multiplies by tangents of parameters, which"
        " are 0; take them in reverse mode (torch.func.vjp, jacrev, torch.autograd.grad)"
    )


_WANTS = re.compile(r"requires?[ _]grad|inference ?(tensor|mode)", re.IGNORECASE)
_REVERSE = Diverted(
    [(functional, "_grad_preprocess"), (eager_transforms, "grad_increment_nesting")]
)
_FORWARD = Diverted([(forward_ad, "enter_dual_level"), (eager_transforms, "jvp_increment_nesting")])


@contextmanager
def autograd_mode(gradients: bool) -> Iterator[None]:
    """What a model runs in: inference mode, or with gradients, where its forward may differentiate.

    What wants derivatives in inference mode raises an error that `wants_gradients` knows;
    forward-mode derivatives raise TraceError in both.
    """
    with (
        torch.inference_mode(not gradients),
        torch.set_grad_enabled(gradients),
        _REVERSE.to(_require_autograd),
        _FORWARD.to(_refuse_tangents),
    ):
        yield


def wants_gradients(error: Exception) -> bool:
    """Whether an error says that a tensor should have kept what derivatives are taken from."""
    return _WANTS.search(str(error)) is not None


def as_given(own: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """A copy of an input, which requires grad where the input did and gradients are on."""
    return own.requires_grad_() if given.requires_grad and torch.is_grad_enabled() else own
