"""Weights of edges: how they are given, merged, dropped, refused, converted and saved."""

import copy
import math
import pickle
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from pathlen.errors import GraphError
from pathlen.graph.check import row_numbers
from pathlen.graph.path_graph import Kind, Layer, PathGraph
from tests.path_graphs import RandomGraph, random_graphs

DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3)]


def weight_of_edges(graph: PathGraph) -> dict[tuple[int, int], float]:
    """Weights by the caller's own (from, to), of edges between nodes that the caller named."""
    assert graph.node_ids is not None
    assert graph.weights is not None
    sources = graph.node_ids[graph.indices].tolist()
    targets = graph.node_ids[row_numbers(graph.indptr)].tolist()
    return {
        (source, target): weight
        for source, target, weight in zip(sources, targets, graph.weights.tolist(), strict=True)
        if source >= 0 and target >= 0
    }


@settings(deadline=None, max_examples=100)
@given(case=random_graphs(weighted=True))
def test_every_edge_keeps_its_weight(case: RandomGraph) -> None:
    graph = case.build()
    assert case.weights is not None
    given_weights: dict[tuple[int, int], list[float]] = defaultdict(list)
    for edge, weight in zip(case.edges, case.weights, strict=True):
        given_weights[edge].append(weight)
    kept = weight_of_edges(graph)
    for edge, weight in kept.items():
        assert math.isclose(weight, math.fsum(given_weights[edge]), rel_tol=1e-14)
    # Terminals that were added stand for the node itself: their edges weigh 1.
    assert graph.weights is not None
    assert graph.node_ids is not None
    added = graph.node_ids < 0
    beside = added[graph.indices] | added[row_numbers(graph.indptr)]
    assert (graph.weights[beside] == 1.0).all()


@settings(deadline=None, max_examples=60)
@given(case=random_graphs(weighted=True))
def test_weights_leave_the_structure_alone(case: RandomGraph) -> None:
    weighted = case.build()
    plain = RandomGraph(
        case.edges, case.activity, case.inputs, case.outputs, case.layers, weights=None
    ).build()
    assert plain.weights is None
    assert np.array_equal(weighted.indptr, plain.indptr)
    assert np.array_equal(weighted.indices, plain.indices)
    assert np.array_equal(weighted.kind, plain.kind)


def test_parallel_edges_add_up() -> None:
    graph = PathGraph.from_edges([(0, 1), (1, 2), (0, 1)], weights=[0.25, 3, 0.5])
    assert weight_of_edges(graph) == {(0, 1): 0.75, (1, 2): 3.0}


def test_edges_without_weight_are_dropped_and_dead_nodes_with_them() -> None:
    # Node 2 has no live input, node 4 no live output: neither becomes an input or an output.
    edges = [*DIAMOND, (1, 4), (4, 3)]
    graph = PathGraph.from_edges(edges, weights=[1, 0, 2, 3, 4, 0])
    assert weight_of_edges(graph) == {(0, 1): 1.0, (1, 3): 2.0}
    assert (graph.num_inputs, graph.num_outputs) == (1, 1)


def test_declared_inputs_may_lose_their_predecessors() -> None:
    graph = PathGraph.from_edges(DIAMOND, weights=[0, 0, 2, 3], inputs=[1, 2])
    assert weight_of_edges(graph) == {(1, 3): 2.0, (2, 3): 3.0}


def test_no_path_of_positive_weight() -> None:
    with pytest.raises(GraphError, match="no path from input to output is left"):
        PathGraph.from_edges(DIAMOND, weights=[1, 1, 0, 0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, -0.5, 1], r"not negative; 1 of 4 are not, the first at edge 2 with -0\.5"),
        ([1, math.nan, 1, 1], "the first at edge 1 with nan"),
        ([1, 1, 1, math.inf], "the first at edge 3 with inf"),
        ([1, 1, 1], r"expected 4 weights, one an edge; got shape \(3,\)"),
        (["a", "b", "c", "d"], "weights must be numbers"),
        (1.0, r"got shape \(\)"),
    ],
)
def test_refused_weights(weights: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        PathGraph.from_edges(DIAMOND, weights=weights)


def test_a_sum_beyond_floats_is_refused() -> None:
    with pytest.raises(GraphError, match="finite"):
        PathGraph.from_edges([(0, 1), (0, 1)], weights=[1.7e308, 1.7e308])


def test_the_constructor_refuses_zero() -> None:
    graph = PathGraph.from_edges(DIAMOND)
    with pytest.raises(GraphError, match="above 0"):
        PathGraph(
            graph.indptr,
            graph.indices,
            graph.activity,
            graph.kind,
            graph.layer,
            graph.layers,
            weights=np.array([1.0, 0.0, 1.0, 1.0]),
        )


LAYERS = [Layer("in", "input", 0, 0), Layer("a", "relu", 0, 0), Layer("out", "output", 0, 0)]
KINDS = [Kind.INPUT, Kind.UNIT, Kind.UNIT, Kind.OUTPUT]


def from_arrays(indptr: list[int], indices: list[int], weights: Any) -> PathGraph:
    return PathGraph.from_arrays(
        indptr, indices, [0, 1, 1, 0], KINDS, [0, 1, 1, 2], LAYERS, weights=weights
    )


def test_from_arrays() -> None:
    graph = from_arrays([0, 0, 1, 2, 4], [0, 0, 1, 2], [1, 2, 3, 4])
    assert graph.weights is not None
    assert graph.weights.tolist() == [1, 2, 3, 4]
    # Repeated and disordered predecessors.
    graph = from_arrays([0, 0, 1, 2, 5], [0, 0, 2, 1, 2], [1, 2, 3, 4, 5])
    assert graph.indices.tolist() == [0, 0, 1, 2]
    assert graph.weights is not None
    assert graph.weights.tolist() == [1, 2, 4, 8]
    # Without the only edge into a unit, the unit is dead.
    graph = from_arrays([0, 0, 1, 2, 4], [0, 0, 1, 2], [1, 0, 3, 4])
    assert graph.num_units == 1
    assert graph.weights is not None
    assert graph.weights.tolist() == [1, 3]
    with pytest.raises(GraphError, match="not negative"):
        from_arrays([0, 0, 1, 2, 4], [0, 0, 1, 2], [1, -1, 3, 4])
    with pytest.raises(GraphError, match="no path"):
        from_arrays([0, 0, 1, 2, 4], [0, 0, 1, 2], [0, 0, 3, 4])


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=random_graphs(weighted=True))
def test_save_and_load(tmp_path: Path, case: RandomGraph) -> None:
    graph = case.build()
    graph.save(tmp_path / "graph.npz")
    again = PathGraph.load(tmp_path / "graph.npz")
    assert again.weights is not None
    assert graph.weights is not None
    assert again.weights.tobytes() == graph.weights.tobytes()
    assert not again.weights.flags.writeable


def test_files_of_graphs_without_weights_are_as_before(tmp_path: Path) -> None:
    PathGraph.from_edges(DIAMOND).save(tmp_path / "graph.npz")
    with zipfile.ZipFile(tmp_path / "graph.npz") as archive:
        assert "weights.npy" not in archive.namelist()
    assert PathGraph.load(tmp_path / "graph.npz").weights is None


def test_copies_keep_weights() -> None:
    graph = PathGraph.from_edges(DIAMOND, weights=[1, 2, 3, 4])
    for other in (
        pickle.loads(pickle.dumps(graph)),
        copy.deepcopy(graph),
        graph.with_activity([0, 0.5, 1, 0]),
    ):
        assert weight_of_edges(other) == weight_of_edges(graph)


@settings(deadline=None, max_examples=30)
@given(case=random_graphs(weighted=True))
def test_conversions(case: RandomGraph) -> None:
    graph = case.build()
    assert graph.weights is not None
    targets = row_numbers(graph.indptr).tolist()
    edges = list(zip(graph.indices.tolist(), targets, graph.weights.tolist(), strict=True))
    assert sorted(graph.to_networkx().edges.data("weight")) == sorted(edges)
    network = graph.to_igraph()
    found = zip(network.get_edgelist(), network.es["weight"], strict=True)
    assert sorted((*edge, weight) for edge, weight in found) == sorted(edges)
    matrix = graph.to_scipy().tocoo()
    assert sorted(zip(matrix.col, matrix.row, matrix.data, strict=True)) == sorted(edges)


def test_conversions_without_weights() -> None:
    graph = PathGraph.from_edges(DIAMOND)
    assert all(weight is None for *_, weight in graph.to_networkx().edges.data("weight"))
    assert graph.to_igraph().es.attributes() == []
    assert (graph.to_scipy().data == 1).all()
