"""The path graph of a program, element by element, from the definitions.

Each element is an expression over atoms (`elements.py`). Operations combine expressions; a unit is
made where something other than an elementwise operation reads one (`Oracle.label`). Constants, and
what carries no path, are None.

Where the definitions leave a case open, the name of the case is put into `Oracle.open_cases`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from tests.spelling.elements import (
    Atom,
    Element,
    Flat,
    Function,
    Mask,
    Scaled,
    root,
    unscaled,
)
from tests.spelling.features import input_features
from tests.spelling.meetings import HELD_FIXED, Meetings
from tests.spelling.path_dag import Numbers
from tests.spelling.program import Node, Program, channel_axis


@dataclass(frozen=True)
class Answer:
    """The numbers, and where the definitions do not decide them."""

    numbers: Numbers
    open_cases: frozenset[str]


def answer(program: Program) -> Answer:
    """What `pathlen.measure` must say of any spelling of a program."""
    oracle, outputs = last_pass(program)
    return Answer(oracle.dag.numbers(outputs), frozenset(oracle.open_cases))


def last_pass(program: Program) -> tuple[Oracle, list[list[Hashable]]]:
    """The graph of a program, and the distinct units of each output.

    A sum that has one reader, another sum, is part of that, and so are products, maxima and minima;
    who reads what shows only when all has been read, so this goes on until nothing changes.
    """
    units: frozenset[Hashable] = frozenset()
    while True:
        oracle = Oracle(units)
        outputs = oracle.run(program)
        more = oracle.with_other_readers()
        if more <= units:
            return oracle, outputs
        units |= more


class Oracle(Meetings):
    """One pass over a program: a method for each operation."""

    def run(self, program: Program) -> list[list[Hashable]]:
        """Makes the graph; returns the distinct units of each output."""
        tensors: list[np.ndarray] = []
        for place, node in enumerate(program.nodes):
            read = [tensors[arg] for arg in node.args]
            if node.op == "input":
                result = self.input(place, node, input_features(program, place))
            else:
                result = getattr(self, node.op)(place, node, *read)
            assert result.shape == node.shape, (str(node), result.shape)
            tensors.append(result)
        outputs = [self.labels(tensors[place].ravel()) for place in program.outputs]
        self.look_back()
        return [list(dict.fromkeys(units)) for units in outputs]

    # --- operations: inputs, layers ---------------------------------------------------------------

    def input(self, place: int, node: Node, features: tuple[int, ...]) -> np.ndarray:
        result = np.empty(node.shape, dtype=object)
        for at in np.ndindex(node.shape):
            unit = self.dag.node(("input", place, tuple(at[a] for a in features)), frozenset())
            result[at] = self.expressions.make(Atom, unit, at, frozenset())
        return result

    def ids(self, place: int, node: Node) -> np.ndarray:
        """Integers: one unit."""
        return self.input(place, node, ())

    def layer(
        self, place: int, node: Node, groups: list[tuple[np.ndarray, ...]], axis: int
    ) -> np.ndarray:
        """One new unit for each index of an axis of the result.

        For each group, hubs over the tensors that it reads.
        """
        result = np.empty(node.shape, dtype=object)
        size = node.shape[axis] // len(groups)
        for group, tensors in enumerate(groups):
            read = [frozenset(self.labels(tensor.ravel())) for tensor in tensors]
            hubs = frozenset(self.dag.hub((place, group, i), r) for i, r in enumerate(read) if r)
            if not hubs:
                continue
            for feature in range(group * size, (group + 1) * size):
                unit = self.dag.node(("layer", place, feature), hubs)
                for at in np.ndindex(node.shape):
                    if at[axis] == feature:
                        result[at] = self.expressions.make(Atom, unit, at, frozenset())
        return result

    def linear(self, place: int, node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
        """Along the channels. Weights that an index gathers (further arguments) have no path."""
        if x.shape[-1] > 1 and len(set(self.labels(x.flat))) == 1:
            self.open_cases.add("a linear map along channels of a single unit")
        return self.layer(place, node, [(x,)], channel_axis(node.layout))

    def embedding(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        return self.layer(place, node, [(x,)], channel_axis(node.layout))

    def bilinear(self, place: int, node: Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.layer(place, node, [(x, y)], channel_axis(node.layout))

    def conv(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        groups = [(group,) for group in np.split(x, node.attrs["groups"], 0)]
        return self.layer(place, node, groups, 0)

    def mixing(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """A linear map along the tokens: a new unit for each unit."""
        time, channel = node.layout.index("t"), channel_axis(node.layout)
        result = np.empty(node.shape, dtype=object)
        if len(set(self.labels(x.flat))) == 1:  # then nothing tells tokens from channels
            self.open_cases.add("a linear map along tokens of a single unit")
        for at in np.ndindex(node.shape):
            column = np.take(x, at[channel], axis=channel)
            read = frozenset(self.labels(column))
            if len(read) > 1:
                self.open_cases.add("a linear map along tokens of several units")
            if read:
                unit = self.dag.node(("mixing", place, read), read)
                position = (at[time], self.positions_of(column))
                result[at] = self.expressions.make(Atom, unit, position, frozenset())
        return result

    def positions_of(self, elements: Iterable[Element | None]) -> frozenset[Atom]:
        return frozenset(self.atom(element) for element in elements if element is not None)

    def matmul(self, place: int, node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Two tensors that carry paths: a unit for each pair of a row's and a column's units."""
        if node.attrs.get("transpose_a"):
            a = a.T
        if node.attrs.get("transpose_b"):
            b = b.T
        return self.contraction((place,), a, b)

    def contraction(self, site: tuple[Hashable, ...], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        result = np.empty((a.shape[0], b.shape[1]), dtype=object)
        if {root(self.single(e)) for e in a.flat} & {root(self.single(e)) for e in b.flat}:
            self.open_cases.add("a contraction of a tensor with itself")
        for i, j in np.ndindex(result.shape):
            row, column = frozenset(self.labels(a[i])), frozenset(self.labels(b[:, j]))
            hubs = frozenset(
                [self.dag.hub((*site, "row"), row), self.dag.hub((*site, "column"), column)]
            )
            unit = self.dag.node(("contraction", site, row, column), hubs)
            result[i, j] = self.expressions.make(Atom, unit, (i, j), frozenset())
        return result

    def attention(
        self, place: int, node: Node, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> np.ndarray:
        """Per head: scores, softmax (a pass), scores times values."""
        heads = []
        parts = (np.split(x, node.attrs["heads"], 1) for x in (q, k, v))
        for head, (queries, keys, values) in enumerate(zip(*parts, strict=True)):
            scores = self.contraction((place, head, "scores"), queries, keys.T)
            heads.append(self.contraction((place, head), scores, values))
        return np.concatenate(heads, 1)

    # --- operations: elementwise ------------------------------------------------------------------

    def tags(self, site: Hashable, x: np.ndarray, constant: np.ndarray) -> np.ndarray:
        """Which constant each element meets, as far as it tells functions of one element apart."""
        constant = constant.reshape((1,) * (x.ndim - constant.ndim) + constant.shape)
        indices: dict[Hashable, dict[Element, set[tuple[int, ...]]]] = defaultdict(
            lambda: defaultdict(set)
        )

        def index(at: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(i if size > 1 else 0 for i, size in zip(at, constant.shape, strict=True))

        for at in np.ndindex(x.shape):
            if x[at] is not None:
                indices[self.expressions.without_positions(x[at])][x[at]].add(index(at))
        result = np.empty(x.shape, dtype=object)
        for at in np.ndindex(x.shape):
            if x[at] is not None:
                group = indices[self.expressions.without_positions(x[at])].values()
                split = [a for a in range(x.ndim) if any(len({i[a] for i in s}) > 1 for s in group)]
                result[at] = (site, tuple(index(at)[a] for a in split))
        return result

    def act(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """A function that is not affine by its kind; `parameter` may be a tensor."""
        parameter = np.asarray(node.attrs.get("parameter", 0.0), dtype=float)
        settled = self.each(self.single, x)
        if any(
            element is not None and self.follows_activation(element) for element in settled.flat
        ):
            self.open_cases.add("an activation right behind another")
        tags = self.tags(("parameter", place), settled, parameter)
        values = np.broadcast_to(parameter, x.shape)
        result = np.empty(x.shape, dtype=object)
        for at in np.ndindex(x.shape):
            if settled[at] is not None:
                content = (settled[at], node.attrs["name"], place, tags[at], float(values[at]))
                result[at] = self.expressions.make(Function, *content)
        return result

    def follows_activation(self, element: Element) -> bool:
        """Whether an element is an activation that nothing but an elementwise operation reads.

        A function of it by name is an activation of its own, arithmetic on it is not; no function
        tells the two apart. A normalization between them reads the first one.
        """
        tags = element.tags if isinstance(element, Scaled) else ()
        read = any(tag[0] in ("fixed", "softmax", "soft") for tag in tags)
        return not read and not isinstance(unscaled(element), Atom)

    def basis(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """Several functions of each element, side by side: channels grow by the number of knots."""
        knots = np.asarray(node.attrs["knots"])
        repeated = np.repeat(x[..., None], len(knots), -1)
        wide = Node("act", (), repeated.shape, "", {**node.attrs, "parameter": knots})
        return self.act(place, wide, repeated).reshape(node.shape)

    def affine(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """x * factor + offset, each a number or a tensor of constants."""
        factor, offset = (
            np.asarray(node.attrs[name], dtype=float) for name in ("factor", "offset")
        )
        x = np.broadcast_to(x, node.shape)
        constant = factor + offset
        tags = self.tags(("constant", place), x, constant)
        factors, offsets = (np.broadcast_to(part, x.shape) for part in (factor, offset))
        result = np.empty(x.shape, dtype=object)
        for at in np.ndindex(x.shape):
            if x[at] is not None:
                tag = (tags[at],) if constant.ndim else ()
                content = (float(factors[at]), float(offsets[at]), tag)
                result[at] = self.expressions.scaled(x[at], *content)
        return result

    def each(self, function: Callable[..., Element | None], *tensors: np.ndarray) -> np.ndarray:
        """A function of the elements of tensors, broadcast; of constants alone a constant."""
        tensors = tuple(np.broadcast_arrays(*tensors))
        result = np.empty(tensors[0].shape, dtype=object)
        for at in np.ndindex(result.shape):
            elements = [tensor[at] for tensor in tensors]
            if any(element is not None for element in elements):
                result[at] = function(*elements)
        return result

    def sum(self, place: int, node: Node, *tensors: np.ndarray) -> np.ndarray:
        """With a factor for each summand."""
        factors = node.attrs.get("factors", (1.0,) * len(tensors))

        def add(*elements: Element | None) -> Element | None:
            scaled = [
                element and self.expressions.scaled(element, float(factor))
                for element, factor in zip(elements, factors, strict=True)
            ]
            return self.total("sum", place, scaled)

        return self.each(add, *tensors)

    def product(self, place: int, node: Node, *tensors: np.ndarray) -> np.ndarray:
        """Of some tensors, and of the reciprocals of those that are `inverted`."""
        inverted = node.attrs.get("inverted", (False,) * len(tensors))

        def times(*elements: Element | None) -> Element | None:
            factors = [
                self.inverse(element) if element is not None and below else element
                for element, below in zip(elements, inverted, strict=True)
            ]
            return self.total("product", place, factors)

        return self.each(times, *tensors)

    def _extreme(self, place: int, node: Node, *tensors: np.ndarray) -> np.ndarray:
        return self.each(lambda *elements: self.total(node.op, place, elements), *tensors)

    def mixture(self, place: int, node: Node, *tensors: np.ndarray) -> np.ndarray:
        """Sums of products that share factors, in the form with the fewest products."""

        def between(number: int, gate: Element, end: Element, start: Element) -> Element | None:
            """Gate * (end - start)."""
            back = start and self.expressions.scaled(start, -1.0)
            inner = self.total("sum", (place, "between", number), [end, back])
            return self.total("product", (place, number), [gate, inner])

        def gate(n: Element, h: Element, z: Element) -> Element | None:
            return self.total("sum", place, [n, between(0, z, h, n)])

        def modulation(h: Element, g: Element, b: Element) -> Element | None:
            shifted = g and self.expressions.scaled(g, 1.0, 1.0)
            product = self.total("product", (place, "product"), [h, shifted])
            return self.total("sum", place, [product, b])

        def factor(a: Element, b: Element, c: Element) -> Element | None:
            inner = self.total("sum", (place, "inner"), [a, b])
            return self.total("product", place, [inner, c])

        def three(u: Element, v: Element, w: Element, a: Element, b: Element) -> Element | None:
            return self.total("sum", place, [w, between(0, a, u, w), between(1, b, v, w)])

        forms = {"gate": gate, "modulation": modulation, "factor": factor, "three": three}
        return self.each(forms[node.attrs["kind"]], *tensors)

    quotient = product
    maximum = minimum = _extreme

    def masked(self, place: int, node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """b where a > 0, else 0: a factor that carries no path."""

        def times(mask: Element | None, option: Element | None) -> Element | None:
            if mask is None or option is None:
                self.open_cases.add("a choice between constants")
                return None
            mask, inner = self.single(mask), unscaled(option)
            terms = inner.terms if isinstance(inner, Flat) else [option]
            if root(mask) in map(root, terms):
                self.open_cases.add("a choice by a mask of one of the choices")
            return self.total("product", place, [self.expressions.make(Mask, mask), option])

        return self.each(times, a, b)

    def choose(
        self, place: int, node: Node, a: np.ndarray, b: np.ndarray, c: np.ndarray
    ) -> np.ndarray:
        """b where a > 0, else c."""

        def choice(mask: Element | None, *options: Element | None) -> Element | None:
            parts = [self.single(option) for option in options if option is not None]
            if mask is None or not parts:
                self.open_cases.add("a choice between constants")
                return None
            if root(self.single(mask)) in {root(part) for part in parts}:
                self.open_cases.add("a choice by a mask of one of the choices")
            if len(parts) == 1:
                return self.held_fixed(place, parts[0], "masked")
            return self.choice(place, parts)

        return self.each(choice, a, b, c)

    # --- operations: positions --------------------------------------------------------------------

    def move(self, place: int, node: Node, *tensors: np.ndarray) -> np.ndarray:
        """Elements of the arguments at other places; where the index is -1 there is a constant."""
        elements = np.append(np.concatenate([tensor.ravel() for tensor in tensors]), None)
        return elements[node.attrs["index"]]

    def window(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """What pools, resizes, cumulates, sorts or reduces.

        Of one unit, that unit at another position. Of several, a hub. Where `whole` axes are
        reduced, the result is a statistic of what it reads.
        """
        flat, kind = x.ravel(), node.attrs["kind"]
        moves = all(len(read) == 1 for read in node.attrs["reads"].flat)
        result = np.empty(node.shape, dtype=object)
        for at in np.ndindex(node.shape):
            read = [flat[i] for i in node.attrs["reads"][at] if flat[i] is not None]
            elements = [self.single(element) for element in read]
            if not elements:
                continue
            if moves and not node.attrs.get("whole"):
                result[at] = elements[0]
                continue
            atoms = frozenset(self.atom(element) for element in elements)
            labels = frozenset(atom.unit for atom in atoms)
            unit = next(iter(labels))
            if len(labels) > 1:
                functions = frozenset(map(self.expressions.without_positions, elements))
                self.orders["window", place, labels].add(functions)
                rank = at[node.attrs["axis"]] if kind == "sort" else None  # one unit a place
                unit = self.dag.node(("reduction", place, functions, rank), labels)
            which = at if node.attrs.get("ordered") else None
            position = (kind, which, frozenset(elements))
            reduced = frozenset(map(root, elements)) if node.attrs.get("whole") else frozenset()
            result[at] = self.expressions.make(Atom, unit, position, reduced)
        return result

    def norm(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """A pass: its statistics are held fixed."""
        return self.each(lambda element: self.held_fixed(place, self.single(element)), x)

    def softmax(self, place: int, node: Node, x: np.ndarray) -> np.ndarray:
        """A pass, and a weight where it meets its own root."""

        def soft(element: Element) -> Element:
            tags = (("softmax", place),)
            return self.expressions.scaled(self.single(element), HELD_FIXED, 0.0, tags, True)

        return self.each(soft, x)
