"""Pairs of token sequences in memory, given as padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from pathlen.training.subwords import BEGIN, END, PADDING, Subwords
from pathlen.training.task import Batch

ENCODED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences of tokens, one after another.

    Attributes:
        tokens: int32 [tokens + 1], on any device. The last one is padding.
        starts: Where each sequence begins, int64 [n], on the CPU, and
        lengths: its number of tokens.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Sequences:
        """Put sequences into memory, a row at a time."""
        parts, lengths = [], []
        for row in rows:
            parts.append(numpy.asarray(row, dtype=numpy.int32))
            lengths.append(len(row))
        whole = numpy.concatenate([*parts, numpy.array([PADDING], dtype=numpy.int32)])
        counts = torch.tensor(lengths, dtype=torch.int64)
        return cls(torch.from_numpy(whole), counts.cumsum(0) - counts, counts)

    def chosen(self, which: Tensor) -> Sequences:
        """Those with these indices, int64 [m]."""
        return replace(self, starts=self.starts[which], lengths=self.lengths[which])

    def padded(self, indices: Tensor, device: torch.device) -> Tensor:
        """Those with these indices, int64 [m, longest] on a device, padded at the end."""
        lengths = self.lengths[indices, None]
        steps = torch.arange(int(lengths.max()))
        places = torch.where(steps < lengths, self.starts[indices, None] + steps, -1)
        found = self.tokens[places.to(self.tokens.device)]
        return found.to(device, non_blocking=True).long()

    def __getitem__(self, index: int) -> Tensor:
        start = int(self.starts[index])
        return self.tokens[start : start + int(self.lengths[index])].long()


class PairSet(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of a source and its target: items int64 [s] and [t], batches made whole (`Batched`).

    Args:
        sources: Each ends with `END`.
        targets: Each begins with `BEGIN` and ends with `END`.
    """

    def __init__(self, sources: Sequences, targets: Sequences) -> None:
        self.sources, self.targets = sources, targets

    def __len__(self) -> int:
        return len(self.sources.lengths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.sources[index], self.targets[index]

    @property
    def nbytes(self) -> int:
        """Bytes that the tokens take."""
        return self.sources.tokens.nbytes + self.targets.tokens.nbytes

    @property
    def steps(self) -> Tensor:
        """Tokens of the source, or of the target after its beginning, whichever are more: [n]."""
        return torch.maximum(self.sources.lengths, self.targets.lengths - 1)

    def on(self, device: torch.device) -> PairSet:
        """The same pairs, kept on a device."""
        both = (self.sources, self.targets)
        return PairSet(*(replace(own, tokens=own.tokens.to(device)) for own in both))

    def chosen(self, which: Tensor) -> PairSet:
        """The pairs with these indices, int64 [m]."""
        return PairSet(self.sources.chosen(which), self.targets.chosen(which))

    def get_batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Sources [m, s] and targets [m, t], filled up with padding at the end.

        Args:
            indices: Of the pairs, int64 [m], on the CPU.
            device: Where the batch is to be.
        """
        return self.sources.padded(indices, device), self.targets.padded(indices, device)


def encode_pairs(subwords: Subwords, lines: Sequence[tuple[str, str]]) -> PairSet:
    """Give the tokens of pairs of lines, with those that begin and end them."""
    sources = _encoded(subwords, [source for source, _ in lines])
    targets = _encoded(subwords, [target for _, target in lines])
    return PairSet(
        Sequences.of([*tokens, END] for tokens in sources),
        Sequences.of([BEGIN, *tokens, END] for tokens in targets),
    )


def _encoded(subwords: Subwords, lines: Sequence[str]) -> Iterator[list[int]]:
    """The tokens of lines; what the library tells of a line takes far more memory than they."""
    for start in range(0, len(lines), ENCODED_AT_ONCE):
        yield from subwords.encode(lines[start : start + ENCODED_AT_ONCE])


def pad_pairs(items: list[tuple[Tensor, Tensor]]) -> Batch:
    """Make a batch of items, for loaders that take them one by one."""
    sources, targets = zip(*items, strict=True)
    return (
        pad_sequence(list(sources), batch_first=True, padding_value=PADDING),
        pad_sequence(list(targets), batch_first=True, padding_value=PADDING),
    )
