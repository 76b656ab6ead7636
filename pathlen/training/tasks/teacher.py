"""Classes given by a random network, as hard to learn as that network is deep."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pathlen.errors import SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.classification import classification_task

CALIBRATION = 4096
"""Inputs by which the layers of the teacher are standardized."""


def teacher(
    *,
    difficulty: int = 2,
    features: int = 16,
    width: int = 32,
    classes: int = 4,
    train_size: int = 8192,
    test_size: int = 2048,
    seed: int = 0,
) -> Task:
    """Make the task of learning what a random network says of Gaussian inputs.

    Each input is a vector of standard normal numbers; its class is the largest output of the
    teacher, a perceptron with random weights.

    Args:
        difficulty: Number of hidden ReLU layers of the teacher. With 0 classes are told apart by
            hyperplanes; each layer more folds the borders between them further, and a student
            needs more depth or more items to follow.
        features: Length of an input.
        width: Units of each hidden layer.
        classes: Number of classes.
        train_size: Number of items to train on.
        test_size: Number of items held out.
        seed: Of the teacher and the inputs.

    Raises:
        SettingsError: A value is out of range.
    """
    values = {
        "features": features,
        "width": width,
        "classes": classes - 1,
        "train_size": train_size,
    }
    small = [name for name, value in {**values, "test_size": test_size}.items() if value < 1]
    if small or difficulty < 0 or seed < 0:
        raise SettingsError(
            "teacher: difficulty and seed must be at least 0, classes at least 2, and all else at "
            f"least 1; wrong are {', '.join(small) or 'difficulty or seed'}"
        )
    generator = torch.Generator().manual_seed(seed)
    network = Teacher([features, *[width] * difficulty, classes], generator)
    inputs = torch.randn(train_size + test_size, features, generator=generator)
    labels = network(inputs)
    train = TensorDataset(inputs[:train_size], labels[:train_size])
    test = TensorDataset(inputs[train_size:], labels[train_size:])
    arguments = {"num_classes": classes, "in_features": features}
    return classification_task("teacher", train, test, torch.zeros(1, features), arguments)


class Teacher:
    """A random perceptron that gives classes.

    Every layer's outputs, the last one's too, are standardized over a sample of inputs. Without
    that a deep random network would map nearly all inputs to one direction and one class.
    Computations are in float64, so that no rounding decides a class.

    Args:
        sizes: Units of each layer, from the inputs to the classes.
        generator: Of the weights and of the sample.
    """

    def __init__(self, sizes: list[int], generator: torch.Generator) -> None:
        self.layers: list[tuple[Tensor, Tensor, Tensor]] = []
        sample = torch.randn(CALIBRATION, sizes[0], generator=generator, dtype=torch.float64)
        for inside, outside in itertools.pairwise(sizes):
            weight = torch.randn(inside, outside, generator=generator, dtype=torch.float64)
            weight = weight / math.sqrt(inside)
            outputs = sample @ weight
            mean, deviation = outputs.mean(0), outputs.std(0).clamp_min(1e-12)
            self.layers.append((weight, mean, deviation))
            sample = ((outputs - mean) / deviation).relu()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Give the classes, int64 [n], of inputs [n, features]."""
        values = inputs.double()
        for place, (weight, mean, deviation) in enumerate(self.layers):
            values = (values.relu() if place else values) @ weight
            values = (values - mean) / deviation
        return values.argmax(1)
