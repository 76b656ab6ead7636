"""The decorator of every compiled function: numba's, with a cache on disk that no edit outdates.

Numba's own `cache=True` looks at the file of the function and at nothing else. A kernel also
consists of what it calls, of constants and of code that Python writes (`_rows`), all of which may
stand in other files: after an upgrade that changed only those, the old machine code would run and
give the old numbers. Here what is kept also belongs to the text of every module of this folder,
outside of which no kernel has a part.

Numba also numbers the files with machine code, by an index that it writes first. Of two processes
that compile a kernel for different types at once, both may take the same number, and then what the
index says is for integers is for floats. So each file says itself what it is for.
"""

import functools
import hashlib
from collections.abc import Callable, Hashable
from importlib import resources
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called with some types, and keep that on disk.

    Args:
        options: Of `numba.njit`, `cache` excepted.
    """

    def compile_and_keep(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)
        if isinstance(kernel, Dispatcher):  # not under NUMBA_DISABLE_JIT
            # As `enable_caching` does with numba's own.
            kernel._cache = _Cache(function)  # type: ignore[attr-defined]
        return kernel

    return compile_and_keep


@functools.cache
def sources() -> str:
    """Digest of the modules of this folder, by name and text."""
    digest = hashlib.sha256()
    modules = resources.files("pathlen.backends").iterdir()
    for module in sorted(modules, key=lambda module: module.name):
        if module.name.endswith(".py"):
            text = module.read_bytes()
            digest.update(f"{module.name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


class _Files(IndexDataCacheFile):
    """Numba's files of a function's machine code, each with what it was compiled from and for."""

    def save(self, key: Hashable, data: Any) -> None:
        super().save(key, (self._source_stamp, key, data))  # type: ignore[no-untyped-call]

    def load(self, key: Hashable) -> Any:
        """The machine code, or None, after which it is compiled, where the file has another's."""
        kept = super().load(key)  # type: ignore[no-untyped-call]
        return kept[2] if kept is not None and kept[:2] == (self._source_stamp, key) else None


class _Cache(FunctionCache):
    """Numba's cache of a function, to which `sources` belong as the function's own file does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(  # type: ignore[no-untyped-call]
            cache_path=self.cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(stamp, sources()),
        )
