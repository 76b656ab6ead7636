"""What-if: linearized graphs, and the order that lowers an average fastest, against all orders."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import PathGraph, backends, greedy_linearization, linearize
from pathlen.errors import ActivityError, BackendError, GraphError
from pathlen.graph.path_graph import Kind
from tests.path_enumeration import enumerate_measures
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks

NAMES = pytest.mark.parametrize("name", backends.registry.built_in_that_give("solution"))


def perceptron() -> PathGraph:
    """Layers input (2), 0, 1 (3 active), 2, 3.0, 3.1 (4 active), 3.2, 3.3 (5 active), 4, output."""
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU())
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), inner, nn.Linear(5, 1))
    return pathlen.trace(model, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("layers", "left"),
    [("1", 2), ("3.*", 1), ("3", 1), (["1", "3.1"], 1), ("*", 0), ("0", 3), ("?", 2)],
)
def test_layers_by_name_pattern_and_module(layers: Any, left: int) -> None:
    graph = perceptron()
    linear = linearize(graph, layers=layers)
    assert pathlen.measure(linear, exact=True).average_path_length == left
    assert pathlen.measure(graph, exact=True).average_path_length == 3  # itself as it was
    rows = [row for row in graph.layers if row.name == "1"]
    assert linearize(graph, layers=rows).num_active == 9


def test_units_by_id() -> None:
    graph = perceptron()
    units = graph.units_of("1")
    for some in (units[:2], units[:2].tolist(), set(units[:2].tolist()), range(units[0], units[2])):
        linear = linearize(graph, units=some)
        assert pathlen.measure(linear, exact=True).average_path_length == 2 + Fraction(1, 3)
    both = linearize(graph, units=int(units[0]), layers="3.1")
    assert pathlen.measure(both, exact=True).average_path_length == 1 + Fraction(2, 3)
    # Of a graph with a numbering of its own, in that numbering.
    figure = figure_1()
    linear = linearize(figure, units=[2, 3])
    assert linear.by_node_id(linear.activity)[2] == 0
    assert linear.num_active == 14


def test_errors_of_linearize() -> None:
    graph = perceptron()
    with pytest.raises(GraphError, match="say what to linearize"):
        linearize(graph)
    with pytest.raises(GraphError, match=r"no layer or module is named '3.4'; nearest are '3\."):
        linearize(graph, layers="3.4")
    with pytest.raises(GraphError, match="no layer is named; give at least one"):
        linearize(graph, layers=[])
    with pytest.raises(GraphError, match="a layer is named by a text or a Layer, not 3"):
        linearize(graph, layers=[3])  # type: ignore[list-item]
    with pytest.raises(GraphError, match="no node with id 99"):
        linearize(graph, units=[0, 99])
    with pytest.raises(GraphError, match="integers in a list or an array"):
        linearize(graph, units=[])
    hub = int(np.flatnonzero(graph.kind == Kind.HUB)[0])
    with pytest.raises(ActivityError, match=f"node {hub} is a hub"):
        linearize(graph, units=[hub])


@NAMES
@settings(deadline=None, max_examples=25)
@given(case=random_graphs(size=6), weighting=st.sampled_from(["normalized", "uniform"]))
def test_no_choice_of_as_many_units_leaves_less(
    name: str, case: RandomGraph, weighting: str
) -> None:
    graph = case.build()
    plan = greedy_linearization(graph, 0, weighting, backend=name)
    active = np.flatnonzero(graph.activity).tolist()
    assert graph.node_ids is not None
    ids = graph.node_ids[active].tolist()
    field = {"normalized": "normalized_average", "uniform": "average"}[weighting]

    def left(units: tuple[int, ...]) -> Fraction:
        part = linearize(graph, units=units) if units else graph
        found: Fraction = getattr(enumerate_measures(part), field)
        return found

    assert len(plan.units) <= len(active)
    close = {"rel_tol": 1e-12, "abs_tol": 1e-300}
    for steps in range(len(plan.units) + 1):
        first = tuple(plan.units[:steps].tolist())
        assert math.isclose(left(first), plan.averages[steps], **close)  # predicted, then measured
        if steps < 4:
            best = min(left(units) for units in itertools.combinations(ids, steps))
            assert math.isclose(best, plan.averages[steps], **close)
    assert plan.averages[-1] == 0
    assert left(tuple(plan.units.tolist())) < 1e-300  # the smallest activities underflow


@settings(deadline=None, max_examples=40)
@given(case=random_graphs(), part=st.fractions(0, 1, max_denominator=16))
def test_it_stops_at_the_target(case: RandomGraph, part: Fraction) -> None:
    graph = case.build()
    whole = pathlen.measure(graph, exact=True).normalized_average_path_length
    target = whole * part
    plan = greedy_linearization(graph, target, backend="exact")
    assert plan.averages[0] == whole
    assert plan.averages[-1] <= target
    assert (plan.averages[:-1] > target).all()
    assert (np.diff(plan.averages) < 0).all()
    assert (np.diff(np.diff(plan.averages)) >= 0).all()  # each step lowers it less than the last
    after = pathlen.measure(plan.linearized(), exact=True)
    assert after.normalized_average_path_length == plan.averages[-1]
    assert isinstance(plan.averages[-1], Fraction)


def test_wide_layers_last_and_early_ones_first() -> None:
    # Every walk passes one unit of a layer: a unit of a narrow layer is passed more often.
    plan = greedy_linearization(perceptron(), 1)
    assert plan.units_of_layer() == {"1": 3, "3.1": 4}
    assert plan.averages.tolist() == pytest.approx(
        [3, 2 + 2 / 3, 2 + 1 / 3, 2, 1.75, 1.5, 1.25, 1], rel=1e-15
    )
    assert plan.units.tolist() == [*perceptron().units_of("1"), *perceptron().units_of("3.1")]
    assert str(plan).splitlines() == [
        "7 of 12 active units linear: average (normalized) 3 -> 1, target 1",
        "  1: 3",
        "  3.1: 4",
    ]
    with pytest.raises(ValueError, match="read-only"):
        plan.units[0] = 3
    assert pathlen.measure(plan.linearized(3)).average_path_length == pytest.approx(2)


def test_a_choice_of_layers() -> None:
    plan = greedy_linearization(perceptron(), 2, layers="3")
    assert plan.units_of_layer() == {"3.1": 4}
    with pytest.raises(GraphError, match=r"target 0\.5 cannot be reached: the average is still 1 "):
        greedy_linearization(perceptron(), 0.5, layers="3")
    with pytest.raises(GraphError, match="no layer or module is named 'fc'"):
        greedy_linearization(perceptron(), 0.5, layers="fc")


def test_no_steps_are_a_plan_too() -> None:
    for graph, target in ((perceptron(), 3), (linearize(perceptron(), layers="*"), 0)):
        plan = greedy_linearization(graph, target)
        assert len(plan.units) == 0
        assert plan.averages.tolist() == [target]
        assert plan.linearized() is graph
        assert plan.layers == ()
        assert "0 of " in str(plan)


def test_by_magnitude() -> None:
    graph = PathGraph.from_edges([(0, 1), (0, 2), (1, 3), (2, 3)], weights=[1.0, 5.0, 1.0, 1.0])
    plan = greedy_linearization(graph, 0.5, "magnitude")
    assert plan.units.tolist() == [2]
    assert plan.averages.tolist() == pytest.approx([1, 1 / 6])


@pytest.mark.parametrize("target", [-1, -1e-9, math.nan, math.inf, "1", None])
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises(GraphError, match="the target must be a finite number of at least 0"):
        greedy_linearization(perceptron(), target)


def test_errors_of_weightings_and_backends() -> None:
    with pytest.raises(BackendError, match="'depth'; use one of uniform"):
        greedy_linearization(perceptron(), 1, "depth")
    with pytest.raises(BackendError, match="needs a graph whose edges have weights"):
        greedy_linearization(perceptron(), 1, "magnitude")
    with pytest.raises(BackendError, match="no backend 'fast'"):
        greedy_linearization(perceptron(), 1, backend="fast")


def test_what_is_left_keeps_its_digits() -> None:
    graph = residual_blocks(400, 3, 5)
    plan = greedy_linearization(graph, 0, "uniform")
    exact = greedy_linearization(graph, 0, "uniform", backend="exact")
    assert len(plan.averages) == len(exact.averages) == 400 * 5 + 1
    for value, wanted in zip(plan.averages, exact.averages, strict=True):
        assert math.isclose(value, wanted, rel_tol=1e-12)
