"""Leaves the model and the process as they were: modes, switches, random state."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Every module in eval mode inside the block, each in its own mode again after it.

    The flags are set one by one: `model.eval()` may be overridden to do more than set a flag.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    flags = [(module, module.training) for module in modules]
    for module, _ in flags:
        object.__setattr__(module, "training", False)
    try:
        yield
    finally:
        for module, training in flags:
            object.__setattr__(module, "training", training)


@contextmanager
def untouched_process() -> Iterator[None]:
    """Random state is restored, and modules take the paths that are written out in Python.

    The fused transformer kernels would hide the activations of a whole encoder layer in one call.
    What torch logs about a call that fails is held back: the error itself is raised, or shown by
    the report of the tracer that succeeded.
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    silenced = logger.disabled
    fused = torch.backends.mha.get_fastpath_enabled()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.backends.mha.set_fastpath_enabled(False)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = silenced
        torch.backends.mha.set_fastpath_enabled(fused)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
