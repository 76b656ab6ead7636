"""Examples of longest and shortest paths: they are such paths, and always the same ones."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

import pathlen
from pathlen import PathGraph
from pathlen.errors import GraphError
from pathlen.graph.path_graph import Kind
from pathlen.graph.runs import leading_to, longest_ways, reached_from, runs
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks, tenfold_chain
from tests.path_lists import edges_of, length_of, weighted_paths

BOTH = pytest.mark.parametrize("which", ["longest", "shortest"])


@BOTH
@settings(deadline=None, max_examples=60)
@given(case=random_graphs())
def test_it_is_the_first_of_the_extreme_paths(which: str, case: RandomGraph) -> None:
    graph = case.build()
    report = pathlen.measure(graph, exact=True)
    activity = [Fraction(value) for value in graph.activity.tolist()]
    lengths = {path: length_of(activity, path) for path, _ in weighted_paths(graph)}
    extreme = (max if which == "longest" else min)(lengths.values())
    assert extreme == (report.longest_path if which == "longest" else report.shortest_path)
    # Read from the output backward, the smallest of those paths.
    wanted = min((path for path in lengths if lengths[path] == extreme), key=lambda p: p[::-1])
    found = report.example_path_nodes(which)
    assert tuple(found.tolist()) == wanted
    names = [graph.layers[graph.layer[u]].name for u in wanted if graph.kind[u] != Kind.HUB]
    assert report.example_path(which) == tuple(names)


@BOTH
@settings(deadline=None, max_examples=40)
@given(case=random_graphs())
def test_rounded_lengths_are_extreme_up_to_rounding(which: str, case: RandomGraph) -> None:
    graph = case.build()
    report = pathlen.measure(graph)
    nodes = report.example_path_nodes(which)
    assert graph.kind[nodes[0]] == Kind.INPUT
    assert graph.kind[nodes[-1]] == Kind.OUTPUT
    assert set(itertools.pairwise(nodes.tolist())) <= set(edges_of(graph))
    extreme = report.longest_path if which == "longest" else report.shortest_path
    assert graph.activity[nodes].sum() == pytest.approx(extreme, rel=1e-12)


def test_figure_1() -> None:
    report = pathlen.measure(figure_1())
    assert report.example_path("shortest") == ("inputs", "outputs")
    longest = report.example_path()
    assert longest == report.example_path("longest")
    # The hubs of this graph are nodes of activity 0: four of them, and the sum behind the branch.
    assert len(longest) == 2 + 4 + 5
    nodes = report.example_path_nodes("longest")
    assert report.graph.activity[nodes].sum() == 4
    with pytest.raises(ValueError, match="read-only"):
        nodes[0] = 1


def test_a_residual_network_by_module_paths() -> None:
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 5)
            self.relu = nn.ReLU()
            self.outer = nn.Linear(5, 3)

        def forward(self, x):
            return x + self.outer(self.relu(self.inner(x)))

    import torch

    report = pathlen.measure(nn.Sequential(Block(), nn.Linear(3, 2)), torch.zeros(1, 3))
    assert report.example_path("longest") == (
        "input",
        "0.inner",
        "0.relu",
        "0.outer",
        "0.add",
        "1",
        "output",
    )
    assert report.example_path("shortest") == ("input", "0.add", "1", "output")


def test_unknown_extreme() -> None:
    with pytest.raises(GraphError, match="no example path 'middle'; ask for one of longest"):
        pathlen.measure(figure_1()).example_path("middle")


def test_a_deep_graph() -> None:
    report = pathlen.measure(tenfold_chain(300))
    assert len(report.example_path("shortest")) == 301
    assert len(report.example_path("longest")) == 1 + 300 * 4  # unit, hub, unit, joint
    soft = residual_blocks(300, 2, 2)
    soft = soft.with_activity(0.1 * soft.activity)
    assert len(pathlen.measure(soft).example_path("longest")) == 1 + 300 * 4


# The sweeps below it.


@settings(deadline=None, max_examples=60)
@given(case=random_graphs())
def test_sweeps_by_runs(case: RandomGraph) -> None:
    graph = case.build()
    ranges = list(runs(graph.indptr, graph.indices))
    assert [first for first, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == graph.num_nodes
    edges = edges_of(graph)
    for first, end in ranges:
        assert not any(first <= u and v < end for u, v in edges)
    some = np.random.default_rng(graph.num_nodes).random(graph.num_nodes) < 0.3
    ahead, behind = some.tolist(), some.tolist()
    for u, v in sorted(edges, key=lambda edge: edge[1]):
        ahead[v] |= ahead[u]
    for u, v in sorted(edges, key=lambda edge: -edge[0]):
        behind[u] |= behind[v]
    assert reached_from(graph.indptr, graph.indices, some).tolist() == ahead
    assert leading_to(graph.indptr, graph.indices, some).tolist() == behind


def test_longest_ways_of_integers_of_any_size() -> None:
    graph = PathGraph.from_edges([(0, 1), (1, 2), (0, 2)])
    lengths = np.array([10**30, 1, 5], dtype=object)
    found = longest_ways(graph.indptr, graph.indices, lengths)
    assert found.tolist() == [10**30, 10**30 + 1, 10**30 + 6]
