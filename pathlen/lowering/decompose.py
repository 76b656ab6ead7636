"""Operations that no rule knows, written out in operations that rules know."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.labels import compact
from pathlen.lowering.operations import BAGS, OnCopy, call_by_name, functional, operation_name
from pathlen.lowering.values import Call, Value
from pathlen.tracing.eager import record_operator
from pathlen.tracing.recording import Recording


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot product attention as models write it out, without dropout."""
    if enable_gqa:
        heads = query.shape[-3]
        key, value = (t.repeat_interleave(heads // t.shape[-3], -3) for t in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones_like(scores[0], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def _polar(abs: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Complex numbers of absolute values and angles."""
    return abs * torch.exp(1j * angle)


def _imaginary_exponential(self: torch.Tensor) -> torch.Tensor:
    """The exponential of an imaginary tensor."""
    return torch.complex(self.imag.cos(), self.imag.sin())


def _distances(x1: torch.Tensor, x2: torch.Tensor, p: float, *_: Any, **__: Any) -> torch.Tensor:
    """Distances between all rows of two matrices, by their definition."""
    gaps = x1[..., :, None, :] - x2[..., None, :, :]
    distances: torch.Tensor = torch.linalg.vector_norm(gaps, p, dim=-1)
    return distances


def _time_first(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, pad: int = 0
) -> torch.Tensor:
    """A convolution along time whose axes are in the order (time, batch, channels)."""
    kernel = weight.permute(2, 1, 0)
    result = torch.conv1d(source.permute(1, 2, 0), kernel, bias, padding=pad)
    return result.permute(2, 0, 1)


def _dense(
    sparse_dim: int,
    dense_dim: int,
    size: list[int],
    indices: torch.Tensor,
    values: torch.Tensor,
    **_: Any,
) -> torch.Tensor:
    """A sparse tensor, laid out densely: units know no layout."""
    places = indices.unbind(0)
    return values.new_zeros(size).index_put(places, values, accumulate=True)


def _solved(
    A: torch.Tensor,  # noqa: N803 - the name in the schema
    B: torch.Tensor,  # noqa: N803
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> torch.Tensor:
    """What a triangular matrix times it gives: the inverse of the matrix times that."""
    matrix = A.triu() if upper else A.tril()
    if unitriangular:
        matrix = matrix.triu(1) if upper else matrix.tril(-1)
        matrix = matrix + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    inverse = torch.linalg.inv(matrix)
    solution: torch.Tensor = inverse @ B if left else B @ inverse
    return solution


def _weighted_bags(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: torch.Tensor,
    include_last_offset: bool = False,
    *_: Any,
) -> tuple[torch.Tensor, ...]:
    """Sums of rows of a table, each times a number, in bags of as many rows each."""
    bags = len(offsets) - include_last_offset
    rows = weight[indices.reshape(bags, -1)]
    sums = (rows * per_sample_weights.reshape(bags, -1, 1)).sum(1)
    places = torch.zeros_like(indices)
    return sums, places, torch.zeros_like(places), torch.zeros_like(places)


EQUIVALENTS: dict[str, Callable[..., Any]] = {  # by operation name; users add theirs
    "aten.polar": _polar,
    "aten.exp": _imaginary_exponential,  # its rule asks for it
    "aten.conv_tbc": _time_first,
    "aten.cdist": _distances,
    "aten._cdist_forward": _distances,
    "aten._euclidean_dist": partial(_distances, p=2.0),
    "aten._sparse_coo_tensor_with_dims_and_tensors": _dense,
    "aten._sparse_mm": torch.mm,
    "aten.linalg_solve_triangular": _solved,
    **dict.fromkeys(BAGS, _weighted_bags),  # their rule asks for it
    "aten.scaled_dot_product_attention": _attention,
}


class Decompositions:
    """The calls that operations are made of; equal calls of one module are written out once.

    A recurrent layer calls its cell once a step, with the same parameters.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[list[Value], Recording | None]] = {}

    def of(self, call: Call) -> Recording | None:
        """See `decompose`."""
        key = _key(call)
        if key not in self._known:
            # while its constants are kept, no others have their identity
            constants = [value for value in call.values() if not value.varies]
            self._known[key] = constants, decompose(call)
        return self._known[key][1]


def decompose(call: Call) -> Recording | None:
    """The calls that an operation is made of, None where torch knows none.

    The placeholders of the recording stand for `call.values()`, in order; its outputs are the
    results of the call.

    Raises:
        UnsupportedOperation: the decomposition that torch knows cannot be run on shapes alone.
    """
    body = _decomposition(functional(call.func))
    if body is None:
        return None
    values = list(call.values())
    examples = [_example(value) for value in values]
    ordered = _paths_last(call)

    def run(*tensors: torch.Tensor) -> Any:
        replaced = dict(zip(map(id, values), tensors, strict=True))
        arguments = ordered.replace_values(lambda value: replaced.get(id(value), value))
        return call_by_name(body, arguments, functional(call.func))

    stack = list(call.node.meta.get("nn_module_stack", {}).values())
    try:
        return record_operator(run, examples, stack)
    except Exception as error:  # written for data or devices that are not at hand
        raise UnsupportedOperation(
            f"its decomposition fails on tensors without data: {type(error).__name__}: {error}"
        ) from error


def _paths_last(call: Call) -> Call:
    """An einsum of three or more tensors that contracts those without paths first.

    Torch contracts them in their order, which is spelling. One that holds a single unit, as the
    gates of the experts that score highest do, meets what the others are together.
    """
    if call.name != "aten.einsum" or len(call["tensors"]) < 3:
        return call
    inputs, arrow, out = call["equation"].replace(" ", "").partition("->")
    pairs = [*zip(inputs.split(","), call["tensors"], strict=True)]
    pairs.sort(key=lambda pair: (pair[1].is_path, pair[1].is_path and _holds_one(pair[1])))
    equation = ",".join(letters for letters, _ in pairs) + arrow + out
    tensors = [tensor for _, tensor in pairs]
    return replace(call, arguments={"equation": equation, "tensors": tensors, "path": None})


def _holds_one(value: Value) -> bool:
    labels = compact(value.labels)
    return labels.numel() == 1 and value.shape.numel() > 1


def _key(call: Call) -> Any:
    """What the recording of a call depends on, and which constants it reads."""
    order = {id(value): number for number, value in reversed(list(enumerate(call.values())))}

    def described(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return type(leaf), leaf
        example = _example(leaf)
        constant = None if leaf.varies else id(leaf)
        layout = example.shape, example.stride(), example.dtype
        return order.get(id(leaf)), *layout, constant, leaf.is_path

    leaves, structure = pytree.tree_flatten(dict(call.arguments))
    stack = call.node.meta.get("nn_module_stack", {}).values()
    ordered = [order[id(value)] for value in _paths_last(call).values()]
    return (
        call.func,
        str(structure),
        tuple(ordered),
        tuple(map(described, leaves)),
        tuple(str(path) for path, _ in stack),
    )


def _decomposition(func: Any) -> Callable[..., Any] | None:
    """A function that computes an operator by others: torch's table, or its composite kernel."""
    func = func.in_place if isinstance(func, OnCopy) else func
    name = operation_name(func)
    for key in (f"{name}.{func._overloadname}", name):
        if key in EQUIVALENTS:
            return EQUIVALENTS[key]
    if func in decomposition_table:
        return decomposition_table[func]
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    if func.has_kernel_for_dispatch_key(composite):
        return func.decompose  # type: ignore[no-any-return]
    return None


def _example(value: Value) -> torch.Tensor:
    val = value.node.meta["val"]
    strided = isinstance(val, torch.Tensor) and val.layout is torch.strided
    if strided and val.shape == value.shape:
        return torch.empty_strided(val.shape, val.stride(), dtype=val.dtype, device="meta")
    return torch.empty(value.shape, dtype=value.dtype, device="meta")
