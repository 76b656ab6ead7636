"""Where the items of a task are kept: beside the model if they fit there, else in main memory."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pathlen.training.task import Batch, Batched, Task

Data = Literal["auto", "device", "host"]

SHARE = 0.25
"""Of the memory that is free on a device, what items may take: models and activations need it."""


class TensorSet(TensorDataset):
    """Items that are rows of tensors, like torch's; gives whole batches, too.

    Args:
        tensors: Any number of tensors of one length.
    """

    @property
    def nbytes(self) -> int:
        """Bytes that all items take."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def on(self, device: torch.device) -> TensorSet:
        """The same items, kept on a device."""
        return TensorSet(*(tensor.to(device) for tensor in self.tensors))

    def get_batch(self, indices: Tensor, device: torch.device) -> Batch:
        """The rows with these indices, on a device."""
        found = (tensor[indices.to(tensor.device)] for tensor in self.tensors)
        return tuple(rows.to(device, non_blocking=True) for rows in found)


def placed(task: Task, device: torch.device, data: Data = "auto") -> Task:
    """The task with its items where a training run wants them.

    Sets that make no batches by themselves stay as they are; torch's own sets of tensors become
    :class:`TensorSet`.

    Args:
        task: The task.
        device: Of the model.
        data: "device" keeps the items there, "host" in main memory; "auto" on the device if they
            take no more than a quarter of the memory that is free there.
    """
    sets = [_batched(part, task) for part in (task.train, task.test)]
    own = [part for part in sets if isinstance(part, Batched)]
    if device.type != "cpu" and data != "host":
        size = sum(part.nbytes for part in own)
        if data == "device" or size <= SHARE * free_bytes(device):
            sets = [part.on(device) if isinstance(part, Batched) else part for part in sets]
    return dataclasses.replace(task, train=sets[0], test=sets[1])


def _batched(data: Dataset[Any], task: Task) -> Dataset[Any]:
    """Torch's own set of tensors as one that gives batches, where items are simply stacked."""
    if type(data) is TensorDataset and task.collate is None:
        return TensorSet(*data.tensors)
    return data


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device; 0 if it does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return 0
