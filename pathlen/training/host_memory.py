"""Memory of a CPU process, kept from step to step instead of given back and asked for again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Numbers of `mallopt`'s parameters in glibc's malloc.h."""


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for its next step; until it ends.

    By default glibc gives blocks above 32 MiB back to the system at once, and smaller ones now and
    then: what a step asks for comes anew, page by page, filled with zeros. That takes up to half of
    the time of steps whose activations are larger than that. The process stays as large as it was
    in its largest step. The environment variables MALLOC_MMAP_MAX_=0 and
    MALLOC_TRIM_THRESHOLD_=-1 do the same.

    Returns:
        Whether the C library can do so: others than glibc are left alone.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, -1))
