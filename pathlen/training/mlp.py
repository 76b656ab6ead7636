"""Perceptrons, for vectors and small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathlen.training.resnet import ActivationFactory, relu


class MLP(nn.Module):
    """Linear layers of one width with activations between, with or without shortcuts.

    Args:
        in_features: Length of an input, once flattened.
        num_classes: Number of outputs.
        depth: Number of activations, at least 1.
        width: Units of each hidden layer.
        residual: Whether a shortcut goes around each hidden layer but the first:
            x + activation(linear(x)).
        activation: Makes the activation of a layer from its number of units.

    Raises:
        ValueError: The depth is below 1.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        residual: bool = False,
        activation: ActivationFactory = relu,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.residual = residual
        self.first = nn.Sequential(nn.Linear(in_features, width), activation(width))
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), activation(width)) for _ in range(depth - 1)
        )
        self.last = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [batch, ...] to logits [batch, num_classes]."""
        x = self.first(torch.flatten(x, 1))
        for layer in self.hidden:
            x = x + layer(x) if self.residual else layer(x)
        logits: Tensor = self.last(x)
        return logits
