"""alpha * x + (1 - alpha) * phi(x): an activation with a slope that can make it linear.

DESIGN of the paper: at alpha = 0 the activation is what it was, at alpha = 1 it is the identity;
for ReLU this is PReLU (Ali Mehmeti-Goepel & Disselhoff, ICML 2023, arXiv:2211.17180). Where only
first derivatives of plain tensors are taken, each form is one autograd operator that keeps a single
tensor for its backward, as the activation itself does. Everywhere else the formula is written out
in torch's operators, which can be differentiated in any way, compiled and traced. An operator of
ours that is differentiated twice writes its backward out likewise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual

Form = Literal["relu", "pure", "any"]
"""ReLU; a deterministic function of one tensor, evaluated again in backward; anything else."""

_LARGE = 2048  # elements from which an operator of our own is worth its calls
_MARK = object()
"""All inputs that are kept with a hook refer to it, so that these can be counted."""

_MOST_HOOKED = 4096
"""Nodes with a hook at one time: torch frees each such node within freeing the next, on the stack,
which ends somewhere above 20,000."""

_SMALLEST = 1e-6  # slopes above: an input can be told from the output, output / slope


def blend(
    x: Tensor,
    slope: Tensor,
    phi: Callable[[Tensor], Tensor],
    form: Form,
    *,
    in_place: bool = False,
) -> Tensor:
    """Slope * x + (1 - slope) * phi(x).

    Args:
        x: Input of the activation.
        slope: In a shape that broadcasts to that of `x`; may be of a wider dtype.
        phi: The activation; it must leave its argument as it is.
        form: What is known of it.
        in_place: Write the result to `x`, as the activation did.

    Returns:
        Shape and dtype of phi(x). At slope 0 it equals phi(x) where x is finite.
    """
    by_hand = form != "any" and _is_by_hand(x, slope)
    if form == "relu" and by_hand and x.is_cpu and x.numel() >= _LARGE:
        return _prelu_by_hand(x, _like(slope, x), in_place)
    if in_place:
        return x.copy_(blend(x.clone(), slope, phi, form))
    if form == "relu" and by_hand:
        return _prelu_of_torch(x, _like(slope, x))
    if form == "relu" and isinstance(x, Tensor):
        return _prelu(x, _like(slope, x))
    if by_hand:
        blended: Tensor = _Blend.apply(x, slope, phi)  # type: ignore[no-untyped-call]
        return blended
    y = phi(x)
    return torch.lerp(y, _like(x, y), _like(slope, y))


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of another; itself where it has that, as monitors prefer."""
    known = isinstance(other, Tensor)  # torch.fx has something else in their place
    return tensor if known and tensor.dtype == other.dtype else tensor.to(other.dtype)


def _is_by_hand(x: Tensor, slope: Tensor) -> bool:
    """Whether operators of our own keep less than torch's would, and only backward asks them."""
    return not (
        torch.compiler.is_dynamo_compiling()
        or not torch.is_grad_enabled()
        or type(x) is not Tensor
        or torch._C._len_torch_dispatch_stack() > 0  # of this thread, as Python's flag is not
        or _is_transformed(x, slope)
    )


def _is_transformed(x: Tensor, slope: Tensor) -> bool:
    """Whether forward derivatives, transforms of `torch.func` or TorchScript's tracer are at work.

    They need the plainest spelling: torch's own PReLU has another derivative forward than backward
    where its input is exactly 0.
    """
    return not torch.compiler.is_dynamo_compiling() and (
        torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or (
            forward_ad._current_level >= 0  # no tensor is dual outside of any level
            and (unpack_dual(x).tangent is not None or unpack_dual(slope).tangent is not None)
        )
    )


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    if not _is_transformed(x, slope):
        channels = slope.numel()
        if slope.ndim == x.ndim - 1 and x.ndim > 1 and slope.shape[:1].numel() == channels:
            return torch.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


def _prelu_of_torch(x: Tensor, slope: Tensor) -> Tensor:
    """Torch's PReLU, the fewest calls that there are, with the right second derivatives at 0.

    Torch's own second derivatives take an input of exactly 0 for a positive one, the first ones for
    a negative one. So where they are asked for, the node finds the smallest negative number in the
    place of each 0 that it has kept.
    """
    kept_by_others = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    if kept_by_others or sys.getrefcount(_MARK) > _MOST_HOOKED:
        y: Tensor = _TorchPReLU.apply(x, slope)  # type: ignore[no-untyped-call]
        return y
    y = torch._prelu_kernel(x, slope)
    node: Any = y.grad_fn
    if node is not None:
        node._raw_saved_self.register_hooks(_keep, _kept)
    return y


def _keep(x: Tensor) -> tuple[Tensor, int, object]:
    """What a PReLU keeps of its input, how often that had been written to, and the mark."""
    return x, x._version, _MARK


def _kept(keeps: tuple[Tensor, int, object]) -> Tensor:
    """The input of a PReLU, as backward computes with it.

    Raises:
        RuntimeError: It was written to since, which torch does not look for where hooks are.
    """
    x, version, _ = keeps
    if x._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace"
            f" operation: the input of an activation with slopes, of shape {tuple(x.shape)}, is at"
            f" version {x._version}; expected version {version} instead"
        )
    if not torch.is_grad_enabled():
        return x
    plain = x.detach()
    least = min(torch.finfo(x.dtype).smallest_normal, 2.0**-24)  # of 16 bits, one of 5 exponents
    return plain.masked_fill(plain == 0, -least)


def _prelu_by_hand(x: Tensor, slope: Tensor, in_place: bool) -> Tensor:
    """PReLU by `_PReLU`, which keeps its output where the input follows from that.

    With slopes above 0 the input is output / slope where it is negative. In half precision, and
    with other slopes, the input is kept.
    """
    exact = torch.finfo(x.dtype).bits >= 32
    of_output = exact and bool((slope > _SMALLEST if slope.requires_grad else slope >= 0).all())
    write = in_place and of_output
    y: Tensor = _PReLU.apply(  # type: ignore[no-untyped-call]
        x.clone() if in_place and not write else x, slope, of_output, write
    )
    return x.copy_(y) if in_place and not write else y


class _PReLU(torch.autograd.Function):
    """PReLU that keeps its input, or its output, which the next layer keeps anyway.

    d loss / d slope = sum of gradient * input = sum of gradient * output / slope where the input is
    negative. Torch's own backward takes several times as long on a CPU where signs vary: it
    branches at each element.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, of_output: bool, in_place: bool) -> Tensor:
        y = torch._prelu_kernel(x, slope)
        if in_place:
            y = x.copy_(y)
            ctx.mark_dirty(x)
        ctx.of_output = of_output
        ctx.save_for_backward(y if of_output else x, slope)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, slope = ctx.saved_tensors
        trains = ctx.needs_input_grad[1]
        if torch.is_grad_enabled():  # for derivatives of these derivatives
            to_x, to_slope = _written_out(gradient, kept, slope, trains)
            if trains and ctx.of_output:
                to_slope = to_slope / slope
            return to_x, to_slope, None, None
        positive = torch.ops.aten.threshold_backward(gradient, kept, 0.0)
        if not trains:
            return positive.lerp_(gradient, slope), None, None, None
        # written in place: tensors of this size leave the cache
        negative = gradient - positive
        to_x = positive.addcmul_(negative, slope)
        to_slope = _summed(negative.mul_(kept), slope)
        if ctx.of_output:
            to_slope = to_slope / slope
        return to_x, to_slope, None, None


class _TorchPReLU(torch.autograd.Function):
    """The same as `_prelu_of_torch`, without a hook, and slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch._prelu_kernel(x, slope)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, slope = ctx.saved_tensors
        trains = ctx.needs_input_grad[1]
        if torch.is_grad_enabled():  # for derivatives of these derivatives
            return _written_out(gradient, x, slope, trains)
        to_x, to_slope = torch.ops.aten._prelu_kernel_backward(gradient, x, slope)
        return to_x, _summed(to_slope, slope) if trains else None


def _written_out(gradient: Tensor, x: Tensor, slope: Tensor, trains: bool) -> tuple[Tensor, Any]:
    """What a PReLU passes back, in operators that can be differentiated again.

    Args:
        gradient: of its output.
        x: its input, or what has the signs of it.
        slope: as it was multiplied by.
        trains: whether the slope has a gradient: the sum of gradient * x where x is negative.
    """
    negative = torch.where(x > 0, torch.zeros_like(gradient), gradient)
    to_slope = _summed(negative * x, slope) if trains else None
    return gradient - negative + negative * slope, to_slope


class _Blend(torch.autograd.Function):
    """Keeps the input only, and evaluates phi again in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
        y = phi(x)
        ctx.phi, ctx.autocast = phi, _autocast(x.device.type)
        ctx.save_for_backward(x, slope)
        return torch.lerp(y, x.to(y.dtype), slope.to(y.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, slope = ctx.saved_tensors
        again = torch.is_grad_enabled()  # for derivatives of these derivatives
        weight = slope.to(gradient.dtype)
        with torch.enable_grad(), ctx.autocast():
            # another name of x: derivatives end here, and do not go on to what it came from
            own = x.view_as(x) if again and x.requires_grad else x.detach().requires_grad_()
            y = ctx.phi(own)
            scaled = (gradient * (1 - weight)).to(y.dtype)
            (of_phi,) = torch.autograd.grad(y, own, scaled, create_graph=again, allow_unused=True)
        to_x = gradient * weight
        if of_phi is not None:
            to_x = to_x + of_phi
        to_slope = None
        if ctx.needs_input_grad[1]:
            y = y if again else y.detach()
            distance = x.to(gradient.dtype) - y.to(gradient.dtype)
            to_slope = _summed(gradient * distance, slope).to(slope.dtype)
        return to_x.to(x.dtype), to_slope, None


def _autocast(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """What makes phi be evaluated with the precisions that it is evaluated with now."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype)


def _summed(tensor: Tensor, like: Tensor) -> Tensor:
    """Sums over the axes on which a broadcast tensor does not vary."""
    lead = tensor.ndim - like.ndim
    axes = [
        axis
        for axis in range(tensor.ndim)
        if axis < lead or (like.shape[axis - lead] == 1 and tensor.shape[axis] > 1)
    ]
    return (tensor.sum(axes) if axes else tensor).reshape(like.shape)
