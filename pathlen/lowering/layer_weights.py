"""The weights that layers have, read from the model: what explicit edges are made of.

Each function gives a matrix for one sort of layer: one entry for each feature that is read and
each that is written, or several where they differ by position.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pathlen.errors import TraceError
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.gains import meta_error
from pathlen.lowering.values import Call, Value


def weights_of(call: Call, value: Value, lowering: Lowering) -> torch.Tensor | None:
    """The weights of a layer in the dtype that they have; None for weights that vary.

    Raises:
        TraceError: they have no values, are not finite, or are too large for explicit edges.
    """
    assert lowering.weights is not None
    if value.varies:
        lowering.uncertain(call, "weights that the input decides on")
        return None
    lowering.weights.require(lowering.site(call), 0, 8 * int(np.prod(value.shape)))
    try:
        tensor = lowering.constants.of(value)
    except UnknownConstantError as error:
        raise meta_error(value, call) from error
    if not bool(tensor.isfinite().all()):
        raise TraceError(f"{lowering.site(call)}: a weight is NaN or infinite")
    return tensor


def absolute(tensor: torch.Tensor) -> torch.Tensor:
    """Absolute values in float64."""
    return tensor.abs().to(torch.float64)


def kernel_sums(
    call: Call, weight: torch.Tensor, size_in: torch.Size, size_out: torch.Size
) -> torch.Tensor:
    """Absolute weights of a convolution, summed over kernel positions.

    Positions that never meet the input (of a kernel wider than it) are left out. An element of the
    output of a transposed convolution meets only kernel positions that lie a stride apart: of
    these sums the largest counts.

    Args:
        call: the call site.
        weight: # (channels, channels of a group, *kernel)
        size_in: of the input along the kernel's axes.
        size_out: of the result.

    Returns:
        # (groups, channels out of a group, channels in of a group)
    """
    taps, groups = absolute(weight), call["groups"]
    transposed = call.arguments.get("transposed", "transpose" in call.name)
    phases = []
    for n, (before, after) in enumerate(zip(size_in, size_out, strict=True)):
        stride, dilation = (_along(call[name], n) for name in ("stride", "dilation"))
        offsets = np.arange(weight.shape[n + 2]) * dilation
        from_size, to_size = (before, after) if transposed else (after, before)
        padding = _along(call["padding"], n, dilation * (weight.shape[n + 2] - 1) // 2)
        met = np.arange(from_size)[:, None] * stride - padding + offsets
        used = ((met >= 0) & (met < to_size)).any(axis=0)
        along = [-1 if axis == n + 2 else 1 for axis in range(taps.ndim)]
        taps = taps * torch.from_numpy(used).view(along)
        phases.append(offsets % stride if transposed else np.zeros(len(offsets), dtype=np.int64))
    sums = [
        _chosen(taps, [phase == kind for phase, kind in zip(phases, kinds, strict=True)])
        for kinds in itertools.product(*map(np.unique, phases))
    ]
    total = torch.stack(sums).amax(0)
    grouped: torch.Tensor = total.unflatten(0, (groups, -1))
    return grouped.transpose(1, 2) if transposed else grouped


def _chosen(taps: torch.Tensor, masks: list[np.ndarray]) -> torch.Tensor:
    """Sums over the kernel positions that a mask for each axis chooses; two axes are left."""
    for axis, mask in enumerate(masks, start=2):
        taps = taps.index_select(axis, torch.from_numpy(np.flatnonzero(mask)))
    return taps.flatten(2).sum(2)


def _along(setting: Any, axis: int, same: int = 0) -> int:
    """A setting of a convolution on one of its axes; `same` where its padding is "same"."""
    if isinstance(setting, str):
        return same if setting == "same" else 0
    return int(setting[axis] if len(setting) > 1 else setting[0])


def arranged(
    tensor: torch.Tensor,
    letters: str,
    roles: tuple[list[str], list[str], list[str]],
    own: str,
    shape: torch.Size,
) -> torch.Tensor:
    """A constant of an einsum as the weights of a layer.

    Args:
        tensor: the constant.
        letters: one an axis of it.
        roles: the letters of positions, of features out and of features in; of the positions,
            those that the constant has not are left out.
        own: letters of the path tensor.
        shape: of the path tensor; features in that the constant has not are repeated.

    Returns:
        # (positions, features out, features in)
    """
    sizes = dict(zip(own, shape, strict=True))
    places, created, summed = roles
    places = [a for a in places if a in letters]
    gone = [n for n, a in enumerate(letters) if a not in (*places, *created, *summed)]
    if gone:
        tensor = tensor.sum(gone)
        letters = "".join(a for n, a in enumerate(letters) if n not in gone)
    for letter in summed:
        if letter not in letters:
            tensor, letters = tensor.unsqueeze(-1), letters + letter
    tensor = tensor.permute([letters.index(a) for a in (*places, *created, *summed)])
    lead = tensor.shape[: len(places) + len(created)]
    tensor = tensor.expand(*lead, *(sizes[a] for a in summed))
    out = int(np.prod(lead[len(places) :]))
    return tensor.reshape(int(np.prod(lead[: len(places)])), out, -1)


def looked_up(call: Call, table: Value, axes: Sequence[int], lowering: Lowering) -> Any:
    """The weight of each feature of a table that is read a row at a time: the largest in any row.

    Args:
        call: the call site.
        table: the constant table.
        axes: of its features; none where it has one.
        lowering: the lowering at work.

    Returns:
        # (features,), or a number
    """
    weight = weights_of(call, table, lowering)
    if weight is None or not weight.numel():
        return 1.0
    first = weight.abs().movedim([*axes], [*range(len(axes))])
    rows = first.reshape(int(np.prod(first.shape[: len(axes)])), -1)
    largest: np.ndarray = rows.amax(1).to(torch.float64).numpy()
    return largest if axes else float(largest[0])
