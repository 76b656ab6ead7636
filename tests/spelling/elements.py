"""What an element of a tensor is: a scalar function of a root, or several of these that meet.

An element of a network is written as an expression over *atoms*, the elements that are a unit at a
position. Expressions are made once each (`Expressions.make`), so that equal ones are one object.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Atom:
    """A unit at a position; `reduced` are the roots that a reduction of a whole axis reads."""

    unit: Hashable
    position: Hashable
    reduced: frozenset[Atom] = frozenset()


@dataclass(frozen=True, eq=False)
class Scaled:
    """factor * child + offset, `tags` naming constants that are tensors.

    `soft` marks the quotient of a softmax, which is a weight where it meets its own root.
    """

    child: Element
    factor: float
    offset: float
    tags: tuple[Hashable, ...] = ()
    soft: bool = False


@dataclass(frozen=True, eq=False)
class Function:
    """A call of a function that is not affine by its kind, with one argument."""

    child: Element
    name: str
    site: Hashable
    tag: Hashable
    parameter: float


@dataclass(frozen=True, eq=False)
class Meeting:
    """Functions of one element that meet again; `below` is the nearest element all are of."""

    operation: str
    site: Hashable
    parts: tuple[Element, ...]
    below: Element


@dataclass(frozen=True, eq=False)
class Inverse:
    """A factor that a product is divided by."""

    child: Element


@dataclass(frozen=True, eq=False)
class Mask:
    """A factor 1 where an element is positive, else 0: it carries no path."""

    child: Element


@dataclass(frozen=True, eq=False)
class Flat:
    """A flat sum, product, maximum or minimum of scalar functions of different roots."""

    operation: str
    site: Hashable
    terms: frozenset[Element]


Element = Atom | Scaled | Function | Meeting | Inverse | Mask | Flat


class Expressions:
    """Makes elements, the same object for the same content."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Any] = {}
        self._without_positions: dict[Element, Hashable] = {}

    def make(self, kind: type, *content: Any) -> Any:
        key = (kind, *content)
        if key not in self._made:
            self._made[key] = kind(*content)
        return self._made[key]

    def scaled(
        self,
        child: Element,
        factor: float = 1.0,
        offset: float = 0.0,
        tags: tuple[Hashable, ...] = (),
        soft: bool = False,
    ) -> Element:
        """An affine function of an element; affine functions of affine functions are one."""
        if isinstance(child, Scaled):
            return self.scaled(
                child.child,
                factor * child.factor,
                factor * child.offset + offset,
                child.tags + tags,
                soft or child.soft,
            )
        if (factor, offset, tags, soft) == (1.0, 0.0, (), False):
            return child
        return self.make(Scaled, child, factor, offset, tags, soft)

    def without_positions(self, element: Element) -> Hashable:
        """The function that an element is of its units: equal for one function at two positions."""
        if element not in self._without_positions:
            self._without_positions[element] = self._erased(element)
        return self._without_positions[element]

    def _erased(self, element: Element) -> Hashable:
        if isinstance(element, Atom):
            return element.unit
        if isinstance(element, Scaled):
            scalars = () if element.tags else (element.factor, element.offset)
            return ("scaled", self.without_positions(element.child), element.tags, scalars)
        if isinstance(element, Function):
            return (element.name, element.site, element.tag, self.without_positions(element.child))
        if isinstance(element, (Inverse, Mask)):
            return (type(element).__name__, self.without_positions(element.child))
        members = element.parts if isinstance(element, Meeting) else element.terms
        counted = Counter(map(self.without_positions, members))
        return (element.operation, element.site, frozenset(counted.items()))


def unscaled(element: Element) -> Element:
    return element.child if isinstance(element, Scaled) else element


def root(element: Element) -> Atom:
    """The atom that an element is a scalar function of."""
    while not isinstance(element, Atom):
        assert not isinstance(element, Flat), "what several roots meet in has none"
        element = element.below if isinstance(element, Meeting) else element.child
    return element


def chain(element: Element) -> list[Element]:
    """The elements that an element is a function of, from itself down to its root.

    Affine functions of an element are that element.
    """
    element = unscaled(element)
    if isinstance(element, Atom):
        return [element]
    assert not isinstance(element, Flat)
    return [element, *chain(element.below if isinstance(element, Meeting) else element.child)]


def nearest_below(parts: Iterable[Element]) -> Element:
    """The nearest element that all parts are functions of, perhaps one of them."""
    first, *others = [chain(part) for part in parts]
    return next(element for element in first if all(element in other for other in others))


def leaves(atom: Atom) -> frozenset[Atom]:
    """The roots that a reduction, of a reduction, reads in the end."""
    found: set[Atom] = set()
    for other in atom.reduced:
        found |= leaves(other) or {other}
    return frozenset(found)


def all_reduced(atom: Atom) -> set[Atom]:
    """The roots that a reduction reads, those of inner reductions among them."""
    found: set[Atom] = set()
    for other in atom.reduced:
        found |= {other} | all_reduced(other)
    return found


# --- values of scalar functions -------------------------------------------------------------------


def _softplus(x: float, _: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sigmoid(x: float, _: float = 0.0) -> float:
    return 1 / (1 + math.exp(-x)) if x > -30 else math.exp(x)


def _gelu_tanh(x: float, _: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# Functions of an element, with one parameter: what the networks apply, in plain Python.
FUNCTIONS: dict[str, Callable[[float, float], float]] = {
    "relu": lambda x, _: max(x, 0.0),
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "prelu": lambda x, slope: x if x > 0 else slope * x,
    "blend": lambda x, alpha: alpha * x + (1 - alpha) * max(x, 0.0),
    "relu6": lambda x, _: min(max(x, 0.0), 6.0),
    "squared_relu": lambda x, _: max(x, 0.0) ** 2,
    "elu": lambda x, _: x if x > 0 else math.expm1(x),
    "gelu": lambda x, _: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda x, _: x * _sigmoid(1.702 * x),
    "silu": lambda x, _: x * _sigmoid(x),
    "mish": lambda x, _: x * math.tanh(_softplus(x, 0.0)),
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "tanh": lambda x, _: math.tanh(x),
    "hardtanh": lambda x, _: min(max(x, -1.0), 1.0),
    "hardsigmoid": lambda x, _: min(max(x / 6 + 0.5, 0.0), 1.0),
    "hardswish": lambda x, _: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "softsign": lambda x, _: x / (1 + abs(x)),
    "softshrink": lambda x, _: x - min(max(x, -0.5), 0.5),
    "hardshrink": lambda x, _: x if abs(x) > 0.5 else 0.0,
    "abs": lambda x, _: abs(x),
    "square": lambda x, _: x * x,
    "gaussian": lambda x, _: math.exp(-min(x * x, 700.0)),
    "sine": lambda x, _: math.sin(x),
    "log_magnitude": lambda x, _: math.log1p(abs(x)),
    "threshold": lambda x, _: x if x > 0.25 else 0.0,
    "hinge": lambda x, knot: max(x - knot, 0.0),
    "hat": lambda x, knot: max(1 - abs(x - knot), 0.0),
    "rbf": lambda x, knot: math.exp(-min((x - knot) ** 2, 700.0)),
    "fourier": lambda x, frequency: math.sin(frequency * x),
}

_GRID = [n / 8 + 0.01 for n in range(-64, 65)]  # not 0, which may be divided by


def value(element: Element, below: Element, x: float) -> float:
    """The value of an element where the element that it is a function of has value x."""
    if element is below:
        return x
    if isinstance(element, Scaled):
        return element.factor * value(element.child, below, x) + element.offset
    if isinstance(element, Function):
        return FUNCTIONS[element.name](value(element.child, below, x), element.parameter)
    if isinstance(element, Inverse):
        return 1 / value(element.child, below, x)
    if isinstance(element, Mask):
        return float(value(element.child, below, x) > 0)
    assert isinstance(element, Meeting)
    parts = [value(part, below, x) for part in element.parts]
    if element.operation == "sum":
        return sum(parts)
    if element.operation == "product":
        return math.prod(parts)
    return max(parts) if element.operation == "maximum" else min(parts)


def is_affine(element: Element, below: Element) -> bool:
    """Whether the values on a grid lie on a line."""
    values = [value(element, below, x) for x in _GRID]
    slopes = [(b - a) * 8 for a, b in itertools.pairwise(values)]
    return max(slopes) - min(slopes) <= 0.01 * max(map(abs, slopes))
