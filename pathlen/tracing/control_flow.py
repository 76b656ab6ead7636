"""Operators that hide control flow, run as the Python that they stand for.

`torch.cond` runs the branch that its condition asks for, `while_loop`, `scan`, `map` and
`associative_scan` run their steps one after another, each on its own. What wraps a part of an
exported program (a context without gradients, a checkpoint) runs that part. Packed sequences are
unpacked (`packed`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator

from pathlen.errors import TraceError
from pathlen.tracing.packed import PACKED

Function = Callable[..., Any]


def as_python(operator: Any) -> Function | None:
    """A function that takes the arguments of an operator and calls others, None for plain ones.

    Raises:
        TraceError: the operator takes functions and is none of those that are known.
    """
    if not isinstance(operator, HigherOrderOperator):
        return PACKED.get(operator)
    name = operator.name()
    if name not in _PLAIN_FORMS:
        raise TraceError(
            f"the operator {name!r} takes functions, and how it calls them is not known; call them"
            " in the forward itself"
        )
    return _PLAIN_FORMS[name]


def _cond(pred: Any, true_fn: Function, false_fn: Function, operands: Sequence[Any] = ()) -> Any:
    return true_fn(*operands) if bool(pred) else false_fn(*operands)


def _while_loop(
    cond_fn: Function, body_fn: Function, carried: Sequence[Any], additional: Sequence[Any] = ()
) -> Any:
    state = tuple(carried)
    while bool(cond_fn(*state, *additional)):
        state = tuple(body_fn(*state, *additional))
    return state


def _scan(
    combine_fn: Function, init: Sequence[Any], xs: Sequence[Any], additional: Sequence[Any] = ()
) -> Any:
    """Steps along the first axis; gives the last state, and what the steps gave, stacked."""
    state, given = list(init), []
    for step in range(len(xs[0])):
        found = combine_fn(*state, *[x[step] for x in xs], *additional)
        state = list(found[: len(init)])
        given.append(found[len(init) :])
    return (*state, *[torch.stack(parts) for parts in zip(*given, strict=True)])


def _map(function: Function, xs: Sequence[Any], additional: Sequence[Any] = ()) -> Any:
    """Calls along the first axis; gives what they gave, stacked."""
    found = [function(*[x[step] for x in xs], *additional) for step in range(len(xs[0]))]
    if isinstance(found[0], torch.Tensor):
        return torch.stack(found)
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def _associative_scan(
    combine_fn: Function, xs: Sequence[Any], additional: Sequence[Any] = ()
) -> Any:
    state = [x[0] for x in xs]
    given = [state]
    for step in range(1, len(xs[0])):
        state = list(combine_fn(*state, *[x[step] for x in xs], *additional))
        given.append(state)
    return tuple(torch.stack(parts) for parts in zip(*given, strict=True))


def _with_set_grad_enabled(enabled: bool, function: Function, *args: Any, **kwargs: Any) -> Any:
    with torch.set_grad_enabled(enabled):
        return function(*args, **kwargs)


def _with_autocast(
    device_type: str, dtype: Any, enabled: bool, cached: Any, function: Function, *args: Any
) -> Any:
    with torch.autocast(device_type, dtype, enabled, cached):
        return function(*args)


def _subgraph(function: Function, identifier: Any, *operands: Any) -> Any:
    return function(*operands)


def _wrapped(function: Function, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


_PLAIN_FORMS: dict[str, Function] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "map_impl": _map,
    "associative_scan": _associative_scan,
    "wrap_with_set_grad_enabled": _with_set_grad_enabled,
    "wrap_with_autocast": _with_autocast,
    "invoke_subgraph": _subgraph,
    "wrap": _wrapped,
}

KNOWN = frozenset(_PLAIN_FORMS)
"""Names of the operators of which it is known how they call the functions that they take."""
