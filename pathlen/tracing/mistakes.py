"""What easy mistakes are answered with: what to write instead."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.errors import TraceError
from pathlen.graph.path_graph import PathGraph


def named_arguments(kwargs: Any) -> dict[str, Any]:
    """The keyword arguments of a call, as a dictionary of its own.

    Raises:
        TraceError: They are no mapping from names.
    """
    if kwargs is None:
        return {}
    if isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs):
        return dict(kwargs)
    raise TraceError(
        f"kwargs takes a dictionary from the names of arguments, not a {type(kwargs).__name__};"
        " several positional arguments are one tuple: args=(x, y)"
    )


def check_model(model: Any) -> None:
    """Refuse what is no model.

    Raises:
        TraceError: It is none; the message says what to give.
    """
    kind = type(model).__name__
    if isinstance(model, type):
        name = model.__name__
        raise TraceError(f"{name} is a class; make a model of it first: {name}()")
    if isinstance(model, PathGraph):
        raise TraceError("a PathGraph is traced already; give the model that it is of")
    if isinstance(model, Mapping):
        raise TraceError(
            f"weights (here in a {kind}) hold no program; make the model and load them:"
            " model.load_state_dict(weights)"
        )
    if isinstance(model, str):
        raise TraceError(
            f"expected a model, not the name {model[:80]!r}; make it in Python, such as"
            " torchvision.models.resnet18(), or run `pathlen measure torchvision:resnet18`"
        )
    if not callable(model) and not isinstance(model, ExportedProgram):
        raise TraceError(
            f"expected a torch.nn.Module or an ExportedProgram, got {kind} {model!r:.80}"
        )


def advice_on_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What to write in place of arguments that a model did not take."""
    if not args and not kwargs:
        return "It was called without arguments; give an example of its inputs: args=(x,)."
    if args and all(type(size) is int for size in args):
        shape = ", ".join(map(str, args))
        return f"If args is the shape of its input, give a tensor: args=torch.empty({shape})."
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    if any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return "Some arguments are numpy arrays; give tensors: torch.from_numpy(array)."
    if len(args) == 1 and isinstance(args[0], Mapping) and not kwargs:
        return "If these are keyword arguments, give them as such: kwargs={...}."
    return "Check that args and kwargs are what the model's forward expects."
