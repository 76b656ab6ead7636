"""Leaves the model as it was, and the process untouched: modes, switches, what is compiled."""

import importlib
import operator
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.fx._symbolic_trace import _Patcher

from pathlen.one_thread import Diverted, exclusive, unlogged
from pathlen.tracing.generators import untouched_generators

_CONVERSIONS = Diverted([(torch.nn.Module, "_apply")])
_FAST_PATHS = Diverted([(torch.backends.mha, "get_fastpath_enabled")])
_PATCHES = Diverted([(_Patcher, "patch_method")])
_compiled: list[Diverted] = []


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
def _compiling_nothing() -> Iterator[None]:
    """What `torch.compile` made runs as it was written, in this thread.

    Tried while something records, its compilation would be given up for good.
    """
    if (of_calls := _compiled_calls()) is not None:
        with of_calls.to(lambda *_: None):
            yield
        return
    try:
        yield
    finally:
        if "torch._dynamo" in sys.modules:  # an operator may have loaded it, and tried
            importlib.import_module("torch._dynamo").reset()


def _compiled_calls() -> Diverted | None:
    """What each call of something compiled asks for how to run; None before it is loaded."""
    frames = sys.modules.get("torch._dynamo.eval_frame")
    if frames is None or not hasattr(frames, "_callback_from_stance"):
        return None
    if not _compiled:
        _compiled.append(Diverted([(frames, "_callback_from_stance")]))
    return _compiled[0]


def _patch_for_this_thread(name: str, original: Any, args: Any, kwargs: Any) -> Any:
    """Let what torch.fx puts in the place of a method be that in this thread only.

    While `torch.export` traces, it replaces `nn.Module.__call__` and `nn.Module.__getattr__`.
    """
    patcher, kind, method, new, *rest = args
    before, own = getattr(kind, method), threading.get_ident()

    @wraps(new)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == own else before)(*args, **kwargs)

    return original(patcher, kind, method, patched, *rest, **kwargs)


@contextmanager
def untouched_process() -> Iterator[None]:
    """In this thread, modules take the paths that are written out in Python.

    The fused transformer kernels would hide the activations of a whole encoder layer in one call.
    What torch logs about a call that fails is held back: the error itself is raised, or shown by
    the report of the tracer that succeeded.
    """
    with (
        unlogged("torch._subclasses.fake_tensor"),
        _FAST_PATHS.to(lambda *_: False),
        _PATCHES.to(_patch_for_this_thread),
        _compiling_nothing(),
    ):
        yield


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """The model in eval mode inside the block; model and process as they were after it.

    Calls of `module.to(...)` and its like inside a forward leave the module as it is: on fake
    tensors they would put fake parameters into the user's model. One thread at a time is inside,
    for models may share modules.
    """
    with (
        exclusive(),
        untouched_attributes(model),
        untouched_gradients(model),
        untouched_generators(model),
        eval_mode(model),
        untouched_process(),
        _CONVERSIONS.to(lambda name, original, args, kwargs: args[0]),
    ):
        yield
