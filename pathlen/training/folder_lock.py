"""One process at a time works in a folder.

The lock is one of the system's (`flock` on the file `.lock`), so it ends with its process however
that ends: nothing is left to be cleaned up after a power failure or a kill. Who only reads a
finished run needs none, for its files are replaced as wholes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pathlen.errors import CheckpointError
from pathlen.printable import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
PATIENCE = 30.0
"""Seconds that processes which a dead one had started, such as those that load data, may still
hold its lock."""

MOMENT = 0.5
"""Seconds in which who only looks at a lock lets go of it."""

_LOOK = 0.1
_SAFE = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_WORDS = re.compile(r"process (\d{1,9}) on (\S{1,100})")


class FolderInUse(CheckpointError):
    """Another process has the folder locked."""


class FolderLock:
    """The lock of a folder.

    Args:
        folder: It must be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / FILE
        self._descriptor: int | None = None

    def take(self, wait: bool = False, say: Callable[[str], None] = lambda text: None) -> None:
        """Lock the folder.

        Args:
            wait: Whether to wait while another process has it locked.
            say: Is told if that is so, or if folders cannot be locked here.

        Raises:
            FolderInUse: Another process works in the folder.
            CheckpointError: Its file cannot be opened.
        """
        begun, told = time.monotonic(), False
        while True:
            descriptor = self._opened()
            try:
                problem = _locked(descriptor)
                if problem is not None:
                    say(
                        f"{self._folder} cannot be locked here ({problem}): see to it that no other"
                        " process works in it"
                    )
                    os.close(descriptor)
                    return
                if self._is_there(descriptor):
                    self._sign(descriptor)
                    self._descriptor = descriptor
                    return
                os.close(descriptor)  # its last owner removed the file; there may be a new one
            except BlockingIOError:
                owner = printable(os.read(descriptor, 200).decode("utf-8", "replace"))
                os.close(descriptor)
                if wait and not told:
                    say(f"waiting for {owner}, which works in {self._folder}")
                    told = True
                patience = PATIENCE if _is_dead(owner) else MOMENT
                if not wait and time.monotonic() > begun + patience:
                    raise FolderInUse(_in_use(self._folder, owner)) from None
                time.sleep(_LOOK)

    def release(self) -> None:
        """Let others work in the folder."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # somebody removed the folder, or made it read-only
            os.unlink(self._path)
        # not by closing it: processes that load data may have inherited it
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        """Lock the folder, unless it is locked already."""
        if self._descriptor is None:
            self.take()
        return self

    def __exit__(self, *error: object) -> None:
        """Let others work in it."""
        self.release()

    def _opened(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _SAFE, 0o666)
        except OSError as error:
            raise CheckpointError(
                f"{self._path} cannot be opened to lock the folder: {error.strerror}"
            ) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CheckpointError(f"{self._path} is no ordinary file; remove it")
        return descriptor

    def _is_there(self, descriptor: int) -> bool:
        """Whether the file that is locked is still the one that others would open."""
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _sign(self, descriptor: int) -> None:
        """Say in the file who holds the lock, for messages."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        words = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
        with contextlib.suppress(OSError):  # of a full disk: it is locked in any case
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, words.encode(), 0)


def is_locked(folder: Path) -> bool:
    """Whether a process works in a folder; False where folders cannot be locked."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY | _SAFE)
    except OSError:  # there is none
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # so does who else looks
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _locked(descriptor: int) -> str | None:
    """Lock a file; why that cannot be done here, None if it is done.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    if fcntl is None:
        return "the system has no flock"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return str(error.strerror)
        raise CheckpointError(f"a folder cannot be locked: {error}") from error
    return None


def _is_dead(owner: str) -> bool:
    """Whether the process that signed is surely gone: one of this machine that is not there."""
    found = _WORDS.match(owner)
    if found is None or found[2].rstrip(",") != socket.gethostname():
        return False
    return is_gone(int(found[1]))


def is_gone(number: int) -> bool:
    """Whether this machine surely has no process of a number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _in_use(folder: Path, owner: str) -> str:
    who = owner or "another process"
    return (
        f"{folder} is in use by {who}: two processes would spoil the run of each other. Wait until"
        " it ends, stop it (it saves and the same command goes on), or choose another folder"
    )
