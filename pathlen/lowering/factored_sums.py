"""Sums in which products share factors: the units of the canonical form of `factoring`.

What is written multiplied out or factored, (1 - z) n + z h or n + z (h - n), is one function and
has one graph. Costs nothing where no summand is a product, and one walk back over the sum where
one is.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Protocol

import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.factoring import Form, TooManyWaysError, factored
from pathlen.lowering.flat import combined, grouped, have_common_origin
from pathlen.lowering.gains import terms as terms_of
from pathlen.lowering.inside import inside
from pathlen.lowering.labels import broadcast
from pathlen.lowering.liveness import cuts_history
from pathlen.lowering.moving import before_moves
from pathlen.lowering.multiplied import Multiplier
from pathlen.lowering.operators import Meeting, inverted
from pathlen.lowering.polynomials import ONE, Key, Polynomial, added, is_equal, ratio, times
from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Operator, Value, varying_operands
from pathlen.lowering.waiting import Waiting, is_waiting_sum

_MOST_MONOMIALS = 256
_LONG = 32
"""Summands from which on a sum is taken as it is flat, and the constants in it are left out."""


class Meet(Protocol):
    """Makes the units of tensors that meet: `elementwise.merged`."""

    def __call__(
        self, call: Call, meeting: Meeting, lowering: Lowering, *, kept: Collection[int] | None
    ) -> Value:
        """The result of a call; operands with the ids kept are one part each."""
        ...


def factored_sum(
    call: Call,
    meeting: Meeting,
    flat: Sequence[tuple[Value, Value]],
    lowering: Lowering,
    meet: Meet,
) -> Value | None:
    """The result of a sum in its canonical form; None where that is how it is written.

    Args:
        call: the sum.
        meeting: what meets in it.
        flat: the same, flat: parts, each with the tensor that has its factor.
        lowering: the lowering at work.
        meet: makes the units.
    """
    parts = [part for part, _ in flat]
    again = _reads_sums_again(call, meeting, parts, lowering)
    if call.output.is_complex() or not (again or any(map(_is_product, parts))):
        return None
    known = _either_way(call, meeting, parts, lowering)
    if known is None:
        known = _shorter(call, meeting, flat, lowering, again=again)
    if known is None:
        return None
    multiplier, polynomial = known
    for key in dict.fromkeys(key for monomial in polynomial for key in monomial):
        polynomial = multiplier.from_its_limit(polynomial, key)
    apart = _of_one_root(call, polynomial, multiplier, lowering)
    rest = {monomial: own for monomial, own in polynomial.items() if monomial not in apart}
    try:
        form = factored(rest)
        form = _inlined(form, rest, multiplier)
    except TooManyWaysError:
        return None
    terms = [*form.terms, *((own, tuple(monomial)) for monomial, own in apart.items())]
    if not terms or _units_of(Form(tuple(terms))) == _units_as_written(parts, multiplier):
        return None
    return _Units(call, multiplier, lowering, meet).result(Form(tuple(terms)))


def _shorter(
    call: Call,
    meeting: Meeting,
    flat: Sequence[tuple[Value, Value]],
    lowering: Lowering,
    *,
    again: bool,
) -> tuple[Multiplier, Polynomial] | None:
    """The polynomial that a sum is, if its products share factors or it has fewer summands.

    Args:
        call: the sum.
        meeting: what meets in it.
        flat: the same, flat.
        lowering: the lowering at work.
        again: whether a sum in it is read again, so that it is wanted in any case.
    """
    multiplier = Multiplier(call, [*meeting.operands], lowering)
    is_long = len(flat) > _LONG
    written = multiplier.of_call([*dict(flat).values()] if is_long else [*meeting.operands])
    if written is None:
        return None
    polynomial = _opened(written, multiplier)
    is_shorter = sum(map(bool, polynomial)) < len(flat)
    shares = (_shares_factors(one, multiplier) for one in (written, polynomial))
    return (multiplier, polynomial) if again or is_shorter or any(shares) else None


def _either_way(
    call: Call, meeting: Meeting, parts: Sequence[Value], lowering: Lowering
) -> tuple[Multiplier, Polynomial] | None:
    """The polynomial that a sum of choices by one mask is, whatever they choose; None otherwise.

    Torch writes `lerp` out like that: with 1 - z from the other end where z is large.
    """
    met = [before_moves(one) for part in parts for one in (part, *_factors_of(part))]
    calls = [value.call for value in met if value.call is not None]
    masks = Counter(made["condition"] for made in calls if made.name == "aten.where")
    for mask in (mask for mask, number in masks.items() if number > 1 and mask.varies):
        found = list[tuple[Multiplier, Polynomial]]()
        for side in ("self", "other"):
            multiplier = Multiplier(call, [*meeting.operands], lowering, (mask, side))
            written = multiplier.of_call([*meeting.operands])
            found += [] if written is None else [(multiplier, _opened(written, multiplier))]
        polynomials = [{m: own for m, own in one.items() if m} for _, one in found]
        if len(found) == 2 and polynomials[0].keys() == polynomials[1].keys():
            same = ratio(*polynomials)
            if same is not None and is_equal(same, ONE):
                return found[1]
    return None


def _factors_of(summand: Value) -> Sequence[Value]:
    part = before_moves(summand)
    return () if is_waiting_sum(part) or part.operator != "product" else part.parts


def _reads_sums_again(
    call: Call, meeting: Meeting, parts: Sequence[Value], lowering: Lowering
) -> bool:
    """Whether a summand is a sum that other calls read too, all of them sums that end in a call."""
    readers = lowering.readers
    again = [part for part in parts if _is_sum_read_again(part, readers)]
    return bool(again) and not inside(call, [*meeting.operands], readers).isdisjoint(map(id, again))


def _is_sum_read_again(part: Value, readers: Mapping[int, int]) -> bool:
    """Whether a summand is a sum of several tensors, moved or scaled at most, with more readers."""
    value, again = part, False
    while not is_waiting_sum(value):
        again |= readers.get(id(value.node), 0) > 1
        if value.merge:
            return again and value.operator == "sum"
        below = [] if value.call is None else varying_operands(value.call)
        if len(below) != 1 or value.function is not None or inverted(value):
            return False
        if kind_of(value) not in ("elementwise", "movement"):
            return False
        (value,) = below
    return False


def _is_product(part: Value) -> bool:
    """Whether a summand is a product of several tensors, moved or scaled at most."""
    value = part
    while is_waiting_sum(value) or not (value.merge and value.operator == "product"):
        if (
            is_waiting_sum(value)
            or value.call is None
            or value.merge
            or value.function is not None
            or inverted(value)
        ):
            return False
        below = varying_operands(value.call)
        if len(below) != 1 or kind_of(value) not in ("elementwise", "movement"):
            return False
        (value,) = below
    return True


# --- what is written ---------------------------------------------------------------------------


def _units_of(form: Form) -> Hashable:
    """Which units there are of a form: what constants are beside them is no matter."""
    terms = []
    for _, factors in form.terms:
        units = [_units_of(f) if isinstance(f, Form) else f for f in factors]
        terms.append(_met_units("product", units))
    return _met_units("sum", terms)


def _units_as_written(parts: Sequence[Value], multiplier: Multiplier) -> Hashable:
    """The same of a sum as the program has it."""
    told: dict[int, Hashable] = {}
    return _met_units("sum", [_units_of_value(part, multiplier, told) for part in parts])


def _met_units(operator: Operator, units: Sequence[Hashable]) -> Hashable:
    """What units meet in: one of them that is there twice is made twice."""
    return units[0] if len(units) == 1 else (operator, frozenset(Counter(units).items()))


def _units_of_value(value: Value, multiplier: Multiplier, told: dict[int, Hashable]) -> Hashable:
    """The same of a part, down to factors that the polynomial has, or to a layer.

    Args:
        value: the part.
        multiplier: knows the factors.
        told: what is known of other values, by their ids: they may share what they are made of.
    """
    if id(value) not in told:
        told[id(value)] = _units_found(value, multiplier, told)
    return told[id(value)]


def _units_found(value: Value, multiplier: Multiplier, told: dict[int, Hashable]) -> Hashable:
    below = value
    while True:
        known = [monomial for monomial in multiplier.known(below) if monomial]
        if len(known) == 1 and len(known[0]) == 1:
            (key,) = known[0]
            if multiplier.atoms[key].block is None or not below.parts:
                return key
        if below.merge and below.parts:
            terms = [_units_of_value(part, multiplier, told) for part in below.parts]
            return _met_units(below.operator, terms)
        operands = [] if below.call is None else varying_operands(below.call)
        if len(operands) != 1 or cuts_history(below):
            return id(below)
        (below,) = operands


# --- inner sums -----------------------------------------------------------------------------------


def _within(key: Key, multiplier: Multiplier, end: Key = None) -> set[Key]:
    """The factor and, of an inner sum, all factors in it, but for those of a given one."""
    found, stack = set[Key](), [key]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            atom = multiplier.atoms[current]
            if current != end:
                stack += [k for monomial in atom.block or () for k in monomial]
                stack += atom.factors
    return found


def _shares_factors(polynomial: Polynomial, multiplier: Multiplier) -> bool:
    """Whether a tensor stands in two summands, or in one and in an inner sum of any."""
    counts = Counter(key for monomial in polynomial for key in monomial)
    within = Counter[Key]()
    for key in counts:
        within.update(_within(key, multiplier))
    return any(n > 1 for n in (*counts.values(), *within.values()))


def _opened(polynomial: Polynomial, multiplier: Multiplier) -> Polynomial:
    """A polynomial in which inner sums are multiplied out that share a tensor with the rest."""
    closed = set[Key]()
    while True:
        counts = Counter(key for monomial in polynomial for key in monomial)
        blocks = [k for k in counts if multiplier.atoms[k].block is not None and k not in closed]
        for key in blocks:
            others = (_within(k, multiplier, end=key) for k in counts if k != key)
            elsewhere = set[Key]().union(*others)
            alone = counts[key] == 1 and frozenset([key]) in polynomial and key not in elsewhere
            if alone or (_within(key, multiplier) - {key}) & elsewhere:
                found = _replaced(polynomial, key, multiplier)
                if found is not None:
                    polynomial = found
                    break
                closed.add(key)
        else:
            return polynomial


def _replaced(polynomial: Polynomial, key: Key, multiplier: Multiplier) -> Polynomial | None:
    """A polynomial with an inner sum multiplied out; None where an element would meet itself.

    That may be in another inner sum: `(a + b) * (a + c)` stays, whichever is looked at first.
    """
    block = multiplier.atoms[key].block
    assert block is not None
    within = _within(key, multiplier)
    products: list[Polynomial] = []
    for monomial, own in polynomial.items():
        if key not in monomial:
            products.append({monomial: own})
            continue
        rest = monomial - {key}
        beside = set[Key]().union(*(_within(k, multiplier) for k in rest))
        if multiplier.joined(frozenset(within), frozenset(beside)) is None:
            return None
        product = times({rest: own}, block, multiplier.joined)
        if product is None:
            return None
        products.append(product)
    if sum(map(len, products)) > _MOST_MONOMIALS:
        return None
    return added(products)


def _inlined(form: Form, polynomial: Polynomial, multiplier: Multiplier) -> Form:
    """A form in which an inner sum that is only a summand of another sum is part of that."""
    while True:
        counts, summands = Counter[Key](), set[Key]()
        _count(form, counts, summands)
        flat = [k for k in summands if multiplier.atoms[k].block is not None and counts[k] == 1]
        found = _replaced(polynomial, flat[0], multiplier) if flat else None
        if found is None:
            return form
        polynomial = found
        form = factored(polynomial)


def _count(form: Form, counts: Counter[Key], summands: set[Key]) -> None:
    for _, factors in form.terms:
        for factor in factors:
            if isinstance(factor, Form):
                _count(factor, counts, summands)
                continue
            counts[factor] += 1
            if len(factors) == 1:
                summands.add(factor)


def _of_one_root(
    call: Call, polynomial: Polynomial, multiplier: Multiplier, lowering: Lowering
) -> Polynomial:
    """The summands of one factor that are functions of one tensor together: they meet first."""
    alone = {}
    for monomial, own in polynomial.items():
        if len(monomial) == 1:
            (key,) = monomial
            atom = multiplier.atoms[key]
            if atom.block is None and not atom.factors:
                alone[monomial] = atom.alone or atom.value, own
    if len(alone) < 2 or not have_common_origin([value for value, _ in alone.values()]):
        return {}
    groups = grouped(call, "sum", [*alone.values()], lowering.constants)
    left = {id(one) for one, _ in groups}
    return {m: own for m, (value, own) in alone.items() if id(value) not in left}


# --- units ----------------------------------------------------------------------------------------


class _Units:
    """Makes the units of a form.

    Args:
        call: the sum that it is the form of.
        multiplier: has what the factors are.
        lowering: the lowering at work.
        meet: makes the units of tensors that meet.
    """

    def __init__(self, call: Call, multiplier: Multiplier, lowering: Lowering, meet: Meet) -> None:
        self._call, self._atoms = call, multiplier.atoms
        self._lowering, self._meet = lowering, meet
        self._uses = Counter[Key]()

    def result(self, form: Form) -> Value:
        """The result of the call."""
        _count(form, self._uses, set())
        if len(form.terms) == 1:
            ((own, factors),) = form.terms
            value = self._scaled(self._product(factors), own)
        else:
            value = self._sum(form)
        found = self._lowering.passed(self._call.node, value)
        found.call = self._call
        return found

    def _sum(self, form: Form) -> Value:
        terms = [(self._product(factors), own) for own, factors in form.terms]
        if len(terms) == 1:
            value, own = terms[0]
            shifted = combined(self._call, "sum", [(value, own)])
            return self._affine(value, own, shifted, form.constant)
        last = combined(self._call, "sum", terms)
        value = self._met(last, "sum", [value for value, _ in terms])
        if self._lowering.weights is not None:  # else parameters need no values
            value.terms = terms_of(last, [*value.parts], self._lowering.constants)
        return value

    def _product(self, factors: Sequence[Key | Form]) -> Value:
        values = []
        for factor in factors:
            if isinstance(factor, Form):
                values.append(self._sum(factor))
            elif self._atoms[factor].factors:
                values += [self._atoms[key].value for key in self._atoms[factor].factors]
            elif len(factors) == 1:
                return self._atoms[factor].alone or self._atoms[factor].value
            else:
                values.append(self._atoms[factor].value)
        if len(values) == 1:
            return values[0]
        last = combined(self._call, "product", [(value, 1.0) for value in values])
        return self._met(last, "product", values)

    def _met(self, last: Call, operator: Operator, values: list[Value]) -> Value:
        several = [self._atoms[key].value for key, uses in self._uses.items() if uses > 1]
        for value in several:
            if isinstance(value, Waiting):
                value.settle()  # it is a unit of its own
        meeting = Meeting(operator, values, (last,))
        return self._meet(last, meeting, self._lowering, kept={*map(id, several)})

    def _affine(
        self, value: Value, own: torch.Tensor, call: Call, constant: torch.Tensor | None
    ) -> Value:
        """A tensor times a constant, plus a constant."""
        last = call
        if constant is not None:
            inner = self._scaled(value, own)
            inner.call = call
            arguments = {"self": inner, "other": constant, "alpha": 1}
            add = torch.ops.aten.add.Tensor
            last = Call(add, "aten.add", arguments, call.node, call.like)
        labels = broadcast(value.labels, call.shape)
        labels = self._lowering.scaled(labels, own.abs())
        return self._lowering.result(last, labels)

    def _scaled(self, value: Value, own: torch.Tensor) -> Value:
        """A tensor times a constant; its terms with it."""
        found = self._lowering.passed(self._call.node, value)
        found.labels = self._lowering.scaled(broadcast(value.labels, self._call.shape), own.abs())
        if value.terms is not None:
            found.terms = {part: factor * own for part, factor in value.terms.items()}
        return found
