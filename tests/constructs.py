"""What the tests of single constructs share: small models, and their three numbers as fractions."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

import pathlen

HALF = Fraction(1, 2)


def answer(model, *args, status="exact", **kwargs):
    report = pathlen.measure(model, args, exact=True, **kwargs)
    assert report.status == status, report.causes
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
    )


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Model(nn.Module):
    """A model from a function of the modules and the inputs."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args):
        return self.function(self, *args)


def pointwise(function):
    """A function of a tensor between dense layers 2 -> 3 and 3 -> 1: 2 * 3 * 1 = 6 paths."""
    if isinstance(function, nn.Module):
        return nn.Sequential(nn.Linear(2, 3), function, nn.Linear(3, 1))
    return Model(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(2, 3), b=nn.Linear(3, 1))


X2 = torch.zeros(2, 2)
IMAGE = torch.zeros(1, 3, 4, 4)
TOKENS = torch.zeros(1, 3, 4)
ALPHA = torch.tensor([0.0, 0.25, 0.5])
