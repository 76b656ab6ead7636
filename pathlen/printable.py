"""Texts and values from elsewhere, made fit for terminals, messages, logs and spreadsheets.

A name may hold anything: characters that move the cursor, turn the direction of reading round or
cannot be encoded, a formula, a megabyte. What people read goes through this module; what programs
read back (JSON, GraphML, saved graphs) keeps names as they are.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

LONGEST = 200
"""Characters of a name or a value in a message or a table; what is longer is cut in its middle."""

LONGEST_LINE, MOST_LINES = 1000, 1000
"""Of a message: what no list of operations that are refused comes near."""

GAP = "..."

_FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""What spreadsheets begin a formula with, in full width too."""


def printable(text: str, longest: int | None = LONGEST) -> str:
    r"""One line that can be printed: what has no shape is written as an escape, as "\x1b".

    These are control characters, line ends, marks of direction, characters without width and
    halves of surrogate pairs.

    Args:
        text: Any.
        longest: Characters that are kept; None for all.
    """
    if longest is not None and len(text) > longest:
        text = cut(text, longest)  # before and after: an escape takes up to ten characters
    if text.isprintable():
        return text
    escaped = "".join(one if one.isprintable() or one == "\u3000" else _escape(one) for one in text)
    return escaped if longest is None else cut(escaped, longest)


def cut(text: str, longest: int = LONGEST) -> str:
    """A text of at most so many characters, which has lost its middle if it was longer."""
    if len(text) <= longest:
        return text
    kept = longest - len(GAP)
    return f"{text[: kept - kept // 2]}{GAP}{text[len(text) - kept // 2 :]}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def message(text: str) -> str:
    """A message of several lines that can be printed, each line and their number cut."""
    if text.isascii() and len(text) <= LONGEST_LINE and text.replace("\n", "").isprintable():
        return text
    lines = text.split("\n")
    shown = [printable(line, LONGEST_LINE) for line in lines[:MOST_LINES]]
    left = len(lines) - len(shown)
    return "\n".join([*shown, f"{GAP} {left} more lines"] if left else shown)


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as `repr` writes it, cut; of a large one only the beginning is ever written out."""
    return printable(_REPR.repr(value), longest)


def listed(names: Iterable[object], most: int = 12) -> str:
    """Some names, with commas between them, and how many more there are."""
    every = [*names]
    parts = [printable(str(name), 60) for name in every[:most]]
    left = len(every) - len(parts)
    return ", ".join([*parts, f"and {left} more"] if left else parts)


def spreadsheet_cell(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula; numbers stay numbers.

    A text that begins as a formula gets an apostrophe before it, as OWASP advises ("CSV
    Injection"): =, +, -, @, also after spaces. Tabs and line ends are written as escapes.
    """
    if not isinstance(value, str):
        return value
    text = printable(value, None)
    if text.lstrip()[:1] not in _FORMULAS or not text.strip() or _is_number(text):
        return text
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Repr(reprlib.Repr):
    """`repr` of the beginning of a value, in its own order, with numbers of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 8
        self.maxstring = self.maxother = LONGEST

    def repr_int(self, value: int, level: int) -> str:
        """All digits of a number of usual size; Python refuses to write very long ones."""
        if value.bit_length() > 400:
            return f"a number of about {value.bit_length() * 3 // 10} digits"
        return repr(value)

    def repr_str(self, value: str, level: int) -> str:
        """The quoted text, cut before it is quoted."""
        return repr(cut(value, self.maxstring))

    def repr_dict(self, value: Mapping[Any, Any], level: int) -> str:
        """The first entries in their order."""
        if not value or level <= 0:
            return "{...}" if value else "{}"
        pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(part, level - 1)}"
            for key, part in islice(value.items(), self.maxdict)
        ]
        more = [GAP] if len(value) > self.maxdict else []
        return f"{{{', '.join([*pairs, *more])}}}"


_REPR = _Repr()
