"""Normalizations and softmax with their statistics held fixed, as functions for autograd.

A path graph passes each unit of a normalization to itself, as if mean, variance, norm and
denominator were constants (docs/definitions.md). Here they are: computed from a base tensor and
detached, so that the Jacobian is that of the scaling and shift alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

Arguments = Mapping[str, Any]
Held = Callable[[Arguments, Arguments], torch.Tensor]


def holds_statistics(name: str) -> bool:
    """Whether an operation ("aten.layer_norm") has a form with fixed statistics."""
    return name in _HELD


def with_held_statistics(name: str, arguments: Arguments, base: Arguments) -> torch.Tensor:
    """Result of a normalization or softmax whose statistics are those of the base arguments.

    Args:
        name: of the operation.
        arguments: what it is called with.
        base: the same arguments, with the tensors that the statistics are taken from.
    """
    detached = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in base.items()}
    return _HELD[name](arguments, detached)


def _softmax(arguments: Arguments, base: Arguments) -> torch.Tensor:
    x, fixed = arguments["self"], _as_floating(base["self"], arguments)
    shift = fixed.logsumexp(arguments["dim"], keepdim=True)
    return (_as_floating(x, arguments) - _finite(shift)).exp()


def _log_softmax(arguments: Arguments, base: Arguments) -> torch.Tensor:
    x, fixed = arguments["self"], _as_floating(base["self"], arguments)
    return _as_floating(x, arguments) - _finite(fixed.logsumexp(arguments["dim"], keepdim=True))


def _layer_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    fixed = base["input"]
    axes = tuple(range(-len(arguments["normalized_shape"]), 0))
    variance = fixed.var(axes, keepdim=True, correction=0) + arguments["eps"]
    y = (arguments["input"] - fixed.mean(axes, keepdim=True)) / variance.sqrt()
    return _affine(y, arguments["weight"], arguments.get("bias"))


def _rms_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    fixed = base["input"]
    axes = tuple(range(-len(arguments["normalized_shape"]), 0))
    eps = arguments["eps"]
    eps = torch.finfo(fixed.dtype).eps if eps is None else eps
    scale = (fixed.square().mean(axes, keepdim=True) + eps).rsqrt()
    return _affine(arguments["input"] * scale, arguments["weight"], None)


def _group_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    x, fixed = arguments["input"], base["input"]
    grouped = fixed.reshape(fixed.shape[0], arguments["num_groups"], -1)
    mean = grouped.mean(2).repeat_interleave(x.shape[1] // arguments["num_groups"], 1)
    variance = grouped.var(2, correction=0).repeat_interleave(
        x.shape[1] // arguments["num_groups"], 1
    )
    y = (x - _channels(mean, x)) / (_channels(variance, x) + arguments["eps"]).sqrt()
    return _affine_channels(y, arguments)


def _instance_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    if not arguments["use_input_stats"]:
        return _with_running_statistics(arguments)
    return _normalized(arguments, base, tuple(range(2, arguments["input"].ndim)))


def _batch_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    if not arguments["training"] and arguments["running_mean"] is not None:
        return _with_running_statistics(arguments)
    return _normalized(arguments, base, (0, *range(2, arguments["input"].ndim)))


def _local_response_norm(arguments: Arguments, base: Arguments) -> torch.Tensor:
    fixed = base["input"]
    y = torch.nn.functional.local_response_norm(
        fixed, arguments["size"], arguments["alpha"], arguments["beta"], arguments["k"]
    )
    factor = y / torch.where(fixed == 0, 1.0, fixed)
    result: torch.Tensor = arguments["input"] * factor
    return result


_HELD: dict[str, Held] = {
    "aten.softmax": _softmax,
    "aten._softmax": _softmax,
    "aten.log_softmax": _log_softmax,
    "aten._log_softmax": _log_softmax,
    "aten.layer_norm": _layer_norm,
    "aten.rms_norm": _rms_norm,
    "aten.group_norm": _group_norm,
    "aten.instance_norm": _instance_norm,
    "aten.batch_norm": _batch_norm,
    "aten.local_response_norm": _local_response_norm,
}


def _normalized(arguments: Arguments, base: Arguments, axes: tuple[int, ...]) -> torch.Tensor:
    fixed = base["input"]
    variance = fixed.var(axes, keepdim=True, correction=0) + arguments["eps"]
    y = (arguments["input"] - fixed.mean(axes, keepdim=True)) / variance.sqrt()
    return _affine_channels(y, arguments)


def _with_running_statistics(arguments: Arguments) -> torch.Tensor:
    x = arguments["input"]
    variance = _channels(arguments["running_var"], x) + arguments["eps"]
    y = (x - _channels(arguments["running_mean"], x)) / variance.sqrt()
    return _affine_channels(y, arguments)


def _affine(y: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _affine_channels(y: torch.Tensor, arguments: Arguments) -> torch.Tensor:
    weight, bias = (
        None if arguments[name] is None else _channels(arguments[name], y)
        for name in ("weight", "bias")
    )
    return _affine(y, weight, bias)


def _channels(statistic: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One number a channel (or a sample and channel), in a shape that broadcasts along axis 1."""
    return statistic.reshape(*statistic.shape, *[1] * (like.ndim - 2))


def _as_floating(x: torch.Tensor, arguments: Arguments) -> torch.Tensor:
    dtype = arguments.get("dtype")  # tensors are wide here whatever the program says
    return x if dtype is None or x.is_floating_point() else x.double()


def _finite(shift: torch.Tensor) -> torch.Tensor:
    """A row that is masked whole has no denominator."""
    return torch.where(shift.isfinite(), shift, 0.0)
