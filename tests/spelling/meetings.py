"""What elements are when they meet, and which of them are units.

Constants, and what carries no path, are None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from tests.spelling.elements import (
    Atom,
    Element,
    Expressions,
    Meeting,
    Scaled,
    Sum,
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
        sums_that_are_units: Sums, by their functions, that have other readers than one sum.
    """

    def __init__(self, sums_that_are_units: frozenset[Hashable]) -> None:
        self.sums_that_are_units = sums_that_are_units
        self.dag = PathDag()
        self.expressions = Expressions()
        self.open_cases: set[str] = set()
        self.settled: set[Hashable] = set()  # sums that something other than a sum read
        self.absorbed: dict[Hashable, set[Hashable]] = defaultdict(set)  # sum: sums that read it
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
        """An element as a function of one root: a sum of several becomes a unit."""
        if isinstance(element, Scaled):
            child = self.single(element.child)
            return self.scaled_like(element, child)
        return self.unit_of_sum(element) if isinstance(element, Sum) else element

    def scaled_like(self, element: Scaled, child: Element) -> Element:
        return self.expressions.scaled(
            child, element.factor, element.offset, element.tags, element.soft
        )

    def unit_of_sum(self, total: Sum) -> Element:
        function = self.expressions.without_positions(total)
        self.settled.add(function)
        atoms = frozenset(self.atom(term) for term in total.terms)
        labels = frozenset(atom.unit for atom in atoms)
        if len(labels) == 1:  # one unit at several positions: at another position it is the same
            return self.expressions.make(Atom, next(iter(labels)), ("mixed", atoms), frozenset())
        self.orders["sum", total.site, labels].add(function)
        unit = self.dag.node(("merge", function), labels)
        return self.expressions.make(Atom, unit, total.terms, frozenset())

    def sums_with_other_readers(self) -> frozenset[Hashable]:
        """Sums that something other than one sum reads."""

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

    def total(self, site: Hashable, elements: Iterable[Element | None]) -> Element | None:
        """A flat sum: inner sums dissolve, functions of one root meet first."""
        terms, inner = [], []
        for element in elements:
            if element is None:
                continue
            if isinstance(unscaled(element), Sum):
                inner.append(self.expressions.without_positions(unscaled(element)))
                sums = unscaled(element).terms
                terms += [
                    self.scaled_like(element, term) if isinstance(element, Scaled) else term
                    for term in sums
                ]
            else:
                terms.append(element)
        kept = self.without_statistics(site, terms)
        self.count_roots(site, kept)
        by_root: dict[Atom, list[Element]] = defaultdict(list)
        for term in kept:
            by_root[root(term)].append(term)
        parts = [
            self.meeting("sum", site, group) if len(group) > 1 else group[0]
            for group in by_root.values()
        ]
        if len(parts) < 2:
            result = parts[0] if parts else None
            if result is not None and len(kept) < len(terms):
                result = self.held_fixed(site, result)
            function: Hashable = ("one", site)
        else:
            result = self.expressions.make(Sum, site, frozenset(parts))
            function = self.expressions.without_positions(result)
        for other in inner:
            self.absorbed[other].add(function)
        return self.single(result) if function in self.sums_that_are_units else result

    def held_fixed(self, site: Hashable, element: Element, by: str = "fixed") -> Element:
        """An element times or plus something that carries no path."""
        return self.expressions.scaled(element, HELD_FIXED, 0.5, ((by, site),))

    def meet(self, operation: str, site: Hashable, *elements: Element | None) -> Element | None:
        """Elements in a product, a quotient, a maximum or a choice."""
        parts = [self.single(element) for element in elements if element is not None]
        if not parts:
            return None
        kept = self.without_statistics(site, parts)
        self.count_roots(site, kept)
        if len(kept) == 1:
            return self.held_fixed(site, kept[0])
        if len({root(part) for part in kept}) == 1:
            if operation in ("quotient", "choice"):
                self.open_cases.add(f"a {operation} of functions of one element")
            return self.meeting(operation, site, kept)
        functions = tuple(self.expressions.without_positions(part) for part in kept)
        atoms = tuple(self.atom(part) for part in kept)
        labels = frozenset(atom.unit for atom in atoms)
        if len(labels) == 1 and operation in ("maximum", "minimum"):  # as in a pooling by maxima
            position = (operation, frozenset(atoms))
            return self.expressions.make(Atom, atoms[0].unit, position, frozenset())
        self.orders[operation, site, labels].add(functions)
        if operation != "quotient":
            functions, atoms = frozenset(functions), frozenset(atoms)  # type: ignore[assignment]
        unit = self.dag.node((operation, site, functions), labels)
        return self.expressions.make(Atom, unit, atoms, frozenset())
