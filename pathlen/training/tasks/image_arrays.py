"""What every task whose images lie in memory does with them, and the settings that say so.

Classes are chosen, then items to train on, then images are made smaller; the statistics that
standardize them are those of the images to train on that are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import numpy
import torch
from numpy.typing import NDArray

from pathlen.errors import SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.classification import ImageSet, channel_statistics, image_task
from pathlen.training.tasks.subsets import stratified_subset

POOLED_AT_ONCE = 4096
"""Images that are made smaller at once."""


class ImageSettings(TypedDict, total=False):
    """Settings of every task whose images lie in memory.

    Attributes:
        classes: Keep the first so many classes; all by default.
        train_size: How many images to train on, as many of each class as its share of them; all by
            default. A smaller number is a part of a larger one.
        subset_seed: Decides which.
        image_size: Height and width that images are made smaller to, each pixel the mean of a
            square of pixels; it must divide theirs. None for images as they are.
        mean: Of each channel over bytes / 255; that of the images to train on by default.
        std: Standard deviation of the same.
        seed: Of the augmentation.
        shift: Images to train on are shifted at random by up to this many pixels.
        flip: Whether they are mirrored half of the time.
    """

    classes: int | None
    train_size: int | None
    subset_seed: int
    image_size: int | None
    mean: list[float] | None
    std: list[float] | None
    seed: int
    shift: int
    flip: bool


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their classes.

    Attributes:
        pixels: uint8 [n, c, h, w].
        classes: int64 [n], from 0.
    """

    pixels: NDArray[numpy.uint8]
    classes: NDArray[numpy.int64]

    def take(self, chosen: NDArray[numpy.bool_] | NDArray[numpy.int64]) -> Images:
        """Give the images of a mask or of indices."""
        return Images(self.pixels[chosen], self.classes[chosen])


def prepared_task(
    name: str, train: Images, test: Images, num_classes: int, settings: ImageSettings
) -> Task:
    """Make the classification task of images in memory.

    Args:
        name: What it is called.
        train: Images to train on.
        test: Images held out.
        num_classes: How many classes there are.
        settings: See :class:`ImageSettings`. No shift and no flip by default.

    Raises:
        SettingsError: A value is out of range or does not fit the images.
    """
    kept = settings.get("classes")
    if kept is not None:
        train, test = (first_classes(name, part, kept, num_classes) for part in (train, test))
        num_classes = kept
    train = _part(name, train, num_classes, settings)
    side = settings.get("image_size")
    if side is not None:
        train, test = (Images(pooled(name, p.pixels, side), p.classes) for p in (train, test))
    mean, deviation = channel_statistics(train.pixels)
    mean = _given(name, "mean", settings.get("mean"), mean)
    deviation = _given(name, "std", settings.get("std"), deviation)
    items = ImageSet(
        train.pixels,
        train.classes,
        mean,
        deviation,
        seed=settings.get("seed", 0),
        shift=settings.get("shift", 0),
        flip=settings.get("flip", False),
    )
    held_out = ImageSet(test.pixels, test.classes, mean, deviation)
    return image_task(name, items, held_out, num_classes)


def first_classes(name: str, images: Images, number: int, num_classes: int) -> Images:
    """Keep the images of the first classes.

    Raises:
        SettingsError: There are fewer classes, or fewer than two are asked for.
    """
    if not 2 <= number <= num_classes:
        raise SettingsError(f"{name}: classes must be from 2 to {num_classes}, not {number}")
    return images.take(images.classes < number)


def _part(name: str, train: Images, num_classes: int, settings: ImageSettings) -> Images:
    """Give the images that `train_size` leaves to train on."""
    size, most = settings.get("train_size"), len(train.classes)
    if size is None:
        return train
    if not num_classes <= size <= most:
        raise SettingsError(
            f"{name}: train_size must be from {num_classes}, the number of classes, to {most}, "
            f"the number of images to train on, not {size}"
        )
    return train.take(stratified_subset(train.classes, size, settings.get("subset_seed", 0)))


def pooled(name: str, pixels: NDArray[numpy.uint8], side: int) -> NDArray[numpy.uint8]:
    """Make square images smaller: each pixel is the mean of a square of pixels, rounded.

    Args:
        name: Of the task, for messages.
        pixels: [n, c, h, h].
        side: Height and width of the result in pixels.

    Returns:
        [n, c, side, side].

    Raises:
        SettingsError: The images are not square, or `side` does not divide their height.
    """
    height, width = pixels.shape[2:]
    if side < 1 or height != width or height % side:
        divisors = [str(size) for size in range(1, height + 1) if height % size == 0]
        raise SettingsError(
            f"{name}: image_size must divide the size of the images, {height} x {width} pixels: "
            f"it can be {', '.join(divisors) if height == width else height}, not {side}"
        )
    step = height // side
    if step == 1:
        return pixels
    area = step * step
    means = numpy.empty((*pixels.shape[:2], side, side), dtype=numpy.uint8)
    for start in range(0, len(pixels), POOLED_AT_ONCE):  # sums take four times the memory of bytes
        part = pixels[start : start + POOLED_AT_ONCE]
        total = numpy.full((*part.shape[:2], side, side), area // 2, dtype=numpy.uint32)
        for down in range(step):
            for right in range(step):
                total += part[:, :, down::step, right::step]
        means[start : start + POOLED_AT_ONCE] = total // area
    return means


def _given(
    name: str, setting: str, values: list[float] | None, computed: torch.Tensor
) -> torch.Tensor:
    """A number for each channel, as given or else as computed."""
    if values is None:
        return computed
    usable = all(math.isfinite(value) and (setting == "mean" or value > 0) for value in values)
    if len(values) != len(computed) or not usable:
        raise SettingsError(
            f"{name}: {setting} must be {len(computed)} "
            f"{'numbers' if setting == 'mean' else 'positive numbers'}, one for each channel, over "
            f"pixels from 0 to 1, not {values}"
        )
    return torch.tensor(values, dtype=torch.float32)
