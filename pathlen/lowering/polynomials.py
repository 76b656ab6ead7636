"""Polynomials: sums of products of tensors, multiplied out, each times a constant.

A polynomial maps monomials, sets of different factors, to coefficients. The factors are named by
keys; the empty monomial is a constant. Coefficients may differ by element, so they are tensors in
shapes that broadcast; whatever is said of two of them is said of all their elements.
"""

from collections.abc import Callable, Hashable, Iterable

import torch

Key = Hashable
Monomial = frozenset[Key]
Polynomial = dict[Monomial, torch.Tensor]

ALONE: Monomial = frozenset()
"""The monomial without factors: that of a constant."""
ONE = torch.ones((), dtype=torch.float64)
_ROUNDING = 1e-9


def scaled(polynomial: Polynomial, factor: torch.Tensor) -> Polynomial:
    """A polynomial times a constant."""
    return {monomial: own * factor for monomial, own in polynomial.items()}


def added(polynomials: Iterable[Polynomial]) -> Polynomial:
    """The sum of polynomials, without monomials whose coefficients cancel."""
    total: Polynomial = {}
    for polynomial in polynomials:
        for monomial, own in polynomial.items():
            if monomial not in total:
                total[monomial] = own
                continue
            before = total[monomial]
            total[monomial] = before + own
            if _is_rounding(total[monomial], before.abs() + own.abs()):
                del total[monomial]
    return total


def times(
    one: Polynomial, other: Polynomial, joined: Callable[[Monomial, Monomial], Monomial | None]
) -> Polynomial | None:
    """The product of two polynomials, multiplied out.

    Args:
        one: of them.
        other: of them.
        joined: gives the product of two monomials, None where there is none.

    Returns:
        The product, None where two monomials have none.
    """
    products: list[Polynomial] = []
    for first, own in one.items():
        for second, factor in other.items():
            monomial = joined(first, second)
            if monomial is None:
                return None
            products.append({monomial: own * factor})
    return added(products)


def ratio(one: Polynomial, other: Polynomial) -> torch.Tensor | None:
    """The constant that one polynomial is of another; None where it is none."""
    if one.keys() != other.keys() or not one:
        return None
    found: torch.Tensor | None = None
    for monomial, own in one.items():
        quotient = own / other[monomial]
        if not bool(quotient.isfinite().all()):
            return None
        if found is None:
            found = quotient
        elif not is_equal(found, quotient):
            return None
    return found


def is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two coefficients are equal, apart from rounding."""
    return _is_rounding(one - other, one.abs() + other.abs())


def _is_rounding(difference: torch.Tensor, size: torch.Tensor) -> bool:
    return bool((difference.abs() <= _ROUNDING * size).all())


def divided(polynomial: Polynomial, key: Key) -> Polynomial:
    """What a factor is multiplied by: the monomials that have it, without it."""
    return {m - {key}: own for m, own in polynomial.items() if key in m}


def components(polynomial: Polynomial) -> list[Polynomial]:
    """Parts of a polynomial without a constant that have no factor in common."""
    parts: list[tuple[set[Key], Polynomial]] = []
    for monomial, own in polynomial.items():
        keys, joined = set(monomial), {monomial: own}
        rest = []
        for known, part in parts:
            if known.isdisjoint(keys):
                rest.append((known, part))
            else:
                keys |= known
                joined = part | joined
        parts = [*rest, (keys, joined)]
    return [part for _, part in parts]
