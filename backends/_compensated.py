"""Sums that keep the rounding error of every addition, for the compiled sweeps.

A number is a pair of float64, high + low (Knuth, TAOCP 2, 4.2.2), so results do not lose digits
with the width or depth of a graph. Path counts also carry a power of 2**512: they do not overflow.
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


@compiled(inline="always")
def add_count(high, low, power, term, term_low, term_power):  # type: ignore[no-untyped-def]
    """The same for counts times 2**(512 power); the smaller power is brought to the larger.

    Counts are whole numbers times their power and settled ones are below 2**512, so two powers
    apart the smaller is below 2**-400 of the larger and is left out.
    """
    if term_power > power:
        factor = SMALL if term_power == power + 1 else 0.0
        high, low, power = high * factor, low * factor, term_power
    elif term_power < power:
        factor = SMALL if term_power == power - 1 else 0.0
        term, term_low = term * factor, term_low * factor
    high, low = add(high, low, term, term_low)
    return high, low, power


@compiled(inline="always")
def settle(high, low, power):  # type: ignore[no-untyped-def]
    """Bring a count's low part below the last digit of high, and high below 2**512."""
    total = high + low
    low -= total - high
    if total >= BIG:
        return total * SMALL, low * SMALL, power + 1
    return total, low, power


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
