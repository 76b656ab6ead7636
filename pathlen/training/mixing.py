"""The classes of modules with slopes: subclasses of their own, that go by the same name."""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from pathlen.training.interception import Linearized


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before slopes or parametrizations were put into it."""
    kind = type(module)
    while "_mixed_of" in vars(kind) or _is_parametrized(kind):
        kind = vars(kind)["_mixed_of"][0] if "_mixed_of" in vars(kind) else kind.__bases__[0]
    return kind


def mix(module: nn.Module, mixin: type[Linearized]) -> None:
    """Give a module the class that it is to have, in place of one that it was given before."""
    module.__class__ = _mixed(type(module), mixin)


def _mixed(kind: Any, mixin: Any) -> Any:
    if _is_parametrized(kind):
        # torch takes this class off the module again, and what is below it stays
        below = _mixed(kind.__bases__[0], mixin)
        own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
        return type(kind.__name__, (below,), own)
    if "_mixed_of" in vars(kind):
        kind = vars(kind)["_mixed_of"][0]
    return _mixture(kind, mixin)


def _is_parametrized(kind: type) -> bool:
    """Whether `torch.nn.utils.parametrize` made a class, by deriving it from a module's."""
    return kind.__module__ == parametrize.__name__ and kind.__name__.startswith("Parametrized")


@cache
def _mixture(kind: Any, mixin: Any) -> Any:
    """The subclass of a module's class with a mixin."""

    def reduce(self: Any, protocol: Any) -> Any:
        """Pickle would look for the class under its name, which is that of the original."""
        make, given, *rest = super(mixture, self).__reduce_ex__(protocol)
        if type(self) is mixture and given[:1] == (mixture,):
            return _made, (make, kind, mixin, *given[1:]), *rest
        return make, given, *rest

    named = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": reduce,
        "_mixed_of": (kind, mixin),
        "forward": _like(mixin.forward, kind.forward),
    }
    mixture: Any = type(kind.__name__, (mixin, kind), named)
    return mixture


def _made(make: Any, kind: Any, mixin: Any, *given: Any) -> Any:
    return make(_mixture(kind, mixin), *given)


def _like(forward: Any, original: Any) -> Any:
    """The same function under the signature of another one: Trainers ask what a forward takes."""
    own: Any = FunctionType(
        forward.__code__,
        forward.__globals__,
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    own.__doc__ = original.__doc__
    own.__wrapped__ = original
    return own
