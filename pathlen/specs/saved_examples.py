"""Example inputs that a program was saved with: the one part of the file that is a pickle.

It is looked at opcode by opcode, and read by torch's reader that makes nothing but tensors, only if
it holds nothing but tensors, numbers, texts and nests of these.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any

from pathlen.specs.saved_archives import members_of

if TYPE_CHECKING:
    import torch

_MEMBERS = re.compile(
    r"data\.pkl|data/\d+|version|byteorder|\.data/.*|\.format_version|\.storage_alignment"
)
_GLOBALS = re.compile(
    r"torch [A-Z]\w*Storage|torch (Size|device|u?int\d+|b?float\d+\w*|complex\d+|bool|qu?int\d+)"
    r"|torch\.storage UntypedStorage|torch\.serialization _get_layout"
    r"|torch\._utils (_rebuild_tensor_v2|_rebuild_parameter|_rebuild_meta_tensor_no_storage)"
    r"|collections OrderedDict"
)
# fmt: off
_OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
})
# fmt: on
MOST_LEAVES = 10_000
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def read_examples(content: bytes) -> tuple[Arguments | None, str | None]:
    """The arguments of a program, and why they are refused, if they are.

    Raises:
        Exception: whatever torch raises about bytes that are not what they should be.
    """
    import torch

    if not content:
        return None, None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = members_of(archive, len(content))
        for name in members:
            if _MEMBERS.fullmatch(name) is None:
                return None, "holds more than tensors"
        if not _is_plain(archive.read(members["data.pkl"])):
            return None, "holds more than tensors"
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as own:  # what was looked at is what torch reads
            for name, member in members.items():
                own.writestr(f"archive/{name}", archive.read(member))
    copy.seek(0)
    found = torch.load(copy, map_location="cpu", weights_only=True)
    return _arguments(found)


def _is_plain(pickled: bytes) -> bool:
    """Whether a pickle holds nothing but tensors, numbers, texts and nests of them."""
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name not in _OPCODES:
                return False
            if opcode.name == "GLOBAL" and _GLOBALS.fullmatch(str(argument)) is None:
                return False
            if isinstance(argument, int) and argument.bit_length() > 64:
                return False
    except ValueError:
        return False
    return True


def _arguments(found: Any) -> tuple[Arguments | None, str | None]:
    """Arguments, if they are positional ones in a tuple and others in a dictionary."""
    import torch

    waiting, seen = [found], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > MOST_LEAVES:  # a list may hold one list many times, at every level
            return None, f"holds more than {MOST_LEAVES:,} arguments"
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, torch.Tensor) and not _is_backed(item):
            return None, "holds a tensor that is larger than what is saved of it"
    is_call = isinstance(found, tuple) and len(found) == 2
    if not is_call or not isinstance(found[0], tuple) or not isinstance(found[1], dict):
        return None, "holds no arguments of a program"
    return (found[0], found[1]), None


def _is_backed(tensor: torch.Tensor) -> bool:
    """Whether a tensor has the bytes of its elements, or a few millions of equal ones."""
    size = tensor.numel() * tensor.element_size()
    return tensor.is_meta or size <= max(tensor.untyped_storage().nbytes(), 1 << 28)
