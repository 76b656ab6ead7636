"""Libraries that pathlen can do without, imported where a function needs one."""

from __future__ import annotations

import importlib
from typing import Any

from pathlen.errors import PathlenError, ReportError


def optional(
    module: str,
    extra: str,
    package: str | None = None,
    refusal: type[PathlenError] = ReportError,
) -> Any:
    """Import a module of a library that an extra of pathlen installs.

    Args:
        module: Its name in Python.
        extra: The extra, as in ``pip install 'pathlen[figures]'``.
        package: The name to install it by, if it is another one.
        refusal: The error that says it is not installed.

    Raises:
        PathlenError: The library is not installed: a `refusal`.
    """
    library = module.partition(".")[0]
    package = package or library
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise refusal(
            f"{package} is not installed; install it with: pip install 'pathlen[{extra}]'"
        ) from error
