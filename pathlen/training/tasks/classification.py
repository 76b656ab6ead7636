"""Tasks whose items are (input, class): loss, counts and the data set of images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from pathlen.errors import SettingsError
from pathlen.training.distillation import soft_cross_entropy
from pathlen.training.task import Batch, Task


def classification_task(
    name: str,
    train: Dataset[Any],
    test: Dataset[Any],
    example: Tensor,
    model_arguments: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> Task:
    """Make the task of telling classes apart by cross-entropy.

    Args:
        name: What it is called.
        train: Items (input, class).
        test: Items held out.
        example: One input, with a batch axis of 1.
        model_arguments: See :class:`Task`.
        notes: See :class:`Task`.
    """
    return Task(
        name=name,
        train=train,
        test=test,
        example=(example,),
        inputs=_all_but_classes,
        loss=cross_entropy,
        distill=distill_classes,
        counts=count_correct,
        metric="accuracy",
        model_arguments=dict(model_arguments),
        notes=notes,
    )


def _all_but_classes(batch: Batch) -> tuple[Tensor, ...]:
    return tuple(batch[:-1])


def cross_entropy(output: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [n, classes] over the n items of a batch, in nats."""
    return functional.cross_entropy(output, batch[-1], label_smoothing=label_smoothing)


def distill_classes(output: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
    """Mean divergence of logits [n, classes] from a teacher's; see `soft_cross_entropy`."""
    return soft_cross_entropy(output, teacher, temperature)


def count_correct(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """How many of the n items have their class as the largest of the logits [n, classes]; n."""
    classes = batch[-1]
    correct = (output.argmax(1) == classes).sum()
    return correct, torch.full_like(correct, len(classes))


def draws(seed: int, epoch: int, index: int) -> numpy.random.Generator:
    """Random numbers that are a function of (seed, epoch, index).

    numpy's SeedSequence mixes the three, so that neighbours have nothing in common.
    """
    return numpy.random.default_rng((seed, epoch, index))


AUGMENTATION = 1
"""Tells the draws of an epoch's shifts and flips from others of the same seed and epoch."""


class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images held in memory, augmented by shifts and flips.

    An item is (float32 [c, h, w], class): the bytes / 255, standardized by channel. Shifted images
    are filled up with byte 0 (black), as cropping at random from the padded image does.

    Whole batches are made at once, on the device where they are wanted (`Batched`). The numbers
    of an epoch are drawn together, an image's being those in the row of its index: an item is a
    function of (seed, epoch, index) alone.

    Args:
        images: uint8 [n, c, h, w].
        classes: int64 [n], from 0.
        mean: Of each channel over bytes / 255, [c].
        deviation: Standard deviation of the same, [c].
        seed: Of the augmentation.
        shift: Largest shift in pixels along either axis.
        flip: Whether images are mirrored, left to right, half of the time.
    """

    def __init__(
        self,
        images: NDArray[numpy.uint8],
        classes: NDArray[numpy.int64],
        mean: Tensor,
        deviation: Tensor,
        *,
        seed: int = 0,
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        if shift < 0 or seed < 0:
            raise SettingsError(f"shift and seed must not be negative, not {shift} and {seed}")
        # the pixels of an image one after another: most networks read them fastest so
        whole = torch.from_numpy(numpy.ascontiguousarray(images))
        self.images = whole.contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(classes)
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]
        self._rows = torch.stack([_row(own, images.shape[3]) for own in (mean, deviation)])
        self.seed, self.shift, self.flip = seed, shift, flip
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Shift and flip as in this epoch from now on."""
        self.epoch = epoch
        self._draws: Tensor | None = None

    @property
    def classes(self) -> list[int]:
        """Class of each image."""
        found: list[int] = self.labels.tolist()
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that all images and classes take."""
        return self.images.nbytes + self.labels.nbytes

    def on(self, device: torch.device) -> ImageSet:
        """The same images, kept on a device."""
        moved = copy.copy(self)
        for name in ("images", "labels", "_rows"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        one = torch.tensor([index % len(self)])
        images, classes = self.get_batch(one, self.images.device)
        return images[0].contiguous(), int(classes[0])

    def get_batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Images float32 [n, c, h, w] with channels last in memory, and classes int64 [n].

        Args:
            indices: Of the items, int64 [n], on the CPU.
            device: Where the batch is to be. Bytes travel there, and all else is done there.
        """
        places = indices.to(self.images.device)
        images = self.images[places].to(device, non_blocking=True)
        classes = self.labels[places].to(device, non_blocking=True)
        if self.shift or self.flip:
            images = self._augmented(images, self._drawn()[indices].to(device))
        mean, deviation = self._rows.to(device)
        return images.float().div_(255).sub_(mean).div_(deviation), classes

    def _drawn(self) -> Tensor:
        """For each image how far down and right its crop is, and whether it is mirrored: [n, 3]."""
        if self._draws is None:
            random = draws(self.seed, self.epoch, AUGMENTATION)
            offsets = random.integers(0, 2 * self.shift + 1, (len(self), 2))
            mirrored = random.random((len(self), 1)) < (0.5 if self.flip else 0.0)
            self._draws = torch.from_numpy(numpy.hstack([offsets, mirrored]))
        return self._draws

    def _augmented(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop images [n, c, h, w] from the padded ones, and mirror them."""
        if self.shift:
            height, width = images.shape[2:]
            padded = functional.pad(images, (self.shift,) * 4)
            crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of all, for each image
            which = torch.arange(len(images), device=images.device)
            images = crops[which, :, draws[:, 0], draws[:, 1]]
        if self.flip:
            mirrored = draws[:, 2, None, None, None] == 1
            images = torch.where(mirrored, images.flip(3), images)
        return images


def _row(values: Tensor, width: int) -> Tensor:
    """Values of channels [c] as [c, 1, w] whose memory is like a row of pixels.

    With pixels one after another, arithmetic on rows is twice as fast as on c numbers at a time.
    """
    return values.repeat(width, 1).T[:, None]


def channel_statistics(images: NDArray[numpy.uint8]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over bytes / 255, float32 [c] each.

    They are computed from the 256 counts of a channel, exactly but for the last rounding. A
    channel that is constant gets deviation 1.

    Args:
        images: uint8 [n, c, h, w].
    """
    values = numpy.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = numpy.bincount(images[:, channel].reshape(-1), minlength=256)
        shares = counts / counts.sum()
        mean = float(shares @ values)
        means.append(mean)
        deviations.append(float(shares @ (values - mean) ** 2) ** 0.5 or 1.0)
    return torch.tensor(means), torch.tensor(deviations)


def image_task(name: str, train: ImageSet, test: ImageSet, num_classes: int) -> Task:
    """Make the classification task of two sets of images of one size."""
    channels, height, width = cast("tuple[int, int, int]", tuple(train.images.shape[1:]))
    arguments = {"num_classes": num_classes, "in_channels": channels, "image_size": height}
    example = torch.zeros(1, channels, height, width)
    return classification_task(name, train, test, example, arguments)
