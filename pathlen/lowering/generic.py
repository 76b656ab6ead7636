"""Constants as weights are: generic, where their values are unknown or all 0."""

import zlib
from collections.abc import Sequence

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.values import Value


def generic_constants(read: Sequence[Value], constants: Constants) -> Constants:
    """Constants, computed from random numbers in place of parameters."""
    generator = torch.Generator().manual_seed(0)
    generic = {
        key: torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
        if tensor.is_floating_point()
        else tensor
        for key, tensor in constants.attributes_behind(read).items()
    }
    return constants.renewed(lambda *key: generic[key], read)


class GenericConstants:
    """Constants as weights: others stand for those without values, and for zeros alone."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants

    def of(self, value: Value) -> torch.Tensor:
        """A tensor with values."""
        try:
            return generic_if_zero(self._constants.of(value))
        except UnknownConstantError:
            return own_number(repr(value.node))


def own_number(name: str) -> torch.Tensor:
    """A number from 0.5 to 1.5 that a name always gives."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand((), generator=generator, dtype=torch.float64) + 0.5


def generic_if_zero(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, other numbers in place of zeros alone: a factor 0 is a weight like others."""
    return tensor if bool((tensor != 0).any()) else own_number("zero")
