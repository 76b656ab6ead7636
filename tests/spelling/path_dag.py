"""A directed acyclic graph of named units, and what its definitions count on it.

Plain recursion over Python integers and fractions: nothing is shared with the backends.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction

Name = Hashable


@dataclass(frozen=True)
class Numbers:
    """What is compared; `normalized` is of the backward walk."""

    paths: int
    average: Fraction
    normalized: Fraction
    active: int

    def __str__(self) -> str:
        return (
            f"paths {self.paths}, APL {self.average}, NAPL {self.normalized}, active {self.active}"
        )


@dataclass
class PathDag:
    """Units and hubs by name; a name is given once, its predecessors before it."""

    before: dict[Name, tuple[Name, ...]] = field(default_factory=dict)
    active: set[Name] = field(default_factory=set)

    def node(self, name: Name, before: frozenset[Name], active: bool = False) -> Name:
        """Adds a node, if it is new, and returns its name."""
        assert all(other in self.before for other in before), "predecessors come first"
        if name not in self.before:
            self.before[name] = tuple(before)
        if active:
            self.active.add(name)
        return name

    def hub(self, name: Name, read: frozenset[Name]) -> Name:
        """A hub over several units; a single one needs none."""
        return next(iter(read)) if len(read) == 1 else self.node(("hub", name, read), read)

    def live(self, outputs: list[list[Name]]) -> set[Name]:
        """Nodes on a path to an output; all lie on one from an input."""
        found: set[Name] = set()
        queue = [name for units in outputs for name in units]
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue += self.before[name]
        return found

    def numbers(self, outputs: list[list[Name]]) -> Numbers:
        """F, S and the expected length of a walk of each node, in the order they were made.

        Args:
            outputs: For each output tensor its distinct units. Tensors without any do not count.
        """
        tensors = [units for units in outputs if units]
        live = self.live(tensors)
        paths: dict[Name, int] = {}
        sums: dict[Name, int] = {}
        walk: dict[Name, Fraction] = {}
        for name, before in self.before.items():
            own = int(name in self.active)
            paths[name] = sum(paths[other] for other in before) if before else 1
            sums[name] = own * paths[name] + sum(sums[other] for other in before)
            chance = Fraction(1, len(before)) if before else Fraction(0)
            walk[name] = own + sum((chance * walk[other] for other in before), Fraction(0))
        ends = [name for units in tensors for name in units]
        if not ends:
            return Numbers(0, Fraction(0), Fraction(0), 0)
        means = [sum((walk[name] for name in units), Fraction(0)) / len(units) for units in tensors]
        return Numbers(
            paths=sum(paths[name] for name in ends),
            average=Fraction(sum(sums[name] for name in ends), sum(paths[name] for name in ends)),
            normalized=sum(means, Fraction(0)) / len(means),
            active=len(live & self.active),
        )
