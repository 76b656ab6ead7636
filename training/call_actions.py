"""What a linearizable model does at its calls: which slopes, and how they lie over a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import LinearizationError
from pathlen.training.blend import Form


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where the slopes of one call site are, and how they are laid over its tensor.

    Attributes:
        layer: Name of the layer in the path graph.
        owner: Path of the module that holds the parameter.
        attribute: Its name there.
        view: Shape that broadcasts to that of the tensor from the right.
        index: Which slope each element of that shape has, the number of slopes where it has none;
            None where each has its own.
        form: What is known of the activation.
    """

    layer: str
    owner: str
    attribute: str
    view: tuple[int, ...]
    index: Tensor | None
    form: Form

    def slope(self, module: nn.Module) -> Tensor:
        """The slopes, in a shape that broadcasts to that of the tensor."""
        parameter: Tensor = getattr(module, self.attribute)
        if self.index is not None:
            none = parameter.new_zeros(1)
            parameter = torch.cat([parameter, none])[self.index.to(parameter.device)]
        return parameter.view(self.view)

    def check(self, x: Tensor) -> None:
        """Raise LinearizationError where a tensor has other features than when it was traced."""
        pairs = zip(reversed(self.view), reversed(x.shape), strict=False)
        if x.ndim < len(self.view) or any(s not in (1, size) for s, size in pairs):
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


@dataclass(slots=True)
class Table:
    """What the calls in one frame are to do, in order, by function or path of the module called."""

    functions: Mapping[Callable[..., Any], tuple[Action, ...]] = field(default_factory=dict)
    modules: Mapping[str, tuple[Slot | None, ...]] = field(default_factory=dict)
