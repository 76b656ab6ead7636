"""Images in folders named for their classes, as ImageNet is laid out.

FOLDER/train/CLASS/*.jpg
FOLDER/val/CLASS/*.jpg
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pathlen.errors import SettingsError
from pathlen.training.libraries import library
from pathlen.training.task import Task
from pathlen.training.tasks.classification import classification_task, draws
from pathlen.training.tasks.image_files import (
    class_names,
    held_out_folder,
    held_out_names,
    labelled_files,
    read_image,
)

# Of ImageNet's training images, as torchvision's reference training has them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def imagefolder(
    *,
    folder: str,
    image_size: int = 224,
    resize: int | None = None,
    smallest_crop: float = 0.08,
    flip: bool = True,
    seed: int = 0,
) -> Task:
    """Make the task of telling apart the classes of a folder of images.

    Images to train on are cropped at random, by area and aspect ratio as for GoogLeNet (Szegedy et
    al. 2015, arXiv:1409.4842, section 6), and scaled; images held out are scaled and cropped in
    the middle.

    Args:
        folder: Holds train/CLASS and val/CLASS (or test/CLASS).
        image_size: Height and width of the images that the model gets, in pixels.
        resize: Shorter side of the images held out before they are cropped; 8/7 of `image_size`
            by default.
        smallest_crop: Smallest share of an image's area that a crop has; 1 for the whole image,
            scaled to a square.
        flip: Whether images to train on are mirrored half of the time.
        seed: Of the augmentation.

    Raises:
        DataError: The folder is not laid out like this.
        SettingsError: A value is out of range, or pillow is not installed.
    """
    library("PIL.Image", "pillow")
    resize = round(image_size * 8 / 7) if resize is None else resize
    if image_size < 1 or resize < image_size or not 0 < smallest_crop <= 1:
        raise SettingsError(
            "imagefolder needs 1 <= image_size <= resize and 0 < smallest_crop <= 1, not "
            f"image_size {image_size}, resize {resize} and smallest_crop {smallest_crop}"
        )
    root = Path(folder)
    names = class_names("imagefolder", root / "train")
    held_out = held_out_folder(root)
    held_out_names("imagefolder", held_out, names)
    train = FileSet(root / "train", names, image_size, crop=smallest_crop, flip=flip, seed=seed)
    test = FileSet(held_out, names, image_size, resize=resize)
    arguments = {"num_classes": len(names), "in_channels": 3, "image_size": image_size}
    example = torch.zeros(1, 3, image_size, image_size)
    return classification_task("imagefolder", train, test, example, arguments)


class FileSet(Dataset[tuple[Tensor, int]]):
    """Images in files, read when asked for: items (float32 [3, size, size], class).

    Args:
        folder: Holds a folder for each class.
        names: Names of the classes; a class without a folder has no images.
        size: Height and width of the items.
        resize: Shorter side before the middle is cropped; 0 for random crops instead.
        crop: Smallest share of the area that a random crop has.
        flip: Whether images are mirrored half of the time.
        seed: Of the augmentation.

    Raises:
        DataError: A class folder has no image.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        size: int,
        *,
        resize: int = 0,
        crop: float = 1.0,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        self.files = labelled_files(folder, names)
        self.size, self.resize, self.crop, self.flip, self.seed = size, resize, crop, flip, seed
        self.mean = torch.tensor(MEAN)[:, None, None]
        self.deviation = torch.tensor(DEVIATION)[:, None, None]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.files)

    def set_epoch(self, epoch: int) -> None:
        """Crop and flip as in this epoch from now on."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        path, label = self.files[index]
        image = read_image(path)
        box, mirrored = self._region(image.width, image.height, index % len(self))
        # PIL averages over what a pixel of the result covers, so scaling down does not alias.
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
        if mirrored:
            pixels = pixels.flip(2)
        return (pixels / 255 - self.mean) / self.deviation, label

    def _region(
        self, width: int, height: int, index: int
    ) -> tuple[tuple[float, float, float, float], bool]:
        """Choose what of an image is scaled to an item: left, top, right, bottom; and mirrored."""
        if self.resize:
            side = min(width, height) * self.size / self.resize
            left, top = (width - side) / 2, (height - side) / 2
            return (left, top, left + side, top + side), False
        random = draws(self.seed, self.epoch, index)
        box = random_region(random, width, height, self.crop)
        return box, bool(self.flip and random.random() < 0.5)


def random_region(
    random: Any, width: int, height: int, smallest: float
) -> tuple[float, float, float, float]:
    """Draw a region of an image: left, top, right, bottom, in pixels.

    Its area is a share of the image's between `smallest` and 1 and its aspect ratio between 3/4
    and 4/3, both drawn again while it does not fit; after ten times it is the whole image.
    """
    for _ in range(10 if smallest < 1 else 0):
        area = width * height * random.uniform(smallest, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = random.uniform(0, width - across), random.uniform(0, height - down)
            return left, top, left + across, top + down
    return 0.0, 0.0, float(width), float(height)
