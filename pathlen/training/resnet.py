"""The residual networks for CIFAR of He et al. 2016.

Source: Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Deep Residual Learning for Image
Recognition", CVPR 2016, arXiv:1512.03385, section 4.2; the same, "Identity Mappings in Deep
Residual Networks", ECCV 2016, arXiv:1603.05027 (version 2, with activations before layers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Shortcut = Literal["projection", "identity", "none"]

ActivationFactory = Callable[[int], nn.Module]
"""Makes the activation of a layer from the layer's number of channels."""


def relu(channels: int) -> nn.Module:
    """Make a ReLU; the number of channels does not matter to it."""
    return nn.ReLU()


def channelwise_prelu(channels: int) -> nn.Module:
    """Make a PReLU with one slope a channel, all 0, so that it starts out as a ReLU."""
    return nn.PReLU(channels, init=0.0)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: subsampling, and zeros for the new channels (option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, h, w] to [batch, out_channels, h / stride, w / stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        return functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, with a shortcut around them unless there is none.

    The two activations are modules of their own, so that each can have its own slopes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Shortcut,
        activation: ActivationFactory,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.activation1 = activation(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation2 = activation(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, h, w] to [batch, out_channels, h / stride, w / stride]."""
        branch = self.activation1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        if self.shortcut is not None:
            branch = branch + self.shortcut(x)
        out: Tensor = self.activation2(branch)
        return out


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and activation, and a shortcut around them.

    A shortcut that changes the shape starts after the first activation, any other before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Shortcut,
        activation: ActivationFactory,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.activation1 = activation(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation2 = activation(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, h, w] to [batch, out_channels, h / stride, w / stride]."""
        active = self.activation1(self.bn1(x))
        branch: Tensor = self.conv2(self.activation2(self.bn2(self.conv1(active))))
        if self.shortcut is None:
            return branch
        around: Tensor = self.shortcut(x if isinstance(self.shortcut, nn.Identity) else active)
        return branch + around


class CifarResNet(nn.Module):
    """A residual network of depth 6n + 2 for small images.

    One 3x3 convolution, then three stages of n blocks with ``width``, 2 ``width`` and 4 ``width``
    channels, the second and third of which halve the image, then a global average pool and a
    linear classifier. The published networks have depth 20, 32, 44, 56 or 110, width 16 and
    shortcut "identity".

    Args:
        depth: Number of layers with weights on the longest path: 6n + 2, n at least 1.
        shortcut: What goes around a block that changes the shape: "projection", a strided 1x1
            convolution with batch norm (option B); "identity", subsampling with zeros for the
            new channels (option A). Other blocks have an identity. "none" removes every
            shortcut, which gives the plain network.
        version: 1, with activations after the sums of He et al. 2015, or 2, with activations before
            the convolutions and one more before the pool; its projections have no batch norm.
        width: Channels of the first stage.
        num_classes: Number of outputs.
        in_channels: Channels of the image.
        activation: Makes the activation of a layer from its number of channels, for instance
            :func:`relu` or :func:`channelwise_prelu`.

    Raises:
        ValueError: The depth is not 6n + 2, or the shortcut or the version is another.
    """

    def __init__(
        self,
        depth: int = 20,
        *,
        shortcut: Shortcut = "projection",
        version: Literal[1, 2] = 1,
        width: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        activation: ActivationFactory = relu,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, ...), not {depth}")
        if shortcut not in ("projection", "identity", "none"):
            raise ValueError(
                f"shortcut must be 'projection', 'identity' or 'none', not {shortcut!r}"
            )
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, not {version!r}")
        blocks = (depth - 2) // 6
        block = BasicBlock if version == 1 else PreActivationBlock
        last = width if version == 1 else 4 * width
        self.version = version
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(last)
        self.activation = activation(last)
        self.stage1 = _stage(block, width, width, blocks, 1, shortcut, activation)
        self.stage2 = _stage(block, width, 2 * width, blocks, 2, shortcut, activation)
        self.stage3 = _stage(block, 2 * width, 4 * width, blocks, 2, shortcut, activation)
        self.fc = nn.Linear(4 * width, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """Draw the convolutions as He et al. 2015 do (arXiv:1502.01852), by fan-out."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [batch, in_channels, h, w] to logits [batch, num_classes]."""
        x = self.conv(x)
        if self.version == 1:
            x = self.activation(self.bn(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        if self.version == 2:
            x = self.activation(self.bn(x))
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self.fc(x)
        return logits


def _stage(
    block: type[BasicBlock] | type[PreActivationBlock],
    in_channels: int,
    out_channels: int,
    blocks: int,
    stride: int,
    shortcut: Shortcut,
    activation: ActivationFactory,
) -> nn.Sequential:
    """Chain blocks, the first of which changes the shape."""
    first = block(in_channels, out_channels, stride, shortcut, activation)
    rest = [block(out_channels, out_channels, 1, shortcut, activation) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(
    in_channels: int, out_channels: int, stride: int, shortcut: Shortcut, norm: bool = True
) -> nn.Module | None:
    """Make what goes around a block, or None for a plain network."""
    if shortcut == "none":
        return None
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if shortcut == "identity":
        return PaddedShortcut(in_channels, out_channels, stride)
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels)) if norm else projection
