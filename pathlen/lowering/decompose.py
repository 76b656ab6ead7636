"""Operations that no rule knows, written out in operations that rules know."""

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import decomposition_table

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.operations import call_by_name, functional, operation_name
from pathlen.lowering.values import Call, Value
from pathlen.tracing.eager import record_operator
from pathlen.tracing.recording import Recording

EQUIVALENTS: dict[str, Callable[..., Any]] = {  # by operation name; users add theirs
    "aten._sparse_mm": torch.mm,  # units know no layout
}


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

    def run(*tensors: torch.Tensor) -> Any:
        replaced = dict(zip(map(id, values), tensors, strict=True))
        arguments = call.replace_values(lambda value: replaced.get(id(value), value))
        return call_by_name(body, arguments, functional(call.func))

    stack = list(call.node.meta.get("nn_module_stack", {}).values())
    try:
        return record_operator(run, examples, stack)
    except Exception as error:  # written for data or devices that are not at hand
        raise UnsupportedOperation(
            f"its decomposition fails on tensors without data: {type(error).__name__}: {error}"
        ) from error


def _decomposition(func: Any) -> Callable[..., Any] | None:
    """A function that computes an operator by others: torch's table, or its composite kernel."""
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
