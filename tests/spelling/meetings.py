"""What elements are when they meet, and which of them are units.

Constants, and what carries no path, are None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

from tests.spelling.elements import (
    Atom,
    Element,
    Expressions,
    Flat,
    Inverse,
    Mask,
    Meeting,
    Scaled,
    all_reduced,
    chain,
    is_affine,
    leaves,
    nearest_below,
    root,
    unscaled,
)
from tests.spelling.path_dag import PathDag

# A weight that carries no path: a statistic held fixed, a mask of another element.
HELD_FIXED = 1.25


class Meetings:
    """Makes units, and elements of elements that meet, in one pass over a program.

    Args:
        read_by_others: Flat sums and products, by their functions, that have other readers than
            one of their kind.
    """

    def __init__(self, read_by_others: frozenset[Hashable]) -> None:
        self.read_by_others = read_by_others
        self.dag = PathDag()
        self.expressions = Expressions()
        self.open_cases: set[str] = set()
        self.settled: set[Hashable] = set()  # sums that something other than a sum read, and so on
        self.absorbed: dict[Hashable, set[Hashable]] = defaultdict(set)  # and what it is part of
        self.met: dict[tuple[Hashable, Atom], set[Atom]] = defaultdict(set)
        self.orders: dict[Hashable, set[Hashable]] = defaultdict(set)
        self.roots_met: dict[Hashable, set[int]] = defaultdict(set)
        self.pairs_met: dict[tuple[Hashable, frozenset[Atom]], set[Hashable]] = defaultdict(set)

    def look_back(self) -> None:
        """Open cases that show only when all has been read."""
        for (_, atom), partners in self.met.items():
            if not leaves(atom) <= partners | {r for p in partners for r in leaves(p)}:
                self.open_cases.add("a statistic that meets a part of what it reduced")
        if any(len(orders) > 1 for orders in self.orders.values()):
            self.open_cases.add("one set of units in several orders or with several weights")
        if any(len(numbers) > 1 for numbers in self.roots_met.values()):
            self.open_cases.add("functions of one element at some positions, of two at others")
        alone = {site for site, roots in self.pairs_met if len(roots) == 1}
        turned = {site for (site, _), functions in self.pairs_met.items() if len(functions) > 1}
        if alone & turned:
            self.open_cases.add("a tensor that meets itself, moved, at some of its elements only")

    # --- units ------------------------------------------------------------------------------------

    def label(self, element: Element) -> Hashable:
        """The unit of an element that something reads as a whole; made if it is new."""
        element = self.single(element)
        if isinstance(element, Atom):
            return element.unit
        if isinstance(element, Scaled):
            return self.label(element.child)
        below = element.below if isinstance(element, Meeting) else chain(element.child)[0]
        before = frozenset([self.label(below)])
        name = ("function", self.expressions.without_positions(element))
        return self.dag.node(name, before, active=not is_affine(element, below))

    def labels(self, elements: Iterable[Element | None]) -> list[Hashable]:
        return [self.label(element) for element in elements if element is not None]

    def atom(self, element: Element) -> Atom:
        """An element as a unit at a position."""
        label = self.label(element)
        return self.expressions.make(Atom, label, root(self.single(element)).position, frozenset())

    def single(self, element: Element) -> Element:
        """An element as a function of one root: what several meet in becomes a unit."""
        if isinstance(element, Scaled):
            child = self.single(element.child)
            return self.scaled_like(element, child)
        return self.unit_of_flat(element) if isinstance(element, Flat) else element

    def scaled_like(self, element: Scaled, child: Element) -> Element:
        return self.expressions.scaled(
            child, element.factor, element.offset, element.tags, element.soft
        )

    def unit_of_flat(self, total: Flat) -> Element:
        function = self.expressions.without_positions(total)
        self.settled.add(function)
        terms = [term for term in total.terms if not isinstance(term, Mask)]
        if len(terms) == 1:
            return self.held_fixed(total.site, terms[0], "masked")
        plain = (term.child if isinstance(term, Inverse) else term for term in terms)
        atoms = frozenset(map(self.atom, plain))  # division is a merge
        labels = frozenset(atom.unit for atom in atoms)
        if len(labels) == 1 and total.operation != "product":
            # one unit at several positions: at another position it is the same
            return self.expressions.make(Atom, next(iter(labels)), ("mixed", atoms), frozenset())
        self.orders[total.operation, total.site, labels].add(function)
        unit = self.dag.node(("merge", function), labels)
        return self.expressions.make(Atom, unit, total.terms, frozenset())

    def with_other_readers(self) -> frozenset[Hashable]:
        """Flat sums (products, and so on) that something other than one sum reads."""

        def ends(function: Hashable) -> set[Hashable]:
            found = set()
            for reader in self.absorbed.get(function, ()):
                absorbed = reader in self.absorbed and reader not in self.settled
                found |= ends(reader) if absorbed else {reader[1]}  # type: ignore[index]
            return found

        return frozenset(
            function
            for function in self.absorbed
            if function in self.settled or len(ends(function)) > 1
        )

    # --- elements that meet -----------------------------------------------------------------------

    def meeting(self, operation: str, site: Hashable, parts: list[Element]) -> Element:
        """Functions of one root as one function."""
        if operation == "product":
            weights = [part for part in parts if isinstance(part, Scaled) and part.soft]
            others = [part for part in parts if part not in weights]
            if weights:  # softmax beside its own root is a weight
                first = others[0] if others else weights[0]
                return self.expressions.scaled(first, HELD_FIXED, 0.0, (("soft", site),), True)
        below = nearest_below(parts)
        if operation == "sum" and all(unscaled(part) is below for part in parts):
            scaled = [part for part in parts if isinstance(part, Scaled)]
            factor = sum(part.factor for part in scaled) + len(parts) - len(scaled)
            offset = sum(part.offset for part in scaled)
            tags = tuple(sorted({tag for part in scaled for tag in part.tags}, key=repr))
            return self.expressions.scaled(below, factor, offset, tags)
        parts = sorted(parts, key=lambda part: repr(self.expressions.without_positions(part)))
        return self.expressions.make(Meeting, operation, site, tuple(parts), below)

    def without_statistics(self, site: Hashable, parts: list[Element]) -> list[Element]:
        """The parts but for statistics of other parts, which are held fixed."""
        roots = {root(part) for part in parts}
        kept = []
        for part in parts:
            partners = {r for r in roots if r in all_reduced(root(part))}
            if partners:
                self.met[site, root(part)] |= partners
            else:
                kept.append(part)
        return kept

    def count_roots(self, site: Hashable, parts: list[Element]) -> None:
        functions = frozenset(map(self.expressions.without_positions, parts))
        roots = frozenset(root(part) for part in parts)
        self.roots_met[site, functions].add(len(roots))
        if len(parts) > 1:
            self.pairs_met[site, roots].add(functions)

    def total(
        self, operation: str, site: Hashable, elements: Iterable[Element | None]
    ) -> Element | None:
        """A flat sum, product, maximum or minimum.

        Inner ones that nothing else reads dissolve, and functions of one root meet first.
        """
        terms, inner = [], []
        given = [element for element in elements if element is not None]
        for element in given:
            opened = self.opened(operation, element)
            twice = operation != "sum" and given.count(element) > 1
            if opened is None or twice:
                terms.append(self.each_factor(self.single, element))
            else:
                inner.append(self.expressions.without_positions(unscaled(uninverted(element))))
                terms += opened
        kept = self.without_statistics(site, terms)
        self.count_roots(site, kept)
        by_root: dict[Atom, list[Element]] = defaultdict(list)
        for term in kept if operation in ("sum", "product") else dict.fromkeys(kept):
            by_root[root(term)].append(term)
        parts = []
        for group in by_root.values():
            if all(isinstance(term, Mask) for term in group):
                parts += group
            else:
                parts.append(self.meeting(operation, site, group) if group[1:] else group[0])
        if len(parts) < 2:
            result = parts[0] if parts else None
            if isinstance(result, Inverse):
                self.open_cases.add("a constant that is divided by an element")
            if result is not None and len(kept) < len(terms):
                result = self.held_fixed(site, result)
            function: Hashable = ("one", site)
        else:
            result = self.expressions.make(Flat, operation, site, frozenset(parts))
            function = self.expressions.without_positions(result)
        for other in inner:
            self.absorbed[other].add(function)
        return self.single(result) if result and function in self.read_by_others else result

    def opened(self, operation: str, element: Element) -> list[Element] | None:
        """The terms of an inner sum (product, maximum, minimum) where a scaled one has them."""
        factor = uninverted(element)
        flat = unscaled(factor)
        if not isinstance(flat, Flat):
            return None
        scaled = factor if isinstance(factor, Scaled) else None
        negative = scaled is not None and scaled.factor < 0
        turned = {"maximum": "minimum", "minimum": "maximum"}
        if flat.operation != (turned.get(operation, operation) if negative else operation):
            return None
        terms = sorted(flat.terms, key=lambda term: repr(self.expressions.without_positions(term)))
        if operation == "product":
            if scaled is not None and scaled.offset:
                return None
            if scaled is not None:  # one of the factors is scaled, it is no matter which
                at = next(
                    i for i, term in enumerate(terms) if not isinstance(term, (Inverse, Mask))
                )
                terms[at] = self.scaled_like(scaled, terms[at])
        elif scaled is not None:
            terms = [self.scaled_like(scaled, term) for term in terms]
        return terms if factor is element else [self.inverse(term) for term in terms]

    def inverse(self, element: Element) -> Element:
        """An element as a divisor."""
        if isinstance(element, Mask):  # 0 where the mask is 0: nothing to divide by
            return element
        return (
            element.child
            if isinstance(element, Inverse)
            else self.expressions.make(Inverse, element)
        )

    def each_factor(self, function: Callable[[Element], Element], element: Element) -> Element:
        """A function of an element, or of what it is the inverse of, as a divisor again."""
        if isinstance(element, Inverse):
            return self.inverse(function(element.child))
        return function(element)

    def held_fixed(self, site: Hashable, element: Element, by: str = "fixed") -> Element:
        """An element times or plus something that carries no path."""
        return self.expressions.scaled(element, HELD_FIXED, 0.5, ((by, site),))

    def choice(self, site: Hashable, elements: Iterable[Element | None]) -> Element | None:
        """Either of some elements, by a mask of another."""
        parts = [self.single(element) for element in elements if element is not None]
        if not parts:
            return None
        kept = self.without_statistics(site, parts)
        self.count_roots(site, kept)
        if len(kept) == 1:
            return self.held_fixed(site, kept[0])
        if len({root(part) for part in kept}) == 1:
            self.open_cases.add("a choice of functions of one element")
            return self.meeting("choice", site, kept)
        functions = frozenset(map(self.expressions.without_positions, kept))
        atoms = frozenset(map(self.atom, kept))
        labels = frozenset(atom.unit for atom in atoms)
        self.orders["choice", site, labels].add(functions)
        unit = self.dag.node(("choice", site, functions), labels)
        return self.expressions.make(Atom, unit, atoms, frozenset())


def uninverted(element: Element) -> Element:
    return element.child if isinstance(element, Inverse) else element
