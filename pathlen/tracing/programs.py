"""Exported programs that are more than a list of ATen calls on tensors of known sizes.

A program with control flow, with sizes that are symbols, or with arithmetic of sizes is run node by
node under the recorder, on tensors of the sizes of its example, as if it were the model.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import TraceError
from pathlen.tracing.eager import record
from pathlen.tracing.recording import Recording

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def is_plain(program: ExportedProgram) -> bool:
    """Whether a program is a list of ATen calls on tensors of known sizes."""
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            return False
        is_call = isinstance(node.target, torch._ops.OpOverload)
        if node.op == "call_function" and not (is_call or node.target is operator.getitem):
            return False
        for val in pytree.tree_leaves(node.meta.get("val")):
            sizes = (*val.shape, *val.stride()) if isinstance(val, torch.Tensor) else (val,)
            if any(isinstance(size, _SYMBOLS) for size in sizes):
                return False
    return True


def example_of(program: ExportedProgram) -> Arguments:
    """Arguments that a program was exported with, or tensors of zeros of their sizes.

    Raises:
        TraceError: a size has no value.
    """
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        return tuple(args), dict(kwargs)
    signature = program.graph_signature
    vals = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    leaves = [vals[name] for name in signature.user_inputs if name in vals]
    made = [_zeros(val) if isinstance(val, torch.Tensor) else val for val in leaves]
    args, kwargs = pytree.tree_unflatten(made, program.call_spec.in_spec)
    return tuple(args), dict(kwargs)


def _zeros(val: torch.Tensor) -> torch.Tensor:
    sizes = [size if isinstance(size, int) else size.node.hint for size in val.shape]
    if None in sizes:
        raise TraceError(
            f"the exported program has an input of shape {tuple(val.shape)}, whose sizes have no"
            " values; give it arguments: pathlen.measure(program, args)"
        )
    return torch.zeros(sizes, dtype=val.dtype, device=val.device)


def record_program(
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    *,
    fake: bool,
) -> Recording:
    """Record a run of a program, with the module paths that it was exported with.

    Raises:
        TraceError: the arguments are not those of the program, or see `record`.
        Exception: whatever the program raises.
    """
    checks = "check_guards" in inspect.signature(program.module).parameters
    module = program.module(**({"check_guards": False} if checks else {}))
    spec = program.call_spec

    def call(place: Callable[[Any], None], /, *args: Any, **kwargs: Any) -> Any:
        if spec.in_spec is None or spec.out_spec is None:
            raise TraceError("the exported program does not say what it takes and returns")
        names = spec.in_spec.child(1).context if hasattr(spec.in_spec, "child") else list(kwargs)
        flat, found = pytree.tree_flatten((args, {n: kwargs[n] for n in names if n in kwargs}))
        if found != spec.in_spec:
            raise TraceError(
                f"the exported program takes arguments of the form {spec.in_spec}, not {found}"
            )
        result = _Replay(module, place).run(*flat, enable_io_processing=False)
        return pytree.tree_unflatten(pytree.tree_leaves(result), spec.out_spec)

    return record(module, args, kwargs, outputs, fake=fake, call=call)


class _Replay(fx.Interpreter):
    """Runs a graph node by node, and says of which module each is."""

    def __init__(self, module: fx.GraphModule, place: Callable[[Any], None]) -> None:
        super().__init__(module)
        self._place = place

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        stack = n.meta.get("nn_module_stack")
        if stack:
            self._place(list(stack.values()))
        return super().run_node(n)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor; or a part of the program, such as a branch, as a function."""
        found = super().get_attr(target, args, kwargs)
        if not isinstance(found, fx.GraphModule):
            return found
        part = _Replay(found, self._place)
        return lambda *operands: part.run(*operands, enable_io_processing=False)
