"""Models whose activations have slopes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Blend(nn.Module):
    """alpha x + (1 - alpha) phi(x), with an alpha for each channel of an image."""

    def __init__(
        self, channels: int, phi: Callable[[torch.Tensor], torch.Tensor] = torch.relu
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.phi = phi

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x + (1 - self.weight) * self.phi(x)


def with_slopes(model: nn.Module, activation: Callable[[int], nn.Module]) -> nn.Module:
    """A torchvision ResNet of bottlenecks with an activation of its own at every call site.

    torchvision's blocks call one ReLU three times, at different widths.
    """
    from torchvision.models.resnet import Bottleneck

    def forward(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        out = block.relu1(block.bn1(block.conv1(x)))
        out = block.relu2(block.bn2(block.conv2(out)))
        out = block.bn3(block.conv3(out))
        return block.relu3(out + (x if block.downsample is None else block.downsample(x)))

    model.relu = activation(model.bn1.num_features)
    for block in model.modules():
        if isinstance(block, Bottleneck):
            for number in (1, 2, 3):
                width = getattr(block, f"bn{number}").num_features
                block.add_module(f"relu{number}", activation(width))
            del block.relu
            block.forward = forward.__get__(block)
    return model
