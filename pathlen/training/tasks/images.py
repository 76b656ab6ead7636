"""Any folder of images small enough to lie in memory, decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from pathlen.errors import SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.image_arrays import Images, ImageSettings, prepared_task
from pathlen.training.tasks.image_files import (
    class_names,
    decode,
    held_out_folder,
    held_out_names,
    labelled_files,
)
from pathlen.training.tasks.subsets import stratified_share

TEST_SHARE = 0.2


def images(
    *,
    folder: str,
    test_share: float | None = None,
    split_seed: int = 0,
    **settings: Unpack[ImageSettings],
) -> Task:
    """Make the task of telling apart the classes of a folder of images, held in memory.

    Args:
        folder: Holds train/CLASS and val/CLASS (or test/CLASS) with images, or CLASS alone.
        test_share: Share of each class that is held out of a folder with CLASS alone, 0.2 by
            default.
        split_seed: Decides which.
        settings: See :class:`ImageSettings`. Here any `image_size` is allowed: the middle square of
            each image is scaled to it. Without it all images must be of one size and square.

    Raises:
        DataError: The folder is not laid out like this, or a file is no image.
        SettingsError: A value is out of range or does not fit the images.
    """
    root = Path(folder)
    side = settings.pop("image_size", None)
    if side is not None and side < 1:
        raise SettingsError(f"images: image_size must be at least 1, not {side}")
    if (root / "train").is_dir():
        if test_share is not None:
            raise SettingsError(f"images: {folder!r} has images held out; leave test_share out")
        names = class_names("images", root / "train")
        held_out = held_out_folder(root)
        held_out_names("images", held_out, names)
        train = decode("images", labelled_files(root / "train", names), side)
        test = decode("images", labelled_files(held_out, names), train.pixels.shape[2])
    else:
        names = class_names("images", root)
        train, test = _split(
            decode("images", labelled_files(root, names), side),
            TEST_SHARE if test_share is None else test_share,
            split_seed,
        )
    return prepared_task("images", train, test, len(names), settings)


def _split(every: Images, share: float, seed: int) -> tuple[Images, Images]:
    held_out = stratified_share(every.classes, share, seed)
    return every.take(~held_out), every.take(held_out)
