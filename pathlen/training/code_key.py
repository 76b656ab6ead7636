"""What tells that the file of somebody's model has changed since a run was trained with it.

A recipe names such a model by `path/file.py:CALLABLE`, and weights fit another network of the same
sizes as well: with another activation, it would go on, or be measured, without a word.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathlen.printable import printable
from pathlen.whole_files import open_to_read

_LONGEST = 1 << 22


def code_key(model: Mapping[str, Any]) -> str:
    """A digest of the file that makes a model; comments and layout do not count.

    Args:
        model: As a recipe has it.

    Returns:
        "" where it is made by no file, or by one that cannot be read; whoever runs it will say so.
    """
    source, colon, _ = str(model.get("name")).partition(":")
    if not colon or not source.endswith(".py"):
        return ""
    try:
        with open_to_read(Path(source)) as file:
            text = file.read(_LONGEST)
        meant = _meaning(text)
    except (OSError, ValueError, SyntaxError):
        return ""
    return hashlib.blake2b(meant, digest_size=8).hexdigest()


def _meaning(text: bytes) -> bytes:
    """What stands in a program; all of its letters where it is nested too deeply to be told."""
    try:
        return ast.dump(ast.parse(text)).encode()
    except (RecursionError, MemoryError):
        return text


def warn_of_other_code(path: Path, found: str | None, model: Mapping[str, Any]) -> None:
    """Warn where a file was written with other code of the model than there is now.

    Args:
        path: The file.
        found: The digest in it, if it has one.
        model: As the recipe has it.
    """
    now = code_key(model) if found else ""
    if found and now and found != now:
        warnings.warn(
            f"the code of {printable(str(model['name']))} has changed since {path} was written: the"
            " model may compute something else than the one that was trained. Put the code back, or"
            " train anew in another folder",
            stacklevel=3,
        )
