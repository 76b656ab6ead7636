"""The table of spellings: for each operation its equivalent forms in torch, each under a rule.

A spelling is a function of a `Call` and the tensors that the operation reads; it returns the result
or None where the rule does not apply. Tensors have the batch first: axis a of a program is a + 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.spelling.program import Node, Program

Spelling = Callable[..., Tensor | None]

# operation, or operation and which of its kind ("act:relu") -> [(rule, spelling)]
SPELLINGS: dict[str, list[tuple[str, Spelling]]] = defaultdict(list)
# forms of any tensor that are the tensor itself
DETOURS: list[tuple[str, Callable[[Tensor], Tensor]]] = []


@dataclass(frozen=True)
class Call:
    """What a spelling may look at beside its tensors.

    Attributes:
        node: The operation.
        weights: Its parameters and constants by name.
        program: The program, and `values` what its nodes have given so far.
    """

    node: Node
    weights: dict[str, Any]
    program: Program
    values: list[Tensor]

    def __getattr__(self, name: str) -> Any:
        if name in self.node.attrs:
            return self.node.attrs[name]
        raise AttributeError(name)

    @property
    def channels(self) -> int:
        """The channel axis of the result, with the batch."""
        return self.node.layout.index("c") + 1


def rule(operation: str, name: str) -> Callable[[Spelling], Spelling]:
    """Registers a spelling of an operation under the name of a rule."""

    def register(spelling: Spelling) -> Spelling:
        SPELLINGS[operation].append((name, spelling))
        return spelling

    return register


def rules(operation: str, **spellings: Spelling) -> None:
    """Registers several; the names of rules are written with `_` for spaces."""
    for name, spelling in spellings.items():
        SPELLINGS[operation].append((name.replace("_", " "), spelling))


def key(node: Node) -> str:
    """Under which key an operation has its spellings."""
    which = node.attrs.get("name") or node.attrs.get("how") or node.attrs.get("kind")
    return f"{node.op}:{which}" if which else node.op


def written(x: Tensor, *parts: tuple[Any, Tensor]) -> Tensor:
    """A buffer like x in which parts are written at indices."""
    buffer = torch.zeros_like(x)
    for index, part in parts:
        buffer[index] = part
    return buffer
