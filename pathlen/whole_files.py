"""Files that are whole or not there: the one way in which pathlen writes what it leaves behind.

And the one in which it opens what others have left.

A file is written beside its place under a name that nobody can guess, which must not exist yet (so
no link that somebody put there is followed), flushed to the disk and then renamed. A crash at any
moment leaves the old file or the new one, and at worst a hidden `.NAME.*.unfinished` beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"
"""What names of files end in that are not yet whole."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_NOT_INHERITED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | _NOT_INHERITED


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file in one piece.

    A link in its place is replaced, not followed. A new file has the permissions of any other
    (see `os.umask`), one that is replaced keeps its own.

    Args:
        path: The file.

    Yields:
        An empty file, which takes the place of the other at the end; after an error it is removed.

    Raises:
        OSError: It cannot be written, or is a folder or a device. What was there is left.
    """
    target = Path(path)
    mode = _mode_of(target)
    beside = target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(beside, _NEW | _NO_LINK, 0o666)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the disk that failed may fail here, too
            os.unlink(beside)
        raise
    sync_folder(target.parent)


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; none is longer than the system allows."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; see `is_file`."""
    try:
        return path.is_dir()
    except OSError:
        return False


def open_to_read(path: str | PathLike[str]) -> BinaryIO:
    """Open an ordinary file to read it; a pipe would be waited for, and a device may have no end.

    Raises:
        OSError: It is not there, cannot be read, or is a folder, a pipe or a device.
        ValueError: A null character is in the name.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NOT_INHERITED)
    try:
        require_ordinary(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def require_ordinary(there: os.stat_result, path: str | PathLike[str]) -> None:
    """Check that a file is no folder, pipe or device, for libraries that open it themselves.

    Raises:
        OSError: It is one.
    """
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "this is no ordinary file", str(path))


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write a file in one piece.

    Raises:
        OSError: See `replacing`.
    """
    with replacing(path) as file:
        file.write(data)


def _mode_of(target: Path) -> int | None:
    """The permissions of a file that is to be replaced, None of one that is not there."""
    try:
        there = os.stat(target)
    except OSError:  # it is not there, or a link that leads nowhere
        return None
    require_ordinary(there, target)
    return None if target.is_symlink() else stat.S_IMODE(there.st_mode) & 0o777


def sync_folder(folder: Path) -> None:
    """Make names in a folder last, where the system can sync a folder (Windows cannot)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
