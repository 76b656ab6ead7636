"""What torch functions are called, the same in eager mode, in pickles and for compilers.

Calls are counted by function. Where Python calls some operators of a tensor, compilers see another
function than eager mode does, or one that they do not find in a dictionary: these go by a name.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import resolve_name

_WRAPPED = {  # written in Python
    Tensor.__pow__: "**",
    Tensor.__rpow__: "reflected **",
    Tensor.__rsub__: "reflected -",
    Tensor.__rtruediv__: "reflected /",
    Tensor.__floordiv__: "//",
    Tensor.__rfloordiv__: "reflected //",
    Tensor.__rmod__: "reflected %",
    Tensor.__ipow__: "**=",
}
_PAIRS = tuple(_WRAPPED.items())
_OTHERS: dict[Any, Any] = {functional.threshold: torch.threshold}
_OPERATORS: dict[Any, tuple[Any, Any]] = {  # with a tensor first, and without
    operator.add: (Tensor.add, Tensor.add),
    operator.sub: (Tensor.sub, "reflected -"),
    operator.mul: (Tensor.mul, Tensor.mul),
    operator.truediv: (Tensor.div, "reflected /"),
    operator.floordiv: ("//", "reflected //"),
    operator.mod: (Tensor.remainder, "reflected %"),
    operator.pow: ("**", "reflected **"),
    operator.neg: (Tensor.neg, Tensor.neg),
    operator.matmul: (Tensor.matmul, Tensor.matmul),
    operator.getitem: (Tensor.__getitem__, Tensor.__getitem__),
    operator.iadd: (Tensor.add_, Tensor.add_),
    operator.isub: (Tensor.sub_, Tensor.sub_),
    operator.imul: (Tensor.mul_, Tensor.mul_),
    operator.itruediv: (Tensor.div_, Tensor.div_),
    operator.ipow: ("**=", "**="),
}


def key_of(function: Any, args: tuple[Any, ...]) -> Any:
    """What a call of a function is counted under."""
    if torch.compiler.is_dynamo_compiling():
        for wrapped, name in _PAIRS:
            if function is wrapped:
                return name
        if function in _OPERATORS:
            return _OPERATORS[function][0 if isinstance(args[0], Tensor) else 1]
        return _OTHERS.get(function, function)
    return _WRAPPED.get(function) or _OTHERS.get(function, function)


def to_name(key: Any) -> Any:
    """The name of a key in torch, itself where it has none."""
    return key if isinstance(key, str) else resolve_name(key) or key


def from_name(name: Any) -> Any:
    """The key that `to_name` gave a name for."""
    if not isinstance(name, str) or not name.startswith("torch."):
        return name
    home: Any = torch
    for part in name.split(".")[1:]:
        home = getattr(home, part)
    return home
