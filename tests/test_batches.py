"""Sets that make whole batches, and where their items are kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.data import TensorDataset

from pathlen.training import build_task
from pathlen.training.batches import held_out_batches, train_batches
from pathlen.training.placement import TensorSet, placed
from pathlen.training.task import Batched

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")  # a device that is no CPU, without data

TASKS = {
    "teacher": {"name": "teacher", "train_size": 96, "test_size": 50},
    "digits": {"name": "digits", "classes": 2, "shift": 1},
    "number_words": {
        "name": "number_words",
        "last": 9999,
        "train_size": 100,
        "test_size": 40,
        "vocabulary_size": 280,
    },
}


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_torchs_loader(name):
    """Whatever makes them: by indices, or item by item."""
    task = placed(build_task(TASKS[name]), CPU)
    assert isinstance(task.train, Batched)
    collate = task.collate or torch.utils.data.default_collate
    seen: list[list[int]] = []

    class Remembering(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return task.train_size

        def __getitem__(self, index: int):
            seen.append(index)
            return task.train[index]

    by_items = dataclasses.replace(task, train=Remembering())
    for one, other in zip(
        train_batches(task, 32, 3, 0), train_batches(by_items, 32, 3, 0), strict=True
    ):
        for ours, theirs in zip(one, other, strict=True):
            assert torch.equal(ours, theirs)
    assert len(seen) == len(set(seen)) == task.train_size // 32 * 32
    held_out = list(held_out_batches(task, 20))
    whole = collate([task.test[index] for index in range(20)])
    assert all(torch.equal(a, b) for a, b in zip(held_out[0], whole, strict=True))
    assert sum(len(batch[0]) for batch in held_out) == task.test_size


def test_sets_of_tensors_are_kept_where_they_are_wanted():
    task = build_task(TASKS["teacher"])
    assert type(task.train) is TensorDataset
    here, there = placed(task, CPU), placed(task, ELSEWHERE, "device")
    assert isinstance(here.train, TensorSet)
    assert here.train.nbytes == 96 * (16 * 4 + 8)  # 16 features of 4 bytes, a class of 8
    assert there.test.tensors[0].device == there.train.tensors[1].device == ELSEWHERE
    for data in ("host", "auto"):  # a device that does not tell what is free has nothing
        kept = placed(task, ELSEWHERE, data)
        assert kept.train.tensors[0].device == CPU
        (rows, classes), *_ = train_batches(kept, 32, 0, 0, device=ELSEWHERE)
        assert rows.device == classes.device == ELSEWHERE


def test_images_are_kept_where_they_are_wanted():
    task = build_task(TASKS["digits"])
    there = placed(task, ELSEWHERE, "device")
    assert there.train.images.device == ELSEWHERE
    assert task.train.images.device == CPU
    assert there.train.nbytes == task.train.nbytes == len(task.train) * (64 + 8)
    images, classes = next(iter(train_batches(there, 32, 0, 0, device=ELSEWHERE)))
    assert (images.shape, classes.shape) == ((32, 1, 8, 8), (32,))
    assert images.device == classes.device == ELSEWHERE


def test_texts_are_kept_where_they_are_wanted():
    task = build_task(TASKS["number_words"])
    there = placed(task, ELSEWHERE, "device")
    assert there.train.sources.tokens.device == there.test.targets.tokens.device == ELSEWHERE
    tokens = sum(len(source) + len(target) for source, target in task.train)
    # four bytes a token, and one of padding at the end of all sources and of all targets
    assert there.train.nbytes == task.train.nbytes == 4 * (tokens + 2)
    (source, target), *_ = train_batches(there, 32, 0, 0, device=ELSEWHERE)
    assert source.device == target.device == ELSEWHERE
    for kept in (there, placed(task, ELSEWHERE, "host")):
        (source, target), *_ = train_batches(kept, 32, 0, 0, device=ELSEWHERE)
        assert (len(source), source.dtype) == (len(target), target.dtype) == (32, torch.int64)


def test_the_memory_that_is_free_decides(monkeypatch):
    task = build_task(TASKS["digits"])
    size = task.train.nbytes + task.test.nbytes
    for free, where in [(4 * size, ELSEWHERE), (4 * size - 4, CPU)]:
        monkeypatch.setattr("pathlen.training.placement.free_bytes", lambda device, n=free: n)
        assert placed(task, ELSEWHERE).train.images.device == where


def test_a_set_of_tensors_that_is_collated_otherwise_stays():
    stacked = torch.utils.data.default_collate
    task = dataclasses.replace(build_task(TASKS["teacher"]), collate=stacked)
    assert type(placed(task, CPU).train) is TensorDataset
