"""Zip archives as torch writes them, read member by member without trusting what they say.

Members are stored, not deflated; an archive is refused otherwise, as is one whose members claim
more bytes than it has, or names that are no names of members. So nothing takes more memory than
the archive, and nothing is written anywhere.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from typing import IO

MOST_MEMBERS = 200_000
_ENCRYPTED = 0x1
_NAME = re.compile(r"(?!\.\.?/)[^/\\\x00-\x1f\x7f]+(/(?!\.\.?(/|$))[^/\\\x00-\x1f\x7f]+)+")


class UnsafeArchiveError(ValueError):
    """An archive would take more than its size, or names what it does not hold."""


def members_of(archive: zipfile.ZipFile, length: int) -> Mapping[str, zipfile.ZipInfo]:
    """The members of an archive of so many bytes, by their names below its only folder.

    Raises:
        UnsafeArchiveError: a member is compressed, encrypted, there twice, or of no such name; or
            all of them are more than the archive.
        BadZipFile: the archive does not begin with its first member.
    """
    members = archive.infolist()
    if min((member.header_offset for member in members), default=0) > 0:
        raise zipfile.BadZipFile("there are other bytes before its first member")
    if len(members) > MOST_MEMBERS:
        raise UnsafeArchiveError(f"it has {len(members):,} members, more than {MOST_MEMBERS:,}")
    folders = {member.filename.partition("/")[0] for member in members}
    if len(folders) > 1:
        raise UnsafeArchiveError(f"its members lie in several folders: {sorted(folders)[:3]}")
    found: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        shown = repr(member.filename[:60])
        if _NAME.fullmatch(member.filename) is None:
            raise UnsafeArchiveError(f"{shown} is no name of a member")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise UnsafeArchiveError(f"member {shown} is compressed, which torch never does")
        if member.flag_bits & _ENCRYPTED:
            raise UnsafeArchiveError(f"member {shown} is encrypted")
        name = member.filename.partition("/")[2]
        if name in found:
            raise UnsafeArchiveError(f"member {shown} is there twice")
        found[name] = member
    if sum(member.file_size for member in members) > length:
        raise UnsafeArchiveError(f"its members claim more than its {length:,} bytes")
    return found


def copy_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: zipfile.ZipFile, name: str
) -> None:
    """Copy a member into another archive, stored, some of it at a time."""
    with archive.open(member) as source, target.open(name, "w", force_zip64=True) as copy:
        _copy(source, copy)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while part := source.read(1 << 20):
        target.write(part)
