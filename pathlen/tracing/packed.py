"""Packed sequences: what packs, unpacks and reads them, written out for the lengths it meets.

The operators take the lengths as a tensor. They are read here, so that only tensors with values can
tell; what is recorded are slices, and recurrent layers unrolled over each sequence's own length.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.functional import pad

_aten = torch.ops.aten


def _packed(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """The steps of sequences that are sorted by length, those of one time side by side."""
    steps = input.transpose(0, 1) if batch_first else input
    known = [int(length) for length in lengths]
    sizes = [sum(length > time for length in known) for time in range(known[0])]
    parts = [steps[time, :size] for time, size in enumerate(sizes)]
    return torch.cat(parts), torch.tensor(sizes)


def _padded(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    """The steps of packed sequences at their places, and their lengths."""
    sizes = [int(size) for size in batch_sizes]
    parts = data.split(sizes)
    missing = max(total_length - len(sizes), 0)
    steps = [_filled(part, sizes[0] - len(part), padding_value) for part in parts]
    steps += [torch.full_like(steps[0], padding_value)] * missing
    lengths = [sum(size > row for size in sizes) for row in range(sizes[0])]
    return torch.stack(steps, dim=1 if batch_first else 0), torch.tensor(lengths)


def _filled(part: Tensor, rows: int, value: float) -> Tensor:
    return pad(part, [0, 0] * (part.dim() - 1) + [0, rows], value=value) if rows else part


PACKED: dict[Any, Callable[..., Any]] = {
    _aten._pack_padded_sequence.default: _packed,
    _aten._pad_packed_sequence.default: _padded,
    **{
        packet.data: decomposition_table[packet.data]
        for packet in (_aten.lstm, _aten.gru, _aten.rnn_tanh, _aten.rnn_relu)
    },
}
"""Functions that do what operators on packed sequences do, by the operator."""
