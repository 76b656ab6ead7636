"""Generators of random numbers that modules have as attributes: of Python, numpy and torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_KINDS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


def own_generators(model: Any) -> list[Any]:
    """The generators among the attributes of a model and of its parts."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    values = [value for module in modules for value in vars(module).values()]
    # Asked once a class: torch makes `isinstance` of its own classes slow.
    kinds = {kind for kind in set(map(type, values)) if issubclass(kind, _KINDS)}
    return [value for value in values if type(value) in kinds] if kinds else []


@contextmanager
def untouched_generators(model: Any) -> Iterator[None]:
    """A model's own generators draw after the block what they would have drawn before it."""
    kept = [(generator, state_of(generator)) for generator in own_generators(model)]
    try:
        yield
    finally:
        for generator, state in kept:
            _set_state(generator, state)


def state_of(generator: Any) -> Any:
    """What decides on the numbers that a generator draws next."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return _bits(generator).state


def reseed(generator: Any, seed: int) -> None:
    """Make a generator draw the numbers of a seed."""
    if isinstance(generator, random.Random):
        generator.seed(seed)
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        bits = _bits(generator)
        bits.state = type(bits)(seed).state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        _bits(generator).state = state


def _bits(generator: Any) -> Any:
    """What a generator of numpy's gets its bits from."""
    old = isinstance(generator, np.random.RandomState)
    return generator._bit_generator if old else generator.bit_generator
