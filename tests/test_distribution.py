"""Distributions of path lengths: every backend against enumeration, closed forms and laws."""

import dataclasses
import functools
import math
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlen import backends
from pathlen.backends.protocol import HasDistribution
from pathlen.errors import BackendError
from pathlen.graph.path_graph import PathGraph
from tests.path_enumeration import enumerate_lengths
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks, tenfold_chain

ABLE = [n for n in backends.available() if backends.get(n).capabilities.distribution]
WEIGHTINGS = ("uniform", "normalized", "magnitude")
EVERY_BACKEND = pytest.mark.parametrize("name", ABLE)
EVERY_DIRECTION = pytest.mark.parametrize("direction", ["backward", "forward"])
EVERY_WEIGHTING = pytest.mark.parametrize("weighting", WEIGHTINGS)
AVERAGE = {
    "uniform": "average",
    "normalized": "normalized_average",
    "magnitude": "magnitude_average",
}
# What float64 cannot hold to twelve digits: numbers below its normal range.
TINY = 1e-300


def lengths(
    name: str,
    graph: PathGraph,
    weighting: str = "uniform",
    direction: str = "backward",
    memory_limit: int | None = None,
) -> Sequence[Any]:
    backend: Any = backends.get(name)
    able: HasDistribution = backend
    found: Any = able.distribution(graph, weighting, direction, memory_limit)
    shares: Sequence[Any] = found
    return shares


def is_exact(name: str) -> bool:
    return backends.get(name).capabilities.exact


def assert_shares(
    name: str, found: Sequence[Any], wanted: Sequence[Any], rel_tol: float = 1e-12
) -> None:
    """The same shares: equal for exact backends, to relative accuracy for all others."""
    assert len(found) == len(wanted)
    if is_exact(name):
        assert all(isinstance(share, Fraction) for share in found)
        assert list(found) == list(wanted)
    else:
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        for share, other in zip(found.tolist(), wanted, strict=True):
            assert math.isclose(share, other, rel_tol=rel_tol, abs_tol=TINY)


def test_the_built_in_backends_have_them() -> None:
    assert {"exact", "residues", "numba", "scipy", "igraph"} <= set(ABLE)


@EVERY_BACKEND
@EVERY_DIRECTION
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=60)
@given(case=random_graphs(weighted=True))
def test_agrees_with_enumeration(
    name: str, direction: str, weighting: str, case: RandomGraph
) -> None:
    graph = case.build()
    found = lengths(name, graph, weighting, direction)
    assert_shares(name, found, enumerate_lengths(graph, weighting, direction))


@EVERY_BACKEND
@EVERY_DIRECTION
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=30)
@given(case=random_graphs(weighted=True, size=14))
def test_shares_add_up_and_their_mean_is_the_average(
    name: str, direction: str, weighting: str, case: RandomGraph
) -> None:
    graph = case.build()
    shares = [Fraction(share) for share in lengths(name, graph, weighting, direction)]
    mean = sum((length * share for length, share in enumerate(shares)), Fraction(0))
    average = getattr(backends.get(name).solve(graph, direction), AVERAGE[weighting])
    assert all(share >= 0 for share in shares)
    if is_exact(name):
        assert (sum(shares), mean) == (1, average)
    else:
        assert math.isclose(sum(shares), 1, rel_tol=1e-12)
        assert math.isclose(mean, average, rel_tol=1e-12, abs_tol=TINY)


@EVERY_BACKEND
def test_figure_1(name: str) -> None:
    # One path of length 0, 256 of length 4.
    uniform = [Fraction(1, 257), 0, 0, 0, Fraction(256, 257)]
    assert_shares(name, lengths(name, figure_1()), uniform)
    half = Fraction(1, 2)
    assert_shares(name, lengths(name, figure_1(), "normalized"), [half, 0, 0, 0, half])


@EVERY_BACKEND
@EVERY_DIRECTION
@pytest.mark.parametrize("weighting", ["uniform", "normalized"])
def test_residual_blocks_are_binomial(name: str, direction: str, weighting: str) -> None:
    blocks, width, hidden = 20, 3, 10
    chance = {"uniform": Fraction(width * hidden, width * hidden + 1), "normalized": Fraction(1, 2)}
    p = chance[weighting]
    wanted = [math.comb(blocks, k) * p**k * (1 - p) ** (blocks - k) for k in range(blocks + 1)]
    graph = residual_blocks(blocks, width, hidden)
    assert_shares(name, lengths(name, graph, weighting, direction), wanted)


@EVERY_BACKEND
@EVERY_WEIGHTING
@given(chances=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
@settings(deadline=None, max_examples=25)
def test_soft_units_in_a_row_are_independent_chances(
    name: str, weighting: str, chances: list[float]
) -> None:
    edges = [(node, node + 1) for node in range(len(chances) + 1)]
    graph = PathGraph.from_edges(edges, activity=[0.0, *chances, 0.0], weights=[0.3] * len(edges))
    wanted = [Fraction(1)]
    for chance in filter(None, map(Fraction, chances)):
        moved = zip([*wanted, Fraction(0)], [Fraction(0), *wanted], strict=True)
        wanted = [(1 - chance) * here + chance * before for here, before in moved]
    assert_shares(name, lengths(name, graph, weighting), wanted)


@EVERY_BACKEND
@pytest.mark.parametrize(("weighting", "branch"), [("uniform", 9), ("normalized", 3)])
def test_ten_to_the_three_hundred_paths(name: str, weighting: str, branch: int) -> None:
    # Each block is passed along its branch, of two units, 9 times in 10, or by a walk 3 in 4.
    blocks, parts = 300, {9: 10, 3: 4}[branch]
    wanted = [Fraction(0)] * (2 * blocks + 1)
    for taken in range(blocks + 1):
        ways = math.comb(blocks, taken) * branch**taken
        wanted[2 * taken] = Fraction(ways, parts**blocks)
    assert_shares(name, lengths(name, tenfold_chain(blocks), weighting), wanted)


@functools.cache
def long_chain() -> PathGraph:
    """10**3000 paths with weights; activities 0 but for the last 50 blocks keep it short."""
    chain = tenfold_chain(3000)
    weights = np.random.default_rng(7).choice([0.125, 0.75, 3.0, 1000.0], chain.num_edges)
    activity = np.where(np.arange(chain.num_nodes) > chain.num_nodes - 400, chain.activity, 0.0)
    return dataclasses.replace(chain, activity=activity, weights=weights)


@functools.cache
def lengths_of_long_chain(weighting: str) -> Sequence[Any]:
    return lengths("exact", long_chain(), weighting)


@EVERY_WEIGHTING
@pytest.mark.parametrize("name", [name for name in ABLE if not is_exact(name)])
def test_ten_to_the_three_thousand_paths(name: str, weighting: str) -> None:
    found = lengths(name, long_chain(), weighting)
    assert len(found) == 101
    assert_shares(name, found, lengths_of_long_chain(weighting))


def shifted(case: RandomGraph, offset: int) -> list[tuple[int, int]]:
    return [(a + offset, b + offset) for a, b in case.edges]


def moved(values: dict[int, Any], offset: int) -> dict[int, Any]:
    return {node + offset: value for node, value in values.items()}


@EVERY_BACKEND
@EVERY_DIRECTION
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=15)
@given(
    first=random_graphs(one_tensor=True, weighted=True),
    second=random_graphs(one_tensor=True, weighted=True),
)
def test_distributions_convolve_in_series(
    name: str, direction: str, weighting: str, first: RandomGraph, second: RandomGraph
) -> None:
    offset, hub = 1000, 2000
    joints = [(node, hub) for node in first.outputs]
    joints += [(hub, node + offset) for node in second.inputs]
    both = PathGraph.from_edges(
        [*first.edges, *shifted(second, offset), *joints],
        activity=first.activity | moved(second.activity, offset) | {hub: 0.0},
        weights=[*(first.weights or ()), *(second.weights or ()), *[1.0] * len(joints)],
    )
    before, behind = (lengths(name, c.build(), weighting, direction) for c in (first, second))
    wanted = [Fraction(0)] * (len(before) + len(behind) - 1)
    for one, share in enumerate(before):
        for two, other in enumerate(behind):
            wanted[one + two] += Fraction(share) * Fraction(other)
    # Shares that are lost below floats in one part would be small, not lost, in the whole.
    assert_shares(name, lengths(name, both, weighting, direction), wanted, rel_tol=1e-11)


@EVERY_BACKEND
@EVERY_DIRECTION
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=15)
@given(
    first=random_graphs(one_tensor=True, weighted=True),
    second=random_graphs(one_tensor=True, weighted=True),
)
def test_distributions_mix_in_parallel(
    name: str, direction: str, weighting: str, first: RandomGraph, second: RandomGraph
) -> None:
    offset = 1000
    union = RandomGraph(
        edges=first.edges + shifted(second, offset),
        activity=first.activity | moved(second.activity, offset),
        inputs=first.inputs + [node + offset for node in second.inputs],
        outputs=first.outputs + [node + offset for node in second.outputs],
        layers=first.layers
        | {node + offset: f"second {layer}" for node, layer in second.layers.items()},
        weights=[*(first.weights or ()), *(second.weights or ())],
    ).build()
    # How much each part counts: its paths, its tensor of two, the weight of its paths.
    wanted: list[Fraction] = []
    whole, share_of_part = backends.get("exact").solve(union), []
    shares: Any = {
        "uniform": whole.path_share,
        "normalized": whole.walk_share,
        "magnitude": whole.magnitude_share,
    }[weighting]
    for case, start in ((first, 0), (second, offset)):
        ends = [n for n in np.flatnonzero(union.kind == 3).tolist() if in_part(union, n, start)]
        share_of_part.append(sum((shares[end] for end in ends), Fraction(0)))
        found = lengths(name, case.build(), weighting, direction)
        wanted += [Fraction(0)] * (len(found) - len(wanted))
        for length, share in enumerate(found):
            wanted[length] += share_of_part[-1] * Fraction(share)
    assert sum(share_of_part) == 1
    assert_shares(name, lengths(name, union, weighting, direction), wanted, rel_tol=1e-11)


def in_part(union: PathGraph, node: int, start: int) -> bool:
    """Whether a node of a union is in the part whose ids begin at `start`."""
    assert union.node_ids is not None
    return bool((union.node_ids[node] >= 1000) == (start > 0))


@EVERY_BACKEND
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=20)
@given(case=random_graphs(weighted=True), data=st.data())
def test_numbering_does_not_matter(
    name: str, weighting: str, case: RandomGraph, data: st.DataObject
) -> None:
    ids = list(case.activity)
    number = dict(zip(ids, data.draw(st.permutations(range(len(ids)))), strict=True))
    order = data.draw(st.permutations(range(len(case.edges))))
    assert case.weights is not None
    renamed = RandomGraph(
        edges=[(number[case.edges[i][0]], number[case.edges[i][1]]) for i in order],
        activity={number[node]: value for node, value in case.activity.items()},
        inputs=[number[node] for node in case.inputs],
        outputs=[number[node] for node in case.outputs],
        layers={number[node]: layer for node, layer in case.layers.items()},
        weights=[case.weights[i] for i in order],
    )
    # Weights of edges given twice are added up in the order given: rounded, they may differ.
    if is_exact(name) and len(set(case.edges)) < len(case.edges):
        return
    found, again = (lengths(name, graph.build(), weighting) for graph in (case, renamed))
    assert_shares(name, again, found)


@EVERY_BACKEND
@pytest.mark.parametrize("weighting", ["uniform", "magnitude"])
@settings(deadline=None, max_examples=15)
@given(case=random_graphs(weighted=True))
def test_only_walks_have_a_direction(name: str, weighting: str, case: RandomGraph) -> None:
    graph = case.build()
    forth, back = (lengths(name, graph, weighting, d) for d in ("forward", "backward"))
    assert_shares(name, forth, back)


@EVERY_BACKEND
@EVERY_WEIGHTING
def test_activity_decides_how_many_lengths_there_are(name: str, weighting: str) -> None:
    graph = dataclasses.replace(figure_1(), weights=np.ones(figure_1().num_edges))
    linear = graph.with_activity(np.zeros(graph.num_nodes))
    assert_shares(name, lengths(name, linear, weighting), [Fraction(1)])
    barely = graph.with_activity(np.where(graph.activity > 0, 2.0**-40, 0.0))
    assert len(lengths(name, barely, weighting)) == 5


@EVERY_BACKEND
def test_smallest_shares_are_as_precise_as_large_ones(name: str) -> None:
    # 200 units in a row that count with a chance of one in ten each.
    chance = Fraction(0.1)
    edges = [(node, node + 1) for node in range(201)]
    graph = PathGraph.from_edges(edges, activity=[0.0, *[0.1] * 200, 0.0])
    wanted = [math.comb(200, k) * chance**k * (1 - chance) ** (200 - k) for k in range(201)]
    assert 1e-201 < wanted[-1] < 1e-199
    assert_shares(name, lengths(name, graph), wanted)


# Refusals.


@EVERY_BACKEND
@EVERY_WEIGHTING
def test_more_memory_than_the_limit_is_refused(name: str, weighting: str) -> None:
    graph = residual_blocks(100, 2, 10)
    graph = dataclasses.replace(graph, weights=np.ones(graph.num_edges))
    with pytest.raises(BackendError, match=r"MiB, more than the memory limit of 0\.0 MiB; raise"):
        lengths(name, graph, weighting, memory_limit=1000)
    assert len(lengths(name, graph, weighting, memory_limit=1 << 30)) == 101


def dense(size: int) -> PathGraph:
    """All edges between nodes in a row, no two nodes alike, weights and soft activities."""
    random = np.random.default_rng(3)
    edges = np.array([(a, b) for b in range(size) for a in range(b)])
    return PathGraph.from_edges(
        edges,
        activity=np.array([0.0, *random.uniform(0, 1, size - 2).round(2), 0.0]),
        weights=random.uniform(0.1, 10, len(edges)),
    )


def refused_below(name: str, graph: PathGraph, weighting: str) -> int:
    """The least limit that a backend accepts, to one part in fifty."""
    low, high = 0, 1 << 40
    while high > low * 1.02 + 64:
        middle = (low + high) // 2
        try:
            lengths(name, graph, weighting, memory_limit=middle)
        except BackendError:
            low = middle
        else:
            high = middle
    return high


@pytest.mark.parametrize("name", ["exact", "residues", "scipy", "igraph"])
@pytest.mark.parametrize("shape", ["chain", "dense"])
@EVERY_WEIGHTING
def test_a_limit_that_is_accepted_is_kept(name: str, shape: str, weighting: str) -> None:
    # Python's own allocations and numpy's are traced; the limit must bound them, and not be
    # many times too careful.
    graph = dense(60)
    if shape == "chain":
        graph = tenfold_chain(60)
        graph = dataclasses.replace(graph, weights=np.linspace(0.5, 2, graph.num_edges))
    limit = refused_below(name, graph, weighting)
    peaks = []
    for _ in range(3):  # whatever else the process allocates at that moment is traced too
        tracemalloc.start()
        try:
            lengths(name, graph, weighting, memory_limit=limit)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    peak = min(peaks)
    assert peak <= limit
    assert limit <= 12 * peak


@EVERY_BACKEND
def test_questions_without_an_answer(name: str) -> None:
    graph = figure_1()
    with pytest.raises(BackendError, match="no weighting 'fair'; use one of uniform, normalized"):
        lengths(name, graph, "fair")
    for weighting in ("uniform", "normalized"):
        with pytest.raises(BackendError, match="no direction 'sideways'"):
            lengths(name, graph, weighting, "sideways")
    with pytest.raises(BackendError, match=r"'magnitude' needs a graph whose edges have weights"):
        lengths(name, graph, "magnitude")
