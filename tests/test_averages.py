"""Averages to the last digit, and what each layer adds to them."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pathlen import backends
from pathlen.graph.path_graph import Kind, Layer, PathGraph
from tests.path_graphs import RandomGraph, random_graphs, tripling

EVERY_BACKEND = pytest.mark.parametrize("name", backends.available())
EVERY_DIRECTION = pytest.mark.parametrize("direction", ["backward", "forward"])


def solve(name: str, graph: PathGraph, direction: str = "backward") -> backends.Solution:
    return backends.get(name).solve(graph, direction)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=40)
@given(case=random_graphs(weighted=True))
def test_what_layers_add(name: str, direction: str, case: RandomGraph) -> None:
    graph = case.build()
    found, oracle = solve(name, graph, direction), solve("exact", graph, direction)
    exact = backends.get(name).capabilities.exact
    for field, share, average in (
        ("contribution", oracle.path_share, found.average),
        ("normalized_contribution", oracle.walk_share, found.normalized_average),
    ):
        values: Any = getattr(found, field)
        if values is None:  # left to who reads the shares
            continue
        wanted = [Fraction(0)] * len(graph.layers)
        for node, activity in enumerate(graph.activity.tolist()):
            wanted[graph.layer[node]] += Fraction(activity) * share[node]
        if exact:
            assert list(values) == wanted
            assert sum(values) == average
        else:
            assert all(map(close, values, wanted))
            assert math.isclose(math.fsum(values), average, rel_tol=1e-15)


def close(value: float, wanted: Fraction) -> bool:
    return math.isclose(value, wanted, rel_tol=1e-12, abs_tol=1e-300)


@pytest.mark.parametrize("name", ["numba", "residues"])
def test_layers_are_added_up_where_they_are_swept(name: str) -> None:
    assert solve(name, PathGraph.from_edges([(0, 1), (1, 2)])).contribution is not None


# Where rounding errors might add up: the compiled sweep against residues, to the last digits.


def in_one_layer(graph: PathGraph) -> PathGraph:
    """The same with one layer of all nodes between the inputs, which come first, and the outputs.

    A layer a node, each with a fraction of 200,000 bits, would fill memory.
    """
    inputs, outputs = graph.num_inputs, graph.num_outputs
    counts = [inputs, graph.num_nodes - inputs - outputs, outputs]
    firsts = np.cumsum([0, *counts]).tolist()
    rows = zip(("input", "units", "output"), firsts, counts, strict=False)
    layers = tuple(Layer(name, name, first, count) for name, first, count in rows)
    which = np.repeat(np.arange(3, dtype=np.int32), counts)
    return dataclasses.replace(graph, layer=which, layers=layers)


def assert_the_last_digits_are_right(graph: PathGraph) -> None:
    graph = in_one_layer(graph)
    found, wanted = solve("numba", graph), solve("residues", graph)
    assert math.isclose(found.average, wanted.average, rel_tol=1e-15)
    assert math.isclose(found.normalized_average, wanted.normalized_average, rel_tol=1e-15)
    assert wanted.path_count is not None
    if wanted.path_count < 10**300:
        assert math.isclose(10**found.log10_path_count, wanted.path_count, rel_tol=1e-13)
    assert math.isclose(found.log10_path_count, wanted.log10_path_count, rel_tol=1e-15)


@pytest.mark.parametrize("value", [1 / 3, 1e-200])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_same_addition_in_100_000_nodes_in_a_row(width: int, value: float) -> None:
    # Each rounding of a sum to 53 bits would err the same way.
    edges = [(node - step, node) for node in range(1, 100_000) for step in range(1, width + 1)]
    activity = np.full(100_000, value)
    assert_the_last_digits_are_right(
        PathGraph.from_edges([edge for edge in edges if edge[0] >= 0], activity=activity)
    )


@pytest.mark.parametrize("stages", [20, 42])
@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_a_long_chain_to_which_few_paths_are_added(width: int, stages: int) -> None:
    # 3**45 paths come along the chain; 3**stages enter at each node in `width` places.
    length, edges, sides, first = 20_000, tripling(1, 45), [], 1 + 3 * 45 + 1
    last = first - 1
    for _ in range(width):
        edges += tripling(first, stages)
        first += 3 * stages + 1
        sides.append(first - 1)
    for node in range(first, first + length):
        edges += [(side, node) for side in sides] + [(last, node)]
        last = node
    assert_the_last_digits_are_right(PathGraph.from_edges(edges, activity=np.full(last + 1, 1 / 3)))


@pytest.mark.parametrize("width", [63, 64, 65, 100_000])
def test_a_wide_layer_of_very_different_counts(width: int) -> None:
    # One unit of 3**45 paths among others of 3**20, read by a hub.
    edges, few = tripling(1, 45), tripling(200, 20)
    many_end, few_end, hub = 1 + 3 * 45, 200 + 3 * 20, 300 + width
    edges += few + [(few_end, unit) for unit in range(300, hub)]
    edges += [(unit, hub) for unit in range(300, hub)] + [(many_end, hub), (hub, hub + 1)]
    activity = np.zeros(hub + 2)
    activity[:300] = 1 / 3
    activity[300:hub] = np.linspace(0.0, 1.0, width)
    assert_the_last_digits_are_right(PathGraph.from_edges(edges, activity=activity))


@pytest.mark.parametrize("name", ["exact", "residues", "numba"])
@pytest.mark.parametrize(("linear", "active"), [(500, 0), (1020, 0), (1100, 200), (1500, 500)])
def test_few_paths_that_alone_are_active(name: str, linear: int, active: int) -> None:
    # 2**active paths through one active unit beside 2**linear paths through none.
    edges, ends = [], []
    first = 1
    for stages in (linear, active):
        before = [0]
        for node in range(first, first + 2 * stages, 2):
            edges += [(one, other) for one in before for other in (node, node + 1)]
            before = [node, node + 1]
        first += 2 * stages + 1
        edges += [(one, first - 1) for one in before]
        ends.append(first - 1)
    edges += [(end, first) for end in ends]
    activity = np.zeros(first + 1)
    activity[ends[1]] = 1.0
    graph = PathGraph.from_edges(edges, activity=activity)
    wanted = Fraction(2**active, 2**linear + 2**active)
    assert math.isclose(solve(name, graph).average, wanted, rel_tol=1e-12)


@EVERY_DIRECTION
def test_shares_of_a_long_chain_are_right_to_the_last_digits(direction: str) -> None:
    # Walks go by three ways at each step: a third is rounded at each of 30,000 nodes.
    size = 30_000
    edges = [(node - step, node) for node in range(1, size) for step in range(1, 4) if step <= node]
    found = solve("numba", PathGraph.from_edges(edges), direction)
    # Far from both ends a walk of steps 1, 2, 3 passes a node with chance 1 / (mean step).
    middle = slice(10_000, 20_000)
    assert np.allclose(found.walk_share[middle], 0.5, rtol=2e-15, atol=0)
    # Every path passes one of two nodes in a row or leaps over both; ways satisfy one recurrence.
    share = np.asarray(found.path_share)[middle]
    root = max(np.roots([1, -1, -1, -1]).real)
    wanted = 1 / (1 / root + 2 / root**2 + 3 / root**3)
    assert np.allclose(share, wanted, rtol=1e-13, atol=0)


@settings(deadline=None, max_examples=60)
@given(case=random_graphs(size=30))
def test_what_is_shared_out_comes_together(case: RandomGraph) -> None:
    graph = case.build()
    found = solve("numba", graph)
    for share in (np.asarray(found.path_share), np.asarray(found.walk_share)):
        for kind in (Kind.INPUT, Kind.OUTPUT):
            assert math.isclose(math.fsum(share[graph.kind == kind]), 1, rel_tol=1e-14)


@pytest.mark.parametrize(("stages", "late"), [(600, 1), (1100, 0), (1300, 5), (2000, 40)])
def test_shares_where_counts_change_their_power(stages: int, late: int) -> None:
    # 3**stages paths come along; at `late` places near the end single paths from the input enter.
    edges = tripling(1, stages)
    last = 1 + 3 * stages
    for node in range(last + 1, last + 1 + 2 * late, 2):
        edges += [(0, node), (last, node + 1), (node, node + 1)]
        last = node + 1
    graph = PathGraph.from_edges(edges)
    found, wanted = solve("numba", graph), solve("exact", graph)
    nodes = [
        *range(0, graph.num_nodes, 97),
        *range(graph.num_nodes - 2 * late - 2, graph.num_nodes),
    ]
    for node in nodes:
        assert close(found.path_share[node], wanted.path_share[node])
        assert close(found.walk_share[node], wanted.walk_share[node])
