"""What is changed in a process for a while: seen by the one thread that wants it, and undone.

Other threads train, serve and convert models meanwhile. A function of another library that is to do
something else is diverted: it asks who calls, and is what it was to everybody else (`Diverted`).
Warnings and messages are held back by filters that ask the same (`unwarned`, `unlogged`). What is
not a thread's own, such as the flags of a model's modules, is changed by one thread at a time
(`exclusive`).
"""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any
from weakref import WeakSet

Instead = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""What to do in place of a function: gets its name, itself and the arguments of a call."""

_ABSENT = object()
_DIVERTED: "WeakSet[Diverted]" = WeakSet()
_lock = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """One thread at a time is inside of such a block, which may be inside of another one."""
    own = _lock
    with own:
        yield


class _Here(threading.local):
    def __init__(self) -> None:
        self.instead: list[Instead] = []


class Diverted:
    """Functions of other modules that do something else to the threads that ask for it.

    They are replaced when the first thread comes, and put back when the last has left. To all
    other threads they do what they did.

    Args:
        places: who has each function as an attribute, and its name.
    """

    def __init__(self, places: Iterable[tuple[Any, str]]) -> None:
        self.called_by_others = False
        """Whether another thread has called one of them since the first thread came."""
        self._places = tuple(places)
        self._here = _Here()
        self._inside = 0
        self._kept: list[tuple[Any, str, Any, Any]] = []
        self._wrappers: dict[tuple[int, str], tuple[Any, Any]] = {}
        self.alone()
        _DIVERTED.add(self)

    @contextmanager
    def to(self, instead: Instead) -> Iterator[None]:
        """Divert them inside of the block, in this thread."""
        entered = False
        depth = len(self._here.instead)
        try:
            with self._lock:
                if not self._inside:
                    self._replace()
                self._inside += 1
                entered = True
            self._here.instead.append(instead)
            yield
        finally:
            del self._here.instead[depth:]
            with self._lock:
                self._inside = max(0, self._inside - entered)  # 0 already in a process forked off
                if not self._inside:
                    self._put_back()

    def alone(self) -> None:
        """Begin anew in a process that was forked off, where other threads are no more."""
        self._lock = threading.Lock()
        self._inside = 0
        self._put_back()

    def _replace(self) -> None:
        self.called_by_others = False
        for owner, name in self._places:
            before = vars(owner).get(name, _ABSENT)
            original = getattr(owner, name)
            known = self._wrappers.get((id(owner), name))
            if known is None or known[0] != original:
                known = self._wrappers[id(owner), name] = original, self._wrapper(name, original)
            wrapper = known[1]
            self._kept.append((owner, name, before, wrapper))
            setattr(owner, name, wrapper)

    def _put_back(self) -> None:
        while self._kept:
            owner, name, before, wrapper = self._kept[-1]
            if vars(owner).get(name) is wrapper:  # else somebody has replaced it since
                delattr(owner, name) if before is _ABSENT else setattr(owner, name, before)
            self._kept.pop()

    def _wrapper(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        here = self._here

        @wraps(original)
        def diverted(*args: Any, **kwargs: Any) -> Any:
            if here.instead:
                return here.instead[-1](name, original, args, kwargs)
            self.called_by_others = True
            return original(*args, **kwargs)

        return diverted


class _Silence:
    """Tells the thread that wants no messages from others; filters ask it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def match(self, text: str) -> bool:
        """Whether a warning is to be held back."""
        return threading.get_ident() == self._thread

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message of a logger may pass."""
        return threading.get_ident() != self._thread


@contextmanager
def unlogged(*loggers: str) -> Iterator[None]:
    """Hold back what some loggers say in this thread."""
    silence = _Silence()
    found = [logging.getLogger(name) for name in loggers]
    try:
        for logger in found:
            logger.addFilter(silence)
        yield
    finally:
        for logger in found:
            logger.removeFilter(silence)


@contextmanager
def unwarned(category: type[Warning] = Warning) -> Iterator[None]:
    """Hold back warnings in this thread. `warnings.catch_warnings` would do so in all threads."""
    ignored: Any = ("ignore", _Silence(), category, None, 0)
    kept: Any = warnings
    filters = kept.filters
    try:
        filters.insert(0, ignored)
        _mutated()
        yield
    finally:
        for own in (filters, kept.filters):  # another thread may have put a copy there
            with suppress(ValueError):
                own.remove(ignored)
        _mutated()


def _mutated() -> None:
    """Say that filters have changed; before Python 3.14 and since by other names."""
    for name in ("_filters_mutated", "_filters_mutated_lock_held"):
        changed: Any = getattr(warnings, name, None)
        if changed is not None:
            with getattr(warnings, "_lock", threading.Lock()):
                changed()
            return


def _forked() -> None:
    global _lock
    _lock = threading.RLock()
    for own in list(_DIVERTED):
        own.alone()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
