"""Averages as functions that gradients flow through."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import backends
from pathlen.errors import ActivityError, BackendError
from pathlen.graph.path_graph import Kind
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks

WEIGHTINGS = ("uniform", "normalized", "magnitude")
NAMES = {
    "uniform": "average",
    "normalized": "normalized_average",
    "magnitude": "magnitude_average",
}
few = settings(deadline=None, max_examples=40)


def weighted(graph: pathlen.PathGraph, seed: int = 0) -> pathlen.PathGraph:
    weights = np.random.default_rng(seed).uniform(0.1, 10, graph.num_edges)
    return dataclasses.replace(graph, weights=weights)


def average(graph, weighting, direction="backward"):
    solution = backends.get("numba").solve(graph, direction)
    return getattr(solution, NAMES[weighting])


def soft(graph: pathlen.PathGraph, seed: int) -> torch.Tensor:
    """An activity for every node that is no hub."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(graph.num_nodes, generator=generator, dtype=torch.float64)
    return values * torch.from_numpy(graph.kind != Kind.HUB)


@few
@given(
    case=random_graphs(),
    seed=st.integers(0, 99),
    weighting=st.sampled_from(WEIGHTINGS),
    direction=st.sampled_from(["backward", "forward"]),
)
def test_value_and_gradient_against_measures_of_other_activities(
    case: RandomGraph, seed: int, weighting: str, direction: str
) -> None:
    graph = weighted(case.build(), seed)
    module = pathlen.DifferentiableAverage(graph, weighting, direction)
    activity = soft(graph, seed).requires_grad_()
    value = module(activity)
    wanted = average(graph.with_activity(activity.detach().numpy()), weighting, direction)
    assert value.item() == pytest.approx(wanted, rel=1e-12, abs=1e-300)
    value.backward()
    step = 0.25
    for node in np.flatnonzero(graph.kind != Kind.HUB).tolist():
        there = activity.detach().clone()
        there[node] += step if there[node] < 0.5 else -step
        slope = (average(graph.with_activity(there.numpy()), weighting, direction) - wanted) / (
            there[node] - activity[node]
        ).item()
        # linear, so that a long step has no error but rounding
        assert activity.grad[node].item() == pytest.approx(slope, rel=1e-9, abs=1e-11)
    assert not activity.grad[torch.from_numpy(graph.kind == Kind.HUB)].any()


@few
@given(case=random_graphs(), seed=st.integers(0, 99), weighting=st.sampled_from(WEIGHTINGS))
def test_gradcheck(case: RandomGraph, seed: int, weighting: str) -> None:
    graph = weighted(case.build(), seed)
    module = pathlen.DifferentiableAverage(graph, weighting, check=False)
    assert torch.autograd.gradcheck(module, (soft(graph, seed).requires_grad_(),))


@few
@given(case=random_graphs(), seed=st.integers(0, 99), weighting=st.sampled_from(WEIGHTINGS))
def test_the_three_forms_agree(case: RandomGraph, seed: int, weighting: str) -> None:
    graph = weighted(case.build(), seed)
    module = pathlen.DifferentiableAverage(graph, weighting)
    activity = soft(graph, seed)
    is_unit = torch.from_numpy(graph.kind == Kind.UNIT)
    all_nodes = torch.where(is_unit, activity, torch.tensor(graph.activity))
    wanted = average(graph.with_activity(all_nodes.numpy()), weighting)
    named = {}
    for layer in graph.layers:
        units = graph.units_of(layer)
        units = units[graph.kind[units] != Kind.OUTPUT]
        if len(units):
            named[layer.name] = all_nodes[torch.from_numpy(units)]
    for form in (all_nodes, activity[is_unit], named):
        if len(form):
            assert module(form).item() == pytest.approx(wanted, rel=1e-12, abs=1e-300)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.PReLU(5, init=0.5), nn.Linear(5, 2)
    )


def test_layers_that_are_not_named_keep_their_activities() -> None:
    graph = pathlen.trace(network(), torch.zeros(1, 3))
    module = pathlen.DifferentiableAverage(graph, "normalized")
    assert module({"1": torch.tensor(0.5)}).item() == pytest.approx(1.5)
    half = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0], requires_grad=True)
    value = module({"3": half, "1": torch.tensor(0.0)})
    assert value.item() == pytest.approx(0.6)
    value.backward()
    assert half.grad.tolist() == pytest.approx([0.2] * 5)


def test_dtype_and_device_are_those_of_the_activities() -> None:
    graph = figure_1()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        module = pathlen.DifferentiableAverage(graph, "normalized").to(dtype)
        assert module.shares.dtype == torch.float64  # 1/512 of the walks would be rounded
        activity = torch.tensor(graph.activity, dtype=dtype, requires_grad=True)
        value = module(activity)
        assert (value.dtype, value.device, value.shape) == (dtype, activity.device, ())
        assert value.item() == 2
        value.backward()
        assert activity.grad.dtype == dtype
    mixed = pathlen.DifferentiableAverage(pathlen.trace(network(), torch.zeros(1, 3)))
    value = mixed({"1": torch.ones(4), "3": torch.ones(5, dtype=torch.float64)})
    assert value.dtype == torch.float64
    moved = mixed.to("meta")
    assert (moved.shares.device.type, moved.shares.dtype) == ("meta", torch.float64)


def test_shares_are_no_part_of_the_state_and_copies_work() -> None:
    module = pathlen.DifferentiableAverage(figure_1())
    assert not module.state_dict()
    assert not list(module.parameters())
    again = copy.deepcopy(module)
    activity = torch.tensor(figure_1().activity)
    assert again(activity) == module(activity)
    assert "uniform, backward, num_nodes=" in repr(module)


def test_a_batch_of_gradient_steps_lowers_the_average_by_its_shares() -> None:
    graph = residual_blocks(3, 2, 4)
    module = pathlen.DifferentiableAverage(graph, "normalized")
    activity = torch.tensor(graph.activity, requires_grad=True)
    before = module(activity)
    (gradient,) = torch.autograd.grad(before, activity)
    after = module((activity - 0.5 * gradient * activity).detach())
    walked = backends.get("exact").solve(graph).walk_share
    wanted = sum(
        0.5 * float(c) ** 2 for c, a in zip(walked, graph.activity.tolist(), strict=True) if a
    )
    assert (before - after).item() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("activity", "message"),
    [
        (torch.ones(4), r"shape \(4,\); give one value a node, \(23,\), one a unit, \(21,\)"),
        (torch.ones(23, 1), r"shape \(23, 1\)"),
        (torch.ones(21, dtype=torch.int64), "floating-point numbers, not torch.int64"),
        ([1.0] * 21, "floating-point numbers, not list"),
        (torch.full((21,), 1.5), r"must lie in \[0, 1\]; unit 0 has 1.5"),
        (torch.full((21,), -0.25), r"unit 0 has -0.25"),
        (torch.tensor([0.5] * 20 + [float("nan")]), "unit 20 has nan"),
        ({}, "is empty"),
        ({"generation 3 ": torch.ones(4)}, "named 'generation 3 '; nearest are 'generation 3'"),
    ],
)
def test_bad_activities_are_refused(activity, message) -> None:
    graph = figure_1()
    assert (graph.num_nodes, graph.num_units) == (23, 21)
    module = pathlen.DifferentiableAverage(graph)
    with pytest.raises(ActivityError, match=message):
        module(activity)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"2": torch.ones(3)}, r"layer '2' has 5 units; give one activity or 5"),
        ({"3": [1.0] * 5}, "layer '3': activity must be a tensor .* not list"),
        ({"3": torch.tensor([0, 0, 2.0, 0, 0])}, r"layer '3', unit 2 has 2.0"),
        ({"output": torch.ones(2)}, "no layer with units is named 'output'"),
        (
            {"1": torch.ones(4), "3": torch.ones(5, device="meta")},
            "several devices, cpu, meta",
        ),
    ],
)
def test_bad_activities_of_layers_are_refused(given_, message) -> None:
    graph = pathlen.trace(network(), torch.zeros(1, 3))
    module = pathlen.DifferentiableAverage(graph, check="devices" not in message)
    with pytest.raises(ActivityError, match=message):
        module(given_)


def test_hubs_have_no_activity() -> None:
    graph = pathlen.trace(network(), torch.zeros(1, 3))
    hub = int(np.flatnonzero(graph.kind == Kind.HUB)[0])
    module = pathlen.DifferentiableAverage(graph)
    with pytest.raises(ActivityError, match=f"hubs must have activity 0; node {hub} does not"):
        module(torch.ones(graph.num_nodes))


def test_values_can_be_left_unchecked_but_not_shapes() -> None:
    module = pathlen.DifferentiableAverage(figure_1(), check=False)
    assert module(torch.full((23,), 2.0)).item() > 0
    with pytest.raises(ActivityError, match="has shape"):
        module(torch.ones(5))


def test_questions_without_an_answer() -> None:
    with pytest.raises(BackendError, match="no weighting 'loud'"):
        pathlen.DifferentiableAverage(figure_1(), "loud")
    with pytest.raises(BackendError, match="needs a graph whose edges have weights"):
        pathlen.DifferentiableAverage(figure_1(), "magnitude")
    with pytest.raises(BackendError, match="no direction 'up'"):
        pathlen.DifferentiableAverage(figure_1(), direction="up")
    with pytest.raises(BackendError, match="no backend 'abacus'"):
        pathlen.DifferentiableAverage(figure_1(), backend="abacus")


@pytest.mark.parametrize("backend", ["exact", "residues", "scipy"])
def test_any_backend_gives_the_shares(backend: str) -> None:
    module = pathlen.DifferentiableAverage(figure_1(), backend=backend)
    assert module(torch.tensor(figure_1().activity)).item() == pytest.approx(1024 / 257, rel=1e-15)
