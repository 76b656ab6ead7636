"""JSON from elsewhere: read with limits on its size, depth and numbers, and strictly.

Python's reader takes NaN and Infinity, which JSON does not have, turns 1e999 into infinity, keeps
the last of two values of a key, and ends in errors of its own kind at deep nesting and long
numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from pathlen.errors import PathlenError
from pathlen.printable import shown
from pathlen.whole_files import open_to_read

LONGEST = 64 << 20
"""Bytes of a text."""

DEEPEST = 64
"""Levels of lists and objects in each other."""

LONGEST_NUMBER = 400
"""Characters of a number; the largest that 64 bits hold has 309 digits."""


def read_json(
    text: str | bytes, where: str, refusal: type[PathlenError], longest: int = LONGEST
) -> Any:
    """Read a JSON text.

    Args:
        text: As it is in the file.
        where: What messages call it, as "runs/a/summary.json".
        refusal: The error that says what is wrong.
        longest: Bytes, or characters, that it may have.

    Raises:
        PathlenError: A `refusal`: it is too large, too deep, no JSON, has a number that is none,
            or a key twice.
    """
    if len(text) > longest:
        raise refusal(f"{where} is larger than the {longest:,} bytes that are read of it")
    try:
        value = json.loads(
            text,
            parse_constant=_no_number,
            parse_int=_whole_number,
            parse_float=_number,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise refusal(f"{where} is nested more than {DEEPEST} levels deep") from error
    except ValueError as error:  # of UTF-8 and of numbers as well
        raise refusal(f"{where}: this is no JSON, or damaged: {error}") from error
    if _is_deeper(value, DEEPEST):
        raise refusal(f"{where} is nested more than {DEEPEST} levels deep")
    return value


def read_json_object(
    path: Path, refusal: type[PathlenError], longest: int = LONGEST
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        PathlenError: A `refusal`: it cannot be read, or as for `read_json`.
    """
    value = read_json(read_bytes(path, refusal, longest), str(path), refusal, longest)
    if not isinstance(value, dict):
        raise refusal(f"{path} is damaged: it holds {shown(value)} in place of an object")
    return value


def read_bytes(path: Path, refusal: type[PathlenError], longest: int = LONGEST) -> bytes:
    """Read a file that is no larger than it should be.

    Raises:
        PathlenError: A `refusal`: it cannot be read, or is larger.
    """
    try:
        with open_to_read(path) as file:
            data = file.read(longest + 1)
    except OSError as error:
        raise refusal(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null character in the name
        raise refusal(f"{shown(os.fspath(path))} is the name of no file: {error}") from error
    if len(data) > longest:
        raise refusal(f"{path} is larger than the {longest:,} bytes that are read of it")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice, 60)} is given twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}; numbers must be finite")


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits) if len(digits) <= LONGEST_NUMBER else math.inf
    if math.isinf(value):
        raise ValueError(f"it holds {shown(digits, 40)}, which no float is as large as")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other more than so many levels deep."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return False
    return True
