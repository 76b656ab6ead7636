"""What an exported program says of its tensors is held against what its calls make of them.

A program states the shape and dtype of each tensor, and those of its parameters lie beside it a
second time, with the values. A file may state what it likes: the path graph would be of a network
that nobody could run.
"""

import operator
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode, UnsupportedFakeTensorException
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import TraceError
from pathlen.one_thread import unlogged
from pathlen.tracing.pure import is_of_torch, words
from pathlen.tracing.recording import computes_nothing

Form = tuple[torch.Size, torch.dtype]

_UNKNOWN = (NotImplementedError, UnsupportedFakeTensorException)
"""What is raised where nobody has said what a call returns, as for some operators of libraries."""


_OF_ONE_DTYPE = {
    getattr(torch.ops.aten, name)
    for name in words("addmm baddbmm bmm conv1d conv2d conv3d convolution dot linear matmul mm mv")
}


def check_stated(program: ExportedProgram) -> None:
    """Check that a plain program (`programs.is_plain`) states what it computes.

    Each call is asked on fake tensors of the forms that are stated of its arguments. What depends
    on values, or is known to nobody, is taken as stated.

    Raises:
        TraceError: it states another shape or dtype of a parameter, of what a call returns or of
            its arguments, or a call takes no such arguments.
    """
    for name, stated, found in _forms_of_state(program):
        if stated != found:
            raise _refusal(f"{name!r} is {_words(stated)}", f"its values are {_words(found)}")
    # torch logs what its mode raises, which is told below
    with unlogged("torch._subclasses.fake_tensor"), FakeTensorMode():
        results: dict[fx.Node, Any] = {}
        known: dict[Any, Any] = {}
        for node in program.graph.nodes:
            if node.op == "call_function" and not computes_nothing(node.target):
                _check_node(node, results, known)


def _forms_of_state(program: ExportedProgram) -> Iterator[tuple[str, Form, Form]]:
    """Names of parameters, buffers and constants, with the form stated and that of the values."""
    signature = program.graph_signature
    state = {**program.constants, **program.state_dict}
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        tensor, val = state.get(targets.get(node.name, "")), node.meta.get("val")
        if isinstance(tensor, torch.Tensor) and isinstance(val, torch.Tensor):
            yield targets[node.name], _form(val), _form(tensor)


def _check_node(node: fx.Node, results: dict[fx.Node, Any], known: dict[Any, Any]) -> None:
    """Look at a call; of one that returns several things, at those that are taken from it."""
    val = node.meta.get("val")
    if node.target is operator.getitem:
        source, number = node.args
        with suppress(KeyError, IndexError, TypeError):  # not known, or more than is returned
            _compare(node, val, results[source][number])  # type: ignore[index]
        return
    if not isinstance(node.target, OpOverload) or not is_of_torch(node.target):
        return
    operands = pytree.tree_map_only(fx.Node, _stated, (node.args, node.kwargs))
    leaves, spec = pytree.tree_flatten(operands)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not all(tensor.layout == torch.strided and not tensor.is_quantized for tensor in tensors):
        return
    key = (node.target, spec, *(_key(leaf) for leaf in leaves))
    if key not in known:  # most calls of a network are like others of it
        known[key] = _asked(node, operands, tensors)
    results[node] = known[key]
    _compare(node, val, known[key])


def _asked(node: fx.Node, operands: Any, tensors: list[torch.Tensor]) -> Any:
    """What a call returns, on fake tensors; None where nobody knows.

    Raises:
        TraceError: it takes no such arguments.
    """
    func: Any = node.target
    args, kwargs = pytree.tree_map_only(torch.Tensor, _fresh, operands)
    try:
        if func.overloadpacket in _OF_ONE_DTYPE and len({one.dtype for one in tensors}) > 1:
            raise TypeError("its operands have several dtypes")  # fake kernels do not look
        return func(*args, **kwargs)
    except _UNKNOWN:
        return None
    except Exception as error:
        if type(error).__module__.startswith("torch."):  # values are asked for: there are none
            return None
        told = str(error).partition("\n")[0]
        raise _refusal(
            f"{node.name!r}, a call of {func}, takes"
            f" {', '.join(_words(_form(tensor)) for tensor in tensors)}",
            f"that raises {type(error).__name__}: {told[:200]}",
        ) from error


def _stated(node: fx.Node) -> Any:
    return node.meta.get("val")


def _key(leaf: Any) -> Any:
    """What of an argument tells what a call returns: the type too, as 1 == 1.0 == True."""
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return type(leaf), leaf


def _fresh(val: torch.Tensor) -> torch.Tensor:
    """A fake tensor of a form, of its own: a call may write to it."""
    return torch.empty(val.shape, dtype=val.dtype, device=val.device)


def _compare(node: fx.Node, val: Any, result: Any) -> None:
    if not isinstance(val, torch.Tensor) or not isinstance(result, torch.Tensor):
        return
    stated, found = _form(val), _form(result)
    if stated != found and all(isinstance(size, int) for size in result.shape):
        raise _refusal(
            f"{node.name!r}, a call of {node.target}, returns {_words(stated)}",
            f"it returns {_words(found)}",
        )


def _form(tensor: torch.Tensor) -> Form:
    return tensor.shape, tensor.dtype


def _words(form: Form) -> str:
    shape, dtype = form
    return f"{tuple(shape)} of {str(dtype).removeprefix('torch.')}"


def _refusal(stated: str, found: str) -> TraceError:
    return TraceError(
        f"the exported program says that {stated}, and {found}: what it says of its tensors does"
        " not fit. Measure the model that it was exported from, or export it again"
    )
