"""Files of images in folders named for their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from pathlen.errors import DataError
from pathlen.training.libraries import library
from pathlen.training.tasks.image_arrays import Images
from pathlen.whole_files import open_to_read

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"))

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its name says. Not PostScript, which starts another program."""

LabelledFiles = list[tuple[Path, int]]
"""Files of images with their classes."""


def class_names(name: str, folder: Path) -> list[str]:
    """Names of the folders in a folder, in order.

    Args:
        name: Of the task, for messages.
        folder: Holds a folder for each class.

    Raises:
        DataError: There is none.
    """
    names = (
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if folder.is_dir()
        else []
    )
    if not names:
        raise DataError(
            f"{name}: {str(folder)!r} has no class folders; images are expected at "
            f"{folder}/CLASS/*.jpg ({', '.join(sorted(SUFFIXES))})"
        )
    return names


def held_out_names(name: str, held_out: Path, names: Sequence[str]) -> None:
    """Check that a folder of images held out has no classes but those trained on.

    Raises:
        DataError: It has others, or none.
    """
    unknown = sorted(set(class_names(name, held_out)) - set(names))
    if unknown:
        raise DataError(f"{str(held_out)!r} has classes that train has not: {', '.join(unknown)}")


def held_out_folder(root: Path) -> Path:
    """The folder of images held out: val, or test where there is no val."""
    test = root / "test"
    return test if test.is_dir() and not (root / "val").is_dir() else root / "val"


def labelled_files(folder: Path, names: Sequence[str]) -> LabelledFiles:
    """List the images of the class folders in a folder, by class and then by name.

    Args:
        folder: Holds a folder for each class; a class without a folder has no images.
        names: Names of the classes.

    Raises:
        DataError: A class folder has no image.
    """
    found: LabelledFiles = []
    for label, name in enumerate(names):
        if not (folder / name).is_dir():
            continue
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{str(folder / name)!r} has no image ({', '.join(sorted(SUFFIXES))})")
        found += [(path, label) for path in files]
    return found


def read_image(path: Path) -> Image.Image:
    """Read a file as an image of red, green and blue.

    Raises:
        DataError: It cannot be read as an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with open_to_read(path) as data, Image.open(data, formats=_FORMATS) as file:
            return file.convert("RGB")
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise DataError(f"{str(path)!r} cannot be read as an image: it is no {known}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{str(path)!r} cannot be read as an image: {error}") from error


def decode(name: str, files: LabelledFiles, side: int | None) -> Images:
    """Read images into memory.

    Args:
        name: Of the task, for messages.
        files: At least one.
        side: The middle square of each image is scaled to this height and width in pixels, each
            pixel an average over what it covers. None for images as they are, all of one size and
            square.

    Returns:
        Pixels [n, 3, side, side].

    Raises:
        DataError: A file is no image, or `side` is None and the images are of several sizes.
        SettingsError: pillow is not installed.
    """
    library("PIL.Image", "pillow")
    size = side or read_image(files[0][0]).height
    pixels = numpy.empty((len(files), 3, size, size), dtype=numpy.uint8)
    for place, (path, _) in enumerate(files):
        image = read_image(path)
        if side is not None:
            image = _middle(image, side)
        elif image.size != (size, size):
            raise DataError(
                f"{name}: {str(path)!r} has {image.width} x {image.height} pixels; images must be "
                f"square and of one size (the first is {size} pixels high) unless image_size says "
                "what they are scaled to, as task 'images' does"
            )
        pixels[place] = numpy.asarray(image).transpose(2, 0, 1)
    return Images(pixels, numpy.array([label for _, label in files], dtype=numpy.int64))


def _middle(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    # PIL averages over what a pixel of the result covers, so scaling down does not alias.
    box = (left, top, left + edge, top + edge)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
