"""The origins of tensors, also of those that share memory with one that was written to.

As for the units of such tensors (`aliases`), nothing is done to views when memory is written to:
where their elements come from is looked up when they are read.
"""

import operator

import torch
from torch import fx

from pathlen.lowering.labels import CONSTANT, compact
from pathlen.lowering.memory import Memory
from pathlen.lowering.operations import written_argument
from pathlen.lowering.origins import NOWHERE, Origin, nowhere, settled
from pathlen.lowering.views import Views, ViewStep

Found = Origin | list[Origin | None] | None
"""The origin of a result, those of several, or None where nothing in it comes from the input."""


class _Family:
    """Where the elements of a base come from that was written to.

    Attributes:
        whole: the origin of the base, where one call made all of it; None where it was filled in
            parts.
        version: how many calls wrote.
    """

    def __init__(self, base: fx.Node, whole: Origin) -> None:
        self.whole: Origin | None = whole
        self.version = 0
        self._like = base.meta["val"]
        self._mixed = whole.mixed
        self._memories: list[Memory] | None = None  # one for each coordinate

    def write(self, steps: tuple[ViewStep, ...], now: Origin, *, real: bool) -> None:
        """Write to a view; what constants overwrite there changes no feature."""
        self.version += 1
        if not steps:
            self.whole, self._mixed, self._memories = now, now.mixed, None
            return
        memories = self._elements()
        self.whole = None
        self._mixed = tuple(a | b for a, b in zip(now.mixed, self._mixed, strict=True))
        for memory, coordinates in zip(memories, now.coordinates, strict=True):
            if bool((compact(coordinates) != NOWHERE).any()):
                memory.write(steps, _labels(coordinates), real=real)

    def read(self, steps: tuple[ViewStep, ...]) -> Origin:
        """The origin of a view."""
        if self.whole is not None and not steps:
            return self.whole
        coordinates = []
        for memory in self._elements():
            first, *others = [_coordinates(labels) for labels in memory.read(steps)]
            for other in others:  # imaginary parts
                first = torch.where(first == NOWHERE, other, first)
            coordinates.append(settled(first))
        return Origin(tuple(coordinates), self._mixed)

    def _elements(self) -> list[Memory]:
        if self._memories is None:
            assert self.whole is not None
            self._memories = [Memory(self._like, _labels(k)) for k in self.whole.coordinates]
        return self._memories


class Origins:
    """By node, the origins of what programs compute."""

    def __init__(self) -> None:
        self._found: dict[fx.Node, Found] = {}
        self._views = Views()
        self._families: dict[fx.Node, _Family] = {}  # by base
        self._seen: dict[fx.Node, int] = {}  # the version that an origin shows

    def __contains__(self, node: fx.Node) -> bool:
        return node in self._found or self._family(node) is not None

    def __setitem__(self, node: fx.Node, found: Found) -> None:
        self._found[node] = found
        family = self._family(node)
        if family is not None:
            self._seen[node] = family.version

    def of(self, node: fx.Node) -> Found:
        """The origin of what a node holds now."""
        family = self._family(node)
        if family is not None and self._seen.get(node) != family.version:
            self[node] = family.read(self._views.of(node).steps)
        return self._found.get(node)

    def are_in_memory(self, node: fx.Node) -> bool:
        """Whether a node takes a view of which the origin is found when it is read."""
        family = self._family(node)
        return family is not None and (family.whole is None or node.target is operator.getitem)

    def write(self, target: fx.Node, now: Origin, *, real: bool) -> None:
        """Let what an in-place call wrote show in all views of the same memory.

        Args:
            target: what was written to.
            now: the origin of what is there now.
            real: whether imaginary parts become 0.
        """
        view = self._views.of(target)
        if view.base not in self._families:
            before = self._found.get(view.base)
            if not isinstance(before, Origin):
                before = nowhere(view.base.meta["val"].shape, now)
            self._families[view.base] = _Family(view.base, before)
        self._families[view.base].write(view.steps, now, real=real)

    def _family(self, node: fx.Node) -> _Family | None:
        return self._families.get(self._views.of(node).base) if self._families else None


def writes(node: fx.Node) -> bool:
    """Whether a node is an in-place call."""
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    return is_operator and written_argument(node.target) is not None


def _labels(coordinates: torch.Tensor) -> torch.Tensor:
    """Coordinates as memory holds labels."""
    return (compact(coordinates) - NOWHERE + CONSTANT).expand(coordinates.shape)


def _coordinates(labels: torch.Tensor) -> torch.Tensor:
    return (compact(labels) - CONSTANT + NOWHERE).expand(labels.shape)
