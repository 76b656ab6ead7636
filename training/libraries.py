"""Libraries that only some tasks need, imported when one of those is made."""

from __future__ import annotations

import importlib
from typing import Any

from pathlen.errors import SettingsError


def library(module: str, package: str, extra: str = "train") -> Any:
    """Import a module of an optional library.

    Args:
        module: Its name in Python.
        package: The name to install it by.
        extra: The extra of pathlen that has it.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise SettingsError(
            f"{package} is not installed; install it with: pip install 'pathlen[{extra}]'"
        ) from error
