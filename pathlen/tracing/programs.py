"""Exported programs that are more than a list of ATen calls on tensors of known sizes.

A program with control flow, with sizes that are symbols, or with arithmetic of sizes is run node by
node under the recorder, on tensors of the sizes of its example, as if it were the model.
"""

import copy
import inspect
import keyword
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import TraceError, UnsafeProgram
from pathlen.tracing.checked import BOUNDED
from pathlen.tracing.eager import record
from pathlen.tracing.guard import MOST_BYTES, Limits, guarded
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


def without_guards(program: ExportedProgram) -> ExportedProgram:
    """The same program without guards on its inputs, which are texts that torch runs as Python."""
    program = copy.copy(program)
    program._guards_code = []
    program.example_inputs = None  # others are made from it
    return program


def module_of(program: ExportedProgram) -> fx.GraphModule:
    """A program as a module that can be called, without guards on its inputs.

    Its arithmetic of sizes is bounded.

    Raises:
        TraceError: torch, which writes a module as Python code, cannot write one of its operators.
    """
    unwritable = {
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function" and any(map(keyword.iskeyword, str(node.target).split(".")))
    }
    if unwritable:
        raise TraceError(
            f"the exported program calls {', '.join(sorted(unwritable))}, which torch cannot write"
            " as Python code, as a part of the name is a word of Python: it cannot be run on data."
            " Export it without this operator, or pass the model itself"
        )
    checks = "check_guards" in inspect.signature(program.module).parameters
    module = without_guards(program).module(**({"check_guards": False} if checks else {}))
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            grows = [node for node in part.graph.nodes if node.target in BOUNDED]
            for node in grows:
                node.target = BOUNDED[node.target]
            if grows:
                part.recompile()
    return module


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


def check_example(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check that arguments have the sizes that a program was exported for, as far as it has such.

    Raises:
        TraceError: there are more or fewer, or one has another shape or dtype.
    """
    vals = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    inputs = program.graph_signature.user_inputs
    for name, leaf in zip(inputs, flat_arguments(program, args, kwargs), strict=False):
        val = vals.get(str(name))
        if isinstance(val, torch.Tensor) and not _fits(leaf, val):
            found = f"{tuple(leaf.shape)}, {leaf.dtype}" if isinstance(leaf, torch.Tensor) else leaf
            raise TraceError(
                f"the exported program was exported for an input {name!r} of {tuple(val.shape)},"
                f" {val.dtype}, but is given {found}. Leave the inputs out, or export it again with"
                " dynamic_shapes"
            )


def _fits(leaf: Any, val: torch.Tensor) -> bool:
    """Whether an argument has the dtype of an input, and its sizes where they are fixed."""
    if not isinstance(leaf, torch.Tensor) or (leaf.dtype, leaf.dim()) != (val.dtype, val.dim()):
        return False
    sizes = zip(leaf.shape, val.shape, strict=True)
    return all(found == size for found, size in sizes if isinstance(size, int))


def flat_arguments(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """The leaves of the arguments of a program, in its order.

    Raises:
        TraceError: the program takes arguments of another form.
    """
    spec = program.call_spec.in_spec
    if spec is None:
        raise TraceError("the exported program does not say what it takes and returns")
    names = spec.child(1).context if hasattr(spec, "child") else list(kwargs)
    flat, found = pytree.tree_flatten((args, {n: kwargs[n] for n in names if n in kwargs}))
    if found != spec or set(kwargs) - set(names):
        raise TraceError(f"the exported program takes arguments of the form {spec}, not {found}")
    return flat


def _zeros(val: torch.Tensor) -> torch.Tensor:
    sizes = [size if isinstance(size, int) else size.node.hint for size in val.shape]
    if None in sizes:
        raise TraceError(
            f"the exported program has an input of shape {tuple(val.shape)}, whose sizes have no"
            " values; give it arguments: pathlen.measure(program, args)"
        )
    if math.prod(sizes) > MOST_BYTES:
        raise TraceError(
            f"the exported program has an input of shape {tuple(sizes)}, of which it holds no"
            " example; give it arguments: pathlen.measure(program, args)"
        )
    return torch.zeros(sizes, dtype=val.dtype, device=val.device)


def record_program(
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    *,
    fake: bool,
    limits: Limits | None = None,
) -> Recording:
    """Record a run of a program, with the module paths that it was exported with.

    Raises:
        TraceError: the arguments are not those of the program, or see `record`.
        UnsafeProgram: it takes more than its limits allow.
        Exception: whatever the program raises.
    """
    module = module_of(program)
    spec = program.call_spec
    steps = _Steps(limits.most_calls if limits is not None else None)

    def call(place: Callable[[Any], None], /, *args: Any, **kwargs: Any) -> Any:
        flat = flat_arguments(program, args, kwargs)
        if spec.out_spec is None:
            raise TraceError("the exported program does not say what it takes and returns")
        with _batches_ended():
            result = _Replay(module, place, steps).run(*flat, enable_io_processing=False)
        return pytree.tree_unflatten(pytree.tree_leaves(result), spec.out_spec)

    with guarded(None if fake else limits):
        return record(module, args, kwargs, outputs, fake=fake, call=call)


@contextmanager
def _batches_ended() -> Iterator[None]:
    """Ends what a program has begun of `torch.vmap` and not ended."""
    before = torch._C._functorch.maybe_current_level() or 0
    try:
        yield
    finally:
        while (torch._C._functorch.maybe_current_level() or 0) > before:
            torch._C._functorch._vmap_decrement_nesting()


class _Steps:
    """Counts the steps of a program and of its parts.

    Args:
        most: steps that it may take, None for any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._taken = 0

    def take(self, node: fx.Node) -> None:
        """Count a step.

        Raises:
            UnsafeProgram: it is one too many.
        """
        self._taken += 1
        if self._most is not None and self._taken > self._most:
            raise UnsafeProgram(
                f"the exported program takes more than {self._most:,} steps, the last one at"
                f" {node.name!r}: a loop in it may never end. Measure the model that it was"
                " exported from instead"
            )


class _Replay(fx.Interpreter):
    """Runs a graph node by node, and says of which module each is."""

    def __init__(self, module: fx.GraphModule, place: Callable[[Any], None], steps: _Steps) -> None:
        super().__init__(module)
        self._place = place
        self._steps = steps

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        self._steps.take(n)
        stack = n.meta.get("nn_module_stack")
        if stack:
            self._place(list(stack.values()))
        return super().run_node(n)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor; or a part of the program, such as a branch, as a function."""
        found = super().get_attr(target, args, kwargs)
        if not isinstance(found, fx.GraphModule):
            return found
        part = _Replay(found, self._place, self._steps)
        return lambda *operands: part.run(*operands, enable_io_processing=False)
