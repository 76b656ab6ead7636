"""Which items a step sees: a function of the seed, the epoch and the step alone."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from pathlen.errors import SettingsError
from pathlen.training.task import Augmented, Batch, Batched, Task

CPU = torch.device("cpu")


def steps_per_epoch(task: Task, batch_size: int, processes: int) -> int:
    """Number of full batches; a last one that is not full is left out, as is common.

    Raises:
        SettingsError: There are fewer items than a batch has, or a batch cannot be shared evenly.
    """
    if batch_size % processes:
        raise SettingsError(
            f"batch_size {batch_size} cannot be shared by {processes} processes; make it a multiple"
        )
    if task.train_size < batch_size:
        raise SettingsError(
            f"task {task.name!r} has {task.train_size} items to train on, fewer than batch_size"
            f" {batch_size}"
        )
    return task.train_size // batch_size


def train_batches(
    task: Task,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    first: int = 0,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """The batches of an epoch from a step on, in an order drawn for the epoch, on a device.

    With several processes, each gets every n-th item of a batch: what a batch holds does not
    depend on their number.
    """
    if isinstance(task.train, Augmented):
        task.train.set_epoch(epoch)
    order = numpy.random.default_rng((seed, epoch)).permutation(task.train_size)
    count = task.train_size // batch_size
    chosen = order[first * batch_size : count * batch_size].reshape(-1, batch_size)
    batches = [batch[rank::processes] for batch in chosen]
    yield from _made(task, task.train, batches, workers, device)


def held_out_batches(
    task: Task,
    batch_size: int,
    *,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """The items held out; with several processes, each gets its share of them once."""
    own = numpy.arange(rank, task.test_size, processes)
    batches = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
    yield from _made(task, task.test, batches, workers, device)


def _made(
    task: Task,
    data: object,
    batches: Sequence[NDArray[numpy.int64]],
    workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """The batches with these indices: made whole if the data can, else of items by a loader."""
    if isinstance(data, Batched):
        for indices in batches:
            yield data.get_batch(torch.from_numpy(indices), device)
        return
    loader: DataLoader[Batch] = DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=[indices.tolist() for indices in batches],
        collate_fn=task.collate,
        num_workers=workers,
        worker_init_fn=_leave_interrupts if workers else None,
    )
    for batch in loader:
        yield tuple(_moved(part, device) for part in batch)


def _moved(part: object, device: torch.device) -> Any:
    return part.to(device) if isinstance(part, Tensor) else part


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the one that trains stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def seed_step(seed: int, step: int, rank: int, device: torch.device = CPU) -> None:
    """Make the randomness of a step (dropout, layer drop) a function of the first three.

    A run that goes on from a checkpoint then needs no generator's state. Python's and numpy's
    generators are seeded too, for models that draw from them. Of torch's, those of the CPU and of
    the device are: to ask for all that there might be, as `torch.manual_seed` does, takes
    milliseconds.
    """
    mixed = numpy.random.SeedSequence((seed, step, rank)).generate_state(2, numpy.uint32)
    number = int(mixed[0]) << 31 ^ int(mixed[1])
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
    random.seed(int(mixed[0]))
    numpy.random.seed(mixed)
