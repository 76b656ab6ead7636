"""Building, checking and converting path graphs."""

import dataclasses
import math
import pickle
import random
import subprocess
import sys
import time
from typing import Any

import igraph
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pathlen
from pathlen import backends
from pathlen.errors import ActivityError, GraphError
from pathlen.graph.path_graph import Kind, Layer, PathGraph, TraceInfo
from tests.path_enumeration import enumerate_measures, paths_of_edges
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks

DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3)]


def layered() -> PathGraph:
    """Two inputs, a layer with a hub and two units, two outputs."""
    return PathGraph.from_arrays(
        indptr=[0, 0, 0, 2, 3, 4, 5, 6],
        indices=[0, 1, 2, 2, 3, 4],
        activity=[0, 0, 0, 1, 0.5, 0, 0],
        kind=[Kind.INPUT] * 2 + [Kind.HUB] + [Kind.UNIT] * 2 + [Kind.OUTPUT] * 2,
        layer_of_node=[0, 0, 1, 1, 1, 2, 2],
        layers=[
            Layer("x", "input", 0, 0),
            Layer("fc.relu", "relu", 0, 0),
            Layer("y", "output", 0, 0),
        ],
    )


def test_importing_loads_only_numpy() -> None:
    heavy = ("torch", "scipy", "igraph", "networkx", "numba")
    code = f"import sys, pathlen.graph.path_graph; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# From edges.


@settings(deadline=None, max_examples=150)
@given(case=random_graphs())
def test_from_edges_keeps_the_paths(case: RandomGraph) -> None:
    graph = case.build()
    paths = paths_of_edges(case.edges, case.inputs, case.outputs)
    measures = enumerate_measures(graph)
    assert measures.path_count == len(paths)
    lengths = [sum(case.activity[node] for node in path) for path in paths]
    assert math.isclose(float(measures.average) * len(paths), sum(lengths), abs_tol=1e-9)
    share = {node: sum(node in path for path in paths) / len(paths) for node in case.activity}
    on_paths = {node: value for node, value in share.items() if value}
    assert graph.by_node_id([float(value) for value in measures.path_share]) == on_paths
    assert graph.by_node_id(graph.activity) == {node: case.activity[node] for node in on_paths}
    assert graph.num_active == np.count_nonzero(graph.activity)


def test_ids_in_any_order_with_gaps_and_repeats() -> None:
    edges = [(70, 10), (10, 10**15), (70, 10), (70, 10**15)]
    graph = PathGraph.from_edges(edges)
    assert graph.node_ids is not None
    assert graph.node_ids.tolist() == [70, 10, 10**15]
    assert graph.indices.tolist() == [0, 0, 1]
    assert graph.activity.tolist() == [0, 1, 0]
    assert graph.kind.tolist() == [Kind.INPUT, Kind.UNIT, Kind.OUTPUT]
    assert [row.name for row in graph.layers] == ["inputs", "generation 1", "outputs"]
    assert graph.info is None


def test_dead_ends_are_dropped() -> None:
    edges = [*DIAMOND, (4, 2), (2, 5), (5, 6)]
    graph = PathGraph.from_edges(edges, inputs=[0], outputs=[3], activity=[0, 1, 1, 0, 1, 1, 1])
    assert graph.by_node_id(graph.activity) == {0: 0, 1: 1, 2: 1, 3: 0}
    assert graph.num_edges == 4


def test_terminals_in_the_middle_get_a_node_of_their_own() -> None:
    graph = PathGraph.from_edges([(0, 1), (1, 2)], inputs=[0, 1], outputs=[1, 2])
    assert graph.node_ids is not None
    assert graph.node_ids.tolist() == [0, -1, 1, 2, -1]
    assert (graph.num_inputs, graph.num_units, graph.num_outputs) == (2, 1, 2)
    assert enumerate_measures(graph).path_count == 4
    alone = PathGraph.from_edges([], inputs=[7], outputs=[7], activity={7: 0.25})
    assert alone.by_node_id(alone.activity) == {7: 0.25}
    assert enumerate_measures(alone).average == 0.25


def test_named_layers() -> None:
    edges = [(0, 2), (1, 2), (2, 3), (3, 4), (2, 5)]
    names = ["image", "text", "body", "body", "logits", "features"]
    graph = PathGraph.from_edges(edges, layers=names, outputs=[3, 4, 5])
    assert [(row.name, row.operation, row.count) for row in graph.layers] == [
        ("image", "input", 1),
        ("text", "input", 1),
        ("body", "unit", 2),
        ("logits", "output", 1),
        ("features", "output", 1),
        ("body.output", "output", 1),
    ]
    with pytest.raises(
        GraphError, match=r"in a circle: (a -> b -> a|b -> a -> b);.*different names"
    ):
        PathGraph.from_edges(
            [(0, 1), (1, 2), (2, 3), (3, 4)], layers={0: "x", 1: "a", 2: "b", 3: "a", 4: "y"}
        )


def test_layer_names_stay_distinct() -> None:
    names = ["a", "a", "a.input", "a.output"]
    graph = PathGraph.from_edges([(0, 1), (1, 2), (2, 3)], layers=names)
    assert len({row.name for row in graph.layers}) == len(graph.layers) == 4


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([(0, 1), (1, 1), (1, 2)], "1 -> 1"),
        ([(0, 1), (1, 2), (2, 1), (2, 3)], "(1 -> 2 -> 1|2 -> 1 -> 2)"),
        ([(5, 6), (6, 5)], "(5 -> 6 -> 5|6 -> 5 -> 6)"),
        ([*DIAMOND, (7, 8), (8, 9), (9, 7)], "(7 -> 8 -> 9 -> 7|8 -> 9 -> 7|9 -> 7 -> 8)"),
        ([(n, (n + 1) % 5000) for n in range(5000)], r"\.\.\. \(4992 more\)"),
    ],
)
def test_cycles_are_named(edges: list[tuple[int, int]], cycle: str) -> None:
    with pytest.raises(GraphError, match=f"the edges have a cycle: .*{cycle}"):
        PathGraph.from_edges(edges)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edges": []}, "no path from input to output"),
        ({"edges": DIAMOND, "inputs": []}, "no path from input to output"),
        ({"edges": DIAMOND, "inputs": [3], "outputs": [0]}, "no path from input to output"),
        ({"edges": [(0, 1, 2)]}, r"shape \[e, 2\]"),
        ({"edges": [(0, 1), (2,)]}, "pairs of node ids"),
        ({"edges": [(0.0, 1.0)]}, "integers, not float64"),
        ({"edges": [("a", "b")]}, "integers, not <U1"),
        ({"edges": [(0, -1)]}, "run from -1 to 0"),
        ({"edges": np.array([(0, 2**63)], dtype=np.uint64)}, "run from 0 to 9223372036854775808"),
        ({"edges": DIAMOND, "inputs": [0.5]}, "integers, not float64"),
        ({"edges": DIAMOND, "num_nodes": 3}, "node id 3 does not fit num_nodes=3"),
        ({"edges": DIAMOND, "layers": ["a"]}, "layers has 1 entries; it needs one a node, 4"),
        ({"edges": DIAMOND, "layers": {0: "a"}}, "layers has no entry for node 1 .3 in all"),
    ],
)
def test_bad_edges(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        PathGraph.from_edges(**arguments)


@pytest.mark.parametrize(
    ("activity", "message"),
    [
        ([0, 1, math.nan, 0], r"\[0, 1\]; wrong at node 2, with value nan"),
        ([0, 1, 1, 1.5], "wrong at node 3, with value 1.5"),
        ([0, -1e-9, 1, math.inf], "wrong at nodes 1, 3"),
        ([0, 1, 1], "activity has 3 entries; it needs one a node, 4"),
        ({0: 0, 1: 1}, "activity has no entry for node 2 .2 in all"),
        (["a", "b", "c", "d"], "activities must be numbers"),
        ([[0, 1], [0, 1], [0, 1], [0, 1]], "got shape"),
    ],
)
def test_bad_activities_of_edges(activity: Any, message: str) -> None:
    with pytest.raises(ActivityError, match=message):
        PathGraph.from_edges(DIAMOND, activity=activity)


def test_a_million_edges_take_about_a_second() -> None:
    random = np.random.default_rng(0)
    pairs = random.integers(0, 200_000, (1_000_000, 2))
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    start = time.process_time()
    graph = PathGraph.from_edges(random.permutation(200_000)[pairs])
    assert time.process_time() - start < 5  # about 1; a loaded machine may be slow
    assert graph.num_edges > 990_000


def test_deep_dead_ends_need_no_recursion() -> None:
    size = 100_000
    chain = np.column_stack([np.arange(size), np.arange(1, size + 1)])
    assert PathGraph.from_edges(chain, inputs=[size - 1]).num_nodes == 2
    assert PathGraph.from_edges(chain, outputs=[1]).num_nodes == 2


# From arrays.


@settings(deadline=None, max_examples=60)
@given(case=random_graphs(), data=st.data())
def test_from_arrays_drops_what_lies_on_no_path(case: RandomGraph, data: st.DataObject) -> None:
    graph = case.build()
    # Dead nodes before, between and after, each reading anything before it.
    where = sorted(data.draw(st.lists(st.integers(0, graph.num_nodes), max_size=4)))
    rows: list[list[int]] = []
    columns: list[tuple[float, int, int]] = []
    layers: list[Layer] = []
    position: dict[int, int] = {}
    for node in range(graph.num_nodes + 1):
        for _ in range(where.count(node)):
            # It reads nothing alive, so it is unreachable, or nothing alive reads it.
            read = data.draw(st.sets(st.sampled_from(range(len(rows))))) if rows else set()
            outputs = {position[n] for n in position if graph.kind[n] == Kind.OUTPUT}
            rows.append(sorted(read - outputs, reverse=True))
            columns.append((1.0, Kind.UNIT, len(layers)))
            layers.append(Layer(f"dead {len(layers)}", "relu", 0, 0))
        if node < graph.num_nodes:
            read = graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
            position[node] = len(rows)
            rows.append([position[other] for other in read] * 2)  # repeated: counted once
            if not node or graph.layer[node] != graph.layer[node - 1] or where.count(node):
                name = f"{len(layers)}"
                layers.append(Layer(name, graph.layers[graph.layer[node]].operation, 0, 0))
            columns.append((graph.activity[node], graph.kind[node], len(layers) - 1))
    activity, kind, layer = zip(*columns, strict=True)
    indptr = np.cumsum([0, *map(len, rows)])
    indices = [other for row in rows for other in row]
    info = TraceInfo("by hand", "exact")
    same = PathGraph.from_arrays(indptr, indices, activity, kind, layer, layers, info)
    for name in ("indptr", "indices", "activity", "kind"):
        assert np.array_equal(getattr(same, name), getattr(graph, name)), name
    assert not any(row.name.startswith("dead") for row in same.layers)
    assert same.info is info


def test_from_arrays_of_a_large_graph_takes_milliseconds() -> None:
    graph = residual_blocks(16, 1024, 2048)
    start = time.process_time()
    again = PathGraph.from_arrays(
        graph.indptr, graph.indices, graph.activity, graph.kind, graph.layer, graph.layers
    )
    assert time.process_time() - start < 0.1  # about 4 ms
    assert again.num_nodes == graph.num_nodes > 50_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": [Kind.UNIT] * 3}, GraphError, "no path from input to output"),
        ({"kind": [], "activity": [], "indptr": [0], "indices": [], "layer_of_node": []},
         GraphError, "no path from input to output"),
        ({"indices": [1, 1]}, GraphError, "smaller ids than their node .* wrong at node 1"),
        ({"indices": [0, 7]}, GraphError, "wrong at node 2"),
        ({"indices": [0, -7]}, GraphError, "wrong at node 2"),
        ({"indptr": [0, 0, 3, 2]}, GraphError, "indptr must rise"),
        ({"indptr": [0, 2]}, GraphError, "indptr has 2 entries for 3 nodes"),
        ({"layer_of_node": [0, 1, 3]}, GraphError, "a layer among the 3 rows"),
        ({"layer_of_node": [0, 1]}, GraphError, "a layer among the 3 rows"),
        ({"layer_of_node": [0, 2, 1]}, GraphError, "layer of every node must be the row"),
        ({"kind": [Kind.INPUT, Kind.INPUT, Kind.OUTPUT]}, GraphError, "input node must have no"),
        ({"activity": [0, 2, 0]}, ActivityError, "wrong at node 1, with value 2.0"),
        ({"activity": [0, 0]}, ActivityError, "expected 3 activities"),
    ],
)  # fmt: skip
def test_bad_arrays(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "indptr": [0, 0, 1, 2],
        "indices": [0, 1],
        "activity": [0, 1, 0],
        "kind": [Kind.INPUT, Kind.UNIT, Kind.OUTPUT],
        "layer_of_node": [0, 1, 2],
        "layers": [Layer(name, name, 0, 0) for name in "abc"],
    }
    assert PathGraph.from_arrays(**arguments).num_nodes == 3
    with pytest.raises(error, match=message):
        PathGraph.from_arrays(**(arguments | change))


# The constructor.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activity": [0, 0, 0, math.nan, 0, 0, 0]}, "finite and lie in .* wrong at node 3"),
        ({"activity": [0, 0, 1, 0, 0, 0, 0]}, "hubs must have activity 0; wrong at node 2"),
        ({"activity": [0, 0, 0]}, "one entry a node"),
        ({"activity": [[0] * 7]}, "activity must have one dimension"),
        ({"activity": ["0"] * 7}, "activity must hold float64"),
        ({"indices": [0, 1, 2, 2, 3, 3.5]}, "indices must hold int32"),
        ({"indices": [0, 1, 2, 2, 3, 2**40]}, "indices must fit int32"),
        ({"indices": [1, 0, 2, 2, 3, 4]}, "ascending and distinct; wrong at node 2"),
        ({"indices": [0, 0, 2, 2, 3, 4]}, "ascending and distinct; wrong at node 2"),
        ({"indices": [0, 1, 3, 2, 3, 4]}, "smaller ids than their node .* wrong at node 3"),
        ({"indices": [0, 1, -1, 2, 3, 4]}, "wrong at node 3"),
        ({"indptr": [0, 0, 0, 2, 3, 4, 5, 7]}, "indptr must rise from 0 to the number of edges, 6"),
        ({"indptr": [0, 0, 0, 2]}, "indptr has 4 entries for 7 nodes"),
        ({"kind": [0, 0, 2, 1, 1, 3, 9]}, r"kinds must be 0 to 3; wrong at node 6"),
        ({"kind": [0, 0, 2, 1, 1, 3, 300]}, "kind must fit uint8"),
        ({"kind": [1, 1, 2, 1, 1, 3, 3]}, "there is no input node"),
        ({"kind": [1, 0, 2, 1, 1, 3, 3]}, "only an input node may have no predecessors"),
        ({"kind": [0, 0, 2, 0, 1, 3, 3]}, "an input node must have no predecessors"),
        ({"kind": [0, 0, 2, 1, 1, 1, 1]}, "there is no output node"),
        ({"kind": [0, 0, 2, 1, 1, 3, 1]}, "only an output node may have no successors"),
        ({"kind": [0, 0, 2, 3, 1, 3, 3]}, "an output node must have no successors"),
        ({"layer": [0, 0, 1, 1, 2, 2, 2]}, "must be the row that covers it"),
        ({"layers": ()}, "covers 0 nodes of 7"),
        ({"layers": (Layer("x", "", 0, 2), Layer("x", "", 2, 3), Layer("y", "", 5, 2))},
         "'x' occurs twice"),
        ({"layers": (Layer("x", "", 0, 3), Layer("h", "", 2, 3), Layer("y", "", 5, 2))},
         "must follow each other"),
        ({"layers": (Layer("x", "", 0, 3), Layer("h", "", 3, 2), Layer("y", "", 5, 2)),
          "layer": [0, 0, 0, 1, 1, 2, 2]}, "must not mix input .* see layer 'x'"),
        ({"node_ids": [0, 1]}, "node_ids has 2 entries"),
        ({"node_ids": [0, 0, 1, 2, 3, -1, -1]}, "node_ids must be distinct"),
        ({"node_ids": [0, 1, 2, 3, 4, 5, -2]}, "node_ids must be distinct"),
    ],
)  # fmt: skip
def test_the_constructor_checks(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        dataclasses.replace(layered(), **change)


def test_all_problems_are_listed_at_once() -> None:
    wrong: dict[str, Any] = {
        "activity": [2.0] * 7,
        "kind": [1, 0, 2, 1, 1, 3, 1],
        "node_ids": [0] * 7,
    }
    with pytest.raises(GraphError) as caught:
        dataclasses.replace(layered(), **wrong)
    assert len(str(caught.value).splitlines()) == 1 + 6


def test_trace_status_must_exist() -> None:
    said = "'good' does not exist; use one of exact, example, bound, opaque"
    with pytest.raises(GraphError, match=said):
        TraceInfo("tracer", "good")


def test_arrays_are_read_only_copies() -> None:
    activity = np.array([0.0, 1.0, 1.0, 0.0])
    graph = PathGraph.from_edges(DIAMOND, activity=activity)
    activity[:] = 9
    copies = [graph, pickle.loads(pickle.dumps(graph)), graph.with_activity(graph.activity)]
    for copy in copies:
        assert copy.activity.tolist() == [0, 1, 1, 0]
        for name in ("indptr", "indices", "activity", "kind", "layer", "node_ids"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(copy, name)[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.info = None  # type: ignore[misc]


def test_repr_and_numbers() -> None:
    graph = layered()
    assert repr(graph) == (
        "PathGraph(7 nodes, 6 edges, 2 inputs, 2 units, 2 outputs, 2 active, 3 layers)"
    )
    assert graph.units_of("fc.relu").tolist() == [3, 4]
    assert graph.units_of(graph.layers[0]).tolist() == [0, 1]
    with pytest.raises(GraphError, match=r"no layer is named 'fc\.rleu'; nearest are 'fc\.relu'"):
        graph.units_of("fc.rleu")
    with pytest.raises(GraphError, match="only a graph from `from_edges`"):
        graph.by_node_id(graph.activity)
    with pytest.raises(GraphError, match="expected 23 values"):
        figure_1().by_node_id([1.0])


# Activities.


def test_with_activity() -> None:
    graph = layered()
    assert graph.with_activity({"fc.relu": 0.5}).activity.tolist() == [0, 0, 0, 0.5, 0.5, 0, 0]
    both = graph.with_activity({"fc.relu": [0.0, 1.0], "x": np.float32(1)})
    assert both.activity.tolist() == [1, 1, 0, 0, 1, 0, 0]
    assert both.indices is graph.indices
    assert graph.with_activity(np.zeros(7)).num_active == 0
    assert graph.with_activity({}).activity.tolist() == graph.activity.tolist()


@pytest.mark.parametrize(
    ("activity", "message"),
    [
        ({"fc.rel": 1.0}, r"no layer is named 'fc\.rel'; nearest are 'fc\.relu'"),
        ({"y": 1.0}, "layer 'y' has no units"),
        ({"fc.relu": [1.0, 0.0, 0.0]}, "has 2 units; give one activity or 2"),
        ({"fc.relu": "much"}, "layer 'fc.relu': activities must be numbers"),
        ({"fc.relu": math.nan}, "wrong at nodes 3, 4, with value nan"),
        ({"fc.relu": 1.01}, "with value 1.01"),
        ([0.0] * 6, "expected 7 activities"),
        ([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "hubs must have activity 0; node 2"),
        ([0.0] * 6 + [-0.5], "wrong at node 6, with value -0.5"),
        (1.0, "expected 7 activities"),
        (None, "expected 7 activities"),
    ],
)
def test_bad_activities(activity: Any, message: str) -> None:
    with pytest.raises(ActivityError, match=message):
        layered().with_activity(activity)


# Other libraries.


@settings(deadline=None, max_examples=40)
@given(case=random_graphs())
def test_conversions_hold_the_same_graph(case: RandomGraph) -> None:
    graph = case.build()
    edges = [
        (int(source), node)
        for node in range(graph.num_nodes)
        for source in graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
    ]
    assert graph.node_ids is not None
    network = graph.to_networkx()
    assert sorted(network.edges) == sorted(edges)
    assert sorted(graph.to_igraph().get_edgelist()) == sorted(edges)
    rows, columns = graph.to_scipy().nonzero()
    assert sorted(zip(columns.tolist(), rows.tolist(), strict=True)) == sorted(edges)
    for nodes in (network.nodes, graph.to_igraph().vs):
        for node in range(graph.num_nodes):
            assert nodes[node]["activity"] == graph.activity[node]
            assert nodes[node]["kind"] == Kind(graph.kind[node]).name.lower()
            assert nodes[node]["layer"] == graph.layers[graph.layer[node]].name
            assert nodes[node]["node_id"] == graph.node_ids[node]
    again = PathGraph.from_edges(list(network.edges), activity=graph.activity)
    assert enumerate_measures(again).average == enumerate_measures(graph).average


@settings(deadline=None, max_examples=40)
@given(case=random_graphs(), shuffle=st.randoms(use_true_random=False))
def test_graphs_of_other_libraries_come_back(case: RandomGraph, shuffle: random.Random) -> None:
    """Whatever the order in which their nodes and edges are held."""
    graph = case.build()
    network = graph.to_networkx()
    nodes, edges = list(network.nodes(data=True)), list(network.edges(data=True))
    shuffle.shuffle(nodes)
    shuffle.shuffle(edges)
    mixed = networkx.DiGraph()
    mixed.add_nodes_from(nodes)
    mixed.add_edges_from(edges)
    for again in (
        PathGraph.from_networkx(network),
        PathGraph.from_networkx(mixed),
        PathGraph.from_networkx(networkx.relabel_nodes(mixed, str)),
        PathGraph.from_igraph(graph.to_igraph()),
    ):
        assert enumerate_measures(again).average == enumerate_measures(graph).average
        assert sorted(again.kind) == sorted(graph.kind)
        assert {row.name for row in again.layers} == {row.name for row in graph.layers}


def test_hubs_and_numbers_of_a_traced_network_come_back() -> None:
    network = networkx.DiGraph([(3, 5), (4, 5), (5, 7), (5, 8), (7, 9), (8, 9)])
    kinds = {3: "input", 4: "input", 5: "hub", 7: "unit", 8: "unit", 9: "output"}
    networkx.set_node_attributes(network, kinds, "kind")
    graph = PathGraph.from_networkx(network)
    assert graph.node_ids is not None
    found = zip(graph.node_ids.tolist(), graph.kind, strict=True)
    assert {node: Kind(kind).name.lower() for node, kind in found} == kinds
    assert pathlen.measure(graph, exact=True).average_path_length == 1


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (networkx.Graph([(0, 1)]), "networkx.DiGraph, not from a Graph"),
        (networkx.MultiDiGraph([(0, 1)]), "not from a MultiDiGraph"),
        (networkx.DiGraph([("a", "b"), ("b", "a")]), "cycle"),
        (networkx.DiGraph([(0, 1, {"weight": 1.0}), (1, 2)]), "1 of 2 edges have 'weight'"),
    ],
)
def test_graphs_that_are_no_path_graphs(network: Any, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        PathGraph.from_networkx(network)


def test_attributes_that_do_not_fit() -> None:
    network = networkx.DiGraph([(0, 1), (1, 2)])
    network.nodes[1]["kind"] = "unit"
    with pytest.raises(GraphError, match="1 of 3 nodes have 'kind'"):
        PathGraph.from_networkx(network)
    networkx.set_node_attributes(network, "neuron", "kind")
    with pytest.raises(GraphError, match="unknown kinds of nodes: neuron"):
        PathGraph.from_networkx(network)
    with pytest.raises(GraphError, match="directed"):
        PathGraph.from_igraph(igraph.Graph([(0, 1)]))


@settings(deadline=None, max_examples=40)
@given(case=random_graphs())
def test_path_count_is_that_of_networkx(case: RandomGraph) -> None:
    graph = case.build()
    network = graph.to_networkx()
    inputs, outputs = (np.flatnonzero(graph.kind == k).tolist() for k in (Kind.INPUT, Kind.OUTPUT))
    paths = [path for node in inputs for path in networkx.all_simple_paths(network, node, outputs)]
    assert backends.get("exact").solve(graph).path_count == len(paths)
    longest = max(sum(graph.activity[node] for node in path) for path in paths)
    assert math.isclose(backends.get("numba").solve(graph).longest_path, longest)


def test_a_converted_matrix_can_be_changed() -> None:
    graph = figure_1()
    matrix = graph.to_scipy()
    matrix.data[:] = 2
    matrix.indices[:] = 0
    assert graph.indices[-1] != 0
