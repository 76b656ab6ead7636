"""Names of operations, and what their schemas say about them."""

import functools
from dataclasses import dataclass
from typing import Any

import torch


def aten(names: str) -> tuple[str, ...]:
    """("aten.add", "aten.sub") for "add sub"."""
    return tuple(f"aten.{name}" for name in names.split())


_CREATIONS = frozenset(
    aten(
        "new_zeros new_ones new_full new_empty new_empty_strided zeros_like ones_like full_like"
        " empty_like rand_like randn_like randint_like scalar_tensor"
    )
)
BAGS = aten("embedding_bag _embedding_bag _embedding_bag_forward_only")
READS_SHAPE_OF_OTHER = frozenset(aten("expand_as view_as reshape_as type_as"))


@functools.cache
def operation_name(func: Any) -> str:
    """The name "aten.relu" for the overloads of `aten::relu` and `aten::relu_`."""
    namespace, _, name = func._schema.name.partition("::")
    if func._schema.is_mutable and name.startswith("__i"):  # __ior__, of x |= y
        name = f"__{name[3:]}"
    in_place = func._schema.is_mutable and name.endswith("_") and not name.endswith("__")
    return f"{namespace}.{name[:-1] if in_place else name}"


@dataclass(frozen=True, slots=True)
class OnCopy:
    """An operator that writes to its arguments as a function: they are copied before.

    Attributes:
        in_place: the operator.
    """

    in_place: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the operator returns; the arguments stay as they are."""
        schema = self.in_place._schema.arguments
        names = [a.name for a in schema if a.alias_info is not None and a.alias_info.is_write]
        named = dict(zip([a.name for a in schema], args, strict=False), **kwargs)
        copied = {name: named[name].clone() for name in names}
        positional = [copied.get(a.name, arg) for a, arg in zip(schema, args, strict=False)]
        return self.in_place(*positional, **{k: copied.get(k, v) for k, v in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.in_place, name)  # its schema, tags and kernels


def functional(func: Any) -> Any:
    """A function that computes what an in-place overload writes, and writes to nothing itself.

    The overload of the same arguments, if there is one: the names of overloads do not tell
    (`pow_.Scalar` raises a tensor to a number, `pow.Scalar` a number to a tensor).
    """
    if not func._schema.is_mutable:
        return func
    namespace, _, name = operation_name(func).partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet else []
    types = _argument_types(func)
    same = [o for o in overloads if _argument_types(o) == types and not o._schema.is_mutable]
    return same[0] if same else OnCopy(func)


def _argument_types(func: Any) -> list[str]:
    return [str(argument.type) for argument in func._schema.arguments]


@functools.cache
def written_argument(func: Any) -> str | None:
    """Name of the argument that an in-place call writes to, None where there is none."""
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            return str(argument.name)
    return None


def viewed_argument(func: Any) -> str | None:
    """Name of the argument that the result may be a view of, None where there is none."""
    shared = [r.alias_info for r in func._schema.returns if r.alias_info is not None]
    if not shared or any(info.is_write for info in shared):
        return None
    sources = [a.name for a in func._schema.arguments if a.alias_info is not None]
    return str(sources[0]) if sources else None


def makes_constant(func: Any) -> bool:
    """Whether a call takes no more than the shape and dtype of its tensor arguments."""
    return operation_name(func) in _CREATIONS


def call_by_name(func: Any, arguments: dict[str, Any], like: Any = None) -> Any:
    """Call an operator with all of its arguments given by the names of its schema.

    Args:
        func: the operator, or a function that takes its arguments.
        arguments: by name.
        like: the operator whose schema counts, where `func` is a function.
    """
    schema = (like or func)._schema
    names = [argument.name for argument in schema.arguments if not argument.kwarg_only]
    keywords = {name: value for name, value in arguments.items() if name not in names}
    return func(*[arguments[name] for name in names], **keywords)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64, where it holds floating-point numbers."""
    return tensor.double() if tensor.is_floating_point() else tensor
