"""CIFAR-10 and CIFAR-100, read from the binary archives' files in a local folder.

The python archives hold pickles, which run code when they are read; they are refused.

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html (layout of the binary files).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy

from pathlen.errors import DataError
from pathlen.training.task import Task
from pathlen.training.tasks.image_arrays import Images, ImageSettings, prepared_task
from pathlen.training.tasks.places import find_place, missing_files

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


def cifar10(*, folder: str, **settings: Unpack[ImageSettings]) -> Task:
    """Make the task of CIFAR-10.

    Args:
        folder: Holds cifar-10-batches-bin, or is that folder.
        settings: See :class:`ImageSettings`; images are shifted by up to 4 pixels and mirrored
            unless these say otherwise.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A value is out of range or does not fit the images.
    """
    return _cifar(CIFAR10, Path(folder), settings)


def cifar100(*, folder: str, **settings: Unpack[ImageSettings]) -> Task:
    """Make the task of CIFAR-100, with its 100 fine classes.

    Args:
        folder: Holds cifar-100-binary, or is that folder.
        settings: See :class:`ImageSettings`; images are shifted by up to 4 pixels and mirrored
            unless these say otherwise.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A value is out of range or does not fit the images.
    """
    return _cifar(CIFAR100, Path(folder), settings)


def _cifar(archive: Archive, folder: Path, settings: ImageSettings) -> Task:
    folder = _find(archive, folder)
    train, test = _read(archive, folder, archive.train), _read(archive, folder, archive.test)
    defaults: ImageSettings = {"shift": 4, "flip": True}
    return prepared_task(archive.name, train, test, archive.num_classes, {**defaults, **settings})


def _find(archive: Archive, folder: Path) -> Path:
    """Find the folder with all files of an archive."""
    hint = (
        f"they are those of {archive.archive} (the binary version), "
        "https://www.cs.toronto.edu/~kriz/cifar.html"
    )
    if (folder / archive.pickled).is_dir() or folder.name == archive.pickled:
        hint += f"; {archive.pickled} is the python version: pickles, which pathlen never reads"
    needed = missing_files((*archive.train, *archive.test))
    return find_place(archive.name, folder, (archive.folder,), needed, hint)


def _read(archive: Archive, folder: Path, names: tuple[str, ...]) -> Images:
    """Read files of records: label bytes, then the pixels of an image, 3 x 32 x 32."""
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
    return Images(table[:, archive.label_bytes :].reshape(-1, 3, 32, 32), classes)
