"""Which of the scalar functions at an activation are one function, whatever its parameters are.

A parameter may reach several elements of one unit: a slope for each unit, laid over a tensor in
which units lie more than once (behind a pixel shuffle, a class token, a repeated channel). One
function at many elements is one unit (docs/definitions.md), so functions are told apart not by
their places but by themselves: the parameters are replaced by random ones, and functions that are
the same then are the same for any parameters. Values that happen to be equal make no difference.
"""

from collections.abc import Sequence

import torch

from pathlen.lowering.activity import function_values
from pathlen.lowering.constants import Constants
from pathlen.lowering.generic import generic_constants
from pathlen.lowering.regions import Region


def function_numbers(region: Region, constants: Constants, shape: Sequence[int]) -> torch.Tensor:
    """A number for the function at each index of the parameters, equal for those that are one.

    Args:
        region: whose functions they are.
        constants: gives the parameters.
        shape: of the functions, as they are told apart by the parameters' values.

    Returns:
        int64, in a shape that `shape` broadcasts to: the first place of each function there.
    """
    values = region.constants
    found = function_values(region, generic_constants(values, constants))
    if found is None:
        return places(shape)
    _, on_grid, _ = found
    whole = torch.broadcast_shapes(tuple(shape), on_grid.shape[1:])
    columns = on_grid.expand(len(on_grid), *whole).reshape(len(on_grid), -1)
    if columns.is_complex():
        columns = torch.cat([columns.real, columns.imag])
    _, group = columns.unique(dim=1, return_inverse=True)
    numbers = torch.arange(len(group))
    first = torch.full_like(numbers, len(group)).scatter_reduce(0, group, numbers, "amin")
    return first[group].view(whole)


def places(shape: Sequence[int]) -> torch.Tensor:
    """A number of its own for each index: int64[shape]."""
    whole = torch.Size(shape)
    return torch.arange(whole.numel()).view(whole)
