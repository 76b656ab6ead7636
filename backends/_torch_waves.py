"""Wavefronts of a path graph as tensors, and the recurrences over them.

A wave is all nodes of one topological generation: none of them reads another, so a wave is a few
operations on tensors, whatever its width. Numbers too large for float64 are mantissa times
2**exponent, element by element.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pathlen.backends.protocol import FloatArray, IntArray, Scaled
from pathlen.graph import PathGraph
from pathlen.graph_check import row_numbers

_LOWEST = -(1 << 60)  # an exponent below all others
_WIDE = 64  # terms; longer sums are taken in two parts, of which one is exact
_SPLIT = 2.0**26


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """The nodes of one generation, numbered by `Waves.order`, and the edges that they read.

    Attributes:
        first: Number of its first node.
        last: Number after its last node.
        edges: Which edges of `Waves.edge_order` are its own.
        giving: int64[edges], number of the node that each edge comes from.
        taking: int64[edges], node that it leads to, counted from `first`; ascending.
        is_wide: Whether a node reads so many others that plain sums would lose digits.
    """

    first: int
    last: int
    edges: slice
    giving: Tensor
    taking: Tensor
    is_wide: bool


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """All waves, from the terminals that nothing leads to.

    Attributes:
        order: int64[n], node of each number: waves one after another.
        edge_order: int64[e], position in `graph.indices` of each edge, by the number it leads to.
        giving: int64[e], number that each edge comes from, in this order.
        taking: int64[e], number that it leads to; ascending.
        reads: int64[n], how many edges lead to each number.
        gives: int64[n], how many edges come from each number.
        ends: Numbers after the last node of each wave.
        waves: The waves after the first, whose nodes read nothing.
        device: Where the tensors live.
    """

    order: IntArray
    edge_order: IntArray
    giving: IntArray
    taking: IntArray
    reads: IntArray
    gives: IntArray
    ends: IntArray
    waves: tuple[Wave, ...]
    device: torch.device

    @classmethod
    def of(cls, graph: PathGraph, device: torch.device, *, reverse: bool = False) -> "Waves":
        """The waves from the inputs along the edges, or from the outputs against them.

        O(n + e), and a few array operations for each run of nodes without edges among themselves.
        """
        rows = row_numbers(graph.indptr).astype(np.int64)
        if not reverse:
            reads, read, edge = rows, graph.indices.astype(np.int64), np.arange(len(rows))
        else:  # nodes counted from the end are in topological order again
            edge = np.argsort(graph.indices, kind="stable")[::-1]
            last = graph.num_nodes - 1
            reads, read = last - graph.indices[edge].astype(np.int64), last - rows[edge]
        generation = _generations(reads, read, graph.num_nodes)
        order = np.argsort(generation, kind="stable")
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        by_wave = np.argsort(number[reads], kind="stable")
        taking, giving = number[reads][by_wave], number[read][by_wave]
        degrees = np.bincount(taking, minlength=len(order))
        ends = np.cumsum(np.bincount(generation))
        return cls(
            order=last - order if reverse else order,
            edge_order=edge[by_wave],
            giving=giving,
            taking=taking,
            reads=degrees,
            gives=np.bincount(giving, minlength=len(order)),
            ends=ends,
            waves=tuple(_waves(taking, giving, degrees, ends, device)),
            device=device,
        )

    def put(self, array: np.ndarray) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def tensor(self, of_node: FloatArray) -> Tensor:
        """Values of nodes, on the device and by number."""
        return self.put(of_node[self.order])

    def array(self, by_number: Tensor) -> np.ndarray:
        """Values by number as an array by node."""
        values = by_number.cpu().numpy()
        of_node = np.empty_like(values)
        of_node[self.order] = values
        return of_node

    def scaled(self, mantissa: Tensor, exponent: Tensor) -> Scaled:
        """Numbers too large for float64, by node."""
        return Scaled(self.array(mantissa), self.array(exponent))

    def column(self, counts: tuple[Tensor, Tensor], number: int) -> Scaled:
        """One of the recurrences that `sums` followed, by node."""
        return self.scaled(counts[0][:, number], counts[1][:, number])


def _generations(reads: IntArray, read: IntArray, size: int) -> IntArray:
    """Length in edges of the longest way to each node: int64[n].

    Args:
        reads: Ascending; the node that each edge leads to.
        read: The node that it comes from, of a smaller number.
        size: Number of nodes.
    """
    starts = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(reads, minlength=size), out=starts[1:])
    inner = np.flatnonzero(np.diff(starts))
    last_read = np.full(size, -1, dtype=np.int64)
    last_read[inner] = np.maximum.reduceat(read, starts[inner]) if inner.size else -1
    last_read = np.maximum.accumulate(last_read)
    generation = np.zeros(size, dtype=np.int64)
    first = 0
    while first < size:
        end = int(np.searchsorted(last_read, first))  # the first node that reads this run
        nodes = inner[np.searchsorted(inner, first) : np.searchsorted(inner, end)]
        if nodes.size:
            before = generation[read[starts[first] : starts[end]]]
            generation[nodes] = 1 + np.maximum.reduceat(before, starts[nodes] - starts[first])
        first = end
    return generation


def _waves(
    taking: IntArray, giving: IntArray, degrees: IntArray, ends: IntArray, device: torch.device
) -> Iterator[Wave]:
    """The waves after the first; edges are sorted by the node that they lead to."""
    wave_ends = np.searchsorted(taking, ends)
    widest = np.maximum.reduceat(degrees, ends[:-1]) if len(ends) > 1 else degrees[:0]
    local = taking - np.repeat(ends[:-1], np.diff(wave_ends)) if len(ends) > 1 else taking
    sizes = np.diff(wave_ends).tolist()
    parts = zip(
        torch.from_numpy(giving).to(device).split(sizes),
        torch.from_numpy(local).to(device).split(sizes),
        strict=True,
    )
    for wave, (sources, targets) in enumerate(parts):
        yield Wave(
            first=int(ends[wave]),
            last=int(ends[wave + 1]),
            edges=slice(int(wave_ends[wave]), int(wave_ends[wave + 1])),
            giving=sources,
            taking=targets,
            is_wide=bool(widest[wave] > _WIDE),
        )


# F(v) = start(v) without predecessors u, else the sum of weight(u, v) F(u) / divisor(u).
def sums(
    waves: Waves,
    starts: Tensor,  # (n, k): k recurrences at once
    divisors: Tensor | None = None,  # (n, k)
    weights: Tensor | None = None,  # (e, k), by `edge_order`
) -> tuple[Tensor, Tensor]:
    """Mantissas and exponents of sums over the ways to every node: (n, k) each; O(n + e)."""
    mantissa, exponent = torch.frexp(starts)
    exponent = exponent.long()
    given = mantissa.clone() if divisors is None else mantissa / divisors
    for wave in waves.waves:
        terms = given.index_select(0, wave.giving)
        powers = exponent.index_select(0, wave.giving)
        if weights is not None:
            weight, shift = torch.frexp(weights[wave.edges])
            terms, powers = terms * weight, powers + shift
        terms, highest = aligned(terms, powers, wave)
        part, shift = torch.frexp(total(terms, wave))
        mantissa[wave.first : wave.last] = part
        exponent[wave.first : wave.last] = highest + shift
        if divisors is not None:
            part = part / divisors[wave.first : wave.last]
        given[wave.first : wave.last] = part
    return mantissa, exponent


def aligned(terms: Tensor, powers: Tensor, wave: Wave) -> tuple[Tensor, Tensor]:
    """Terms * 2**powers in units of 2**(the largest power of their node), and those powers.

    Args:
        terms: (edges, k)
        powers: (edges, k)
        wave: Where the edges lead.
    """
    taking = wave.taking.unsqueeze(1).expand_as(powers)
    highest = powers.new_full((wave.last - wave.first, powers.shape[1]), _LOWEST)
    highest.scatter_reduce_(0, taking, powers, "amax")
    return terms * power_of_two(powers - highest.index_select(0, wave.taking)), highest


def power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent as float64, written as bits (`torch.ldexp` rounds); 0 below the normal range."""
    bits = (exponent.clamp(-1023, 1023) + 1023) << 52
    return bits.view(torch.float64)


def total(terms: Tensor, wave: Wave) -> Tensor:
    """Sums of the terms of each node of a wave: (nodes, k).

    The terms of a wide sum are split at 26 bits below the largest: the upper parts are added
    without rounding, as long as there are fewer than 2**26, and the rounding of the lower parts
    lies below the last digit.

    Args:
        terms: In [0, 1], the largest of each node not much below 1.  # (edges, k)
        wave: Where the edges lead.
    """
    sum_of = terms.new_zeros((wave.last - wave.first, terms.shape[1]))
    if not wave.is_wide:
        return sum_of.index_add_(0, wave.taking, terms)
    upper = (terms * _SPLIT).round_().div_(_SPLIT)
    lower = torch.zeros_like(sum_of).index_add_(0, wave.taking, terms - upper)
    return sum_of.index_add_(0, wave.taking, upper).add_(lower)


# L(v) = length(v) + the largest L(u) over predecessors (0 without any).
def longest(waves: Waves, lengths: Tensor) -> Tensor:
    """Largest sums of lengths on the ways to every node: (n, k) from (n, k).

    Sums are pairs of floats, so that depth costs no digits; O(n + e).
    """
    high, low = lengths.clone(), torch.zeros_like(lengths)
    for wave in waves.waves:
        heads = high.index_select(0, wave.giving)
        tails = low.index_select(0, wave.giving)
        best = _largest(heads, wave)
        tails = torch.where(heads == best.index_select(0, wave.taking), tails, -torch.inf)
        tail = _largest(tails, wave)
        step = lengths[wave.first : wave.last]
        head = best + step
        part = head - best
        tail = tail + ((best - (head - part)) + (step - part))
        settled = head + tail
        high[wave.first : wave.last] = settled
        low[wave.first : wave.last] = tail - (settled - head)
    return high


def _largest(values: Tensor, wave: Wave) -> Tensor:
    """The largest value of each node of a wave: (nodes, k)."""
    taking = wave.taking.unsqueeze(1).expand_as(values)
    best = values.new_full((wave.last - wave.first, values.shape[1]), -torch.inf)
    return best.scatter_reduce_(0, taking, values, "amax")
