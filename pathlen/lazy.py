"""Packages that import what they offer when it is first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

GetAttribute = Callable[[str], object]
ListNames = Callable[[], list[str]]


def lazy_names(
    package: str, exports: Mapping[str, str], submodules: Sequence[str] = ()
) -> tuple[GetAttribute, ListNames]:
    """The functions ``__getattr__`` and ``__dir__`` of a package.

    For type checkers the package imports the same names under ``TYPE_CHECKING``, and keeps its
    ``__getattr__`` from them: they would take any misspelt name for an object.

    Args:
        package: Its ``__name__``.
        exports: Each name it offers, and the module that defines it.
        submodules: Modules of the package that are offered as they are.
    """

    def get_attribute(name: str) -> object:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(exports[name]), name)
        setattr(sys.modules[package], name, value)  # so that this is not asked again
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports, *submodules})

    return get_attribute, names
