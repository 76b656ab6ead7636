"""Arguments that are of another kind than they should be, told in words."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from pathlen.errors import PathlenError
from pathlen.printable import shown


def require(value: object, kind: type, name: str, what: str) -> None:
    """Check an argument that is None or of a class.

    Args:
        value: The argument.
        kind: The class.
        name: Of the argument.
        what: What to give, for the message.

    Raises:
        PathlenError: It is something else.
    """
    if value is not None and not isinstance(value, kind):
        raise PathlenError(f"{name}={shown(value)} is no {kind.__name__}; give a {what}")


def require_number(value: Any, name: str) -> Any:
    """The argument itself: a number, or a tensor of one; True and False are none.

    Raises:
        PathlenError: It is something else.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number or (isinstance(value, Tensor) and value.numel() == 1):
        return value
    raise PathlenError(f"{name}={shown(value)} is no number")


def require_whole(value: Any, name: str) -> Any:
    """The argument itself: a number without a fraction.

    Raises:
        PathlenError: It is something else.
    """
    number = require_number(value, name)
    if not float(number).is_integer():
        raise PathlenError(f"{name}={shown(value)} is no whole number")
    return value
