"""Shapes of the results of convolutions and poolings; see `shapes`."""

from collections.abc import Sequence
from typing import Any

from torch import Size, Tensor

Shape = tuple[int, ...]


def convolution(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Shape | None:
    """Convolution of a batch over some axes."""
    if input.dim() != axes + 2 or weight.dim() != axes + 2 or weight.shape[0] % groups:
        return None
    if input.shape[1] != weight.shape[1] * groups or not fits(bias, weight.shape[:1]):
        return None
    places = _places(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return None if places is None else (input.shape[0], weight.shape[0], *places)


def max_pool(
    axes: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Shape | None:
    """Pooling of a batch over some axes, rounded down."""
    kernel, padding = _each(kernel_size, axes), _each(padding, axes)
    if input.dim() != axes + 2 or ceil_mode or not len(kernel) == len(padding) == axes:
        return None
    if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
        return None
    stride = kernel if stride in ((), [], None) else stride
    places = _places(input.shape[2:], kernel, stride, padding, dilation)
    return None if places is None else (*input.shape[:2], *places)


def average_pool(
    axes: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Shape | None:
    """The same of an average."""
    if divisor_override is not None:
        return None
    return max_pool(axes, input, kernel_size, stride, padding, 1, ceil_mode)


def adaptive_pool(axes: int, input: Tensor, output_size: Any) -> Shape | None:
    """Pooling of a batch to a size."""
    size = _each(output_size, axes)
    if input.dim() != axes + 2 or len(size) != axes or min(size) < 1:
        return None
    return (*input.shape[:2], *size)


def fits(tensor: Tensor | None, shape: Size) -> bool:
    """Whether a parameter that may be absent has a shape."""
    return tensor is None or tensor.shape == shape


def _each(value: Any, axes: int) -> list[int]:
    """A number for each axis."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * axes if len(values) == 1 else values


def _places(
    lengths: Sequence[int], kernel: Sequence[int], stride: Any, padding: Any, dilation: Any
) -> Shape | None:
    """How many places a window has along each axis."""
    options = [_each(option, len(lengths)) for option in (stride, padding, dilation)]
    if any(len(option) != len(lengths) for option in (kernel, *options)):
        return None
    strides, paddings, dilations = options
    if min(strides) < 1 or min(paddings) < 0 or min(dilations) < 1 or min(kernel) < 1:
        return None
    rooms = [
        length + 2 * pad - apart * (size - 1) - 1
        for length, pad, apart, size in zip(lengths, paddings, dilations, kernel, strict=True)
    ]
    if min(rooms) < 0:
        return None
    return tuple(room // step + 1 for room, step in zip(rooms, strides, strict=True))
