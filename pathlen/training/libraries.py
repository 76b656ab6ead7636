"""Libraries that only some tasks need, imported when one of those is made."""

from __future__ import annotations

from typing import Any

from pathlen.errors import SettingsError
from pathlen.optional import optional


def library(module: str, package: str, extra: str = "train") -> Any:
    """Import a module of an optional library.

    Args:
        module: Its name in Python.
        package: The name to install it by.
        extra: The extra of pathlen that has it.

    Raises:
        SettingsError: It is not installed.
    """
    return optional(module, extra, package, SettingsError)
