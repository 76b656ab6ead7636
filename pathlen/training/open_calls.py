"""Calls of a linearizable model that are under way: what was called in them so far.

Each thread has its own, and so has each pass backward that runs a part of a forward again: what
gradient checkpointing repeats is no second call of the forward that it interrupts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.training.call_actions import Plan, Table


@dataclass(slots=True, eq=False)
class Frame:
    """The forward of a module that is under way.

    Attributes:
        plan: Of the module.
        module: Itself.
        table: What the calls in it are to do.
        outer: The frame that it is opened in.
        counts: How often it called each function, and each module by its key.
        kept: Operands of activations that are written in several calls, by the names that their
            slopes have in the module, with the version that they had.
    """

    plan: Plan
    module: nn.Module
    table: Table
    outer: Frame | None
    counts: dict[Any, int] = field(default_factory=dict)
    kept: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def count(self, called: Any) -> int:
        """How often something was called in this frame before this call."""
        number = self.counts.get(called, 0)
        self.counts[called] = number + 1
        return number


def backward_pass() -> int:
    """Number of the pass backward that this thread is in, -1 outside of any.

    A compiler, which does not know the operator, is at work in this thread: `is_compiling` is also
    true where `torch.export` runs in another one.
    """
    return -1 if torch.compiler.is_dynamo_compiling() else torch._C._current_graph_task_id()


@dataclass(slots=True, eq=False)
class Calls:
    """One call of a model, or of a part of it.

    Attributes:
        whole: Whether it is a call of the model.
        frame: The innermost frame that is open.
        numbers: How often modules were called, by path.
        kept: Operands of activations whose calls are made by several modules, by the names of their
            slopes, with the version that they had.
        within: The pass backward that it is made in, see `backward_pass`.
        compiled: Whether a compiler follows it from its beginning.
    """

    whole: bool
    frame: Frame | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    kept: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    within: int = field(default_factory=backward_pass)
    compiled: bool = field(default_factory=torch.compiler.is_dynamo_compiling)

    def goes_on(self) -> bool:
        """Whether it is what runs here: no pass backward, and no compiler, has come between."""
        compiling = torch.compiler.is_dynamo_compiling()
        within = -1 if compiling else torch._C._current_graph_task_id()
        return self.within == within and self.compiled == compiling

    def number(self, path: str) -> int:
        """How often a module was called before this call of it."""
        number = self.numbers.get(path, 0)
        self.numbers[path] = number + 1
        return number


class Opened(threading.local):
    """The call of a model that is under way in a thread, None where there is none.

    Attributes:
        calls: The call, or the one that a pass backward has interrupted.
        suspended: Whether the model runs as if it had no slopes.
    """

    def __init__(self) -> None:
        # in each thread: a compiler notes that the attributes are there
        self.calls: Calls | None = None
        self.suspended = False

    def here(self) -> Calls | None:
        """The call that goes on here, which one interrupted by a pass backward does not."""
        calls = self.calls
        return calls if calls is None or calls.within == backward_pass() else None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a model has no call under way."""
        return type(self), ()
