"""CIFAR-10 and CIFAR-100, read from the binary archives' files in a local folder.

The python archives hold pickles, which run code when they are read; they are refused.

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html (layout of the binary files).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from pathlen.errors import DataError
from pathlen.training.task import Task
from pathlen.training.tasks.classification import ImageSet, channel_statistics, image_task

PIXELS = 3 * 32 * 32
"""Bytes of an image: its red, then its green, then its blue plane, row by row."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where one of the two data sets lies.

    Attributes:
        name: What the data set is called.
        archive: The archive to download and extract.
        folder: The folder in it.
        pickled: The folder of the python archive, which is not read.
        train: Files to train on.
        test: Files held out.
        label_bytes: Bytes before the pixels of an image, the last of which is its class.
        num_classes: Number of classes.
    """

    name: str
    archive: str
    folder: str
    pickled: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    num_classes: int


CIFAR10 = Archive(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    pickled="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
    num_classes=10,
)
CIFAR100 = Archive(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    pickled="cifar-100-python",
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,  # the superclass goes before
    num_classes=100,
)


def cifar10(*, folder: str, seed: int = 0, shift: int = 4, flip: bool = True) -> Task:
    """Make the task of CIFAR-10.

    Args:
        folder: Holds cifar-10-batches-bin, or is that folder.
        seed: Of the augmentation.
        shift: Images to train on are shifted at random by up to this many pixels.
        flip: Whether they are mirrored half of the time.

    Raises:
        DataError: Files are missing or are not what they should be.
    """
    return _cifar(CIFAR10, Path(folder), seed, shift, flip)


def cifar100(*, folder: str, seed: int = 0, shift: int = 4, flip: bool = True) -> Task:
    """Make the task of CIFAR-100, with its 100 fine classes.

    Args:
        folder: Holds cifar-100-binary, or is that folder.
        seed: Of the augmentation.
        shift: Images to train on are shifted at random by up to this many pixels.
        flip: Whether they are mirrored half of the time.

    Raises:
        DataError: Files are missing or are not what they should be.
    """
    return _cifar(CIFAR100, Path(folder), seed, shift, flip)


def _cifar(archive: Archive, folder: Path, seed: int, shift: int, flip: bool) -> Task:
    folder = _find(archive, folder)
    images, classes = _read(archive, folder, archive.train)
    mean, deviation = channel_statistics(images)
    train = ImageSet(images, classes, mean, deviation, seed=seed, shift=shift, flip=flip)
    test = ImageSet(*_read(archive, folder, archive.test), mean, deviation)
    return image_task(archive.name, train, test, archive.num_classes)


def _find(archive: Archive, folder: Path) -> Path:
    """Find the folder with all files of an archive."""
    needed = (*archive.train, *archive.test)
    places = [folder / archive.folder, folder]
    for place in places:
        if all((place / name).is_file() for name in needed):
            return place
    place = places[0] if places[0].is_dir() or folder.name != archive.folder else folder
    missing = [name for name in needed if not (place / name).is_file()]
    message = (
        f"{archive.name}: no {', '.join(missing)} in {str(place)!r}; extract {archive.archive} "
        "(the binary version) from https://www.cs.toronto.edu/~kriz/cifar.html into "
        f"{str(folder)!r}"
    )
    if (folder / archive.pickled).is_dir() or folder.name == archive.pickled:
        message += f"; {archive.pickled} is the python version: pickles, which pathlen never reads"
    raise DataError(message)


def _read(
    archive: Archive, folder: Path, names: tuple[str, ...]
) -> tuple[NDArray[numpy.uint8], NDArray[numpy.int64]]:
    """Read files of records: label bytes, then pixels.

    Returns:
        Images [n, 3, 32, 32] and classes [n].
    """
    size = archive.label_bytes + PIXELS
    records = []
    for name in names:
        content = numpy.fromfile(folder / name, dtype=numpy.uint8)
        if not len(content) or len(content) % size:
            raise DataError(
                f"{str(folder / name)!r} has {len(content)} bytes, which is no number of images "
                f"of {size} bytes: it is truncated or another; extract {archive.archive} again"
            )
        records.append(content.reshape(-1, size))
    table = numpy.concatenate(records)
    classes = table[:, archive.label_bytes - 1].astype(numpy.int64)
    if classes.max() >= archive.num_classes:
        raise DataError(
            f"{str(folder)!r} has an image of class {classes.max()}; {archive.name} has classes 0 "
            f"to {archive.num_classes - 1}: the files are of another data set"
        )
    return table[:, archive.label_bytes :].reshape(-1, 3, 32, 32), classes
