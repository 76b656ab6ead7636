"""Tiny ImageNet: 200 classes of ImageNet, 500 images each of 64 x 64 pixels, and its kin.

Source: Ya Le, Xuan Yang, "Tiny ImageNet Visual Recognition Challenge", CS 231N, Stanford, 2015,
http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from pathlen.errors import DataError
from pathlen.training.task import Task
from pathlen.training.tasks.image_arrays import ImageSettings, prepared_task
from pathlen.training.tasks.image_files import (
    LabelledFiles,
    class_names,
    decode,
    held_out_folder,
    held_out_names,
    labelled_files,
)
from pathlen.training.tasks.places import find_place

NAME = "tiny_imagenet"

ANNOTATIONS = "val_annotations.txt"
"""Lists the images held out: a line each, the name and the class first, parted by tabs."""


def tiny_imagenet(*, folder: str, **settings: Unpack[ImageSettings]) -> Task:
    """Make the task of telling apart the classes of Tiny ImageNet, or of a part of it.

    Images held out are those of val; those of test have no classes.

    Args:
        folder: Holds train/CLASS/images/*.JPEG and val/val_annotations.txt with val/images as
            published, or train/CLASS/*.JPEG and val/CLASS/*.JPEG; or holds tiny-imagenet-200.
        settings: See :class:`ImageSettings`; images are shifted by up to 4 pixels and mirrored
            unless these say otherwise.

    Raises:
        DataError: The folder is not laid out like this, or a file is no image.
        SettingsError: A value is out of range or does not fit the images.
    """
    place = find_place(NAME, Path(folder), ("tiny-imagenet-200",), _missing)
    names = class_names(NAME, place / "train")
    train = decode(NAME, labelled_files(place / "train", names), None)
    test = decode(NAME, _held_out(place, names), None)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"{NAME}: images of {str(place)!r} are {train.pixels.shape[2]} pixels high in train "
            f"and {test.pixels.shape[2]} in val"
        )
    defaults: ImageSettings = {"shift": 4, "flip": True}
    return prepared_task(NAME, train, test, len(names), {**defaults, **settings})


def _missing(place: Path) -> list[str]:
    missing = [] if (place / "train").is_dir() else ["train/CLASS"]
    return missing if held_out_folder(place).is_dir() else [*missing, "val/CLASS"]


def _held_out(place: Path, names: list[str]) -> LabelledFiles:
    """List the images held out, in either layout."""
    annotations = place / "val" / ANNOTATIONS
    if not (place / "val" / "images").is_dir() or not annotations.is_file():
        held_out_names(NAME, held_out_folder(place), names)
        return labelled_files(held_out_folder(place), names)
    labels = {name: label for label, name in enumerate(names)}
    found: LabelledFiles = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        name, _, rest = line.partition("\t")
        wanted = rest.partition("\t")[0]
        if wanted not in labels or Path(name).name != name:
            raise DataError(
                f"line {number} of {str(annotations)!r} must begin with the name of an image and "
                f"a class of train, parted by a tab, not {line[:80]!r}"
            )
        found.append((place / "val" / "images" / name, labels[wanted]))
    if not found:
        raise DataError(f"{str(annotations)!r} lists no images")
    return found
