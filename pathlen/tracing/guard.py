"""Bounds on what an exported program may take when it is run: memory, work, calls.

A program from a file names sizes as it likes: `full([10**12], 1)`, sixty doublings, a loop that
never ends. Before a call makes a tensor, its size is found out on the meta device, where tensors
have no memory; a call that would pass a bound is not made. The bounds grow with the program's own
tensors, so that large models are no special case.

Work is counted in elements that are read or written. A product of matrices, a decomposition or a
convolution counts an element for each `PRODUCTS_A_STEP` of its multiplications.
"""

import math
import re
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from pathlen.errors import UnsafeProgram
from pathlen.tracing.control_flow import as_python
from pathlen.tracing.modes import DispatchMode, tensors_among
from pathlen.tracing.pure import words

MOST_BYTES = 2 << 30
MOST_WORK = 100_000_000_000
MOST_CALLS = 100_000
"""Bytes that an exported program may hold beside its own tensors, elements that it may read and
write, and calls that it may make."""

TIMES_ITS_OWN = 8  # if that is more than MOST_BYTES
PRODUCTS_A_STEP = 16
_WIDEST = 16  # bytes of an element
_SMALL = 1 << 10  # elements; of tensors that are not larger, only some operators make large ones
_KEEPS_SIZE = words(  # integer arguments that make no result larger than the operands
    "alpha beta correction dim dim0 dim1 dims dtype end_dim exponent index k max min other self"
    " source start_dim value"
)
_PRODUCTS = re.compile(
    r".*(mm|mv|matmul|dot|convolution|bilinear|dist|attention|lstm|gru|rnn|encoder_layer|linear"
    r"|multi_head).*"
)
_MATRICES = re.compile(
    r".*(linalg|svd|qr|cholesky|inverse|det|lu_|lstsq|matrix_|triangular|ormqr|orgqr|geqrf|eig).*"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run of an exported program may take.

    Attributes:
        most_bytes: of tensors that it holds at a time, beside its own.
        most_work: elements that it reads and writes.
        most_calls: operations that are recorded of it.
    """

    most_bytes: int
    most_work: int
    most_calls: int

    @classmethod
    def of(cls, program: torch.export.ExportedProgram) -> "Limits":
        """The limits of a program with its parameters, buffers and constants."""
        tensors = [*program.state_dict.values(), *program.constants.values()]
        own = sum(t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor))
        return cls(max(MOST_BYTES, TIMES_ITS_OWN * own), MOST_WORK, MOST_CALLS)

    def guard(self, factor: int = 1) -> "Guard":
        """What keeps a block within these limits, or within so many times the work."""
        return Guard(self.most_bytes, factor * self.most_work)


def guarded(limits: Limits | None, factor: int = 1) -> AbstractContextManager[Any]:
    """A block that runs a program: within limits, where there are any."""
    return nullcontext() if limits is None else limits.guard(factor)


class Guard(DispatchMode):
    """Looks at every call that is made inside, and refuses those that would pass a bound.

    Args:
        most_bytes: of tensors that are held at a time.
        most_work: elements that are read and written.
        most_calls: that are made; as many as there are, if None.
    """

    def __init__(self, most_bytes: int, most_work: int, most_calls: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most_bytes = most_bytes
        self._most_work = most_work
        self._calls_left = math.inf if most_calls is None else most_calls
        self._held = _Held()
        self._work = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            written_out = as_python(func)
            with self:
                return written_out(*args, **kwargs)  # type: ignore[misc]
        if _is_view(func):
            self._count(func, 1)
            return func(*args, **kwargs)
        given = tensors_among((*args, *kwargs.values()))
        if _takes_no_memory(given, kwargs.get("device")):
            return func(*args, **kwargs)
        if _is_composite(func):  # what it makes on its way counts, too
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._check(func, args, kwargs, given)
        result = func(*args, **kwargs)
        if not func._schema.is_mutable:
            for tensor in tensors_among((result,)):
                self._held.add(tensor)
        return result

    def _check(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[torch.Tensor]
    ) -> None:
        """Refuse a call whose result would be too large, or which would take too long."""
        sizes = [tensor.numel() for tensor in given]
        if sizes and max(sizes) <= _SMALL and _keeps_size(func):
            self._count(func, _SMALL)
            return
        made = _made(func, args, kwargs, given)
        size = sum(numel * bytes_each for numel, bytes_each in made)
        if size + self._held.bytes > self._most_bytes:
            raise UnsafeProgram(
                f"{func} makes tensors of {size:,} bytes beside {self._held.bytes:,} bytes that are"
                f" held; an exported program may take {self._most_bytes:,} bytes (2 GiB, or eight"
                " times its own tensors). Measure the model that it was exported from instead"
            )
        self._count(func, _work(func, given, [numel for numel, _ in made], args, kwargs))

    def _count(self, func: Any, work: int) -> None:
        self._work += work
        self._calls_left -= 1
        if self._calls_left < 0:
            raise UnsafeProgram(f"more calls are made than may be, the last one of {func}")
        if self._work > self._most_work:
            raise UnsafeProgram(
                f"the exported program reads and writes more than {self._most_work:,} elements, the"
                f" last ones in {func}, which takes too long. Measure the model that it was"
                " exported from instead"
            )


class _Held:
    """Bytes of the tensors that were made and are still there."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor until nothing holds it any more."""
        if tensor.layout is not torch.strided:
            return
        size = tensor.untyped_storage().nbytes()
        if size > _SMALL:
            self.bytes += size
            weakref.finalize(tensor.untyped_storage(), self._drop, size)

    def _drop(self, size: int) -> None:
        self.bytes -= size


def _takes_no_memory(given: list[torch.Tensor], device: Any) -> bool:
    """Whether what a call makes has no values: it is fake, or on the meta device."""
    if any(isinstance(tensor, FakeTensor) for tensor in given):
        return True
    if device is not None:
        return torch.device(device).type == "meta"
    return any(tensor.is_meta for tensor in given)


@cache
def _is_view(func: Any) -> bool:
    """Whether the result of an operator is always a view, which takes no memory."""
    returns = func._schema.returns
    is_shared = [r.alias_info is not None and not r.alias_info.is_write for r in returns]
    return bool(is_shared) and all(is_shared) and not func._can_decompose()


@cache
def _is_composite(func: Any) -> bool:
    return bool(func._can_decompose())


@cache
def _keeps_size(func: Any) -> bool:
    """Whether no number that is given to an operator makes its result large."""
    numbers = [a for a in func._schema.arguments if "int" in str(a.type)]
    lists = any("List[Tensor" in str(argument.type) for argument in func._schema.arguments)
    return not lists and all(argument.name in _KEEPS_SIZE for argument in numbers)


@cache
def _makes_size(func: Any) -> bool:
    """Whether an operator makes a tensor of the size that is its first argument, as `zeros`."""
    arguments = func._schema.arguments
    has_tensors = any("Tensor" in str(argument.type) for argument in arguments)
    names = [argument.name for argument in arguments]
    return not has_tensors and names[0] in ("size", "s") and "stride" not in names


@cache
def _is_pointwise(func: Any) -> bool:
    """Whether an operator makes one tensor, each element of one element of each operand."""
    lists = any("List[Tensor" in str(argument.type) for argument in func._schema.arguments)
    return torch.Tag.pointwise in func.tags and not lists and len(func._schema.returns) == 1


def _broadcast(tensors: list[torch.Tensor]) -> int:
    """Elements of the result of a pointwise operator."""
    first, *others = [tensor.shape for tensor in tensors]
    if all(shape == first for shape in others):
        return first.numel()
    return math.prod(torch.broadcast_shapes(first, *others))


def _written_size(args: tuple[Any, ...]) -> tuple[int, int]:
    size = args[0] if args and isinstance(args[0], (list, tuple)) else ()
    return math.prod(size), _WIDEST


def _made(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[torch.Tensor]
) -> list[tuple[int, int]]:
    """Elements of the tensors that a call makes, and the bytes of each element.

    Raises:
        UnsafeProgram: nothing tells before it is called.
    """
    schema = func._schema
    if schema.is_mutable or not any("Tensor" in str(r.type) for r in schema.returns):
        return []
    if _makes_size(func):
        return [_written_size(args)]
    if given and _is_pointwise(func):
        return [(_broadcast(given), _WIDEST)]
    if schema.name in _BY_VALUES:
        return [(int(_BY_VALUES[schema.name](*args, **kwargs)), 8)]
    args, kwargs = pytree.tree_map_only(torch.Tensor, _on_meta, (args, kwargs))
    for argument in schema.arguments:
        if argument.name == "device":
            kwargs = {**kwargs, "device": torch.device("meta")}
        if argument.name == "generator":
            kwargs = {**kwargs, "generator": None}
    try:
        made = tensors_among((func(*args, **kwargs),))
    except NotImplementedError as error:
        raise UnsafeProgram(
            f"nothing tells how large the result of {func} is before it is called; so it is not"
            " called for an exported program. Measure the model that it was exported from instead"
        ) from error
    memory = [tensor.untyped_storage().nbytes() for tensor in made]
    return [(max(t.numel(), size), 1) for t, size in zip(made, memory, strict=True)]


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _picked(tensor: torch.Tensor, indices: list[torch.Tensor | None]) -> int:
    """Elements of `tensor[indices]`, masks among the indices."""
    places: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            count = int(index.count_nonzero())
            places += [torch.empty(count, dtype=torch.long, device="meta")] * index.dim()
        else:
            places.append(None if index is None else _on_meta(index))
    return int(torch.ops.aten.index.Tensor(_on_meta(tensor), places).numel())


def _repeated(repeats: torch.Tensor, *, output_size: int | None = None) -> int:
    return max(int(repeats.sum()), output_size or 0)


def _counted(tensor: torch.Tensor, weights: Any = None, minlength: int = 0) -> int:
    return max(int(tensor.max()) + 1 if tensor.numel() else 0, minlength)


_BY_VALUES: dict[str, Callable[..., int]] = {
    "aten::index": _picked,
    "aten::_unsafe_index": _picked,
    "aten::repeat_interleave": _repeated,
    "aten::bincount": _counted,
    "aten::nonzero": lambda tensor: tensor.numel() * max(1, tensor.dim()),
    "aten::masked_select": lambda tensor, mask: torch.broadcast_shapes(
        tensor.shape, mask.shape
    ).numel(),
    **{
        f"aten::{name}": lambda tensor, *args, **kwargs: 3 * tensor.numel()
        for name in words("_unique _unique2 unique_dim unique_consecutive unique_dim_consecutive")
    },
}
"""Operators whose results are as large as values say, and how many elements that are at most."""


def _work(
    func: Any,
    given: list[torch.Tensor],
    made: list[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> int:
    """About how many elements a call reads and writes."""
    name = func._schema.name.partition("::")[2]
    sizes = [*(tensor.numel() for tensor in given), *made, 1]
    linear = sum(sizes)
    if _is_pointwise(func):
        return linear
    if "conv" in name and len(given) > 1:
        weight = given[1]
        products = max(sizes) * weight.numel() // max(1, weight.shape[0] if weight.dim() else 1)
        return linear + products // PRODUCTS_A_STEP
    if _PRODUCTS.fullmatch(name):
        return linear + math.isqrt(math.prod(_largest(sizes))) // PRODUCTS_A_STEP
    if _MATRICES.fullmatch(name):
        return linear + math.isqrt(max(sizes) ** 3)
    names = [argument.name for argument in func._schema.arguments]
    if "kernel_size" in names:
        kernel = {**dict(zip(names, args, strict=False)), **kwargs}["kernel_size"]
        return linear + max(sizes) * int(math.prod(pytree.tree_leaves(kernel)))
    return linear


def _largest(sizes: list[int]) -> list[int]:
    """The three largest of some numbers."""
    largest = sorted(sizes)[-3:]
    return [*largest, *[largest[-1]] * (3 - len(largest))]
