"""How much of autograd is at work while a model runs, and derivatives that must not come out wrong.

A model is called with gradients on, unless its caller turns them off; so it is run with them where
its forward takes derivatives. Most do not, and are run in `torch.inference_mode`, where nothing is
kept for derivatives. `torch.autograd.grad` says so there, but
`torch.autograd.functional` and, before torch 2.13, `torch.func` give zeros: a forward that takes
derivatives by these would be recorded as one that computes a constant. Forward-mode derivatives
multiply by tangents of parameters that are 0, which would count as connections.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, get_ident
from typing import Any

import torch
from torch._functorch import eager_transforms
from torch.autograd import forward_ad, functional

from pathlen.errors import TraceError


def _require_autograd() -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "the forward takes derivatives, for which its tensors have to require grad"
        )


def _refuse_tangents() -> None:
    raise TraceError(
        "the forward takes derivatives in forward mode (dual numbers, torch.func.jvp, jacfwd,"
        " hessian), whose paths cannot be counted: it multiplies by tangents of parameters, which"
        " are 0; take them in reverse mode (torch.func.vjp, jacrev, torch.autograd.grad)"
    )


_WANTS = re.compile(r"requires?[ _]grad|inference ?(tensor|mode)", re.IGNORECASE)
_ENTRANCES = (
    (functional, "_grad_preprocess", _require_autograd),
    (eager_transforms, "grad_increment_nesting", _require_autograd),
    (forward_ad, "enter_dual_level", _refuse_tangents),
    (eager_transforms, "jvp_increment_nesting", _refuse_tangents),
)


@contextmanager
def autograd_mode(gradients: bool) -> Iterator[None]:
    """What a model runs in: inference mode, or with gradients, where its forward may differentiate.

    What wants derivatives in inference mode raises an error that `wants_gradients` knows;
    forward-mode derivatives raise TraceError in both.
    """
    with (
        torch.inference_mode(not gradients),
        torch.set_grad_enabled(gradients),
        _REFUSAL.in_this_thread(),
    ):
        yield


def wants_gradients(error: Exception) -> bool:
    """Whether an error says that a tensor should have kept what derivatives are taken from."""
    return _WANTS.search(str(error)) is not None


def as_given(own: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """A copy of an input, which requires grad where the input did and gradients are on."""
    return own.requires_grad_() if given.requires_grad and torch.is_grad_enabled() else own


class _Refusal:
    """The entrances to torch's derivatives, shut to threads in which we run a model."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads: list[int] = []
        self._originals: list[tuple[Any, str, Callable[..., Any]]] = []

    @contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Shut them inside of the block; to whoever else calls them they are what they were."""
        own = get_ident()
        with self._lock:
            if not self._threads:
                self._shut()
            self._threads.append(own)
        try:
            yield
        finally:
            with self._lock:
                self._threads.remove(own)
                if not self._threads:
                    self._open()

    def _shut(self) -> None:
        for owner, name, check in _ENTRANCES:
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._guarded(original, check))

    def _open(self) -> None:
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _guarded(
        self, original: Callable[..., Any], check: Callable[[], None]
    ) -> Callable[..., Any]:
        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if get_ident() in self._threads:
                check()
            return original(*args, **kwargs)

        return guarded


_REFUSAL = _Refusal()
