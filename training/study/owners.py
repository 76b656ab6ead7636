"""Who carries out a run: a process, by a name that no other one has."""

from __future__ import annotations

import os
import re
import socket
import uuid

from pathlen.training.folder_lock import is_gone


def new_owner() -> str:
    """A name for this process: its machine, its number and a random part."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:12]}"


def is_dead(owner: str) -> bool:
    """Whether an owner is surely gone: a process of this machine that is not there any more.

    Of other machines nothing is known, nor of a process whose number was given to another one;
    for those there is the lease.
    """
    parts = re.fullmatch(r"(.+)/(\d{1,9})/[^/]*", str(owner))
    if parts is None or parts[1] != socket.gethostname() or int(parts[2]) == 0:
        return False
    return is_gone(int(parts[2]))
