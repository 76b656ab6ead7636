"""Whether something answers at the address of a scheduler; asked before anything slow is loaded."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from pathlen.errors import StudyError
from pathlen.printable import shown

PATIENCE = 2.0
"""Seconds in which a scheduler may still be starting."""


def check_address(address: str) -> None:
    """Connect to a scheduler, hear it greet, and hang up.

    Dask waits for a greeting for minutes; a scheduler sends it at once.

    Raises:
        StudyError: The address is none, or no scheduler answers there.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise StudyError(f"{shown(address)} is no address of a Dask scheduler: {error}") from error
    if parts.scheme not in ("tcp", "tls") or not host or not port:
        raise StudyError(
            f"{shown(address)} is no address of a Dask scheduler; write it as tcp://host:8786"
        )
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((host, port), timeout=PATIENCE) as connection:
                # behind TLS it is the client that speaks first
                silent = parts.scheme == "tcp" and not connection.recv(1)
            if not silent:
                return
            problem: OSError = ConnectionError("it hangs up")
        except OSError as error:
            problem = error
        if time.monotonic() > until:
            raise StudyError(
                f"there is no Dask scheduler at {shown(address)} ({problem}); start one with: dask"
                " scheduler"
            ) from problem
        time.sleep(0.2)
