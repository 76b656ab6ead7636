"""Ways there and back for the result of a call: views, copies, indices, parts put together."""

from collections.abc import Callable

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - the name that models give it

_MOST_PARTS = 8
_READING = frozenset(f"aten::{name}" for name in ("linear", "conv1d", "conv2d", "conv3d"))


def read_by_layers(node: fx.Node) -> bool:
    """Whether layers read a call and nothing else does: they look at all of it.

    Elsewhere, what is put together of parts may be added up again, part by part.
    """
    readers = [getattr(user.target, "_schema", None) for user in node.users]
    firsts = [user.args and user.args[0] is node for user in node.users]
    read = bool(readers) and all(firsts)
    return read and all(schema and schema.name in _READING for schema in readers)


def _permuted(y: torch.Tensor, axis: int) -> torch.Tensor:
    there = torch.arange(y.shape[axis]).flip(0)
    return y.index_select(axis, there).index_select(axis, there)


def _in_parts(y: torch.Tensor, axis: int) -> torch.Tensor:
    out, half = torch.zeros_like(y), y.shape[axis] // 2
    for start, length in ((0, half), (half, y.shape[axis] - half)):
        out.narrow(axis, start, length).copy_(y.narrow(axis, start, length))
    return out


DETOURS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "unsqueeze and squeeze": lambda y, axis: y.unsqueeze(axis).squeeze(axis),
    "a new axis at the end": lambda y, _: y[..., None][..., 0],
    "flatten and reshape": lambda y, _: y.reshape(-1).reshape(y.shape),
    "transpose twice": lambda y, axis: y.transpose(axis, -1).contiguous().transpose(axis, -1),
    "clone": lambda y, _: y.clone(),
}
"""Ways there and back for a result with at least one axis, along an axis."""

DETOURS_IN_PARTS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "flip twice": lambda y, axis: y.flip(axis).flip(axis),
    "roll and back": lambda y, axis: y.roll(1, axis).roll(-1, axis),
    "permute by an index and back": _permuted,
    "chunk and cat": lambda y, axis: torch.cat(y.chunk(2, axis), axis),
    "unbind and stack": lambda y, axis: (
        torch.stack(y.unbind(axis), axis) if y.shape[axis] <= _MOST_PARTS else y.clone()
    ),
    "pad and narrow": lambda y, _: F.pad(y, (1, 1))[..., 1:-1],
    "copied into zeros in two parts": _in_parts,
}
"""The same, by other orders and by tensors that are put together, which may be sums of parts."""
