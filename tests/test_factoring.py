"""The canonical form of a polynomial, against all forms that there are of it."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from pathlen.lowering.factoring import Form, factored

NUMBERS = (1.0, 1.0, 1.0, -1.0, 2.0)


def polynomial(terms):
    """{"ab": 2.0, "": 1.0} as 2 a b + 1."""
    return {frozenset(t): torch.tensor(c, dtype=torch.float64) for t, c in terms.items()}


def multiplied_out(form):
    """The monomials of a form with their coefficients, each as often as it is there."""
    found = [] if form.constant is None else [("", float(form.constant))]
    for own, factors in form.terms:
        products = [("", float(own))]
        for factor in factors:
            inner = multiplied_out(factor) if isinstance(factor, Form) else [(factor, 1.0)]
            products = [
                ("".join(sorted(one + other)), first * second)
                for (one, first), (other, second) in itertools.product(products, inner)
            ]
        found += products
    return found


def drawn(seed):
    """A polynomial of a few monomials in a few factors, often with factors in common."""
    chosen = random.Random(seed)
    letters = "abcdef"[: chosen.randint(2, 6)]
    if chosen.random() < 0.5:  # of sums that are multiplied
        one, other = chosen.sample(range(1, 4), 2)
        left = chosen.sample("abc", min(one, 3))
        right = chosen.sample("def", min(other, 3))
        terms = {x + y: 1.0 for x in left for y in right}
        if chosen.random() < 0.5:
            terms[chosen.choice("abcdef")] = chosen.choice(NUMBERS)
        return terms
    count = chosen.randint(2, 5)
    monomials = [
        "".join(sorted(chosen.sample(letters, chosen.choice((1, 2, 2))))) for _ in range(count)
    ]
    return {monomial: chosen.choice(NUMBERS) for monomial in monomials}


# --- all forms, by brute force --------------------------------------------------------------------


def partitions(items):
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        for place, group in enumerate(smaller):
            yield [*smaller[:place], [first, *group], *smaller[place + 1 :]]
        yield [[first], *smaller]


def all_sums(terms, known):
    """(products, summands, form) of each sum of products with the given monomials."""
    key = frozenset(terms.items())
    if key not in known:
        known[key] = found = {}
        for groups in partitions([m for m in terms if m]):
            options = [all_products({m: terms[m] for m in group}, known) for group in groups]
            for chosen in itertools.product(*options):
                products = sum(cost for cost, _, _ in chosen)
                summands = sum(more for _, more, _ in chosen) + len(chosen) * (len(chosen) > 1)
                form = frozenset(form for _, _, form in chosen)
                if len(form) == len(chosen):
                    found[form] = min((products, summands), found.get(form, (99, 99)))
    return [(*cost, form) for form, cost in known[key].items()]


def all_products(terms, known):
    """The same of each product that is all of the given monomials."""
    if len(terms) == 1:
        (monomial,) = terms
        return [(len(monomial) - 1, 0, frozenset(monomial))]
    letters = sorted(set("".join(terms)))
    found = []
    for size in range(1, len(letters)):
        for left in itertools.combinations(letters, size):
            if letters[0] not in left:
                continue
            split = split_at(terms, set(left))
            if split is None:
                continue
            for one in all_factors(split[0], known):
                for other in all_factors(split[1], known):
                    cost = one[0] + other[0] + 1
                    found.append((cost, one[1] + other[1], one[2] | other[2]))
    return list({form: (cost, more, form) for cost, more, form in found}.values())


def all_factors(terms, known):
    if len(terms) == 1:
        ((monomial, _),) = terms.items()
        return [(len(monomial) - 1, 0, frozenset(monomial))]
    whole = [] if "" in terms else all_products(terms, known)
    sums = [
        (*rest, frozenset([("sum", form)]))
        for *rest, form in all_sums(terms, known)
        if len(form) > 1
    ]
    single = [one for one in all_sums(terms, known) if len(one[2]) == 1 and "" in terms]
    shifted = [(cost, more, next(iter(form))) for cost, more, form in single]
    return [*whole, *sums, *shifted]


def split_at(terms, left):
    """Two sums of which the terms are the product; one has the factors on the left."""
    rows = {"".join(x for x in m if x in left) for m in terms}
    columns = {"".join(x for x in m if x not in left) for m in terms}
    table = {(r, c): terms.get("".join(sorted(r + c))) for r in rows for c in columns}
    if None in table.values() or len(rows) * len(columns) != len(terms):
        return None
    row, column = min(rows), min(columns)
    if any(
        v * table[row, column] != table[r, column] * table[row, c] for (r, c), v in table.items()
    ):
        return None
    return (
        {r: table[r, column] for r in rows},
        {c: table[row, c] / table[row, column] for c in columns},
    )


def as_set(form):
    """A form as `all_sums` has it: without coefficients, constants and order."""
    return frozenset(factors_as_set(factors) for _, factors in form.terms)


def factors_as_set(factors):
    found = set()
    for factor in factors:
        if not isinstance(factor, Form):
            found.add(factor)
        elif len(factor.terms) == 1:
            found |= factors_as_set(factor.terms[0][1])
        else:
            found.add(("sum", as_set(factor)))
    return frozenset(found)


@pytest.mark.parametrize("seed", range(150))
def test_the_form_is_the_best_of_all(seed):
    terms = drawn(seed)
    form = factored(polynomial(terms))
    assert sorted(multiplied_out(form)) == sorted(terms.items())
    known = {}
    everything = {found: cost for *cost, found in all_sums(terms, known)}
    least = min(everything.values())
    best = [found for found, cost in everything.items() if cost == least]
    # where several are as good, constants may tell them apart, or it stays multiplied out
    assert as_set(form) in (best if len(best) == 1 else everything)


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_summands_and_the_names_of_factors_are_no_matter(seed):
    terms, chosen = drawn(seed), random.Random(seed)
    first = as_set(factored(polynomial(terms)))
    mixed = chosen.sample(list(terms.items()), len(terms))
    assert as_set(factored(polynomial(dict(mixed)))) == first
    new = dict(zip("abcdef", chosen.sample("uvwxyz", 6), strict=True))
    renamed = {"".join(new[x] for x in m): c for m, c in mixed}
    back = str.maketrans({v: k for k, v in new.items()})
    form = factored(polynomial(renamed))
    assert sorted(
        ("".join(sorted(m.translate(back))), c) for m, c in multiplied_out(form)
    ) == sorted(terms.items())
    assert len(as_set(form)) == len(first)


def test_a_sum_of_many_products_is_quick():
    letters = [f"x{n}" for n in range(30)]
    one = torch.ones((), dtype=torch.float64)
    square = {frozenset([f"a{a}", b]): one for a in range(20) for b in letters}
    form = factored(square)  # (a0 + ... + a19)(x0 + ... + x29)
    assert len(form.terms) == 1
    assert sorted(len(factor.terms) for factor in form.terms[0][1]) == [20, 30]
