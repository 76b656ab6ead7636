"""Fashion-MNIST and MNIST, read from IDX files, gzipped or not.

Sources: Han Xiao, Kashif Rasul, Roland Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017, arXiv:1708.07747. Yann LeCun, Léon Bottou, Yoshua
Bengio, Patrick Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998,
doi:10.1109/5.726791; the format is described at http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Unpack

import numpy
from numpy.typing import NDArray

from pathlen.errors import DataError
from pathlen.training.sources.known import FASHION_MNIST
from pathlen.training.task import Task
from pathlen.training.tasks.image_arrays import Images, ImageSettings, prepared_task
from pathlen.training.tasks.places import find_place

PARTS = {"train": "train", "test": "t10k"}
"""What the files of the two sets begin with."""

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
"""What their names end with, but for .gz."""

CLASSES = 10

LARGEST = 1 << 30
"""Most bytes that a file may hold, decompressed: MNIST and its kin have 47 million."""


def fashion_mnist(*, folder: str, **settings: Unpack[ImageSettings]) -> Task:
    """Make the task of telling articles of clothing apart: 28 x 28 grey pixels, 10 classes.

    Args:
        folder: Holds the four IDX files, or fashion-mnist or FashionMNIST/raw with them.
        settings: See :class:`ImageSettings`; images are mirrored unless these say otherwise.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A value is out of range or does not fit the images.
    """
    within, hint = ("fashion-mnist", "FashionMNIST/raw"), FASHION_MNIST.elsewhere
    return _idx_task("fashion_mnist", Path(folder), within, hint, {"flip": True, **settings})


def mnist(*, folder: str, **settings: Unpack[ImageSettings]) -> Task:
    """Make the task of telling handwritten digits apart: 28 x 28 grey pixels, 10 classes.

    Args:
        folder: Holds the four IDX files, or mnist or MNIST/raw with them.
        settings: See :class:`ImageSettings`.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A value is out of range or does not fit the images.
    """
    return _idx_task("mnist", Path(folder), ("mnist", "MNIST/raw"), "", settings)


def _idx_task(
    name: str, folder: Path, within: tuple[str, ...], hint: str, settings: ImageSettings
) -> Task:
    place = find_place(name, folder, within, _missing, hint)
    train, test = (_read_part(place, start) for start in PARTS.values())
    return prepared_task(name, train, test, CLASSES, settings)


def _missing(place: Path) -> list[str]:
    names = [f"{start}-{end}" for start in PARTS.values() for end in (IMAGES, LABELS)]
    return [f"{name}[.gz]" for name in names if not _path(place, name)]


def _path(place: Path, name: str) -> Path | None:
    """The file of this name, which may be gzipped."""
    paths = (place / name, place / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _read_part(place: Path, start: str) -> Images:
    """Read the images and classes of one of the two sets."""
    pixels_path, labels_path = (_path(place, f"{start}-{end}") for end in (IMAGES, LABELS))
    assert pixels_path is not None
    assert labels_path is not None
    pixels, labels = read_idx(pixels_path, 3), read_idx(labels_path, 1).astype(numpy.int64)
    if len(pixels) != len(labels) or not len(labels):
        raise DataError(
            f"{str(pixels_path)!r} has {len(pixels)} images and {str(labels_path)!r} "
            f"{len(labels)} classes: they do not belong together"
        )
    if labels.max() >= CLASSES:
        raise DataError(f"{str(labels_path)!r} has class {labels.max()}; there are {CLASSES}")
    return Images(pixels[:, None], labels)


def read_idx(path: Path, axes: int) -> NDArray[numpy.uint8]:
    """Read an IDX file of bytes: 0, 0, 8, the number of axes, their lengths, then the values.

    Args:
        path: The file; gzipped if its name ends in .gz.
        axes: How many it must have.

    Raises:
        DataError: It is something else, or truncated.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse_idx(file, path, axes)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} is no whole gzip file: {error}") from error


def _parse_idx(file: io.BufferedIOBase, path: Path, axes: int) -> NDArray[numpy.uint8]:
    header = file.read(4 + 4 * axes)
    if header[:4] != bytes((0, 0, 8, axes)) or len(header) < 4 + 4 * axes:
        raise DataError(
            f"{str(path)!r} is no IDX file of bytes with {axes} axes: it begins with "
            f"{header[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", header[4:])
    size = math.prod(shape)
    if size > LARGEST:
        raise DataError(f"{str(path)!r} says that it has {shape} bytes, more than fits such data")
    content = file.read(size + 1)
    if len(content) != size:
        more = "more" if len(content) > size else f"only {len(content)}"
        raise DataError(f"{str(path)!r} says that it has {shape} bytes and has {more}")
    return numpy.frombuffer(bytearray(content), dtype=numpy.uint8).reshape(shape)
