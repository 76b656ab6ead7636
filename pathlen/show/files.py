"""Files that are written whole or not at all, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from pathlen.errors import ReportError
from pathlen.whole_files import is_folder, replacing


def write_text(path: str | PathLike[str], pieces: Iterable[str]) -> None:
    """Write a text file, all of it or nothing; halves of surrogate pairs become "?".

    Raises:
        ReportError: It is a folder, or in a folder that is not there, or cannot be written.
    """
    written(path, (piece.encode("utf-8", "replace") for piece in pieces))


def written(path: str | PathLike[str], pieces: Iterable[bytes]) -> None:
    """Write a file, all of it or nothing.

    Raises:
        ReportError: As for `write_text`.
    """
    target = file_target(path)
    try:
        with replacing(target) as file:
            file.writelines(pieces)
    except OSError as error:
        raise ReportError(f"{target} cannot be written: {error.strerror or error}") from error


def file_target(path: str | PathLike[str]) -> Path:
    """The path of a file that can be written there.

    Raises:
        ReportError: It is a folder, or in a folder that is not there.
    """
    target = Path(path)
    if is_folder(target):
        raise ReportError(f"{target} is a folder; give the name of a file")
    if not is_folder(target.parent):
        raise ReportError(
            f"{target} cannot be written because there is no folder {target.parent}; make it first"
        )
    return target


def text_or_file(text: str, path: str | PathLike[str] | None) -> str | None:
    """The text, or None once it is in a file."""
    if path is None:
        return text
    write_text(path, [text])
    return None
