"""States with tensors as values that JSON has, for checkpoints that are text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BITS, _VALUES = "__bits__", "__values__"


def to_plain(state: Any) -> Any:
    """A state as plain values: flags become bits in base64, other tensors lists."""
    if isinstance(state, dict):
        return {key: to_plain(value) for key, value in state.items()}
    if not isinstance(state, Tensor):
        return state
    if state.dtype == torch.bool:
        bits = np.packbits(state.detach().cpu().numpy().reshape(-1))
        return {_BITS: base64.b64encode(bits.tobytes()).decode(), "shape": list(state.shape)}
    return {_VALUES: state.tolist(), "dtype": str(state.dtype).removeprefix("torch.")}


def from_plain(plain: Any) -> Any:
    """What `to_plain` was given."""
    if not isinstance(plain, dict):
        return plain
    if _BITS in plain:
        shape = torch.Size(plain["shape"])
        packed = np.frombuffer(base64.b64decode(plain[_BITS]), dtype=np.uint8)
        bits = np.unpackbits(packed, count=shape.numel()).astype(bool)
        return torch.from_numpy(bits).reshape(shape)
    if _VALUES in plain:
        return torch.tensor(plain[_VALUES], dtype=getattr(torch, plain["dtype"]))
    return {key: from_plain(value) for key, value in plain.items()}
