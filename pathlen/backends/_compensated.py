"""Sums that keep the rounding error of every addition, for the compiled sweeps.

A number is a pair of float64, high + low (Knuth, TAOCP 2, 4.2.2), so results do not lose digits
with the width or depth of a graph. Path counts also carry a power of 2**512 (BIG): they do not
overflow.
"""

from pathlen.backends._compiled import compiled

BIG = 2.0**512
SMALL = 2.0**-512
_SPLITTER = 2.0**33 + 1.0


@compiled(inline="always")
def add(high, low, term, term_low):  # type: ignore[no-untyped-def]
    """(high, low) + (term, term_low), with the rounding error of high + term kept in low."""
    total = high + term
    part = total - high
    return total, low + ((high - (total - part)) + (term - part)) + term_low


@compiled()
def plus(number, high, low):  # type: ignore[no-untyped-def]
    """A pair and two more parts, with the rounding error of the high ones kept in low."""
    return add(number[0], number[1], high, low)


@compiled()
def times(number, factor):  # type: ignore[no-untyped-def]
    """A pair times a factor, each part rounded."""
    return number[0] * factor, number[1] * factor


@compiled()
def top(value):  # type: ignore[no-untyped-def]
    """The first 20 bits of a number below 2**990 (T. J. Dekker, Numerische Mathematik 18, 1971)."""
    product = value * _SPLITTER
    return product - (product - value)


@compiled()
def split(number):  # type: ignore[no-untyped-def]
    """The same number with 20 bits in high: sums of such parts are exact in 53 bits."""
    high = top(number[0] + number[1])
    return high, (number[0] - high) + number[1]


@compiled(inline="always", error_model="numpy")
def part(number, divisor):  # type: ignore[no-untyped-def]
    """A pair divided by a whole number below 2**33, as a pair.

    20 bits times the divisor are exact, and so is what they leave of the high part, which is 2**19
    times smaller than the whole.
    """
    inverse = 1.0 / divisor
    high = top((number[0] + number[1]) * inverse)
    return high, ((number[0] - high * divisor) + number[1]) * inverse
