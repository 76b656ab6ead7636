"""Exported programs are checked before any of them is run: all that they call must be computations.

A program comes as a graph of calls, with parts of their own in operators that take functions. It is
read, not run: each call is of an operator that is known to be pure (`pure`), of one that takes
functions and is written out here (`control_flow`), or of one of a few functions of numbers.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import fx
from torch._functorch import predispatch
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import UnsafeProgram
from pathlen.tracing.control_flow import KNOWN
from pathlen.tracing.guard import MOST_CALLS
from pathlen.tracing.pure import is_of_torch, reason_against, reason_against_arguments, words
from pathlen.tracing.recording import module_path

NUMBERS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in words(
            "abs add and_ eq floordiv ge getitem gt le lshift lt mod mul ne neg not_ or_ pos pow"
            " rshift sub truediv xor"
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in words(
            "sym_float sym_fresh_size sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum"
        )
        if hasattr(torch, name)
    },
}
"""Functions of sizes and other numbers, as programs name them."""

BATCHES: dict[str, Callable[..., Any]] = {
    f"torch._functorch.predispatch.{name}": getattr(predispatch, name)
    for name in words(
        "_add_batch_dim _remove_batch_dim _vmap_decrement_nesting _vmap_increment_nesting"
        " lazy_load_decompositions"
    )
    if hasattr(predispatch, name)
}
"""What stands for `torch.vmap` in programs, in pairs that begin and end it."""

_FUNCTIONS = frozenset({*NUMBERS.values(), round})
PLACE = re.compile(r"[^\x00-\x1f\x7f\"'\\]*")
"""Names of parameters, which stand between quotes in code."""

_RANDOMNESS = ("error", "different", "same")
_PLAIN = (fx.Node, bool, int, float, type(None))
_SHOWN = 5
_MOST_BITS = 64


def check_program(program: ExportedProgram) -> None:
    """Check that an exported program does nothing but compute.

    Raises:
        UnsafeProgram: it calls something else; all such calls are told.
    """
    parts = [part for part in program.graph_module.modules() if isinstance(part, fx.GraphModule)]
    calls = sum(len(part.graph.nodes) for part in parts)
    if calls > MOST_CALLS:
        raise UnsafeProgram(
            f"the exported program has {calls:,} calls, and {MOST_CALLS:,} are read at most;"
            " measure the model that it was exported from instead"
        )
    found = [*_offences(parts), *_offensive_names(program, parts)]
    if not found:
        return
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    listed = "".join(f"\n  {line}" for line in found[:_SHOWN])
    raise UnsafeProgram(
        "the exported program is not run, for not all that it calls is known to be a pure"
        f" computation:{listed}{more}\nMeasure the model that it was exported from, or export it"
        " again without these calls."
    )


def check_traced(module: fx.GraphModule) -> None:
    """Check that a traced graph, which is code otherwise, calls no operator on a file or the like.

    Raises:
        UnsafeProgram: an operator of torch takes a text that is none of the words that it knows,
            a generator, or an object.
    """
    for node in module.graph.nodes:
        func = node.target
        if isinstance(func, OpOverload) and is_of_torch(func):
            reason = reason_against_arguments(func, node.args, node.kwargs)
            if reason is not None:
                raise UnsafeProgram(
                    f"the graph is not run: {node.name!r}, a call of {func}, {reason}. Measure the"
                    " model that it was traced from"
                )


def _offences(parts: Iterable[fx.GraphModule]) -> Iterator[str]:
    """What is wrong, in words, in a program and in all of its parts."""
    for part in parts:
        for node in part.graph.nodes:
            reason = _reason_against_node(node, part)
            if reason is not None:
                place = module_path(node) or "(top level)"
                yield f"{node.name!r} in module {place!r}: {_target(node)} {reason}"[:500]


def _offensive_names(program: ExportedProgram, parts: Iterable[fx.GraphModule]) -> Iterator[str]:
    """What is wrong with names, in words: torch writes them into code that it runs."""
    signature = program.graph_signature
    for spec in (*signature.input_specs, *signature.output_specs):
        if spec.target is not None and PLACE.fullmatch(spec.target) is None:
            yield f"{spec.target[:60]!r} is no name of a parameter, buffer or constant"
    names = [node.name for part in parts for node in part.graph.nodes]
    call = program.module_call_graph[0].signature if program.module_call_graph else None
    if call is not None:
        names += call.forward_arg_names or ()
        nest = call.in_spec
        if nest is not None and nest.num_children == 2:
            keywords = nest.child(1).context if hasattr(nest, "child") else ()
            names += [name for name in keywords or () if isinstance(name, str)]
    for name in names:
        if not name.isidentifier():
            yield f"{name[:60]!r} is no name of a node or an argument"


def _target(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return str(node.target) if isinstance(node.target, OpOverload) else name


def _reason_against_node(node: fx.Node, part: fx.GraphModule) -> str | None:
    if node.op in ("placeholder", "output"):
        return None
    if node.op == "get_attr":
        return _reason_against_attribute(node, part)
    if node.op != "call_function":
        return f"is called as a {node.op.removeprefix('call_')}"
    func = node.target
    if isinstance(func, OpOverload):
        return reason_against(func) or reason_against_arguments(func, node.args, node.kwargs)
    if isinstance(func, HigherOrderOperator):
        if func.name() not in KNOWN:
            return "takes functions, and how it calls them is not known"
        return None
    batches = any(func is known for known in BATCHES.values())
    if not batches and not any(func is known for known in _FUNCTIONS):
        return "is a Python function"
    for leaf in pytree.tree_leaves((node.args, node.kwargs)):
        if not (isinstance(leaf, _PLAIN) or (batches and leaf in _RANDOMNESS)):
            return "takes something else than numbers"
    return None


def _reason_against_attribute(node: fx.Node, part: fx.GraphModule) -> str | None:
    found: Any = part
    for name in str(node.target).split("."):
        if isinstance(found, torch.nn.Module):
            found = {**found._modules, **found._parameters, **found._buffers, **vars(found)}.get(
                name
            )
        else:
            found = None
    known = (torch.Tensor, fx.GraphModule, pytree.TreeSpec)
    return None if isinstance(found, known) else "is no tensor and no part of the program"


def product(one: Any, other: Any) -> Any:
    """A product that is a size, or any other number that is no integer."""
    return _sized(one * other)


def power(base: Any, exponent: Any) -> Any:
    """A power, likewise."""
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        _sized(1 << min(max(exponent, 0), 2 * _MOST_BITS))
    return _sized(base**exponent)


def shifted(number: Any, places: Any) -> Any:
    """An integer moved to the left, likewise."""
    _sized(1 << min(max(int(places), 0), 2 * _MOST_BITS))
    return _sized(number << places)


def _sized(number: Any) -> Any:
    """A number that is such as sizes are.

    Raises:
        UnsafeProgram: it has more than 64 bits.
    """
    if isinstance(number, int) and number.bit_length() > _MOST_BITS:
        raise UnsafeProgram(
            f"the exported program computes an integer of more than {_MOST_BITS} bits, which is no"
            " size of anything; measure the model that it was exported from instead"
        )
    return number


BOUNDED: dict[Any, Callable[..., Any]] = {
    operator.mul: product,
    operator.pow: power,
    operator.lshift: shifted,
}
"""What stands for functions whose results may grow without end, where a program is run."""
