"""Handwritten digits: the 1797 real images of 8 x 8 pixels that come with scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49 (its test set, of 13 writers).
"""

from __future__ import annotations

from typing import Unpack

import numpy
from numpy.typing import NDArray

from pathlen.errors import SettingsError
from pathlen.training.libraries import library
from pathlen.training.task import Task
from pathlen.training.tasks.image_arrays import (
    Images,
    ImageSettings,
    first_classes,
    prepared_task,
)
from pathlen.training.tasks.subsets import stratified_share

SIDE = 8
"""Height and width of an image."""

DIGITS = 10
"""Number of classes."""


def digits(
    *,
    test_share: float = 0.25,
    split_seed: int = 0,
    canvas: int = SIDE,
    **settings: Unpack[ImageSettings],
) -> Task:
    """Make the task of telling handwritten digits apart.

    Args:
        test_share: Share of each digit's images that is held out.
        split_seed: Decides which.
        canvas: Side in pixels of a black canvas that the images lie on, with as much to every side;
            if it is larger than 8, images held out lie at places drawn from `split_seed`, the
            same in each epoch. With `shift` half of what it is larger, all images lie anywhere, and
            what is linear in the pixels tells them apart badly.
        settings: See :class:`ImageSettings`.

    Raises:
        SettingsError: A value is out of range, or scikit-learn is not installed.
    """
    loaded = library("sklearn.datasets", "scikit-learn").load_digits()
    if canvas < SIDE or (canvas - SIDE) % 2:
        raise SettingsError(f"canvas must be {SIDE} or larger by an even number, not {canvas}")
    margin = (canvas - SIDE) // 2
    # The pixels are counts from 0 to 16.
    pixels = numpy.minimum(loaded.images * 16, 255).astype(numpy.uint8)[:, None]
    pixels = numpy.pad(pixels, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    images = Images(pixels, loaded.target.astype(numpy.int64))
    kept = settings.get("classes")
    if kept is not None:
        images = first_classes("digits", images, kept, DIGITS)
    held_out = stratified_share(images.classes, test_share, split_seed)
    test = images.take(held_out)
    test = Images(anywhere(test.pixels, margin, split_seed), test.classes)
    return prepared_task("digits", images.take(~held_out), test, DIGITS, settings)


def anywhere(images: NDArray[numpy.uint8], margin: int, seed: int) -> NDArray[numpy.uint8]:
    """Move each image by up to its margin along both axes.

    Args:
        images: Black within `margin` pixels of each side, uint8 [n, c, h, w].
        margin: In pixels.
        seed: Decides how far.
    """
    steps = numpy.random.default_rng((seed, margin)).integers(-margin, margin + 1, (len(images), 2))
    moved = [numpy.roll(image, step, (1, 2)) for image, step in zip(images, steps, strict=True)]
    return numpy.stack(moved)
