"""Work out the shapes of the results of the most common operators.

A rule takes the arguments of a call. It gives the shape of the result, or None where anything about
the call is not the plain case; torch is then asked, which also raises what is to be raised. Rules
may take for granted that all tensors are ordinary (`is_ordinary`), of one dtype and on one device;
the result is contiguous and like them. tests/test_fake.py compares the answers with torch's.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pathlen.tracing.windows import Shape, adaptive_pool, average_pool, convolution, fits, max_pool

_aten = torch.ops.aten
_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DEVICES = ("cpu", "meta")
"""Kinds of devices whose kernels make tensors of the same strides."""
_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor)


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Strides of a contiguous tensor; axes of length 0 count as 1, as in torch."""
    if not shape:
        return ()
    lengths = [max(length, 1) for length in reversed(shape[1:])]
    return tuple(itertools.accumulate(lengths, operator.mul, initial=1))[::-1]


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is floating-point, on a known device, not empty and no constant."""
    return (
        type(tensor) in _PLAIN
        and tensor.dtype in _FLOATING
        and tensor.device.type in DEVICES
        and tensor.layout is torch.strided
        and tensor.numel() > 0
        and getattr(tensor, "constant", None) is None
    )


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is that and contiguous, with any strides along axes of length 1."""
    return is_plain(tensor) and tensor.is_contiguous()


def _same(input: Tensor, *_: Any, **__: Any) -> Shape:
    return tuple(input.shape)


def _arithmetic(input: Any, other: Any, **_: Any) -> Shape | None:
    """A tensor and a number, or two tensors of which one has the shape of the result."""
    if not isinstance(input, Tensor):
        return None
    if isinstance(other, Tensor):
        if is_ordinary(input) and (shape := _covered(input.shape, other.shape)):
            return shape  # the strides of the first operand come first
        both = is_ordinary(input) and is_ordinary(other)
        return _covered(other.shape, input.shape) if both else None
    return tuple(input.shape) if is_ordinary(input) and type(other) in (int, float) else None


def _covered(shape: Shape, other: Shape) -> Shape | None:
    """A shape, where another broadcasts to it."""
    missing = len(shape) - len(other)
    if missing < 0 or not other:
        return None
    fits = all(b in (1, a) for a, b in zip(shape[missing:], other, strict=True))
    return tuple(shape) if fits else None


def _batch_norm(
    input: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *_: Any
) -> Shape | None:
    if training or mean is None or var is None or input.dim() < 2:
        return None
    channels = input.shape[1:2]
    told = all(fits(tensor, channels) for tensor in (weight, bias, mean, var))
    return tuple(input.shape) if told else None


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, *_: Any
) -> Shape | None:
    shape = torch.Size(normalized_shape)
    ends = len(shape) > 0 and input.shape[-len(shape) :] == shape
    return tuple(input.shape) if ends and fits(weight, shape) and fits(bias, shape) else None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Shape | None:
    if input.dim() < 2 or weight.dim() != 2 or input.shape[-1] != weight.shape[1]:
        return None
    return (*input.shape[:-1], weight.shape[0]) if fits(bias, weight.shape[:1]) else None


def _matmul(input: Tensor, other: Tensor) -> Shape | None:
    if input.dim() < 2 or input.dim() != other.dim() or input.shape[:-2] != other.shape[:-2]:
        return None
    fits = input.shape[-1] == other.shape[-2]
    return (*input.shape[:-1], other.shape[-1]) if fits else None


def _softmax(input: Tensor, dim: int, dtype: Any = None) -> Shape | None:
    return tuple(input.shape) if dtype is None and -input.dim() <= dim < input.dim() else None


def _dropout(input: Tensor, p: float, train: bool) -> Shape | None:
    return None if train or not 0 <= p <= 1 else tuple(input.shape)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Shape | None:
    first = tensors[0]
    if not -first.dim() <= dim < first.dim():
        return None
    axis = dim % first.dim()
    around = [(*tensor.shape[:axis], 0, *tensor.shape[axis + 1 :]) for tensor in tensors]
    if any(shape != around[0] for shape in around) or len(tensors) < 2:
        return None
    total = sum(tensor.shape[axis] for tensor in tensors)
    return (*first.shape[:axis], total, *first.shape[axis + 1 :])


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> tuple[Shape | None, Shape]:
    """Shape and strides of what the fused kernel of the CPU makes of ordinary heads."""
    heads = (query, key, value)
    plain = (
        attn_mask is None
        and dropout_p == 0.0
        and not options
        and torch.backends.cuda.flash_sdp_enabled()  # the switch of the CPU as well
        and all(type(head) is FakeTensor and head.dtype is torch.float32 for head in heads)
        and all(head.dim() == 4 and head.stride(3) == 1 and head.numel() > 0 for head in heads)
        and all(head.device.type == "cpu" for head in heads)
        and all(head.shape[:2] == query.shape[:2] for head in heads)
        and key.shape == value.shape
        and query.shape[3] == key.shape[3]
    )
    if not (plain and _is_dense(query)):
        return None, ()
    shape = tuple(query.shape)
    return shape, contiguous_strides(shape) if query.is_contiguous() else query.stride()


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of storage, in any order of the axes."""
    expected = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1:
            if stride != expected:
                return False
            expected *= length
    return True


def grouped(
    mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any
) -> Shape | None:
    """Shape of a product of groups of rows or columns, one group after another, with matrices.

    Torch's own answer on tensors without data is that of the kernel for bfloat16 alone.
    """
    if mat_a.dim() == 2 and mat_b.dim() == 2 and offs is not None:
        return (len(offs), mat_a.shape[0], mat_b.shape[1])
    if mat_a.dim() not in (2, 3) or mat_b.dim() not in (2, 3) or mat_a.shape[-1] != mat_b.shape[-2]:
        return None
    batch = mat_a.shape[:1] if mat_a.dim() == mat_b.dim() == 3 else ()
    return (*batch, mat_a.shape[-2], mat_b.shape[-1])


def _power(input: Tensor, exponent: Any) -> Shape | None:
    return tuple(input.shape) if type(exponent) in (int, float) else None


def _mean(input: Tensor, dim: Any, keepdim: bool = False, **options: Any) -> Shape | None:
    axes = dim if isinstance(dim, (list, tuple)) else ()
    if options or not axes or any(not -input.dim() <= axis < input.dim() for axis in axes):
        return None
    reduced = {axis % input.dim() for axis in axes}
    lengths = [1 if n in reduced else length for n, length in enumerate(input.shape)]
    kept = [length for n, length in enumerate(lengths) if keepdim or n not in reduced]
    return tuple(kept) if len(reduced) == len(axes) else None


def _copied(input: Tensor, **options: Any) -> Shape | None:
    return None if options or input.is_contiguous() else tuple(input.shape)


_ELEMENTWISE = (
    _aten.relu,
    _aten.sigmoid,
    _aten.tanh,
    _aten.gelu,
    _aten.silu,
    _aten.elu,
    _aten.leaky_relu,
    _aten.hardtanh,
    _aten.hardswish,
    _aten.hardsigmoid,
    _aten.softplus,
    _aten.exp,
    _aten.neg,
    _aten.sqrt,
    _aten.rsqrt,
    _aten.reciprocal,
    _aten.sin,
    _aten.cos,
)
_ARITHMETIC = (_aten.add, _aten.sub, _aten.mul, _aten.div)

SHAPES: dict[Any, Callable[..., Shape | None]] = {
    **{operation.default: _same for operation in _ELEMENTWISE},
    **{operation.Tensor: _arithmetic for operation in _ARITHMETIC},
    _aten.conv1d.default: partial(convolution, 1),
    _aten.conv2d.default: partial(convolution, 2),
    _aten.conv3d.default: partial(convolution, 3),
    _aten.max_pool2d.default: partial(max_pool, 2),
    _aten.avg_pool2d.default: partial(average_pool, 2),
    _aten.adaptive_avg_pool2d.default: partial(adaptive_pool, 2),
    _aten.batch_norm.default: _batch_norm,
    _aten.layer_norm.default: _layer_norm,
    _aten.linear.default: _linear,
    _aten.matmul.default: _matmul,
    _aten.softmax.int: _softmax,
    _aten.dropout.default: _dropout,
    _aten.cat.default: _cat,
    _aten.contiguous.default: _copied,
    _aten.pow.Tensor_Scalar: _power,
    _aten.mean.dim: _mean,
}
"""Rule of each operator that makes a new tensor."""

ANY_STRIDES = {
    _aten.linear.default: (0,),
    _aten.contiguous.default: (0,),
    **{operation.Tensor: (0, 1) for operation in _ARITHMETIC},
}
"""Arguments that need be no more than plain, by operator."""


def _ordinary(input: Tensor, *_: Any, **__: Any) -> bool:
    return is_ordinary(input)


def _in_place(input: Tensor, other: Any, **_: Any) -> bool:
    fits = not isinstance(other, Tensor) or (is_plain(other) and other.dtype == input.dtype)
    return fits and is_ordinary(input) and _arithmetic(input, other) == input.shape


def _contiguous(input: Tensor, **options: Any) -> bool:
    return is_plain(input) and not options and input.is_contiguous()


SAME: dict[Any, Callable[..., bool]] = {
    _aten.relu_.default: _ordinary,
    _aten.silu_.default: _ordinary,
    _aten.hardtanh_.default: _ordinary,
    _aten.contiguous.default: _contiguous,
    _aten.add_.Tensor: _in_place,
    _aten.mul_.Tensor: _in_place,
}
"""Operators that return their first argument, and whether they do so for a call."""

GROUPED = _aten._grouped_mm.default
ATTENTION = _aten.scaled_dot_product_attention.default
RESHAPE = _aten.reshape.default
VIEWS = frozenset(
    {
        _aten.view.default,
        _aten.transpose.int,
        _aten.permute.default,
        _aten.t.default,
        _aten.expand.default,
        _aten.unbind.int,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.unsqueeze.default,
        _aten.squeeze.dim,
        _aten.unflatten.int,
        _aten.chunk.default,
        _aten.detach.default,
        RESHAPE,
        _aten.flatten.using_ints,
    }
)
"""Operators whose results are views, for which torch's own kernels need no more than shapes."""

KERNELS = frozenset(
    {
        *(operation.default for operation in _ELEMENTWISE),
        *(operation.Tensor for operation in _ARITHMETIC),
        _aten.pow.Tensor_Scalar,
        _aten.clamp.default,
        _aten.clamp_min.default,
        _aten.where.self,
        _aten.mean.dim,
        _aten.sum.dim_IntList,
        _aten.cat.default,
        _aten.to.dtype,
        _aten.clone.default,
        _aten.embedding.default,
    }
)
"""Operators whose own kernels need no more than shapes, for calls that no rule is written for."""

MAY_COPY = (RESHAPE, _aten.flatten.using_ints)
"""Those of them whose results are views of contiguous tensors only."""
