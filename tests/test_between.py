"""Parts of a graph between places against enumeration; modules against the modules alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import PathGraph, backends
from pathlen.errors import GraphError
from pathlen.graph.path_graph import Kind, Layer
from tests.path_enumeration import Path, enumerate_measures, paths_of_edges
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks
from tests.path_lists import edge_weights, edges_of, length_of


def solve(graph: PathGraph) -> backends.Solution:
    return backends.get("exact").solve(graph)


def weighted(graph: PathGraph) -> PathGraph:
    random = np.random.default_rng(graph.num_edges)
    return dataclasses.replace(graph, weights=10 ** random.uniform(-3, 3, graph.num_edges))


def weight_of(graph: PathGraph, path: Path) -> Fraction:
    weights = edge_weights(graph)
    return math.prod((weights[edge] for edge in itertools.pairwise(path)), start=Fraction(1))


def units_of(graph: PathGraph) -> list[int]:
    return np.flatnonzero(graph.kind != Kind.HUB).tolist()


def ids_of(graph: PathGraph, nodes: list[int]) -> list[int]:
    assert graph.node_ids is not None
    return graph.node_ids[nodes].tolist()


def assert_same_measures(first: PathGraph, second: PathGraph) -> None:
    one, other = solve(first), solve(second)
    for field in dataclasses.fields(one):
        if not field.name.endswith("share"):
            assert getattr(one, field.name) == getattr(other, field.name), field.name


@settings(deadline=None, max_examples=150)
@given(case=random_graphs(), data=st.data())
def test_nodes_against_enumeration(case: RandomGraph, data: st.DataObject) -> None:
    graph = weighted(case.build())
    named = [u for u in range(graph.num_nodes) if graph.node_ids[u] >= 0]  # type: ignore[index]
    some = st.sets(st.sampled_from(named), min_size=1, max_size=4)
    sources, sinks = data.draw(some), data.draw(some)
    paths = paths_of_edges(edges_of(graph), sources, sinks)
    ask = ids_of(graph, sorted(sources)), ids_of(graph, sorted(sinks))
    if not paths:
        with pytest.raises(GraphError, match="no path leads from"):
            graph.between(*ask)
        return
    part = graph.between(*ask)
    solution = solve(part)
    activity = [Fraction(value) for value in graph.activity.tolist()]
    lengths = [length_of(activity, path) for path in paths]
    assert solution.path_count == len(paths)
    assert solution.average == sum(lengths) / len(paths)
    assert (solution.longest_path, solution.shortest_path) == (max(lengths), min(lengths))
    norms = [weight_of(graph, path) for path in paths]
    weighed = sum(a * b for a, b in zip(lengths, norms, strict=True)) / sum(norms)
    assert solution.magnitude_average == weighed
    # What is left is what lies on such a path, under the ids that it had.
    on_path = ids_of(graph, sorted({node for path in paths for node in path}))
    assert sorted(part.node_ids[part.node_ids >= 0].tolist()) == sorted(on_path)  # type: ignore[index]
    share = part.by_node_id(solution.path_share)
    for node in on_path:
        passing = sum(node in ids_of(graph, list(path)) for path in paths)
        assert share[node] == Fraction(passing, len(paths))
    # The walk, by a graph made from the edges: same inputs, same outputs, same tensors.
    names = [graph.layers[row].name for row in graph.layer.tolist()]
    other = PathGraph.from_edges(
        edges_of(graph),
        num_nodes=graph.num_nodes,
        activity=graph.activity,
        inputs=sorted(sources),
        outputs=sorted(sinks),
        layers=names,
    )
    for direction in ("backward", "forward"):
        wanted = enumerate_measures(other, direction).normalized_average
        assert backends.get("exact").solve(part, direction).normalized_average == wanted


@settings(deadline=None, max_examples=60)
@given(case=random_graphs())
def test_from_all_inputs_to_all_outputs_is_all(case: RandomGraph) -> None:
    graph = weighted(case.build())
    inputs = [row.name for row in graph.layers if row.operation == "input"]
    outputs = [row.name for row in graph.layers if row.operation == "output"]
    rows = [row for row in graph.layers if row.operation == "input"]
    for part in (graph.between(), graph.between(inputs, outputs), graph.between(rows, None)):
        for name in ("indptr", "indices", "activity", "kind", "layer", "node_ids", "weights"):
            assert getattr(part, name).tolist() == getattr(graph, name).tolist()
        assert part.layers == graph.layers


@settings(deadline=None, max_examples=100)
@given(case=random_graphs(), data=st.data())
def test_modules_against_enumeration(case: RandomGraph, data: st.DataObject) -> None:
    # A module of some layers. Its paths begin with an edge into it and end where others read it.
    built = case.build()
    inside = data.draw(
        st.sets(st.sampled_from(range(len(built.layers))), min_size=1, max_size=len(built.layers))
    )
    names = [f"m.{r}" if r in inside else f"other.{r}" for r in range(len(built.layers))]
    rows = [
        dataclasses.replace(row, name=name) for row, name in zip(built.layers, names, strict=True)
    ]
    graph = dataclasses.replace(weighted(built), layers=tuple(rows))
    member = [row in inside for row in graph.layer.tolist()]
    edges, weights = edges_of(graph), edge_weights(graph)
    begins = [(Fraction(1), u) for u in range(graph.num_nodes) if member[u] and graph.kind[u] == 0]
    begins += [(weights[u, v], v) for u, v in edges if member[v] and not member[u]]
    ends = {u for u, v in edges if member[u] and not member[v]}
    ends |= {u for u in range(graph.num_nodes) if member[u] and graph.kind[u] == Kind.OUTPUT}
    paths = [
        (weight, path) for weight, node in begins for path in paths_of_edges(edges, [node], ends)
    ]
    if not paths:
        with pytest.raises(GraphError, match="no path leads from 'm' to 'm'"):
            graph.between("m", "m")
        return
    solution = solve(graph.between("m", "m"))
    activity = [Fraction(value) for value in graph.activity.tolist()]
    lengths = [length_of(activity, path) for _, path in paths]
    assert solution.path_count == len(paths)
    assert solution.average == sum(lengths) / len(paths)
    norms = [weight * weight_of(graph, path) for weight, path in paths]
    weighed = sum(a * b for a, b in zip(lengths, norms, strict=True)) / sum(norms)
    assert solution.magnitude_average == weighed
    assert_same_measures(graph.between("m.", "m."), graph.between("m", "m"))


class Block(nn.Module):
    """A residual block with a nonlinearity of its own behind the sum."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, x):
        return torch.relu(x + self.outer(torch.relu(self.inner(x))))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, 3)
        self.second = nn.Linear(width + 3, 2)
        self.last = nn.Linear(width + 5, 6)

    def forward(self, x):
        y = torch.tanh(self.first(x))
        return self.last(torch.cat([x, y, torch.relu(self.second(torch.cat([x, y], -1)))], -1))


BODIES = {
    "residual": lambda: nn.Sequential(Block(4, 3), Block(4, 5)),
    "dense": lambda: Dense(4),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True),
    "mean": lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 2), nn.Softplus()),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_module_in_a_network_is_the_module_alone(kind: str) -> None:
    body = BODIES[kind]()
    x = torch.zeros(1, 3, 4)
    width = body.eval()(x).shape[-1]
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), body, nn.Linear(width, 2))
    graph = pathlen.trace(model, torch.zeros(1, 3, 5))
    alone = pathlen.trace(body, x)
    part = graph.between("2", "2")
    assert_same_measures(part, alone)
    assert part.info == graph.info
    first, second = (pathlen.measure(g, exact=True) for g in (part, alone))
    for weighting in ("uniform", "normalized"):
        shares = first.path_length_distribution(weighting).tolist()
        assert shares == second.path_length_distribution(weighting).tolist()
    assert first.width_profile == second.width_profile
    # One tensor goes in and one comes out, so depths add up: what is before, this, what is behind.
    whole = solve(graph).normalized_average
    pieces = [(None, "0"), ("1", "1"), ("2", "2"), ("3", None)]
    assert whole == sum(solve(graph.between(*piece)).normalized_average for piece in pieces)


def test_one_head_of_a_network_with_two() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
            self.plain = nn.Linear(4, 2)
            self.deep = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))

        def forward(self, x):
            x = self.body(x)
            return {"plain_out": self.plain(x), "deep_out": self.deep(x)}

    graph = pathlen.trace(Heads(), torch.zeros(1, 3))
    assert solve(graph).normalized_average == Fraction(3, 2)
    for places, length in (
        ((None, "plain"), 1),
        ((None, "plain_out"), 1),
        ((None, "deep"), 2),
        (("body", "body"), 1),
        (("body.1", "deep.1"), 2),
        (("deep", None), 1),
        ((["plain", "deep"], None), Fraction(1, 2)),
    ):
        assert solve(graph.between(*places)).normalized_average == length, places
    # A pattern means all units of all layers, a tensor each: after 1, 2 and 2 active units.
    assert solve(graph.between(None, "deep.*")).normalized_average == Fraction(5, 3)


def test_a_layer_stands_for_its_units_and_their_activities() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    graph = pathlen.trace(model, torch.zeros(1, 2))
    part = graph.between("1", "3")
    solution = solve(part)
    assert (solution.path_count, solution.average) == (3 * 4, 2)
    assert [(row.name, row.operation, row.count) for row in part.layers] == [
        ("1.input", "input", 3),
        ("1", "relu", 3),
        ("2", "linear", 5),
        ("3", "relu", 4),
        ("3.output", "output", 4),
    ]
    # The ids are node numbers of the whole.
    assert part.node_ids is not None
    assert (
        part.node_ids.tolist()
        == [-1] * 3 + [*range(6, 9), *range(9, 14), *range(14, 18)] + [-1] * 4
    )
    rows = {row.name: row for row in graph.layers}
    assert_same_measures(graph.between(rows["1"], rows["3"]), part)
    assert_same_measures(graph.between([6, 7, 8], np.arange(14, 18)), part)
    assert_same_measures(graph.between({"1"}, range(14, 18)), part)
    assert solve(graph.between("1", "1")).average == 1  # paths of a single node
    one = graph.between(np.int64(6), 14)
    assert solve(one).path_count == 1
    # A part of a part has the ids of the whole.
    again = part.between([6], "3")
    assert again.node_ids is not None
    assert again.node_ids[1] == 6
    assert solve(again).path_count == 4
    # What has to be linear before an activation could be listed is not made up.
    assert pathlen.measure(graph.between("2", "3")).width_profile == (4,)


def test_hubs_can_be_ends() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(1, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)).mean(-1, keepdim=True))

    graph = pathlen.trace(Mean(), torch.zeros(1, 2))
    assert solve(graph.between("a", "mean")).path_count == 3
    assert solve(graph.between("mean", "b")).path_count == 2


def test_names_of_added_layers_are_distinct() -> None:
    edges = [(0, 1), (1, 2), (2, 3)]
    graph = PathGraph.from_edges(edges, layers=["in", "a", "a.input", "out"])
    part = graph.between("a", None)
    assert [row.name for row in part.layers] == ["a.input#2", "a", "a.input", "out"]


def test_weights_stay_and_added_edges_weigh_1() -> None:
    graph = weighted(residual_blocks(2, 2, 2))
    middle = [row.name for row in graph.layers][4]
    part = graph.between(sinks=middle)
    assert part.weights is not None
    kept = part.indptr[-1] - 2  # two units of the last layer, with a node behind each
    assert part.weights[kept:].tolist() == [1, 1]
    assert graph.weights is not None
    assert part.weights[:kept].tolist() == graph.weights[:kept].tolist()


MODEL = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("sources", "sinks", "message"),
    [
        ("1", "0.0", r"no path leads from '1' to '0.0', but paths lead the other way: swap"),
        ("0.lu", None, r"no layer or module is named '0.lu'; nearest are '0"),
        ("0.1", None, r"batch norm, dropout, pooling\) have no layer"),
        ("conv*", None, r"no layer or module is named 'conv\*'"),
        ("", None, r"no layer or module is named ''"),
        ([], None, "no place is given"),
        (None, [], "no place is given"),
        (1000, None, "no node with id 1000"),
        ([0, -1], None, "no node with id -1"),
        (0.5, None, "integers in a list or an array"),
        ([0, "0.0", 0.5], None, "integers in a list or an array"),
        (True, None, "integers in a list or an array"),
        (Layer("0.0", "linear", 0, 3), None, "is no layer of this graph"),
    ],
)
def test_errors(sources, sinks, message) -> None:
    graph = pathlen.trace(MODEL, torch.zeros(1, 2))
    with pytest.raises(GraphError, match=message):
        graph.between(sources, sinks)


def test_neither_way_is_said_too() -> None:
    graph = PathGraph.from_edges(
        [(0, 1), (1, 4), (2, 3), (3, 5)], layers=["in", "a", "in", "b", "out", "out"]
    )
    with pytest.raises(GraphError, match="from 'a' to 'b', nor the other way"):
        graph.between("a", "b")
    with pytest.raises(GraphError, match="from 2 nodes to 'b', node 2, nor the other way"):
        graph.between([1, 4], ["b", 2])


def test_a_dropped_node_has_no_id() -> None:
    graph = PathGraph.from_edges([(0, 1), (1, 2), (1, 3)], outputs=[2], inputs=[0])
    with pytest.raises(GraphError, match=r"no node with id 3 .* were dropped"):
        graph.between([0, 3], 2)


def test_figure_1_without_its_skip() -> None:
    graph = figure_1()
    ends = np.flatnonzero(np.isin(graph.node_ids, [1, 21]))
    assert set(graph.kind[ends].tolist()) == {Kind.UNIT}
    branch = graph.between([2, 3, 4, 5], None)
    assert (solve(branch).path_count, solve(branch).average) == (256, 4)
