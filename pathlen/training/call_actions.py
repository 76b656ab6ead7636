"""What a linearizable model does at its calls: which slopes, and how they lie over a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import LinearizationError
from pathlen.training.blend import Form
from pathlen.training.function_keys import from_name, to_name

Place = tuple[str, int, str, int]
"""A call in a forward: the path of the module that makes it, which of that module's calls this is,
what is called, and how often it was called in there before."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where the slopes of one call site are, and how they are laid over its tensor.

    Attributes:
        layer: Name of the layer in the path graph.
        place: Of the call that returns the activation.
        owner: Path of the module that holds the parameter.
        attribute: Its name there.
        view: Shape that broadcasts to that of the tensor from the right.
        index: Which slope each element of that shape has, the number of slopes where it has none;
            None where each has its own.
        form: What is known of the activation.
        spans: Whether it is written in calls of several modules.
    """

    layer: str
    place: Place
    owner: str
    attribute: str
    view: tuple[int, ...]
    index: Tensor | None
    form: Form
    spans: bool

    def slope(self, module: nn.Module) -> Tensor:
        """The slopes, in a shape that broadcasts to that of the tensor."""
        found: Tensor | None = module._parameters.get(self.attribute)
        # what shards or parametrizes slopes holds them elsewhere
        parameter: Tensor = getattr(module, self.attribute) if found is None else found
        if self.index is None and len(self.view) == 1:
            return parameter
        if self.index is not None:
            none = parameter.new_zeros(1)
            parameter = torch.cat([parameter, none])[self.index.to(parameter.device)]
        return parameter.view(self.view)

    def check(self, x: Tensor) -> None:
        """Raise LinearizationError where a tensor has other features than when it was traced."""
        if not isinstance(x, Tensor):
            return  # a symbol of torch.fx has no shape
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return  # its tracer warns of shapes that are looked at
        if x.shape[-len(self.view) :] == self.view:  # at most calls, soon found
            return
        pairs = zip(reversed(self.view), reversed(x.shape), strict=False)
        if x.ndim < len(self.view) or any(s != 1 and s != size for s, size in pairs):
            raise LinearizationError(
                f"{self.layer!r} is applied to a tensor of shape {tuple(x.shape)}, and has slopes"
                f" for one that ends in {self.view}; trace with an example of this size"
            )


@dataclass(frozen=True, slots=True)
class Action:
    """What to do at one call of a function.

    Attributes:
        keep: Slots that the call's operands are kept for, and their positions among the leaves.
        slot: Whose activation it returns; None for none.
        in_place: Whether it writes its result to the operand that it is a function of.
    """

    keep: tuple[tuple[Slot, int], ...] = ()
    slot: Slot | None = None
    in_place: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What the calls in one frame are to do, in order.

    Attributes:
        functions: By the key of the function, see `function_keys`.
        modules: By the key of the module.
    """

    functions: Mapping[Any, tuple[Action, ...]] = field(default_factory=dict)
    modules: Mapping[str, tuple[Slot | None, ...]] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Functions go by their names: pickle finds some of torch's under none."""
        return _table, ([(to_name(key), own) for key, own in self.functions.items()], self.modules)


def _table(named: list[tuple[Any, tuple[Action, ...]]], modules: Any) -> Table:
    return Table({from_name(name): own for name, own in named}, modules)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a module is in a model with slopes.

    Attributes:
        path: Of the module.
        tables: What the calls in it are to do, for each call of it in one forward.
        whole: Whether it is the model.
        repeated: Whether one forward calls it several times, with slopes of their own.
        intercepts: Whether it calls activations as functions.
    """

    path: str
    tables: tuple[Table, ...] = ()
    whole: bool = False
    repeated: bool = False
    intercepts: bool = False
