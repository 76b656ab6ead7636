"""Names for the tensors that go into a model and come out of it."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pathlen.errors import TraceError


def as_tuple(args: Any) -> tuple[Any, ...]:
    """The positional arguments: a tensor or another single value stands for a tuple of one."""
    if args is None:
        return ()
    return tuple(args) if isinstance(args, (tuple, list)) else (args,)


def input_names(forward: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """A name for each positional argument, from the signature of `forward` where it has one."""
    try:
        bound = inspect.signature(forward).bind_partial(*args)
    except (TypeError, ValueError):  # no signature, or arguments that forward itself will refuse
        return [f"input_{position}" for position in range(len(args))]
    names: list[str] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{name}_{position}" for position in range(len(value))]
        else:
            names.append(name)
    return names


def named_tensors(value: Any, name: str) -> list[tuple[str, torch.Tensor]]:
    """Every tensor in a nest of containers, with a dotted name that starts with `name`."""
    return [
        (dotted_name((name, *path)), leaf)
        for path, leaf in _leaves(value)
        if isinstance(leaf, torch.Tensor)
    ]


def dotted_name(path: tuple[Any, ...]) -> str:
    """A pytree path as text: ("a", [0], .b) is "a.0.b"."""
    return ".".join(map(_key, path)).strip(".")


def select_outputs(
    tensors: list[tuple[str, torch.Tensor]], outputs: Any
) -> list[tuple[str, torch.Tensor]]:
    """The tensors that count as outputs of the model.

    Args:
        tensors: all tensors that the model returned, with their names.
        outputs: None for every floating-point tensor except caches; a name, a position or a list
            of them (a name also stands for everything below it); or a function of (name, tensor).

    Raises:
        TraceError: nothing is left, or a name or position does not exist; the message lists
            what the model returned.
    """
    listing = ", ".join(f"{name or 'output'}: {tuple(t.shape)} {t.dtype}" for name, t in tensors)
    if outputs is None:
        chosen = [(name, t) for name, t in tensors if not _is_cache(name)]
    elif callable(outputs):
        chosen = [(name, t) for name, t in tensors if outputs(name, t)]
    else:
        wanted = outputs if isinstance(outputs, (list, tuple, set)) else [outputs]
        chosen = []
        for key in wanted:
            found = _pick(tensors, key)
            if not found:
                raise TraceError(f"outputs={key!r} is not among what the model returned: {listing}")
            chosen += found
    floating = [(name, t) for name, t in chosen if t.is_floating_point() or t.is_complex()]
    if not floating:
        raise TraceError(
            "the model returned no floating-point tensor to measure paths to"
            + (f"; it returned {listing}" if listing else "; it returned no tensor at all")
        )
    return floating


def _pick(tensors: list[tuple[str, torch.Tensor]], key: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(key, int):
        return tensors[key : key + 1] if 0 <= key < len(tensors) else []
    return [(name, t) for name, t in tensors if name == key or name.startswith(f"{key}.")]


def _is_cache(name: str) -> bool:
    """Key-value caches of language models are state for a next call, not a result of this one."""
    return name.split(".")[0] in ("past_key_values", "mems", "cache_params", "past_buckets_states")


def _leaves(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping)):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _leaves(fields)
    if _is_own_mapping(value):  # whatever torch knows of it, it has keys
        return _leaves(dict(value))
    found: list[tuple[tuple[Any, ...], Any]] = []
    for path, leaf in pytree.tree_flatten_with_path(value, is_leaf=_is_own_mapping)[0]:
        nested = dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)
        if nested or (isinstance(leaf, Mapping) and path):
            inner = _leaves(dict(leaf) if isinstance(leaf, Mapping) else leaf)
            found += [((*path, *rest), item) for rest, item in inner]
        else:
            found.append((path, leaf))
    return found


def _is_own_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and type(value) is not dict


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
