"""The order in which igraph says a path graph can be walked through, and sums along it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from pathlen.backends.protocol import FloatArray, Scaled, total_of
from pathlen.graph.parts import BoolArray

if TYPE_CHECKING:
    import igraph


@dataclass(frozen=True, slots=True)
class Order:
    """Nodes in an order such that each comes after what it reads.

    Attributes:
        nodes: All nodes.
        read: For each node, the nodes that it reads: its predecessors, or its successors.
        weights: For each node, the weights of the edges to these; None where all are 1.
    """

    nodes: list[int]
    read: list[list[int]]
    weights: list[list[float]] | None = None

    @classmethod
    def of(cls, network: igraph.Graph, *, reverse: bool = False, weighted: bool = False) -> Order:
        """The order from the inputs, or from the outputs if `reverse`."""
        nodes = network.topological_sorting(mode="in" if reverse else "out")
        mode = "out" if reverse else "in"
        if not weighted:
            return cls(nodes, network.get_adjlist(mode=mode))
        edges = network.get_inclist(mode=mode)
        weight = network.es["weight"]
        other_end = [pair[1 if reverse else 0] for pair in network.get_edgelist()]
        return cls(
            nodes,
            [[other_end[edge] for edge in own] for own in edges],
            [[weight[edge] for edge in own] for own in edges],
        )

    def weights_of(self, node: int) -> Iterable[float]:
        """Weights of the edges to what a node reads."""
        return repeat(1.0, len(self.read[node])) if self.weights is None else self.weights[node]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of ways to each node: mantissa * 2**exponent."""

    mantissas: list[float]
    exponents: list[int]

    @classmethod
    def of(cls, order: Order) -> Counts:
        """X(v) = 1 where nothing is read, else the sum of weight * x over what v reads."""
        size = len(order.read)
        counts = cls([0.5] * size, [1] * size)
        for node in order.nodes:
            if order.read[node]:
                terms, top = counts.terms(order, node)
                counts.mantissas[node], shift = math.frexp(math.fsum(terms))
                counts.exponents[node] = top + shift
        return counts

    def terms(self, order: Order, node: int) -> tuple[list[float], int]:
        """Weight * x of what a node reads, brought to the largest exponent, and that exponent."""
        mantissas, exponents = [], []
        for other, weight in zip(order.read[node], order.weights_of(node), strict=True):
            mantissa, exponent = math.frexp(weight)
            mantissas.append(self.mantissas[other] * mantissa)
            exponents.append(self.exponents[other] + exponent)
        top = max(exponents)
        aligned = [math.ldexp(m, e - top) for m, e in zip(mantissas, exponents, strict=True)]
        return aligned, top

    def shares(self, order: Order, node: int) -> list[float]:
        """The share of the ways to a node that come from each node that it reads."""
        terms, _ = self.terms(order, node)
        total = math.fsum(terms)
        return [term / total for term in terms]

    def shares_of(self, ends: BoolArray) -> tuple[FloatArray, float]:
        """The share of all ways that end at each of some nodes, 0 elsewhere; log10 of all."""
        scaled = self.scaled()
        total, log10_total = total_of(scaled, ends)
        shift = np.clip(scaled.exponent - total.exponent[0], -5000, 5000).astype(np.int32)
        shares = np.ldexp(scaled.mantissa / total.mantissa[0], np.where(ends, shift, 0))
        return np.where(ends, shares, 0.0), log10_total

    def scaled(self) -> Scaled:
        """The same as arrays."""
        return Scaled(np.array(self.mantissas), np.array(self.exponents, dtype=np.int64))
