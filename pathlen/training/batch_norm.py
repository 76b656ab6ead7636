"""Batch normalization: over the whole batch when several processes share it, and renewed.

torch has the former for GPUs only (`nn.SyncBatchNorm`), and without it each process normalizes by
the statistics of its own share: two processes would train another network than one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pathlen.tracing.own_numbers import own_numbers

Forward = Callable[[nn.Module, tuple[Tensor, ...]], Any]

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def share_statistics(model: nn.Module) -> None:
    """Let the batch norms of a model use the statistics of the whole batch, in place.

    Modules of classes derived from torch's are left alone: what they do is not known.
    """
    for module in model.modules():
        if type(module) in _KINDS:
            module.__class__ = _SHARED[type(module)]


@torch.no_grad()
def renew_batch_norm(
    model: nn.Module, batches: Iterable[tuple[Tensor, ...]], forward: Forward | None = None
) -> int:
    """Compute the running statistics of a model's batch norms anew: their means over some batches.

    Running statistics are means over many steps, and weights and slopes that change fast, as when
    units become linear, leave them behind. A few batches of the training data bring them up; the
    weights and the caller's random numbers stay as they are. `torch.optim.swa_utils.update_bn` does
    the same for models of one argument; it resets statistics where there is no batch, leaves the
    momenta changed after an error, and all modules in one mode.

    Args:
        model: On whatever device; it is run in training mode, and its modules return to the modes
            that they had.
        batches: Arguments of the model, on its device. Nothing is asked of them where the model has
            no batch norm with running statistics.
        forward: From (model, arguments) to an output, where that takes more than a call.

    Returns:
        The number of batches; statistics stay as they are if it is 0.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    count = 0
    with own_numbers(None):
        try:
            for arguments in batches:
                if not count:
                    model.train()
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # the mean over all batches
                model(*arguments) if forward is None else forward(model, arguments)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for module, training in modes.items():
                module.training = training
    return count


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, each of which gets the gradient of all."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _summed(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


class _Shared(nn.modules.batchnorm._BatchNorm):
    """The training step of a batch norm, on sums over all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize by the statistics of the whole batch; in eval mode, as the class does."""
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        # sums of 16 bits would overflow, or lose the count
        wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = wide.new_tensor(float(wide.numel() // wide.shape[1])).reshape(1)
        total = _summed(torch.cat([wide.sum(axes), count]))
        count, mean = total[-1], total[:-1] / total[-1]
        centred = wide - mean.view(shape)
        variance = _summed(centred.square().sum(axes)) / count
        self._follow(mean, variance * (count / (count - 1)))
        result: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # the mean over all batches
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


class _Shared3d(_Shared, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = dict(
    zip(_KINDS, (_Shared1d, _Shared2d, _Shared3d), strict=True)
)
