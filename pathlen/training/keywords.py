"""Settings as the keyword arguments of a function, checked before it is called.

A task or a model is made by a function whose keyword parameters are its settings: their names,
types and defaults are written down once, in its signature.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, Unpack, get_args, get_origin, get_type_hints

from pathlen.errors import SettingsError
from pathlen.printable import LONGEST, shown

Result = TypeVar("Result")

MOST_PROBLEMS = 20
"""With the settings of one function, that are told."""


def call_with_settings(
    function: Callable[..., Result],
    settings: Mapping[str, Any],
    where: str,
    *positional: Any,
) -> Result:
    """Call a function with settings as its keyword arguments.

    Args:
        function: Takes keyword arguments, annotated with bool, int, float, str, None, Literals,
            lists of these and unions of these, or an unpacked TypedDict of such.
        settings: Their values. An int is taken for a float, nothing else is converted.
        where: What the settings belong to, for messages: "task 'digits'".
        positional: Arguments before them.

    Raises:
        SettingsError: Settings are unknown, missing or of a wrong type; all are listed.
    """
    check_settings(function, settings, where)
    return function(*positional, **settings)


def check_settings(function: Callable[..., Any], settings: Mapping[str, Any], where: str) -> None:
    """Check settings as `call_with_settings` does, without the call.

    Raises:
        SettingsError: As there.
    """
    hints, required = _settings_of(function)
    problems: list[str] = []
    for name, value in settings.items():
        if name not in hints:
            problems.append(unknown_name("setting", name, hints))
        elif not fits(value, hints[name]):
            problems.append(f"{name} must be {describe(hints[name])}, not {shown(value)}")
    problems += [
        f"{name} is missing ({describe(hints[name])})" for name in required if name not in settings
    ]
    if problems:
        told, left = problems[:MOST_PROBLEMS], len(problems) - MOST_PROBLEMS
        told += [f"and {left} more problems"] if left > 0 else []
        raise SettingsError(f"{where}: {'; '.join(told)}")


def _settings_of(function: Callable[..., Any]) -> tuple[dict[str, Any], list[str]]:
    """Types of the keyword parameters of a function, by name, and those that have no default.

    `**settings: Unpack[Shared]`, Shared being a TypedDict, stands for the settings in it, which
    several functions have in common; all of them may be left out.
    """
    hints = get_type_hints(_initializer(function) if isinstance(function, type) else function)
    found, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, Any)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found[name] = hint
            if parameter.default is inspect.Parameter.empty:
                required.append(name)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD and get_origin(hint) is Unpack:
            found |= get_type_hints(get_args(hint)[0])
    return found, required


def _initializer(kind: type) -> Any:
    return vars(kind)["__init__"]


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Say that there is no such name, and which come near or, if none does, which there are."""
    known = sorted(known)
    text = str(name) if isinstance(name, str) and len(name) <= LONGEST else ""
    near = difflib.get_close_matches(text, known, n=3)
    if near:
        return f"there is no {what} {shown(name)}; did you mean {' or '.join(map(repr, near))}?"
    return f"there is no {what} {shown(name)}; there are {', '.join(known) or 'none'}"


def fits(value: object, hint: Any) -> bool:
    """Whether a value has the annotated type; an int is a float, a bool or infinity no number."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(fits(item, get_args(hint)[0]) for item in value)
    if hint is type(None):
        return value is None
    if hint in (int, float):
        allowed = (int, float) if hint is float else int
        return isinstance(value, allowed) and not isinstance(value, bool) and _is_finite(value)
    return isinstance(value, hint)


def _is_finite(value: float) -> bool:
    """Whether a number is one that 64 bits hold: a float that is finite, or an int of that size."""
    return math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63


def describe(hint: Any) -> str:
    """Say a type in words."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in get_args(hint))
    if origin is Literal:
        return " or ".join(repr(one) for one in get_args(hint))
    if origin is list:
        return f"a list, each {describe(get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return "null" if hint is type(None) else words.get(hint, getattr(hint, "__name__", str(hint)))
