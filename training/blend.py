"""alpha * x + (1 - alpha) * phi(x): an activation with a slope that can make it linear.

DESIGN of the paper: at alpha = 0 the activation is what it was, at alpha = 1 it is the identity;
for ReLU this is PReLU (Ali Mehmeti-Goepel & Disselhoff, ICML 2023, arXiv:2211.17180). Each form is
one autograd operator that keeps a single tensor for its backward, as the activation itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Form = Literal["relu", "pure", "any"]
"""ReLU; a deterministic function of one tensor, evaluated again in backward; anything else."""

_SMALLEST = 1e-6  # slopes above: an input can be told from the output, output / slope


def blend(
    x: Tensor,
    slope: Tensor,
    phi: Callable[[Tensor], Tensor],
    form: Form,
    *,
    in_place: bool = False,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Slope * x + (1 - slope) * phi(x).

    Args:
        x: Input of the activation.
        slope: In a shape that broadcasts to that of `x`; may be of a wider dtype.
        phi: The activation; it must leave its argument as it is.
        form: What is known of it.
        in_place: Write the result to `x`, as the activation did.
        parameters: Tensors that phi reads and gradients are wanted for.

    Returns:
        Shape and dtype of phi(x). At slope 0 it equals phi(x) where x is finite.
    """
    if in_place:
        if form == "relu" and _is_by_hand(x):
            written: Tensor = _PReLU.apply(x, _like(slope, x), True)  # type: ignore[no-untyped-call]
            return written
        return x.copy_(blend(x.clone(), slope, phi, form, parameters=parameters))
    if form == "relu":
        return _prelu(x, _like(slope, x))
    if form == "any" or _plainly(x):
        y = phi(x)
        return torch.lerp(y, _like(x, y), _like(slope, y))
    blended: Tensor = _Blend.apply(x, slope, phi, *parameters)  # type: ignore[no-untyped-call]
    return blended


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of another; itself where it has that, as monitors prefer."""
    return tensor if tensor.dtype == other.dtype else tensor.to(other.dtype)


def _plainly(x: Tensor) -> bool:
    """Whether to write operators out: for compilers, tracers, and where nothing is kept."""
    return torch.compiler.is_compiling() or not torch.is_grad_enabled() or type(x) is not Tensor


def _is_by_hand(x: Tensor) -> bool:
    """Whether ReLUs are left to `_PReLU`. On a GPU it would wait to see the slopes' signs."""
    return not _plainly(x) and x.device.type == "cpu"


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    if _is_by_hand(x):
        result: Tensor = _PReLU.apply(x, slope, False)  # type: ignore[no-untyped-call]
        return result
    if not _plainly(x):
        return torch._prelu_kernel(x, slope)
    channels = slope.numel()
    if slope.ndim == x.ndim - 1 and x.ndim > 1 and slope.shape[:1].numel() == channels:
        return torch.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


class _PReLU(torch.autograd.Function):
    """PReLU that keeps its output, which the next layer keeps anyway, where the input follows.

    With slopes above 0 the input is output / slope where it is negative, so that
    d loss / d slope = sum of gradient * input = sum of gradient * output / slope.
    Otherwise, and in half precision, the input is kept. Torch's own backward takes several times as
    long on a CPU where signs vary: it branches at each element.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, in_place: bool) -> Tensor:
        trains = ctx.needs_input_grad[1]
        exact = torch.finfo(x.dtype).bits >= 32
        ctx.of_output = exact and bool((slope > _SMALLEST if trains else slope >= 0).all())
        before = x if not in_place or ctx.of_output else x.clone()
        y = torch._prelu_kernel(x, slope)
        if in_place:
            y = x.copy_(y)
            ctx.mark_dirty(x)
        ctx.save_for_backward(y if ctx.of_output else before, slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        kept, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(gradient, kept, 0.0)
        if not ctx.needs_input_grad[1]:
            return positive.lerp_(gradient, slope), None, None
        # written in place: tensors of this size leave the cache
        negative = gradient - positive
        to_x = positive.addcmul_(negative, slope)
        to_slope = _summed(negative.mul_(kept), slope)
        if ctx.of_output:
            to_slope = to_slope / slope
        return to_x, to_slope, None


class _Blend(torch.autograd.Function):
    """Keeps the input only, and evaluates phi again in backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, slope: Tensor, phi: Callable[[Tensor], Tensor], *parameters: Tensor
    ) -> Tensor:
        y = phi(x)
        ctx.phi = phi
        ctx.dtype = y.dtype
        ctx.save_for_backward(x, slope, *parameters)
        return torch.lerp(y, x.to(y.dtype), slope.to(y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, slope, *parameters = ctx.saved_tensors
        weight = slope.to(gradient.dtype)
        with torch.enable_grad():
            own = x.detach().requires_grad_()
            y = ctx.phi(own)
            wanted = [own, *(p for p in parameters if p.requires_grad)]
            scaled = (gradient * (1 - weight)).to(y.dtype)
            found = iter(torch.autograd.grad(y, wanted, scaled, allow_unused=True))
        of_phi = next(found)
        to_x = gradient * weight
        if of_phi is not None:
            to_x = to_x + of_phi
        to_slope = None
        if ctx.needs_input_grad[1]:
            distance = x.to(gradient.dtype) - y.detach().to(gradient.dtype)
            to_slope = _summed(gradient * distance, slope).to(slope.dtype)
        rest = [next(found) if p.requires_grad else None for p in parameters]
        return to_x.to(x.dtype), to_slope, None, *rest


def _summed(tensor: Tensor, like: Tensor) -> Tensor:
    """Sums over the axes on which a broadcast tensor does not vary."""
    lead = tensor.ndim - like.ndim
    axes = [
        axis
        for axis in range(tensor.ndim)
        if axis < lead or (like.shape[axis - lead] == 1 and tensor.shape[axis] > 1)
    ]
    return (tensor.sum(axes) if axes else tensor).reshape(like.shape)
