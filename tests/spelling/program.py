"""A small network as data: a list of operations with a meaning of their own.

Shapes leave out the batch. A layout names the axes: `c`, `tc` (tokens, channels), `ct`, `chw`.
All that only moves elements is one operation, `move`, whose `index` says which element of its
arguments each element of the result is; all that pools, resizes, cumulates, sorts or reduces is
`window`, whose `reads` say which elements each element of the result is computed from. What a
spelling needs beside that (which pooling it is, and its stride) stands in `attrs` as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, ...]

# Operations that multiply by weights, and what their attributes say:
#   linear            along the channels (last axis of c, tc)
#   conv              groups; kernel, stride, transposed
#   mixing            along the tokens, each channel alike
#   embedding         of integers
#   bilinear          of two tensors
LAYERS = ("linear", "conv", "mixing", "embedding", "bilinear")


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        op: Its kind; `oracle.py` has a method for each.
        args: Positions of the nodes that it reads, all before it.
        shape: Of the result, without the batch.
        layout: Of the result.
        attrs: What the kind needs.
    """

    op: str
    args: tuple[int, ...]
    shape: Shape
    layout: str
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = []
        for key, entry in self.attrs.items():
            if key in ("index", "reads"):
                continue
            text = str(entry.tolist()) if isinstance(entry, np.ndarray) else str(entry)
            shown.append(f"{key}={text}")
        read = ", ".join(f"v{arg}" for arg in self.args)
        return f"{self.op}({', '.join(filter(None, [read, *shown]))}) -> {list(self.shape)}"


@dataclass(frozen=True, eq=False)
class Program:
    """Nodes in order, the positions of the outputs, and the constructs it was drawn from."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    constructs: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"v{place} = {node}" for place, node in enumerate(self.nodes)]
        return "\n".join([*lines, "return " + ", ".join(f"v{place}" for place in self.outputs)])

    def pruned(self) -> Program:
        """Without what no output depends on."""
        live: set[int] = set()
        queue = list(self.outputs)
        while queue:
            place = queue.pop()
            if place not in live:
                live.add(place)
                queue += self.nodes[place].args
        kept = [place for place, node in enumerate(self.nodes) if place in live or not node.args]
        new = {place: position for position, place in enumerate(kept)}
        nodes = tuple(
            Node(node.op, tuple(new[arg] for arg in node.args), node.shape, node.layout, node.attrs)
            for node in (self.nodes[place] for place in kept)
        )
        return Program(nodes, tuple(new[place] for place in self.outputs), self.constructs)

    def readers(self, place: int) -> int:
        """How often a node is read, as an output too."""
        return sum(node.args.count(place) for node in self.nodes) + self.outputs.count(place)


def channel_axis(layout: str) -> int:
    return layout.index("c")


def positions(shape: Shape) -> np.ndarray:
    """The flat index of each element."""
    return np.arange(int(np.prod(shape))).reshape(shape)
