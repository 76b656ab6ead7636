"""From what a loader yields to the arguments of a model."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pathlen.errors import DataError, PathlenError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def batches_of(loader: Any, most: int | None) -> Iterator[Any]:
    """The batches of a loader, no more than are wanted.

    Raises:
        PathlenError: `most` is no positive number.
        DataError: The loader is a tensor or a mapping, or nothing that yields batches.
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise PathlenError(f"max_batches={most!r} must be a whole number from 1 on, or None")
    if isinstance(loader, (Tensor, Mapping, str)) or not isinstance(loader, Iterable):
        raise DataError(
            f"expected a loader, something that yields batches, but got {type(loader).__name__};"
            " for a single batch give a list of it: [batch]"
        )
    return itertools.islice(loader, most)


def arguments_of(batch: Any, args_of: Callable[[Any], Any] | None, place: str) -> Arguments:
    """What a model is called with for a batch.

    Args:
        batch: A tensor; a tuple or list, whose first item is taken (the others are targets); or a
            mapping of keyword arguments.
        args_of: Gives the arguments in place of this rule: a tensor, a tuple of positional
            arguments, or a mapping of keyword arguments.
        place: Of the batch, for messages.

    Returns:
        Positional and keyword arguments.

    Raises:
        DataError: There is no tensor among them, or one without elements.
    """
    given = batch if args_of is None else args_of(batch)
    if args_of is None and isinstance(given, (tuple, list)):
        if not given:
            raise DataError(f"{place} is empty: {batch!r}")
        given = given[0]
    if isinstance(given, Mapping):
        arguments: Arguments = (), {str(name): value for name, value in given.items()}
    elif isinstance(given, (tuple, list)) and args_of is not None:
        arguments = tuple(given), {}
    else:
        arguments = (given,), {}
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    if not tensors:
        raise DataError(
            f"{place} gives no tensor to call the model with, but {type(given).__name__}; say with"
            " args_of=lambda batch: ... what the arguments are"
        )
    for tensor in tensors:
        if not tensor.numel():
            raise DataError(f"{place} has no samples: a tensor of shape {tuple(tensor.shape)}")
    return arguments


def on_device(arguments: Arguments, device: torch.device | None) -> Arguments:
    """The arguments with their tensors on a device; None leaves them where they are."""
    if device is None:
        return arguments
    moved: Arguments = pytree.tree_map_only(Tensor, lambda t: t.to(device), arguments)
    return moved


def device_of(model: Any) -> torch.device | None:
    """The device of a model, None if it has none or several."""
    if not isinstance(model, torch.nn.Module):
        return None
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return devices.pop() if len(devices) == 1 else None


def signature(arguments: Arguments) -> Any:
    """What the calls of a model depend on, beside values: shapes, dtypes, other arguments."""
    leaves, structure = pytree.tree_flatten(arguments)
    kinds = [
        (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device)
        if isinstance(leaf, Tensor) and leaf.layout is torch.strided
        else repr(leaf)
        for leaf in leaves
    ]
    return str(structure), tuple(kinds)


def shapes(arguments: Arguments) -> str:
    """The shapes of the tensors, for messages."""
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def not_finite(arguments: Arguments) -> str:
    """Which of the tensors holds NaN or infinities, for messages; "" if none does."""
    positional, named = arguments
    for name, value in (*enumerate(positional), *named.items()):
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, Tensor) and not bool(torch.isfinite(leaf).all()):
                what = "NaN" if bool(torch.isnan(leaf).any()) else "infinities"
                return f"argument {name!r} of the batch itself holds {what}"
    return ""
