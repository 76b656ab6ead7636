"""What the rest of a program can see of a tensor, written so that two such states can be compared.

Between two blocks of a network a single tensor leads on, with what may be followed back from it
(`liveness.visible`). Labels count from the last node of the graph so far, and nodes of the program
from the cut between the blocks: what is alike after two blocks is written alike. What this module
does not know how to write is like nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from pathlen.lowering.labels import CONSTANT, compact
from pathlen.lowering.liveness import cuts_history, visible
from pathlen.lowering.values import Call, Rows, Value

_PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.layout)
_DERIVED = frozenset({"order", "rooted", "step", "_path", "known"})  # by the rest, once asked for


class Snapshot:
    """What is visible of the tensor that leads from one block to the next.

    Args:
        link: the tensor.
        readers: how many calls read the result of a node.
        number: of each node in the program.
        first: number of the first node of the repetition; those before it are the same for all.
        cut: number of the node that follows the block.
        last: number of the next node of the graph.

    Attributes:
        told: equal for states that are alike.
        constants: what does not vary and is visible.
        values: what varies and is visible.
    """

    def __init__(
        self,
        link: Value,
        readers: Mapping[int, int],
        number: Mapping[fx.Node, int],
        first: int,
        cut: int,
        last: int,
    ) -> None:
        self.constants: list[Value] = []
        self.values = visible(link, readers)
        self._number, self._first, self._cut, self._last = number, first, cut, last
        self._kept = {id(value) for value in self.values}
        self._met: dict[int, int] = {}
        self.told = self._of(link), *map(self._of, self.values)

    def _of(self, thing: Any) -> Any:
        if isinstance(thing, _PLAIN):
            return type(thing), thing
        if isinstance(thing, Value):
            return self._value(thing)
        if isinstance(thing, fx.Node):
            return self._node(thing)
        if isinstance(thing, torch.Tensor):
            return _tensor(thing)
        if isinstance(thing, np.ndarray):
            return thing.dtype, thing.shape, thing.tobytes()
        if isinstance(thing, torch._ops.OpOverload):
            return thing
        if isinstance(thing, (tuple, list, torch.Size)):
            return len(thing), *map(self._of, thing)
        if isinstance(thing, Mapping):
            return self._of(list(thing.items()))
        if isinstance(thing, Rows):
            return self._again(thing)
        if isinstance(thing, Call):
            return self._call(thing)
        if is_dataclass(thing) and not isinstance(thing, type):
            return self._again(thing) or (
                type(thing),
                *self._fields(thing, (field.name for field in fields(thing))),
            )
        return object()

    def _again(self, thing: Any) -> Any:
        """The number of something that was met before; None for what is new."""
        known = self._met.get(id(thing))
        self._met.setdefault(id(thing), len(self._met))
        return None if known is None else ("met", known)

    def _fields(self, thing: Any, names: Iterable[str]) -> list[Any]:
        return [
            self._labels(own) if name == "labels" else self._of(own)
            for name, own in ((name, getattr(thing, name)) for name in names)
            if name not in _DERIVED
        ]

    def _value(self, value: Value) -> Any:
        if met := self._again(value):
            return met
        if id(value) not in self._kept:
            if not value.varies:
                self.constants.append(value)
            return self._node(value.node), value.dtype, value.shape, value.varies
        names = [field.name for field in fields(Value)]
        if cuts_history(value):
            names.remove("call")
        return type(value), *self._fields(value, names)

    def _call(self, call: Call) -> Any:
        return self._fields(call, ("func", "name", "arguments", "node", "like"))

    def _node(self, node: fx.Node) -> Any:
        number = self._number.get(node)
        if number is None:  # of a decomposition
            return "inside", node.name
        return ("before", number) if number < self._first else number - self._cut

    def _labels(self, labels: torch.Tensor) -> Any:
        small = compact(labels).numpy()
        counted = np.where(small == CONSTANT, CONSTANT, self._last - small)
        return labels.shape, labels.stride(), counted.tobytes()


def _tensor(tensor: torch.Tensor) -> Any:
    if tensor.layout is not torch.strided:
        return object()
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        return tensor.dtype, tensor.shape, tensor.stride()
    held = compact(tensor).detach().resolve_conj().resolve_neg().reshape(-1)
    return tensor.dtype, tensor.shape, held.view(torch.uint8).numpy().tobytes()
