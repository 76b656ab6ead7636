"""Numbers that a program on the meta device writes down keep their values.

There `torch.tensor([1.0, 2.0], device=x.device)` and the list in `x[:, [0, 2]]` become tensors
without values before any operator is called. Both are made on the CPU here, so that a recording
holds what they say: which channels an index picks, where a mask cuts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor)
_INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


class MetaValues(TorchFunctionMode):
    """Makes tensors of numbers on the CPU where a program makes them on the meta device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INDEXING and args[0].is_meta:
            return func(args[0], _indices(args[1]), *args[2:], **kwargs)
        made = func(*args, **kwargs)
        if func not in _MAKERS or not made.is_meta or not made.numel():
            return made
        first = 1 if func is torch.Tensor.new_tensor else 0
        data = args[first] if len(args) > first else kwargs.get("data", kwargs.get("obj"))
        return made if _holds(torch.Tensor, data) else _tensor(data, made.dtype).to("meta")


def _indices(index: Any) -> Any:
    """An index with tensors in place of the lists and arrays of numbers in it."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(_index(part) for part in parts)
    return made if isinstance(index, tuple) else made[0]


def _index(part: Any) -> Any:
    """A part of an index; a tensor on the CPU may index tensors on any device."""
    if not isinstance(part, (list, np.ndarray)) or _holds((torch.Tensor, slice), part):
        return part
    places = np.asarray(part)
    if places.dtype == bool and places.ndim == 1:
        places = np.flatnonzero(places)
    return _tensor(places, torch.bool if places.dtype == bool else torch.long)


def _holds(kind: Any, data: Any) -> bool:
    return any(isinstance(leaf, kind) for leaf in pytree.tree_leaves(data))


def _tensor(data: Any, dtype: torch.dtype | None) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype, device="cpu")
