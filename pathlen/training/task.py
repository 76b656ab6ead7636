"""What a task is: data, the loss on it, and how its results are counted.

The training loop knows nothing else of a task; tasks of one's own are made the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import Dataset

Batch = tuple[Tensor, ...]
"""What the collate function makes of a list of items."""


@runtime_checkable
class Augmented(Protocol):
    """A data set whose items change from epoch to epoch.

    An item is a function of (seed, epoch, index) alone, so that an interrupted run goes on with
    the items that it would have seen. A worker process holds a copy of the data set: the epoch is
    set before workers start.
    """

    def set_epoch(self, epoch: int) -> None:
        """Give the items of this epoch from now on."""


@runtime_checkable
class Batched(Protocol):
    """A data set in memory that makes whole batches by indices, many times as fast as by items.

    A batch holds what the collate function would make of the items, up to rounding. A set that
    does not offer this is read item by item, by torch's `DataLoader`.
    """

    @property
    def nbytes(self) -> int:
        """Bytes that all items take."""

    def on(self, device: torch.device) -> Any:
        """The same set, its items kept on a device."""

    def get_batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Make a batch on a device, wherever the items are kept.

        Args:
            indices: Of the items, int64 [n], on the CPU.
            device: Where the batch is to be.
        """


@dataclass(frozen=True, slots=True)
class Task:
    """Data to train and test on, and what a model is to do with it.

    Attributes:
        name: What the task is called.
        train: Items to train on: a map-style data set with a length, :class:`Augmented` where its
            items change with the epoch, :class:`Batched` if it makes whole batches.
        test: Items held out.
        example: Arguments of a model, a batch of one item: what a path graph is traced with.
        inputs: From a batch to the arguments of a model.
        loss: From (output, batch, label smoothing) to the mean loss over the batch's items
            (tokens, for texts).
        distill: From (output, output of a teacher, batch, temperature) to the mean divergence from
            the teacher; see :func:`pathlen.training.distillation.soft_cross_entropy`.
        counts: From (output, batch) to how many items (or tokens) are right, and of how many.
            Both are scalar tensors that can be summed over batches and over processes.
        metric: The number by which a model is judged: "accuracy" is that of ``counts``, any other
            is a key of what ``decode`` returns.
        model_arguments: What the builder of a model may ask for: the number of classes, channels,
            the size of a vocabulary, ...
        collate: From a list of items to a batch; None for torch's own.
        decode: From (model, data set, device) to metrics that take longer than one forward pass a
            batch, such as BLEU; None if there are none.
        artifacts: Texts to keep beside a run, by file name: what is needed beside the weights to
            use the model later, such as a vocabulary.
        notes: What the user should know of the data, such as lines left out.
    """

    name: str
    train: Dataset[Any]
    test: Dataset[Any]
    example: tuple[Tensor, ...]
    inputs: Callable[[Batch], tuple[Tensor, ...]]
    loss: Callable[[Any, Batch, float], Tensor]
    distill: Callable[[Any, Any, Batch, float], Tensor]
    counts: Callable[[Any, Batch], tuple[Tensor, Tensor]]
    metric: Literal["accuracy", "bleu"]
    model_arguments: Mapping[str, Any]
    collate: Callable[[list[Any]], Batch] | None = None
    decode: Callable[[Module, Dataset[Any], torch.device], dict[str, float]] | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def train_size(self) -> int:
        """Number of items to train on."""
        return size_of(self.train)

    @property
    def test_size(self) -> int:
        """Number of items held out."""
        return size_of(self.test)


def size_of(data: Dataset[Any]) -> int:
    """Number of items of a map-style data set.

    Raises:
        TypeError: The data set has no length.
    """
    if not isinstance(data, Sized):
        raise TypeError(f"{type(data).__name__} has no length; a task needs map-style data sets")
    return len(data)
