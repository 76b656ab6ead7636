"""Leaves the model and the process as they were: modes, switches, random state."""

import logging
import operator
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pathlen.tracing.generators import untouched_generators


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
def untouched_attributes(model: Any) -> Iterator[None]:
    """What forward stores on the modules (a cache, the last hidden state) is gone after the block.

    Left there, tensors without data would break the next call of the model. Containers on the
    modules get their items back, one level deep.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    before = [(vars(module), dict(vars(module))) for module in modules]
    containers = [
        (value, value.copy())
        for _, attributes in before
        for value in attributes.values()
        if type(value) in (dict, OrderedDict, list, set)
    ]
    try:
        yield
    finally:
        for container, items in containers:
            if (container or items) and not _same_items(container, items):
                container.clear()
                container.extend(items) if isinstance(container, list) else container.update(items)
        for current, attributes in before:
            for name in current.keys() - attributes.keys():
                del current[name]
            current.update(attributes)


def _same_items(one: Any, other: Any) -> bool:
    """Whether two containers of a type hold the same objects in the same order."""
    items = [list(c.items()) if isinstance(c, dict) else list(c) for c in (one, other)]
    if isinstance(one, dict):
        items = [[part for pair in pairs for part in pair] for pairs in items]
    return len(items[0]) == len(items[1]) and all(map(operator.is_, *items))


@contextmanager
def untouched_gradients(model: Any) -> Iterator[None]:
    """Gradients that forward leaves on parameters (`loss.backward()`) are gone after the block."""
    parameters = list(model.parameters()) if isinstance(model, torch.nn.Module) else []
    before = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is not None:  # else it would be added to
            parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient


@contextmanager
def on_cpu() -> Iterator[None]:
    """New tensors are made on the CPU, whatever `torch.set_default_device` says."""
    if torch.get_default_device().type == "cpu":  # a device context slows every call down
        yield
    else:
        with torch.device("cpu"):
            yield


@contextmanager
def same_random_state() -> Iterator[None]:
    """What is drawn inside the block is given back, on all devices in use."""
    states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """What is drawn inside the block is the same each time, and given back after it."""
    with same_random_state():
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def _compiling_nothing() -> Iterator[None]:
    """What `torch.compile` made runs as it was written.

    Tried while something records, its compilation would be given up for good.
    """
    if "torch._dynamo" in sys.modules:
        with torch.compiler.set_stance("force_eager"):
            yield
        return
    try:
        yield
    finally:
        compiler = sys.modules.get("torch._dynamo")
        if compiler is not None:  # an operator may have loaded it, and tried
            compiler.reset()


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
    torch.backends.mha.set_fastpath_enabled(False)
    logger.disabled = True
    try:
        with _compiling_nothing(), same_random_state():
            yield
    finally:
        logger.disabled = silenced
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _fixed_parameters() -> Iterator[None]:
    """Calls of `module.to(...)` and its like inside a forward leave the module as it is.

    On fake tensors they would put fake parameters into the user's model.
    """
    apply = torch.nn.Module._apply

    def leave(module: torch.nn.Module, *_: Any, **__: Any) -> torch.nn.Module:
        return module

    torch.nn.Module._apply = leave  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module._apply = apply  # type: ignore[method-assign]


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """The model in eval mode inside the block; model and process as they were after it."""
    with (
        untouched_attributes(model),
        untouched_gradients(model),
        untouched_generators(model),
        eval_mode(model),
        untouched_process(),
        _fixed_parameters(),
    ):
        yield
