"""What numbers are called in tables, records and files, by weighting and by type."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlen.report.layers import Number


def weighted_name(weighting: str, quantity: str) -> str:
    """What a quantity is called under a weighting: that of all paths alike has the plain name."""
    return quantity if weighting == "uniform" else f"{weighting}_{quantity}"


def entry(name: str, value: int | Number) -> dict[str, Any]:
    """Give a number as the entries of a record that stand for it: a Fraction has two."""
    if isinstance(value, Fraction):
        exact = f"{digits(value.numerator)}/{digits(value.denominator)}"
        return {name: float(value), f"{name}_exact": exact}
    return {name: value}


def digits(value: int) -> str:
    """Write an integer of any size in decimal.

    ``str`` refuses integers of more than 4300 digits by default; path counts have more.
    """
    return format(Decimal(value), "f")
