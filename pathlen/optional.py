"""Libraries that pathlen can do without, imported where a function needs one."""

from __future__ import annotations

import importlib
from typing import Any

from pathlen.errors import ReportError


def optional(module: str, extra: str) -> Any:
    """Import a module of a library that an extra of pathlen installs.

    Args:
        module: Its name in Python.
        extra: The extra, as in ``pip install 'pathlen[figures]'``.

    Raises:
        ReportError: The library is not installed.
    """
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ReportError(
            f"{library} is not installed; install it with: pip install 'pathlen[{extra}]'"
        ) from error
