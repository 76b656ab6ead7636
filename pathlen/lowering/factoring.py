"""The canonical form of a polynomial: factors drawn out in one way, however it was written.

Only the distributive law is applied, so multiplied out the form has each monomial once; nothing is
added and taken away again. Where a polynomial falls into parts without a common factor, each has
its own form:

1. Factors of all monomials are drawn out: a b + a c = a (b + c).
2. Factors that are multiplied by the same, up to a constant, are one: a c + b c = (a + b) c.
3. A factor is drawn out where the rest is a constant times what it is multiplied by:
   1 + a + b + a b = (1 + a)(1 + b).
4. Else each monomial goes to one of its factors, in all ways. Of these forms that with the fewest
   products counts, then that with the fewest summands, then that with the fewest different
   constant factors: n - z n + z h = n + z (h - n). Where several are left, the polynomial is as
   good from all sides (a b + b c + c a), and stays multiplied out.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pathlen.lowering.polynomials import (
    ALONE,
    ONE,
    Key,
    Monomial,
    Polynomial,
    added,
    components,
    divided,
    is_equal,
    ratio,
)

_MOST_WAYS = 1 << 11
_Bundle = tuple[str, frozenset[Key]]


class TooManyWaysError(Exception):
    """There are more ways to draw out factors than are tried."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A sum of products.

    Attributes:
        terms: coefficients and factors of the summands; a factor is a key or a sum.
        constant: that is added; None for none.
    """

    terms: tuple[tuple[torch.Tensor, tuple["Key | Form", ...]], ...]
    constant: torch.Tensor | None = None


def factored(polynomial: Polynomial) -> Form:
    """The canonical form of a polynomial.

    O(m k) for m monomials of k factors where the first three rules do; no more than 2048 ways
    are tried of what these leave.

    Raises:
        TooManyWaysError: there are more.
    """
    rest = {monomial: own for monomial, own in polynomial.items() if monomial}
    constant = polynomial.get(ALONE)
    parts = components(rest)
    shares = _shares_of_constant(parts, constant)
    terms = []
    for part, share in zip(parts, shares, strict=True):
        terms += _of_component(part, share)
    taken = [share for share in shares if share is not None]
    if taken and constant is not None:
        constant = constant - sum(taken)
        constant = None if is_equal(constant + 1, ONE) else constant
    return Form(tuple(terms), constant)


def _shares_of_constant(
    parts: list[Polynomial], constant: torch.Tensor | None
) -> list[torch.Tensor | None]:
    """What of a constant belongs to each part, so that it is a product: (1 + a)(1 + b)."""
    none: list[torch.Tensor | None] = [None] * len(parts)
    if constant is None:
        return none
    wanted = [_completion(part) for part in parts]
    total = sum((share for share in wanted if share is not None), torch.zeros_like(ONE))
    return wanted if is_equal(constant, torch.as_tensor(total)) else none


def _completion(part: Polynomial) -> torch.Tensor | None:
    """The constant with which a part is a product of two sums; None where there is none."""
    for key in sorted(_keys(part), key=repr):
        cofactor = divided(part, key)
        own = cofactor.pop(ALONE, None)
        rest = {monomial: c for monomial, c in part.items() if key not in monomial}
        factor = ratio(rest, cofactor) if own is not None else None
        if own is not None and factor is not None:
            return own * factor
    return None


def _of_component(
    part: Polynomial, constant: torch.Tensor | None
) -> list[tuple[torch.Tensor, tuple[Key | Form, ...]]]:
    """The summands of a part of a polynomial, in which all monomials hang together."""
    if len(part) == 1:
        ((monomial, own),) = part.items()
        return [(own, tuple(monomial))]
    common = frozenset.intersection(*part)
    if common and constant is None:
        form = factored({monomial - common: own for monomial, own in part.items()})
        return [_product([*common], form)]
    whole = part if constant is None else {**part, ALONE: constant}
    for key in _keys(part):
        found = _with_twins(part, key) if constant is None else None
        if found is not None:
            return found
        cofactor = divided(whole, key)
        factor = ratio({m: own for m, own in whole.items() if key not in m}, cofactor)
        if factor is not None:
            first = Form(((ONE, (key,)),), factor)
            return [_product([first], factored(cofactor))]
    return _best(part)


def _keys(part: Polynomial) -> list[Key]:
    return list(dict.fromkeys(key for monomial in part for key in monomial))


def _product(
    factors: list["Key | Form"], other: Form
) -> tuple[torch.Tensor, tuple["Key | Form", ...]]:
    """A product with a sum; where that is a product itself, one of all factors."""
    if len(other.terms) == 1 and other.constant is None:
        own, more = other.terms[0]
        return own, (*factors, *more)
    scale = _scale(other)
    terms = tuple((own / scale, own_factors) for own, own_factors in other.terms)
    constant = None if other.constant is None else other.constant / scale
    return scale, (*factors, Form(terms, constant))


def _scale(form: Form) -> torch.Tensor:
    """The coefficient that all summands have, apart from signs, else 1."""
    first, *others = [own.abs() for own, _ in form.terms]
    if bool((first == 0).any()) or not all(is_equal(first, other) for other in others):
        return ONE
    return first


# --- factors that are multiplied by the same ------------------------------------------------------


def _with_twins(
    part: Polynomial, key: Key
) -> list[tuple[torch.Tensor, tuple[Key | Form, ...]]] | None:
    """The form of a part in which a factor and its twins, multiplied by the same, are one.

    Factors that are in the same monomials, always side by side, are one as well. None where a
    factor has no twin.
    """
    bundle = frozenset.intersection(*[m for m in part if key in m])
    where = {m for m in part if key in m}
    bundle = frozenset(k for k in bundle if all((k in m) == (m in where) for m in part))
    cofactor = {m - bundle: part[m] for m in where}
    twins: Polynomial = {bundle: ONE}
    if ALONE in cofactor and len(cofactor) == 1:
        return None
    for other in _keys(part):
        if any(other in monomial for monomial in (*twins, *cofactor)):
            continue
        own = frozenset.intersection(*[m for m in part if other in m])
        there = {m for m in part if other in m}
        own = frozenset(k for k in own if all((k in m) == (m in there) for m in part))
        factor = ratio({m - own: part[m] for m in there}, cofactor)
        if factor is not None and not where & there:
            twins[own] = factor
    if len(twins) == 1:
        return None
    name: _Bundle = ("sum", frozenset(twins))
    used = {m | own for m in cofactor for own in twins}
    replaced = {m: own for m, own in part.items() if m not in used}
    replaced |= {m | {name}: own for m, own in cofactor.items()}
    form = Form(tuple(_of_component(replaced, None)))
    return [*_flat(form, {name: factored(twins)}).terms]


def _spelled(
    term: tuple[torch.Tensor, tuple["Key | Form", ...]], names: dict[Key, Form]
) -> tuple[torch.Tensor, tuple["Key | Form", ...]]:
    """A term with the sums in it that have names."""
    own, factors = term
    found: list[Key | Form] = []
    for factor in factors:
        if isinstance(factor, Form):
            found.append(_flat(factor, names))
        else:
            found.append(names.get(factor, factor))
    return own, tuple(found)


def _flat(form: Form, names: dict[Key, Form]) -> Form:
    """A sum in which those that have names are spelled out; a named sum alone is part of it."""
    terms: list[tuple[torch.Tensor, tuple[Key | Form, ...]]] = []
    for own, factors in form.terms:
        inner = names.get(factors[0]) if len(factors) == 1 else None
        if inner is None:
            terms.append(_spelled((own, factors), names))
        else:
            terms += [(own * factor, parts) for factor, parts in inner.terms]
    return Form(tuple(terms), form.constant)


# --- all ways -------------------------------------------------------------------------------------


def _best(part: Polynomial) -> list[tuple[torch.Tensor, tuple[Key | Form, ...]]]:
    """The one form with the fewest products, and so on; multiplied out where there are several."""
    if math.prod(map(len, part)) > _MOST_WAYS:
        raise TooManyWaysError
    written = [(own, tuple(monomial)) for monomial, own in part.items()]
    best = {_structure(Form(tuple(written))): written}
    lowest = _cost(Form(tuple(written)))
    for terms in _ways(part):
        form = Form(tuple(terms))
        cost = _cost(form)
        if cost < lowest:
            lowest, best = cost, {}
        if cost == lowest:
            best[_structure(form)] = terms
    return next(iter(best.values())) if len(best) == 1 else written


def _ways(part: Polynomial) -> Iterator[list[tuple[torch.Tensor, tuple[Key | Form, ...]]]]:
    """All forms in which each monomial goes to one of its factors."""
    known: dict[tuple[Key, Monomial | frozenset[Monomial]], Form] = {}
    for owners in itertools.product(*part):
        cofactors: dict[Key, Polynomial] = {}
        for owner, (monomial, own) in zip(owners, part.items(), strict=True):
            cofactors.setdefault(owner, {})[monomial - {owner}] = own
        terms = []
        for key, cofactor in cofactors.items():
            if len(cofactor) == 1:
                ((monomial, own),) = cofactor.items()
                terms.append((own, (key, *monomial)))
                continue
            place = key, frozenset(cofactor)
            if place not in known:
                known[place] = factored(cofactor)
            terms.append(_product([key], known[place]))
        yield _joined(terms)


def _joined(
    terms: list[tuple[torch.Tensor, tuple[Key | Form, ...]]],
) -> list[tuple[torch.Tensor, tuple[Key | Form, ...]]]:
    """Products that have the same sum as a factor are one."""
    found: dict[Key, list[tuple[torch.Tensor, Key, Form]]] = {}
    others: list[tuple[torch.Tensor, tuple[Key | Form, ...]]] = []
    for own, factors in terms:
        sums = [factor for factor in factors if isinstance(factor, Form)]
        if len(factors) == 2 and len(sums) == 1:
            (key,) = [factor for factor in factors if not isinstance(factor, Form)]
            found.setdefault(_structure(sums[0]), []).append((own, key, sums[0]))
        else:
            others.append((own, factors))
    for group in found.values():
        own, key, form = group[0]
        joined: Polynomial = {frozenset([key]): own}
        for factor, other, same in group[1:]:
            times = _ratio_of_forms(same, form)
            if times is None:
                others.append((factor, (other, same)))
            else:
                joined = added([joined, {frozenset([other]): factor * times}])
        if len(joined) == 1:
            others.append((own, (key, form)))
        else:
            whole = Form(tuple((factor, tuple(m)) for m, factor in joined.items()))
            others.append(_product([form], whole))
    return others


def _ratio_of_forms(one: Form, other: Form) -> torch.Tensor | None:
    """The constant that one sum is of another of the same structure, None where it is none."""
    return ratio(_named(one), _named(other))


def _named(form: Form) -> Polynomial:
    named = {frozenset([_structure_of(factors)]): own for own, factors in form.terms}
    return named if form.constant is None else {**named, ALONE: form.constant}


def _cost(form: Form) -> tuple[int, int, int]:
    """Products, summands and different constant factors, those of inner sums included."""
    products = summands = constants = 0
    for _, factors in form.terms:
        products += len(factors) - 1
        for factor in factors:
            if isinstance(factor, Form):
                more = _cost(factor)
                products, summands = products + more[0], summands + more[1]
                constants += more[2]
    if len(form.terms) > 1:
        summands += len(form.terms)
    different: list[torch.Tensor] = []
    for own, _ in form.terms:
        if not any(is_equal(own.abs(), other) for other in different):
            different.append(own.abs())
    return products, summands, constants + len(different) - 1


def _structure(form: Form) -> Key:
    """What tells forms apart, whatever their coefficients and the order."""
    return (
        "sum",
        frozenset(_structure_of(factors) for _, factors in form.terms),
        form.constant is None,
    )


def _structure_of(factors: tuple["Key | Form", ...]) -> Key:
    return frozenset(_structure(f) if isinstance(f, Form) else f for f in factors)
