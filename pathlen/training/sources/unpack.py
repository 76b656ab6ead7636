"""What is done with downloaded files, so that nothing lands anywhere but where it is meant to."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from pathlen.errors import DataError
from pathlen.training.sources.known import Source

MOST_FILES = 1_000_000

# A zip file with a password is a RuntimeError.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,
)
"""What the libraries raise for archives that are none, or damaged."""


def unpack(source: Source, files: Sequence[Path], staging: Path) -> Path:
    """Make the folder of a data set from its downloaded files, which stay as they are.

    Args:
        source: Says what to do.
        files: In the order of its downloads, whatever they are called.
        staging: An empty folder to make it in.

    Returns:
        The folder, in `staging`.

    Raises:
        DataError: An archive is damaged, is larger than the data set, has members that lead out of
            the folder or are no plain files, or files are missing in the end.
        OSError: The disk is full, or cannot be written.
    """
    made = staging / source.folder
    limit = 2 * source.unpacked
    try:
        if source.kind == "tar":
            _untar(files[0], staging, limit)
        elif source.kind == "zip":
            _unzip(files[0], staging, limit)
        elif source.kind == "flat zip":
            _unzip(files[0], made, limit)
        else:
            made.mkdir()
            for download, path in zip(source.downloads, files, strict=True):
                if source.kind == "gunzip":
                    _gunzip(path, made / download.name.removesuffix(".gz"), limit)
                else:
                    shutil.copyfile(path, made / download.name)
    except BROKEN as error:
        raise DataError(
            f"{source.name}: what was downloaded cannot be unpacked: {error}"
        ) from error
    missing = source.missing(made)
    if missing:
        raise DataError(
            f"{source.name}: there is no {', '.join(missing)} in what was downloaded; it is "
            "another data set"
        )
    return made


def check_python(source: Source) -> None:
    """Refuse a Python that cannot unpack the data set safely, before anything is downloaded.

    Raises:
        DataError: It is one of the first releases of 3.11.
    """
    if source.kind == "tar" and not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"{source.name} can be unpacked safely from Python 3.11.4 on; update Python"
        )


def _untar(path: Path, folder: Path, limit: int) -> None:
    with tarfile.open(path, "r:*") as archive:
        total = 0
        for number, member in enumerate(archive):
            if not (member.isreg() or member.isdir()):
                raise DataError(f"{path.name}: member {member.name!r} is no plain file")
            total = _checked(path, member.name, number, total + member.size, limit)
            # The filter refuses what leads out of the folder, and takes away strange permissions.
            archive.extract(member, folder, filter="data")


def _unzip(path: Path, folder: Path, limit: int) -> None:
    with zipfile.ZipFile(path) as archive:
        total = 0
        for number, member in enumerate(archive.infolist()):
            total = _checked(path, member.filename, number, total + member.file_size, limit)
        # zipfile writes no more of a member than its size says, and no links.
        archive.extractall(folder)


def _checked(path: Path, name: str, number: int, total: int, limit: int) -> int:
    """Refuse a member of an archive that leads elsewhere, or is too much."""
    pure = PureWindowsPath(name)  # which knows drives, and slashes of both kinds
    if pure.drive or pure.root or ".." in pure.parts:
        raise DataError(f"{path.name}: member {name!r} leads out of the folder")
    if number >= MOST_FILES or total > limit:
        raise DataError(f"{path.name} unpacks to more than the {limit:,} bytes expected at most")
    return total


def _gunzip(path: Path, target: Path, limit: int) -> None:
    with gzip.open(path) as file, target.open("xb") as out:
        while chunk := file.read(1 << 20):
            if out.tell() + len(chunk) > limit:
                raise DataError(
                    f"{path.name} unpacks to more than the {limit:,} bytes expected at most"
                )
            out.write(chunk)
