"""What the lowering knows of each tensor, and of the call that made it."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.labels import CONSTANT, compact
from pathlen.lowering.operations import READS_SHAPE_OF_OTHER, operation_name

if TYPE_CHECKING:
    from pathlen.lowering.functions import Function
    from pathlen.lowering.several import Begun

_Told = TypeVar("_Told")
Operator = Literal["", "sum", "product", "maximum", "minimum"]
"""What is flat: the order in which it is applied to tensors is no matter."""
Softmax = Literal["", "exp", "log", "whole"]
"""Which part of a softmax a tensor is: none, exponentials, its logarithm, itself."""


class Rows:
    """The rows of a layer's result, see `pathlen.lowering.taken_apart`."""

    __slots__ = ()


@dataclass(slots=True, eq=False, repr=False)
class Value:
    """One tensor of the program at one moment (an in-place call makes a new value).

    Attributes:
        labels: the unit of every element (see `pathlen.lowering.labels`).
        dtype: of the tensor.
        varies: whether the inputs reach the tensor, be it only through a comparison; what does
            not vary is a constant.
        node: the fx node that made it.
        call: the call that made it, None for inputs and parameters.
        order: position in the program; a value's operands have lower positions.
        operator: what the value is of several tensors: a sum, product, maximum or minimum.
        parts: these tensors, the input reaches all of them; of a product the factors, those that
            it is divided by as reciprocals.
        softmax: which part of a softmax of path tensors it is, moved or rescaled since at most.
        merge: whether units of several operands meet in it.
        layer: whether it is a layer that is written in other operations: product and sum.
        function: what it is an activation of, and how; None where it is no activation.
        terms: by the ids of the parts, what they are multiplied by in the value; None where edges
            carry no weights.
        zeros: where a contraction gives zeros of the program (see `pathlen.lowering.zeros`).
        passes: the tensor that it passes on element by element, where it is a normalization that
            is written out; else None.
        rows: what its elements are rows of, where it is a layer's result, moved at most, that may
            be taken apart; else None.
        begun: see `pathlen.lowering.several`, where elements of a merge, a sum or a layer are
            repeated or several functions of one; else None.
        rooted: see `pathlen.lowering.lookups.has_root`, once asked for.
        step: see `pathlen.lowering.lookups.is_step`, once asked for.
    """

    labels: torch.Tensor
    dtype: torch.dtype
    varies: bool
    node: fx.Node
    call: "Call | None" = None
    order: float = 0
    operator: Operator = ""
    parts: tuple["Value", ...] = ()
    softmax: Softmax = ""
    merge: bool = False
    layer: bool = False
    function: "Function | None" = None
    terms: "Mapping[int, torch.Tensor] | None" = None
    zeros: torch.Tensor | None = None
    passes: "Value | None" = None
    rows: Rows | None = None
    begun: "Begun | None" = None
    rooted: bool | None = None
    step: bool | None = None
    _path: bool | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Where it was made, in short: torch writes out arguments that it refuses."""
        return f"Value({self.node.name}, {tuple(self.shape)})"

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.labels.shape

    @property
    def is_path(self) -> bool:
        """Whether any element belongs to a unit."""
        if self._path is None:
            self._path = self.varies and _has_units(compact(self.labels).numpy())
        return self._path

    @property
    def function_of(self) -> "Value | None":
        """The tensor that it is an activation of, None where it is no activation."""
        return None if self.function is None else self.function.region.entry

    def begin(self, labels: torch.Tensor) -> None:
        """Make it a tensor whose elements begin here, with other labels."""
        self.labels, self.call, self.rows = labels, None, None
        self.rooted = self.step = self._path = self.begun = None

    def changed(self, **changes: Any) -> "Value":
        """A copy with other attributes."""
        own = {f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(Value)}
        return Value(**own)

    def drop_labels(self) -> None:
        """Keep the shape only: whoever asks for a label after all gets an error, not a number."""
        self._path = self.is_path
        self.labels = torch.empty(self.shape, dtype=self.labels.dtype, device="meta")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of an operator, with the values of its tensor arguments in place of nodes.

    Attributes:
        func: the operator overload, e.g. `torch.ops.aten.add.Tensor`.
        name: name of the operation it computes, e.g. "aten.add"; in-place calls carry the name
            of their functional form.
        arguments: by the names of the operator's schema, defaults filled in.
        node: the fx node of the call.
        like: a tensor of the shape and dtype of the result, where it is not what the node gives.
        known: what was told of it before, see `once`.
    """

    func: Any
    name: str
    arguments: Mapping[str, Any]
    node: fx.Node
    like: torch.Tensor | None = None
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def operation(self) -> str:
        """The short name for tables: "conv2d"."""
        return self.name.rpartition(".")[2]

    @property
    def output(self) -> torch.Tensor:
        """A tensor without data of the shape and dtype of the (first) result."""
        val = self.node.meta["val"] if self.like is None else self.like
        first = val if isinstance(val, torch.Tensor) else val[0]
        assert isinstance(first, torch.Tensor)
        return first

    @property
    def shape(self) -> torch.Size:
        """Shape of the (first) result."""
        return self.output.shape

    def values(self) -> Iterator[Value]:
        """The tensor arguments whose elements are read, those inside lists included, in order."""
        return iter(_values(self))

    def replace_values(self, replacement: Any) -> dict[str, Any]:
        """The arguments with `replacement(value)` in place of every value."""
        replaced = {
            name: pytree.tree_map_only(Value, replacement, argument)
            for name, argument in self.arguments.items()
        }
        return replaced


def _has_units(labels: np.ndarray) -> bool:
    """Whether any label is one of a unit, which the first mostly is."""
    return bool(labels.size) and bool(labels.flat[0] != CONSTANT or (labels != CONSTANT).any())


def once(function: Callable[[Call], _Told]) -> Callable[[Call], _Told]:
    """Decorator: what a function tells of a call, and of nothing that changes, is kept with it."""

    @functools.wraps(function)
    def told(call: Call) -> _Told:
        known = call.known
        if function not in known:
            known[function] = function(call)
        return known[function]  # type: ignore[no-any-return]

    return told


@once
def _values(call: Call) -> tuple[Value, ...]:
    found = []
    for name, argument in call.arguments.items():
        if name == "other" and call.name in READS_SHAPE_OF_OTHER:
            continue
        for leaf in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(leaf, Value):
                found.append(leaf)
    return tuple(found)


@once
def _varying(call: Call) -> tuple[Value, ...]:
    return tuple({id(v): v for v in _values(call) if v.varies}.values())


def varying_operands(call: Call) -> list[Value]:
    """The operands that are not constant, each once."""
    return list(_varying(call))


def bind_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], node: fx.Node) -> Call:
    """Name the arguments of an operator call by its schema."""
    arguments: dict[str, Any] = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args) and not argument.kwarg_only:
            arguments[argument.name] = args[position]
        elif argument.name in kwargs:
            arguments[argument.name] = kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value
    return Call(func, operation_name(func), arguments, node)


def carries_path(val: Any) -> bool:
    """Whether a result is a tensor of numbers that no comparison or rounding cut off."""
    return isinstance(val, torch.Tensor) and (val.is_floating_point() or val.is_complex())
