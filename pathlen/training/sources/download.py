"""A file from the web, going on where an earlier try stopped.

What has arrived lies in a file beside which a small one says what it is: the URL, the length, and
the entity tag or date by which the server tells versions apart (RFC 9110, sections 13.1.5 and 14).
The rest is asked for on the condition that this is still the version there, so that the parts of
two versions are never put together. The standard library does all of it; another library would be
one more to install for a hundred lines.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pathlen import __version__
from pathlen.errors import DataError
from pathlen.whole_files import write_bytes

Watch = Callable[[int, int | None], None]
"""Is told how many bytes have arrived, and of how many if that is known."""

CHUNK = 1 << 18
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as cut."""

TRIES, PAUSE = 5, 1.0
"""How often a download is tried that gets no further, and seconds before the second try."""


@dataclass(frozen=True, slots=True)
class _Version:
    """What the bytes that have arrived are the beginning of.

    Attributes:
        url: Where they are from.
        validator: Strong entity tag or date of the version; empty if the server gave none.
        total: Length of the whole file; None if the server did not say.
    """

    url: str
    validator: str
    total: int | None


class _Cut(ConnectionError):
    """A connection ended before the file did."""


def fetch(
    url: str, part: Path, limit: int, watch: Watch, *, tries: int = TRIES, pause: float = PAUSE
) -> None:
    """Download a file.

    A connection that is cut is made again and goes on. If the first contact fails, nothing is tried
    again: there is no network, or no such file.

    Args:
        url: http or https.
        part: Where the bytes go. What an earlier call has left there is the beginning, if the
            server still has the same version and can send the rest.
        limit: Most bytes that the file may have.
        watch: See `Watch`.
        tries: How often to try without getting further.
        pause: Seconds before the second try, twice as many before each later one.

    Raises:
        DataError: The file cannot be had, is too large, or cannot be written. What has arrived is
            kept.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url!r} is no http or https URL")
    connected, furthest, failures = False, -1, 0

    def watched(done: int, total: int | None) -> None:
        nonlocal connected
        connected = True
        watch(done, total)

    while True:
        try:
            _go_on(url, part, limit, watched)
            return
        except (OSError, http.client.HTTPException) as error:
            there, connected = _size(part), connected or isinstance(error, _Cut)
            failures = 0 if there > furthest else failures + 1
            furthest = max(furthest, there)
            if not connected or failures >= tries:
                raise DataError(_explained(url, error, there)) from error
        time.sleep(pause * 2**failures)


def _go_on(url: str, part: Path, limit: int, watch: Watch) -> None:
    """Bring what is missing, or everything if what is there is of no use."""
    version, have = _version_of(part), _size(part)
    if version is None or version.url != url:
        version, have = None, 0
    elif version.total == have:
        watch(have, have)
        return
    headers = {"User-Agent": f"pathlen/{__version__}", "Accept-Encoding": "identity"}
    if version is not None and version.validator and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            forget(part)
            raise _Cut("the server has no more bytes than arrived before") from error
        raise
    with response:
        have = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = _total_of(response, have, part)
        if total is not None and total > limit:
            raise DataError(f"{url} has {total:,} bytes, more than the {limit:,} expected at most")
        if not have:
            forget(part)
            _note(part, _Version(url, _validator_of(response), total))
        _copy(response, part, have, total, limit, watch)


def _total_of(response: Any, have: int, part: Path) -> int | None:
    """Length of the whole file, of which the response is all or the end."""
    if not have:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have:
        forget(part)
        raise _Cut("the server sent another part than the one asked for")
    return int(found[2])


def _validator_of(response: Any) -> str:
    """What tells this version from others; a weak tag does not, for single bytes."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _copy(
    response: Any, part: Path, have: int, total: int | None, limit: int, watch: Watch
) -> None:
    watch(have, total)
    with _writable(part, "ab" if have else "wb") as file:
        while chunk := response.read1(CHUNK):
            have += len(chunk)
            if have > limit:
                forget(part)
                raise DataError(
                    f"{response.url} has more than the {limit:,} bytes expected at most"
                )
            _write(file, chunk, part)
            watch(have, total)
    if total is not None and have != total:
        raise _Cut(f"the connection was cut after {have:,} of {total:,} bytes")
    if total is None:
        version = _version_of(part)
        if version is not None:
            _note(part, _Version(version.url, version.validator, have))


def _writable(part: Path, mode: str) -> BinaryIO:
    try:
        # No buffer: what has arrived is on the disk whenever the download is stopped.
        return part.open(mode, buffering=0)  # type: ignore[return-value]
    except OSError as error:
        raise DataError(f"{str(part)!r} cannot be written: {error}") from error


def _write(file: BinaryIO, chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise DataError(
            f"{str(part)!r} cannot be written: {error}; what has arrived is kept, and the same "
            "command goes on"
        ) from error


# ------------------------------------------------------------------ what has arrived


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _note(part: Path, version: _Version) -> None:
    """Write down what the bytes are, before the first one is written."""
    try:
        write_bytes(_note_path(part), json.dumps(asdict(version)).encode())
    except OSError as error:
        raise DataError(f"{str(_note_path(part))!r} cannot be written: {error}") from error


def _version_of(part: Path) -> _Version | None:
    """What the bytes that have arrived are; None if nobody knows."""
    try:
        return _Version(**json.loads(_note_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def forget(part: Path) -> None:
    """Remove what has arrived."""
    for path in (part, _note_path(part)):
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------ what came of it


def _explained(url: str, error: Exception, there: int) -> str:
    kept = f"; {there:,} bytes are kept, and the same command goes on from there" if there else ""
    if isinstance(error, urllib.error.HTTPError):
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in (403, 404, 410):
            answer += ": the file is not there (any more); give --url of a mirror"
        return f"{url}: {answer}{kept}"
    if isinstance(error, urllib.error.URLError):
        return f"{url} cannot be reached: {error.reason}; is there a network?{kept}"
    return f"{url}: {error or type(error).__name__}{kept}"


def check(part: Path, checksum: str, url: str) -> str:
    """Compare a file with its checksum; remove it if it has another.

    Args:
        part: The file.
        checksum: "ALGORITHM:HEX", or empty if none is known.
        url: Where it is from, for messages.

    Returns:
        What was found: "sha256:..." if no checksum is known.

    Raises:
        DataError: The checksum is another one.
    """
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if expected and found != expected:
        size = _size(part)
        forget(part)
        raise DataError(
            f"{url} has the {algorithm} checksum {found} ({size:,} bytes), not {expected}: it was "
            "damaged on its way, or is another file. It was removed; try again, or another --url"
        )
    return f"{algorithm}:{found}"
