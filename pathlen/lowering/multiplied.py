"""Sums and products of a program, multiplied out.

A sum is written as a polynomial of *atoms*: tensors that are no sum, product, or affine or moved
form of one, or that something outside of the sum reads. Constants are its coefficients. An inner
sum of several tensors is a *block*, which is multiplied out only where it is a summand, or where
one of its tensors stands elsewhere in the sum too. So h + z (n - h) stays short however long a
chain of sums h is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from pathlen.errors import TraceError
from pathlen.lowering.activity import function_values
from pathlen.lowering.context import Lowering
from pathlen.lowering.equal import equal
from pathlen.lowering.flat import combined, have_common_origin, moved_along
from pathlen.lowering.gains import terms
from pathlen.lowering.generic import GenericConstants, generic_if_zero, own_number
from pathlen.lowering.inside import inside, operands_of
from pathlen.lowering.moving import item_of, moved_numbers, moved_operands
from pathlen.lowering.operations import aten
from pathlen.lowering.operators import adds, divides, inverted, reciprocal
from pathlen.lowering.places import Places, identity
from pathlen.lowering.placing import moved_places
from pathlen.lowering.polynomials import (
    ALONE,
    ONE,
    Key,
    Monomial,
    Polynomial,
    added,
    ratio,
    scaled,
    times,
)
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import NEGATIONS, PRODUCTS, SAME, SUMS
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.waiting import is_waiting_sum

_MOST_NESTED_CALLS = 100
_MOST_MONOMIALS = 256
_PASSES = ("normalization", "softmax", "reduction")
_EXPANSIONS = frozenset(aten("expand expand_as broadcast_to"))


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """A factor of a monomial.

    Attributes:
        value: the factor, moved to where it meets others.
        base: before it was moved.
        places: of the elements in that; None where they are where they were.
        alone: the tensor that stands for it where nothing else is in its monomial.
        inverted: whether it is the reciprocal of the base.
        block: the polynomial that it is, of an inner sum; else None.
        factors: of the function that several factors are together, by their keys; else none.
        site: the product in which these meet: separate calls of a function are separate.
    """

    value: Value
    base: Value
    places: Places | None = None
    alone: Value | None = None
    inverted: bool = False
    block: Polynomial | None = None
    factors: tuple[Key, ...] = ()
    site: int = 0

    @property
    def key(self) -> Key:
        """What two atoms have in common that are one."""
        if self.factors:
            return self.site, frozenset((k, self.factors.count(k)) for k in self.factors)
        return id(self.base), self.places, self.inverted


class Multiplier:
    """Writes the sums and products that end in a call as polynomials.

    Args:
        call: the last one.
        operands: that it reads.
        lowering: the lowering at work.
        side: a mask, and the argument that a `where` by it is taken for; None for none.

    Attributes:
        atoms: by their keys.
    """

    def __init__(
        self,
        call: Call,
        operands: list[Value],
        lowering: Lowering,
        side: tuple[Value, str] | None = None,
    ) -> None:
        self._side = side
        self.atoms: dict[Key, Atom] = {}
        self._call, self._lowering = call, lowering
        self._constants = GenericConstants(lowering.constants)
        self._inside = inside(call, operands, lowering.readers)
        self._known: dict[int, Polynomial] = {}
        self._together: dict[frozenset[Key], bool] = {}
        self._passes: list[Value] = []
        self._depth = 0

    def of_call(self, operands: list[Value]) -> Polynomial | None:
        """The polynomial that the last call is, a sum of some tensors; None where it is unknown."""
        return self._sum(self._call, [value for value in operands if value.is_path])

    def of(self, value: Value) -> Polynomial:
        """The polynomial that a tensor is."""
        chosen = None if self._side is None else _taken(value, *self._side)
        if chosen is not None:
            return self.of(chosen)
        if id(value) not in self._known:
            self._depth += 1
            found = self._of_made(value) if self._depth < _MOST_NESTED_CALLS else None
            self._depth -= 1
            if found is None or len(found) > _MOST_MONOMIALS:
                found = self._of_atom(Atom(value, self._first_equal(value)))
            self._known[id(value)] = found
        return self._known[id(value)]

    def known(self, value: Value) -> Polynomial:
        """The polynomial that a tensor is, if it was asked for; no monomials otherwise."""
        return self._known.get(id(value), {})

    def joined(self, one: Monomial, other: Monomial) -> Monomial | None:
        """The product of two monomials; None where an element would meet itself in it."""
        for first in one:
            if any(self._is_one(first, second) for second in other):
                return None
        return one | other

    def from_its_limit(self, polynomial: Polynomial, key: Key) -> Polynomial:
        """A polynomial in which an activation is counted from its limit on the left, if shorter.

        A constant that is added makes no other unit, so that `(1 + tanh(u / 2)) / 2` and
        `1 - sigmoid(-u)` are gates like `sigmoid(u)`: all are 0 on the left.
        """
        limit = self._limit(self.atoms[key])
        if not limit:
            return polynomial
        shifts = ({m - {key}: own * limit} for m, own in polynomial.items() if key in m)
        shifted = added([polynomial, *shifts])
        return shifted if len({*shifted} - {ALONE}) <= len({*polynomial} - {ALONE}) else polynomial

    def _limit(self, atom: Atom) -> float:
        """What an activation tends to on the left of what it is a function of; 0 for none."""
        function = None if is_waiting_sum(atom.base) else atom.base.function
        if function is None or atom.inverted or atom.factors:
            return 0.0
        entry = [*self.of(function.region.entry).items()]
        values = function_values(function.region, self._lowering.constants)
        if values is None or values[1].shape[1:].numel() != 1 or values[1].is_complex():
            return 0.0
        turned = len(entry) == 1 and bool((entry[0][1] < 0).all())
        ends = values[1].double().flatten()[[-1, -2] if turned else [0, 1]].tolist()
        return ends[0] if math.isfinite(ends[0]) and abs(ends[0] - ends[1]) < 1e-6 else 0.0

    # --- what a tensor is -------------------------------------------------------------------------

    def _first_equal(self, value: Value) -> Value:
        """The first of several calls of one normalization; other calls are separate."""
        if kind_of(value) not in _PASSES or value.function is not None or value.merge:
            return value
        same = [one for one in self._passes if one.shape == value.shape and equal(one, value)]
        self._passes += [] if same else [value]
        return same[0] if same else value

    def _of_atom(self, atom: Atom) -> Polynomial:
        self.atoms.setdefault(atom.key, atom)
        return {frozenset([atom.key]): ONE}

    def _of_made(self, value: Value) -> Polynomial | None:
        """What a call makes of tensors: None for an atom."""
        call = value.call
        if call is None or value.softmax or value.layer or not value.dtype.is_floating_point:
            return None
        if is_waiting_sum(value):
            if id(value) not in self._inside:
                return None
            return self._block(value, self._sum(call, varying_operands(call)))
        if value.passes is not None:
            return None
        if value.operator == "product" and id(value) in self._inside and divides(call):
            return self._block(value, self._quotient(value, call))
        if value.function is not None:
            return None
        if kind_of(value) == "movement":
            return self._moved(value, call)
        if value.merge and value.parts and operands_of(value) == [*value.parts]:
            return self._of_parts(value, call)
        return self._elementwise(value, call) if kind_of(value) == "elementwise" else None

    def _of_parts(self, value: Value, call: Call) -> Polynomial | None:
        """A sum or product of tensors that were put together before."""
        if id(value) not in self._inside or not all(part.is_path for part in value.parts):
            return None
        if value.operator == "sum":
            factors = self._factors(call, [*value.parts], value.terms)
            if factors is None:
                return None
            parts = [scaled(self.of(v), f) for v, f in zip(value.parts, factors, strict=True)]
            return self._block(value, added(parts))
        total: Polynomial | None = {ALONE: ONE}
        for part in value.parts if value.operator == "product" else ():
            total = None if total is None else self._product(total, self.of(part), value)
        return self._block(value, total) if value.operator == "product" else None

    def _elementwise(self, value: Value, call: Call) -> Polynomial | None:
        varying = varying_operands(call)
        if not all(operand.is_path for operand in varying):
            return None  # a mask chooses
        if call.name in SAME:
            return scaled(self.of(varying[0]), -ONE if call.name in NEGATIONS else ONE)
        if len(varying) == 1 and (adds(call) or call.name in PRODUCTS or divides(call)):
            if divides(call) and call.arguments.get("other", varying[0]) is varying[0]:
                return None
            if call["self"] is call.arguments.get("other"):
                return None  # a square
            return self._sum(call, varying)
        if value.merge and id(value) in self._inside:
            if adds(call):
                return self._block(value, self._sum(call, varying))
            if call.name in PRODUCTS:
                one, other = (self.of(call[name]) for name in ("self", "other"))
                return self._block(value, self._product(one, other, value))
        if adds(call) and not value.merge:
            return self._of_one(value, call)
        return None

    def _block(self, value: Value, found: Polynomial | None) -> Polynomial | None:
        """An inner sum of several products; the same sum, or a multiple, is one and the same."""
        if found is None:
            return None
        inner = {monomial: own for monomial, own in found.items() if monomial}
        if len(inner) < 2:
            return found
        constant = {ALONE: found[ALONE]} if ALONE in found else {}
        for key, atom in self.atoms.items():
            factor = None if atom.block is None else ratio(inner, atom.block)
            if factor is not None and atom.value.shape == value.shape:
                return {frozenset([key]): factor, **constant}
        return {**self._of_atom(Atom(value, value, block=inner)), **constant}

    def _sum(self, call: Call, operands: list[Value]) -> Polynomial | None:
        """A sum of tensors, each times a constant, and of a constant."""
        found = self._factors(call, operands)
        if found is None:
            return None
        parts = [
            scaled(self.of(value), factor) for value, factor in zip(operands, found, strict=True)
        ]
        constant = self._added_constant(call)
        if constant is not None and _is_bias(call) and self._belongs(operands[0], parts[0]):
            return None
        return added([*parts, *([] if constant is None else [{ALONE: constant}])])

    def _belongs(self, operand: Value, polynomial: Polynomial) -> bool:
        """Whether a tensor is an atom that nothing reads without the constant added to it."""
        monomials = [*polynomial]
        if len(monomials) > 1 or len(monomials[0]) > 1:
            return False
        (key,) = monomials[0] or (None,)
        atom = None if key is None else self.atoms[key]
        if atom is None or atom.block is not None or atom.factors or atom.inverted:
            return False
        current, readers = operand, self._lowering.readers
        while readers.get(id(current.node), 0) == 1:
            if current is atom.base:
                return True
            if current.call is None or len(varying_operands(current.call)) != 1:
                return False
            (current,) = varying_operands(current.call)
        return False

    def _factors(
        self, call: Call, operands: list[Value], known: Mapping[int, torch.Tensor] | None = None
    ) -> list[torch.Tensor] | None:
        """What a call multiplies tensors by; None where it is no number."""
        try:
            found = known or terms(call, operands, self._constants)  # type: ignore[arg-type]
        except TraceError:
            return None
        factors = [generic_if_zero(found.get(id(operand), ONE)) for operand in operands]
        is_known = all(bool(f.isfinite().all()) and not f.is_complex() for f in factors)
        return factors if is_known else None

    def _added_constant(self, call: Call) -> torch.Tensor | None:
        """What a sum adds to tensors; an own number where it is no plain sum."""
        given = [call.arguments.get(name) for name in ("self", "other")]
        if call.name not in SUMS:
            both = [call[name] for name in ("self", "end") if name in call.arguments]
            constants = [v for v in both if not (isinstance(v, Value) and v.varies)]
            return own_number(repr(call.node)) if adds(call) and constants else None
        first, second = call.name.endswith("rsub"), not call.name.endswith(("add", "rsub"))
        factors = [-1.0 if first else 1.0, -1.0 if second else 1.0]
        factors[0 if first else 1] *= call.arguments.get("alpha", 1)
        for one, factor in zip(given, factors, strict=True):
            if isinstance(one, Value) and one.varies:
                continue
            number = self._constants.of(one) if isinstance(one, Value) else torch.as_tensor(one)
            number = generic_if_zero(number.to(torch.float64) * factor)
            return number if bool(number.isfinite().all()) else own_number(repr(call.node))
        return None

    def _of_one(self, value: Value, call: Call) -> Polynomial | None:
        """A sum of one tensor, which it has several times, or which is left of several."""
        varying = varying_operands(call)
        region = find_region(call, varying, self._lowering.constants)
        if region is not None and (not region.affine or region.normalization):
            return None
        here = region is not None and region.state.places == (identity(call.shape),)
        if region is None or not here or region.entry.shape != call.shape:
            return self._sum(call, varying) if id(value) in self._inside else None
        factors = self._factors(call, [region.entry])
        if factors is None:
            return None
        constant = {ALONE: own_number(repr(call.node))} if region.constants else {}
        return added([scaled(self.of(region.entry), factors[0]), constant])

    def _product(self, one: Polynomial, other: Polynomial, site: Value) -> Polynomial | None:
        if len(one) * len(other) > _MOST_MONOMIALS:
            return None
        found = times(one, other, self.joined)
        if found is None and len(one) == len(other) == 1:
            return self._together_in(one, other, site)
        return found

    def _together_in(self, one: Polynomial, other: Polynomial, site: Value) -> Polynomial | None:
        """A product in which factors that are functions of one element are one of them."""
        ((first, own),), ((second, factor),) = one.items(), other.items()
        groups: list[list[Key]] = []
        for key in (*first, *second):
            near = [g for g in groups if any(self._is_one(key, k) for k in g)]
            groups = [g for g in groups if g not in near] + [[key, *(k for g in near for k in g)]]
        keys = []
        for group in groups:
            if len(group) == 1:
                keys.append(group[0])
                continue
            parts = [k for key in group for k in (self.atoms[key].factors or (key,))]
            if any(self.atoms[key].block is not None for key in parts):
                return None
            keys.append(self._as_one(parts, id(site)))
        return {frozenset(keys): own * factor}

    def _as_one(self, keys: Sequence[Key], site: int) -> Key:
        """The key of several factors that are one together."""
        values = [self.atoms[key].value for key in keys]
        last = self._multiplied(values)
        assert last is not None  # they are one together
        value = Value(values[0].labels, values[0].dtype, True, last.node, last)
        value.order = max(v.order for v in values)
        atom = Atom(value, value, factors=tuple(keys), site=site)
        self.atoms.setdefault(atom.key, atom)
        return atom.key

    def _multiplied(self, values: Sequence[Value]) -> Call | None:
        """The product of some tensors, which may be moved before the sum reads it.

        None where their shapes do not fit.
        """
        try:
            shape = torch.broadcast_shapes(*(value.shape for value in values))
        except RuntimeError:
            return None
        like = torch.empty(shape, dtype=self._call.output.dtype, device="meta")
        call = replace(self._call, like=like)
        return combined(call, "product", [(value, 1.0) for value in values])

    def _is_one(self, one: Key, other: Key) -> bool:
        """Whether two factors are functions of one element, so that they are one together."""
        if one == other:
            return True
        pair = frozenset([one, other])
        if pair not in self._together:
            values = [self.atoms[key].value for key in pair]
            blocks = any(self.atoms[key].block is not None for key in pair)
            alike = not blocks and have_common_origin(values)
            if alike:
                last, constants = self._multiplied(values), self._lowering.constants
                region = last and find_region(last, varying_operands(last), constants)
                alike = region is not None
            self._together[pair] = alike
        return self._together[pair]

    def _quotient(self, value: Value, call: Call) -> Polynomial | None:
        above, below = call.arguments["self"], call.arguments.get("other", call["self"])
        if not (isinstance(below, Value) and below.varies):
            return self._sum(call, [above]) if above.is_path else None
        if not below.is_path:
            return None
        inverse = self._inverse(self.of(below), value, below)
        if above is below or not isinstance(above, Value) or not above.varies:
            return inverse
        return self._product(self.of(above), inverse, value) if above.is_path else None

    def _inverse(self, polynomial: Polynomial, value: Value, below: Value) -> Polynomial:
        """The reciprocal of a product, factor by factor; of anything else as a whole."""
        alone = value if value.function is not None else None
        if len(polynomial) > 1 or not self._can_invert(polynomial):
            return self._of_atom(Atom(reciprocal(below), below, alone=alone, inverted=True))
        ((monomial, own),) = polynomial.items()
        keys = []
        for key in monomial:
            atom = self.atoms[key]
            inverse = Atom(
                atom.base if atom.inverted else reciprocal(atom.value),
                atom.base,
                atom.places,
                alone if len(monomial) == 1 else None,
                not atom.inverted,
            )
            self.atoms.setdefault(inverse.key, inverse)
            keys.append(inverse.key)
        return {frozenset(keys): 1 / own}

    def _can_invert(self, polynomial: Polynomial) -> bool:
        keys = [key for monomial in polynomial for key in monomial]
        plain = (not self.atoms[key].factors and self.atoms[key].block is None for key in keys)
        moved = (self.atoms[key].inverted and self.atoms[key].places is not None for key in keys)
        return all(plain) and not any(moved)

    # --- movements --------------------------------------------------------------------------------

    def _moved(self, value: Value, call: Call) -> Polynomial | None:
        operands = moved_operands(call)
        if len(operands) != 1 or not operands[0].is_path or item_of(value) is None:
            return None
        (source,) = operands
        found = self.of(source)
        if call.name in _EXPANSIONS and len(source.shape) == len(value.shape):
            return found
        return self._all_moved(found, value, source)

    def _all_moved(self, polynomial: Polynomial, value: Value, source: Value) -> Polynomial | None:
        """A polynomial behind a movement; None where it is not known where elements are."""
        moved = dict[Monomial, torch.Tensor]()
        for monomial, own in polynomial.items():
            keys = [self._moved_key(key, value, source) for key in monomial]
            there: torch.Tensor | None = own
            if own.numel() > 1:
                assert value.call is not None
                tensors = {id(source): own.expand(source.shape)}
                item, constants = item_of(value) or 0, self._lowering.constants
                there = moved_numbers(value.call, tensors, item, constants)
            if None in keys or there is None:
                return None
            moved[frozenset(keys)] = there
        return moved

    def _moved_key(self, key: Key, value: Value, source: Value) -> Key | None:
        """The key of an atom behind a movement, None where its places are not known."""
        atom, constants, item = self.atoms[key], self._lowering.constants, item_of(value)
        if atom.factors:
            keys = [self._moved_key(one, value, source) for one in atom.factors]
            return None if None in keys else self._as_one(keys, atom.site)
        if atom.block is not None and id(value) not in self._inside:
            return None
        assert value.call is not None
        assert item is not None
        places = identity(atom.base.shape) if atom.places is None else atom.places
        there = moved_places(value.call, source, places.expanded(source.shape), item, constants)
        below = inverted(atom.value) if atom.inverted else atom.value
        shown = None if below is None else moved_along(below, source, [value], constants)
        block = None if atom.block is None else self._all_moved(atom.block, value, source)
        if there is None or there.key is not None or shown is None:
            return None
        if (block is None) != (atom.block is None):
            return None
        shown = reciprocal(shown) if atom.inverted else shown
        now = None if there == identity(atom.base.shape) else there
        new = Atom(shown, atom.base, now, inverted=atom.inverted, block=block)
        self.atoms.setdefault(new.key, new)
        return new.key


def _taken(value: Value, mask: Value, side: str) -> Value | None:
    """What a `where` by a mask takes on one side; None for other values."""
    if is_waiting_sum(value) or value.call is None or value.call.name != "aten.where":
        return None
    taken = value.call[side]
    fits = value.call["condition"] is mask and isinstance(taken, Value) and taken.is_path
    return taken if fits and taken.shape == value.shape else None


def _is_bias(call: Call) -> bool:
    """Whether a call adds a constant tensor to another tensor, as a layer adds its bias."""
    constants = [value for value in call.values() if not value.varies]
    adds_one = call.name == "aten.add" and call["alpha"] == 1
    return adds_one and any(value.shape.numel() > 1 for value in constants)
