"""Tasks whose items are (input, class): loss, counts and the data set of images."""

from __future__ import annotations

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


class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images held in memory, augmented by shifts and flips.

    An item is (float32 [c, h, w], class): the bytes / 255, standardized by channel. Shifted images
    are filled up with byte 0 (black), as cropping at random from the padded image does.

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
        self.images = torch.from_numpy(numpy.ascontiguousarray(images))
        self.classes: list[int] = classes.tolist()
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]
        self.seed, self.shift, self.flip = seed, shift, flip
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.classes)

    def set_epoch(self, epoch: int) -> None:
        """Shift and flip as in this epoch from now on."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.shift or self.flip:
            image = self._augmented(image, index % len(self))
        return (image / 255 - self.mean) / self.deviation, self.classes[index]

    def _augmented(self, image: Tensor, index: int) -> Tensor:
        random = draws(self.seed, self.epoch, index)
        if self.shift:
            height, width = image.shape[1:]
            down, right = random.integers(0, 2 * self.shift + 1, 2).tolist()
            padded = functional.pad(image, (self.shift,) * 4)
            image = padded[:, down : down + height, right : right + width]
        return image.flip(2) if self.flip and random.random() < 0.5 else image


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
