"""The VGG networks for small images, with batch norm.

Source: Karen Simonyan, Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1 (A, B, D); with one linear layer after them
instead of three, as is usual for CIFAR.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathlen.training.resnet import ActivationFactory, relu

# Convolutions of each of the five stages, between which the image is halved.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# Channels of the stages, as multiples of the width.
CHANNELS = (1, 2, 4, 8, 8)


class CifarVGG(nn.Module):
    """A chain of 3x3 convolutions with max pools between, then a linear classifier.

    Args:
        depth: 11, 13, 16 or 19, as published: counting three linear layers, of which this network
            has one, so that it has `depth` - 3 activations.
        width: Channels of the first stage; the published networks have 64.
        num_classes: Number of outputs.
        in_channels: Channels of the image.
        image_size: Height and width of the image. Pools that would leave less than a pixel are
            left out.
        activation: Makes the activation of a layer from its number of channels.

    Raises:
        ValueError: There is no such depth.
    """

    def __init__(
        self,
        depth: int = 16,
        *,
        width: int = 64,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        activation: ActivationFactory = relu,
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"depth must be one of {', '.join(map(str, STAGES))}, not {depth}")
        layers: list[nn.Module] = []
        channels, size = in_channels, image_size
        for number, multiple in zip(STAGES[depth], CHANNELS, strict=True):
            for _ in range(number):
                layers += [
                    nn.Conv2d(channels, multiple * width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(multiple * width),
                    activation(multiple * width),
                ]
                channels = multiple * width
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [batch, in_channels, h, w] to logits [batch, num_classes]."""
        x = self.features(x)
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self.fc(x)
        return logits
