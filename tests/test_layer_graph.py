"""The graph of layers against paths and walks listed one by one, and on networks known by hand."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import Kind, LayerGraph, PathGraph, Report, backends, layer_graph
from tests.path_enumeration import enumerate_walks
from tests.path_graphs import figure_1, random_graphs, residual_blocks


def with_hubs(graph: PathGraph, chosen: list[bool]) -> PathGraph:
    """The same graph with some of its linear units as hubs."""
    kind = graph.kind.copy()
    picked = np.resize(np.array(chosen), len(kind))
    kind[picked & (kind == Kind.UNIT) & (graph.activity == 0)] = Kind.HUB
    return PathGraph.from_arrays(
        graph.indptr,
        graph.indices,
        graph.activity,
        kind,
        graph.layer,
        graph.layers,
        weights=graph.weights,
    )


def residual_network(blocks: int, width: int, hidden: int) -> PathGraph:
    """`residual_blocks`, whose dense layers are marked as the hubs that they are."""
    graph = residual_blocks(blocks, width, hidden)
    alone = np.array([layer.count for layer in graph.layers])[graph.layer] == 1
    return with_hubs(graph, alone.tolist())


def solved(graph: PathGraph, backend: str, direction: str = "backward") -> Report:
    solver = backends.get(backend)
    return Report.build(
        graph,
        solver.solve(graph, direction),
        backend=backend,
        seconds={},
        exact=solver.capabilities.exact,
    )


def edges_by_name(graph: LayerGraph) -> dict:
    names = [node.name for node in graph.nodes]
    found = {(names[edge.source], names[edge.target]): edge for edge in graph.edges}
    assert len(found) == len(graph.edges)
    return found


def listed_edges(graph: PathGraph, direction: str) -> tuple[dict, dict]:
    """By names of layers: the ways between their units, and the share of paths on each."""
    ways, shares = defaultdict(set), defaultdict(lambda: [Fraction(0)] * 3)
    walks = enumerate_walks(graph, direction)
    total = sum(walk.magnitude for walk in walks)
    for walk in walks:
        nodes = walk.nodes if direction == "forward" else walk.nodes[::-1]
        units = [place for place, node in enumerate(nodes) if graph.kind[node] != Kind.HUB]
        for first, last in itertools.pairwise(units):
            ends = tuple(graph.layers[graph.layer[nodes[place]]].name for place in (first, last))
            if ends[0] == ends[1]:
                continue
            ways[ends].add(nodes[first : last + 1])
            counted = (Fraction(1, len(walks)), walk.chance, walk.magnitude / total)
            shares[ends] = [sum(pair) for pair in zip(shares[ends], counted, strict=True)]
    return ways, shares


@settings(deadline=None, max_examples=150)
@given(
    case=random_graphs(weighted=True),
    chosen=st.lists(st.booleans(), min_size=1, max_size=6),
    backend=st.sampled_from(["exact", "numba"]),
    direction=st.sampled_from(["backward", "forward"]),
)
def test_edges_are_those_of_all_paths(case, chosen, backend, direction):
    graph = with_hubs(case.build(), chosen)
    found = edges_by_name(layer_graph(solved(graph, backend, direction)))
    ways, shares = listed_edges(graph, direction)
    assert found.keys() == ways.keys()
    for ends, edge in found.items():
        assert edge.connections == len(ways[ends])
        assert list(edge.shares) == ["uniform", "normalized", "magnitude"]
        assert list(edge.shares.values()) == pytest.approx(
            [float(share) for share in shares[ends]], rel=1e-11, abs=1e-300
        )


@settings(deadline=None, max_examples=100)
@given(case=random_graphs(), chosen=st.lists(st.booleans(), min_size=1, max_size=6))
def test_an_edge_is_a_skip_where_another_way_leads(case, chosen):
    graph = layer_graph(with_hubs(case.build(), chosen))
    after = defaultdict(set)
    for edge in graph.edges:
        assert edge.source < edge.target
        after[edge.source].add(edge.target)

    def leads(source: int, target: int) -> bool:
        return source == target or any(leads(node, target) for node in after[source])

    for edge in graph.edges:
        others = after[edge.source] - {edge.target}
        assert edge.skip == any(leads(node, edge.target) for node in others)


def test_nodes_are_the_rows_of_the_report():
    report = solved(figure_1(), "exact")
    graph = layer_graph(report)
    assert [(node.name, node.units, node.active) for node in graph.nodes] == [
        (row.name, row.units, row.active) for row in report.layers
    ]
    for weighting in report.weightings:
        added = [node.contributions[weighting] for node in graph.nodes]
        assert sum(added) == report.average(weighting)


def test_a_residual_block_by_hand():
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            return x + self.block(x)

    report = pathlen.measure(Residual(), torch.ones(1, 3, 2, 2))
    graph = layer_graph(report)
    assert [(n.name, n.kind.name, n.units, n.active, n.linear, n.dead) for n in graph.nodes] == [
        ("x", "INPUT", 3, 0, 3, 0),
        ("block.0", "UNIT", 4, 0, 4, 0),
        ("block.1", "UNIT", 4, 4, 0, 0),
        ("block.2", "UNIT", 3, 0, 3, 0),
        ("add", "UNIT", 3, 0, 3, 0),
        ("output", "OUTPUT", 3, 0, 3, 0),
    ]
    # 3 outputs, each reached by the skip or by 3 * 4 ways through the block: 39 paths
    edges = edges_by_name(graph)
    assert {ends: edge.connections for ends, edge in edges.items()} == {
        ("x", "block.0"): 12,
        ("block.0", "block.1"): 4,
        ("block.1", "block.2"): 12,
        ("x", "add"): 3,
        ("block.2", "add"): 3,
        ("add", "output"): 3,
    }
    assert [ends for ends, edge in edges.items() if edge.skip] == [("x", "add")]
    skip, into = edges["x", "add"].shares, edges["block.1", "block.2"].shares
    assert (skip["uniform"], into["uniform"]) == pytest.approx((3 / 39, 36 / 39))
    assert (skip["normalized"], into["normalized"]) == pytest.approx((1 / 2, 1 / 2))


def test_without_a_report_there_are_no_contributions_and_shares():
    graph = layer_graph(figure_1())
    assert not any(node.contributions for node in graph.nodes)
    assert not any(edge.shares for edge in graph.edges)
    assert [edge.connections for edge in graph.edges if edge.skip] == [1]


def test_dead_units_are_counted_beside_the_units():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(1)
        model[0].weight[1] = 0
    report = pathlen.measure(model, torch.ones(1, 3), edges="weights")
    assert [(node.units, node.active, node.dead) for node in layer_graph(report).nodes] == [
        (3, 0, 0),
        (3, 0, 1),
        (3, 3, 1),
        (2, 0, 0),
        (2, 0, 0),
    ]


def test_connections_beyond_floats_are_counted_as_integers():
    """A ladder of pairs of hubs, each of which reads both before it: 2**60 ways, and one more."""
    steps = 60
    edges = [(0, 1), (0, 2)]
    for pair in range(steps - 1):
        here = 1 + 2 * pair
        edges += [(a, b) for a in (here, here + 1) for b in (here + 2, here + 3)]
    last = 2 * steps
    edges += [(last - 1, last + 1), (last, last + 1), (0, last + 1)]
    graph = PathGraph.from_edges(edges, activity=[0.0] * (last + 2))
    (edge,) = layer_graph(with_hubs(graph, [True])).edges
    assert edge.connections == 2**steps + 1


def test_paths_too_rare_for_floats_leave_no_nan():
    report = solved(residual_network(400, 3, 100), "numba")
    for edge in layer_graph(report).edges:
        paths, walks = edge.shares["uniform"], edge.shares["normalized"]
        # of 301 ways through a block one is the skip; walks take the branch or the skip
        assert paths == pytest.approx(1 / 301 if edge.skip else 300 / 301, rel=1e-9) or paths == (
            pytest.approx(1, rel=1e-9)
        )
        assert walks == pytest.approx(0.5) or walks == pytest.approx(1)


def test_thousands_of_blocks_are_fast():
    report = solved(residual_network(5000, 4, 4), "numba")
    start = time.process_time()
    graph = layer_graph(report)
    assert time.process_time() - start < 5  # it takes about 0.1 s
    assert len(graph.nodes) == 10_001
    assert sum(edge.skip for edge in graph.edges) == 5000
