"""The distribution of path lengths, a wave at a time.

The coefficients p(v) of node v are the shares of the ways to v that have each length:

    p(v) = (1 - a + a z) * sum over predecessors u of share(u, v) p(u),   a = activity(v)

where share(u, v) is F(u) / F(v), weight(u, v) M(u) / M(v), or one over the number of predecessors.
A node's row holds the lengths that its ways can have, from its shortest on; edges whose rows lie
equally far apart are added together. A row is free again after the last wave that reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pathlen.backends._torch_waves import Waves, longest
from pathlen.backends.protocol import FloatArray, IntArray, Scaled, check_memory
from pathlen.graph import PathGraph

_BLOCK = 64  # rows added before their sum is added: keeps rounding errors from piling up
_CHUNK = 1 << 21  # numbers gathered at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Which lengths the ways to each node have, by number.

    Attributes:
        low: int64[n], the shortest.
        base: int64[n], the shortest before the node's own unit counts.
        span: int64[n], how many lengths there are from the shortest to the longest.
        lengths: How many lengths there are in all, from 0 on.
    """

    low: IntArray
    base: IntArray
    span: IntArray
    lengths: int


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Edges of a wave that are added together: their rows begin `offset` after the base.

    Attributes:
        offset: In lengths.
        width: Numbers of a row that are read.
        giving: int64[edges], rows read.
        share: float64[edges, 1], factors of these.
        block: int64[edges], number of the partial sum that each is added to.
        taking: int64[blocks], node of the wave that each partial sum belongs to.
    """

    offset: int
    width: int
    giving: Tensor
    share: Tensor
    block: Tensor
    taking: Tensor


def distribution(
    graph: PathGraph,
    waves: Waves,
    counts: tuple[Scaled, FloatArray | None] | None,
    final: FloatArray,
    memory_limit: int | None,
) -> FloatArray:
    """Share of paths, or chance of walks, of each length: float64[longest + 1].

    O(nodes + edges * lengths) time; memory for as many rows as nodes are live at once, a row
    being as wide as the most lengths that the ways to one node have.

    Args:
        graph: The path graph.
        waves: From where the ways begin.
        counts: F of each node and None, or M and the weights of the edges; None for the walk.
        final: float64[n], the share of the ways that end at each node.
        memory_limit: Bytes.
    """
    windows = _windows(waves, graph.activity[waves.order])
    width = int(windows.span.max())
    row_of, rows = _rows(waves)
    kept = 8 * (rows * width + 3 * _CHUNK + 8 * graph.num_edges + 8 * graph.num_nodes)
    check_memory(kept, memory_limit, f"the distribution ({rows} rows of {width} lengths)")
    share = _shares(graph, waves, counts)
    at = waves.put(row_of)
    groups = _groups(waves, windows, row_of, share, width)
    store = torch.zeros((rows, width), dtype=torch.float64, device=waves.device)
    result = torch.zeros(windows.lengths + 1, dtype=torch.float64, device=waves.device)
    activity, ending = graph.activity[waves.order], final[waves.order]
    begin = torch.zeros((int(waves.ends[0]), width), dtype=torch.float64, device=waves.device)
    begin[:, 0] = 1.0
    first = 0
    for last, of_wave in zip(waves.ends.tolist(), groups, strict=True):
        values = begin if first == 0 else _added(of_wave, last - first, store)
        values = _counted(values, activity[first:last], waves)
        store[at[first:last]] = values
        _finish(values, ending[first:last], windows.low[first:last], result, waves)
        first = last
    return result[: windows.lengths].cpu().numpy()


def _windows(waves: Waves, activity: FloatArray) -> _Windows:
    """Fewest and most units of the ways to each node that count (surely; possibly)."""
    surely, possibly = activity == 1, activity > 0
    both = waves.put(np.stack([-surely.astype(np.float64), possibly], axis=1))
    found = longest(waves, both).cpu().numpy().astype(np.int64)
    low, high = -found[:, 0], found[:, 1]
    return _Windows(low, low - surely, high - low + 1, int(high.max()) + 1)


def _rows(waves: Waves) -> tuple[IntArray, int]:
    """A row for each number, free again after the last wave that reads it; how many there are."""
    size = len(waves.order)
    last_read = np.repeat(np.arange(len(waves.ends)), np.diff(waves.ends, prepend=0))
    for number, wave in enumerate(waves.waves, start=1):
        last_read[waves.giving[wave.edges]] = number
    by_end = np.argsort(last_read, kind="stable")
    ended = np.searchsorted(last_read[by_end], np.arange(len(waves.ends)), side="right")
    row_of, free, rows = np.empty(size, dtype=np.int64), np.empty(0, dtype=np.int64), 0
    first = released = 0
    for last, end in zip(waves.ends.tolist(), ended.tolist(), strict=True):
        missing = last - first - len(free)
        if missing > 0:
            free = np.concatenate([np.arange(rows, rows + missing), free])
            rows += missing
        row_of[first:last] = free[len(free) - (last - first) :]
        free = np.concatenate([free[: len(free) - (last - first)], row_of[by_end[released:end]]])
        first, released = last, end
    return row_of, rows


def _shares(
    graph: PathGraph, waves: Waves, counts: tuple[Scaled, FloatArray | None] | None
) -> FloatArray:
    """share(u, v) of each edge in the order of the waves: float64[e]."""
    if counts is None:
        return 1.0 / waves.reads[waves.taking]
    (mantissa, exponent), weights = (counts[0].mantissa, counts[0].exponent), counts[1]
    source, target = waves.order[waves.giving], waves.order[waves.taking]
    share, power = mantissa[source] / mantissa[target], exponent[source] - exponent[target]
    if weights is not None:  # of any size: the product alone is at most 1
        weight, own = np.frexp(weights[waves.edge_order])
        share, power = share * weight, power + own
    shift = np.clip(power, -5000, 5000).astype(np.int32)
    with np.errstate(under="ignore"):
        result: FloatArray = np.ldexp(share, shift)
    return result


def _groups(
    waves: Waves, windows: _Windows, row_of: IntArray, share: FloatArray, width: int
) -> Iterator[list[_Group]]:
    """The edges of each wave, of the first none."""
    yield []
    block = max(_BLOCK, int(waves.reads.max()) and int(np.sqrt(waves.reads.max())))
    chunk = max(_CHUNK // width, 1)
    for wave in waves.waves:
        giving, taking = waves.giving[wave.edges], waves.taking[wave.edges] - wave.first
        offset = windows.low[giving] - windows.base[wave.first + taking]
        order = np.argsort(offset, kind="stable")
        starts = np.flatnonzero(np.diff(offset[order], prepend=-1)).tolist()
        groups = []
        for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
            for at in range(begin, end, chunk):
                edges = order[at : min(at + chunk, end)]
                numbers, targets = _blocks(taking[edges], block)
                groups.append(
                    _Group(
                        offset=int(offset[edges[0]]),
                        width=int(windows.span[giving[edges]].max()),
                        giving=waves.put(row_of[giving[edges]]),
                        share=waves.put(share[wave.edges][edges]).unsqueeze(1),
                        block=waves.put(numbers),
                        taking=waves.put(targets),
                    )
                )
        yield groups


def _blocks(taking: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Runs of at most `size` equal entries: the run of each entry, and the entry of each run."""
    starts = np.flatnonzero(np.diff(taking, prepend=-1))
    rank = np.arange(len(taking)) - np.repeat(starts, np.diff(starts, append=len(taking)))
    begins = rank % size == 0
    return np.cumsum(begins) - 1, taking[begins]


def _added(groups: list[_Group], count: int, store: Tensor) -> Tensor:
    """Sums of share(u, v) p(u) for the nodes of a wave: (nodes, width)."""
    values = store.new_zeros((count, store.shape[1]))
    for group in groups:
        width = min(group.width, store.shape[1] - group.offset)
        terms = store[:, :width].index_select(0, group.giving) * group.share
        if len(group.taking) < len(group.giving):
            parts = store.new_zeros((len(group.taking), width))
            terms = parts.index_add_(0, group.block, terms)
        values[:, group.offset : group.offset + width].index_add_(0, group.taking, terms)
    return values


def _counted(values: Tensor, activity: FloatArray, waves: Waves) -> Tensor:
    """The rows after the nodes' own units, which count with chance `activity`.

    Where that is 1 the row stays as it is and stands for lengths one larger.
    """
    if not ((activity > 0) & (activity < 1)).any():
        return values
    chance = waves.put(np.where(activity < 1, activity, 0.0)).unsqueeze(1)
    counted = (1.0 - chance) * values
    counted[:, 1:] += chance * values[:, :-1]
    return counted


def _finish(
    values: Tensor, ending: FloatArray, low: IntArray, result: Tensor, waves: Waves
) -> None:
    """Add the rows of the nodes of a wave where ways end to the result."""
    for least in np.unique(low[ending > 0]).tolist():
        nodes = np.flatnonzero((ending > 0) & (low == least))
        rows = values[waves.put(nodes)] * waves.put(ending[nodes]).unsqueeze(1)
        width = min(values.shape[1], len(result) - least)
        result[least : least + width] += rows.sum(dim=0)[:width]
