"""Images in memory: classes, subsets, sizes and statistics, one mechanism for all such tasks."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathlen.errors import SettingsError
from pathlen.training.tasks import build_task, image_arrays
from pathlen.training.tasks.cifar import PIXELS
from pathlen.training.tasks.image_arrays import (
    Images,
    pooled,
    prepared_task,
)
from pathlen.training.tasks.subsets import stratified_subset


def images_of(number, classes=10, side=4, channels=3, seed=0):
    random = numpy.random.default_rng(seed)
    pixels = random.integers(0, 256, (number, channels, side, side), dtype=numpy.uint8)
    return Images(pixels, numpy.arange(number) % classes)


def task_of(train=None, test=None, classes=10, **settings):
    train, test = train or images_of(60), test or images_of(20, seed=1)
    return prepared_task("some", train, test, classes, settings)


# --- subsets ---------------------------------------------------------------------------------

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(numpy.array)


@given(LABELS, st.data())
def test_smaller_subsets_are_parts_of_larger_ones(labels, data):
    sizes = sorted(data.draw(st.lists(st.integers(0, len(labels)), min_size=2, max_size=4)))
    parts = [set(stratified_subset(labels, size, 3).tolist()) for size in sizes]
    assert [len(part) for part in parts] == sizes
    for small, large in itertools.pairwise(parts):
        assert small <= large


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.data())
def test_each_class_keeps_its_share(counts, data):
    labels = numpy.repeat(numpy.arange(len(counts)), counts)
    size = data.draw(st.integers(0, len(labels)))
    chosen = Counter(labels[stratified_subset(labels, size, 0)].tolist())
    for label, count in enumerate(counts):
        assert abs(chosen[label] - size * count / len(labels)) <= len(counts) / 2 + 0.5
        if len(set(counts)) == 1:
            assert chosen[label] in (size // len(counts), -(-size // len(counts)))


def test_subsets_follow_from_the_seed_and_look_random():
    labels = numpy.arange(4000) % 10
    first = stratified_subset(labels, 1000, 0)
    assert numpy.array_equal(first, stratified_subset(labels, 1000, 0))
    assert (numpy.diff(first) > 0).all()
    other = set(stratified_subset(labels, 1000, 1).tolist())
    # Two independent quarters have a sixteenth in common: 250 of 4000, with a deviation of 12.
    assert 190 < len(other & set(first.tolist())) < 310
    assert 0.4 < (first < 2000).mean() < 0.6
    # Which class is one ahead at a size that they do not divide is drawn.
    ahead = {tuple(labels[stratified_subset(labels, 1, seed)]) for seed in range(40)}
    assert len(ahead) > 5


def test_a_class_has_the_same_items_whatever_the_other_classes_are():
    labels = numpy.arange(200) % 4
    some = labels[labels < 2]
    whole = stratified_subset(labels, 40, 5)
    part = numpy.flatnonzero(labels < 2)[stratified_subset(some, 20, 5)]
    assert whole[labels[whole] < 2].tolist() == part.tolist()


def test_tasks_have_a_part_of_their_images_to_train_on_and_all_held_out():
    task = task_of(train_size=30, subset_seed=4)
    whole = images_of(60)
    places = stratified_subset(whole.classes, 30, 4)
    assert torch.equal(task.train.images, torch.from_numpy(whole.pixels[places]))
    assert Counter(task.train.classes) == dict.fromkeys(range(10), 3)
    assert (task.train_size, task.test_size) == (30, 20)
    for size in (9, 61):
        with pytest.raises(SettingsError, match=rf"train_size must be from 10.* to 60.*not {size}"):
            task_of(train_size=size)
    with pytest.raises(SettingsError, match="subset_seed must not be negative, not -1"):
        task_of(train_size=30, subset_seed=-1)


# --- classes ---------------------------------------------------------------------------------


def test_the_first_classes_are_kept_on_both_sides():
    task = task_of(classes=10, train=images_of(60), test=images_of(20, seed=1))
    assert task.model_arguments["num_classes"] == 10
    task = prepared_task("some", images_of(60), images_of(20, seed=1), 10, {"classes": 3})
    assert task.model_arguments["num_classes"] == 3
    assert Counter(task.train.classes) == dict.fromkeys(range(3), 6)
    assert Counter(task.test.classes) == dict.fromkeys(range(3), 2)
    for number in (1, 11):
        with pytest.raises(SettingsError, match=f"classes must be from 2 to 10, not {number}"):
            prepared_task("some", images_of(60), images_of(20), 10, {"classes": number})


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 6, 12])
def test_pixels_are_means_of_squares(monkeypatch, side):
    monkeypatch.setattr(image_arrays, "POOLED_AT_ONCE", 2)
    pixels = images_of(5, side=12).pixels
    means = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(pixels).double(), side)
    difference = torch.from_numpy(pooled("some", pixels, side)).double() - means
    assert pooled("some", pixels, side).dtype == numpy.uint8
    assert difference.min() >= -0.5
    assert difference.max() <= 0.5


def test_white_stays_white():
    white = numpy.full((2, 1, 64, 64), 255, dtype=numpy.uint8)
    assert (pooled("some", white, 1) == 255).all()


def test_both_sides_are_made_smaller():
    task = task_of(image_size=2)
    assert task.model_arguments["image_size"] == 2
    assert task.train[0][0].shape == task.test[0][0].shape == task.example[0][0].shape == (3, 2, 2)
    assert torch.equal(task_of(image_size=4).train.images, task_of().train.images)


@pytest.mark.parametrize("side", [0, 3, 8])
def test_sizes_that_do_not_divide_are_refused(side):
    with pytest.raises(SettingsError, match=rf"4 x 4 pixels: it can be 1, 2, 4, not {side}"):
        task_of(image_size=side)


# --- statistics ------------------------------------------------------------------------------


def test_statistics_are_those_of_the_images_trained_on():
    task = task_of(train_size=20, image_size=2)
    pixels = torch.stack([image for image, _ in task.train])
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert pixels.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert not torch.equal(task.train.mean, task_of(image_size=2).train.mean)
    assert torch.equal(task.train.mean, task.test.mean)


def test_given_statistics_take_the_place_of_those_of_the_data():
    task = task_of(mean=[0.5, 0, 1], std=[2, 0.25, 1.0])
    for data, source in ((task.train, images_of(60)), (task.test, images_of(20, seed=1))):
        expected = source.pixels[7] / 255 - numpy.array([0.5, 0, 1])[:, None, None]
        expected /= numpy.array([2, 0.25, 1])[:, None, None]
        assert data[7][0].numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"mean": [0.5]}, {"std": [1.0, 0.0, 1.0]}, {"std": [1.0, -1, 1]}, {"mean": [0, 0, 1e999]}],
)
def test_statistics_that_do_not_fit_are_refused(wrong):
    with pytest.raises(SettingsError, match=r"must be 3 (positive )?numbers, one for each channel"):
        task_of(**wrong)


# --- tasks -----------------------------------------------------------------------------------


def test_cifar10_takes_all_of_it(tmp_path):
    random = numpy.random.default_rng(0)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        table = random.integers(0, 256, (40, 1 + PIXELS), dtype=numpy.uint8)
        table[:, 0] = numpy.arange(40) % 10
        (tmp_path / name).write_bytes(table.tobytes())
    settings = {"classes": 5, "train_size": 50, "image_size": 16, "mean": [0.4, 0.5, 0.6]}
    task = build_task({"name": "cifar10", "folder": str(tmp_path), **settings})
    assert task.model_arguments == {"num_classes": 5, "in_channels": 3, "image_size": 16}
    assert Counter(task.train.classes) == dict.fromkeys(range(5), 10)
    assert task.train.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert (task.train.shift, task.train.flip, task.test.shift, task.test.flip) == (
        4,
        True,
        0,
        False,
    )
    with pytest.raises(SettingsError, match="mean must be a list, each a number or null, not "):
        build_task({"name": "cifar10", "folder": str(tmp_path), "mean": 0.5})


def test_digits_take_all_of_it():
    task = build_task({"name": "digits", "classes": 3, "train_size": 60, "image_size": 4})
    assert task.model_arguments == {"num_classes": 3, "in_channels": 1, "image_size": 4}
    assert Counter(task.train.classes) == dict.fromkeys(range(3), 20)
