"""How images lie in memory: channels first, as torch's shapes say, or channels last.

With the channels of a pixel side by side convolutions are faster, on CPUs and on GPUs. It changes
no shape and, but for the last digits, no number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pathlen.errors import SettingsError
from pathlen.tracing.own_numbers import own_numbers
from pathlen.training.tasks.translation import evaluating


def chosen_format(
    model: nn.Module, example: Sequence[Tensor], channels_last: bool | None
) -> torch.memory_format:
    """The memory format that a model is trained in.

    Args:
        model: It is run once, in eval mode, if nothing was asked for.
        example: Its arguments.
        channels_last: What was asked for; None for channels last wherever an argument is a batch of
            images (4 axes) and the model takes them so: one that calls `view` on what a convolution
            gave does not.

    Raises:
        SettingsError: Channels last was asked for, and no argument has 4 axes.
    """
    has_images = any(_is_image(one) for one in example)
    if channels_last and not has_images:
        raise SettingsError(
            "machine.channels_last is true, but no argument of the model is a batch of images with"
            " 4 axes; leave the setting out"
        )
    wanted = has_images if channels_last is None else channels_last
    if wanted and (channels_last or _takes_channels_last(model, example)):
        return torch.channels_last
    return torch.contiguous_format


def laid_out(tensors: Sequence[Tensor], form: torch.memory_format) -> tuple[Tensor, ...]:
    """The tensors, with those of 4 axes in a memory format."""
    return tuple(one.contiguous(memory_format=form) if _is_image(one) else one for one in tensors)


def like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimizer's state out like the parameters it is of, in place.

    A checkpoint holds tensors with channels first. Steps from there must compute what they would
    have, in the same order and at the same speed.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _is_image(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_floating_point()


@torch.no_grad()
def _takes_channels_last(model: nn.Module, example: Sequence[Tensor]) -> bool:
    try:
        with own_numbers(None), evaluating(model):
            model(*laid_out(example, torch.channels_last))
    except RuntimeError:  # "view size is not compatible with input tensor's size and stride"
        return False
    return True
