"""One model of a zoo, ready to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, and the arguments to measure it with.

    Attributes:
        model: the model.
        args: positional arguments of its forward.
        kwargs: keyword arguments of its forward.
        input_axis: see `pathlen.measure`.
    """

    model: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_axis: int | None = None


def on_meta_or_cpu(build: Callable[[], Subject]) -> Subject:
    """What `build` makes without data; with data where its construction computes with numbers."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        with without_initialization():
            return build()


@contextmanager
def without_initialization() -> Iterator[None]:
    """Parameters keep what their memory held: values do not matter, and drawing them takes long."""
    names = [name for name in dir(torch.nn.init) if name.endswith("_") and name[0] != "_"]
    before = {name: getattr(torch.nn.init, name) for name in names}
    for name in names:
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.nn.init, name, function)
