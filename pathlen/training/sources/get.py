"""A data set, from its source to its folder: there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pathlen.errors import DataError
from pathlen.training.sources.download import PAUSE, TRIES, Watch, check, fetch, forget
from pathlen.training.sources.known import Source
from pathlen.training.sources.unpack import check_python, unpack

UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Got:
    """A data set that is there.

    Attributes:
        place: Its folder.
        checksums: What the files downloaded have, by name; empty if it was there before.
    """

    place: Path
    checksums: dict[str, str]


def get(
    source: Source,
    folder: Path,
    watch: Callable[[str], Watch],
    url: str = "",
    *,
    tries: int = TRIES,
    pause: float = PAUSE,
) -> Got:
    """Download a data set and unpack it, unless it is there.

    Everything unfinished lies in one folder beside the one that comes to be, `NAME.unfinished`;
    the last thing done is to rename what was unpacked there.

    Args:
        source: The data set.
        folder: Where its folder is to be.
        watch: Is called with the name of each file before it is downloaded.
        url: To use instead: that of the file, or of a folder with all files, ending in a slash.
        tries: See `fetch`.
        pause: See `fetch`.

    Raises:
        DataError: A file cannot be had, has another checksum or cannot be unpacked, or a folder
            with other things is in the way. What was downloaded is kept unless it is wrong.
    """
    place = folder / source.folder
    if place.exists():
        missing = source.missing(place)
        if missing:
            raise DataError(
                f"{str(place)!r} is there, without {', '.join(missing)}: move it away, or name "
                "another --folder"
            )
        return Got(place, {})
    check_python(source)
    unfinished = folder / (source.folder + UNFINISHED)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{str(unfinished)!r} cannot be made: {error}") from error
    parts, checksums = [], {}
    for download, address in zip(source.downloads, addresses(source, url), strict=True):
        part = unfinished / f"{download.name}.part"
        fetch(address, part, 2 * source.size, watch(download.name), tries=tries, pause=pause)
        checksums[download.name] = check(part, download.checksum, address)
        parts.append(part)
    _unpack_into(place, source, parts, unfinished / "unpacked")
    for part in parts:
        forget(part)
    with contextlib.suppress(OSError):  # somebody's own files may lie there
        unfinished.rmdir()
    return Got(place, checksums)


def _unpack_into(place: Path, source: Source, parts: list[Path], staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
    try:
        staging.mkdir()
        unpack(source, parts, staging).rename(place)
    except DataError:
        for part in parts:  # they are whole and of no use
            forget(part)
        raise
    except OSError as error:
        raise DataError(
            f"{str(place)!r} cannot be made: {error}; what was downloaded is kept, and the same "
            "command goes on"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def addresses(source: Source, url: str) -> list[str]:
    """Where the files of a data set are, or are on a mirror.

    Raises:
        DataError: The URL is that of one file and the data set has several.
    """
    if not url:
        return [download.url for download in source.downloads]
    if url.endswith("/"):
        return [url + download.name for download in source.downloads]
    if len(source.downloads) > 1:
        names = ", ".join(download.name for download in source.downloads)
        raise DataError(
            f"{source.name} has several files ({names}); --url must be that of a folder with all "
            "of them, ending in a slash"
        )
    return [url]
