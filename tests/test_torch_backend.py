"""What is the torch backend's own: devices, wide and deep sums, weights, distributions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlen import backends
from pathlen.backends import registry
from pathlen.errors import BackendError
from pathlen.graph import Kind, PathGraph
from tests.path_enumeration import enumerate_measures, walks
from tests.path_graphs import (
    RandomGraph,
    figure_1,
    random_graphs,
    residual_blocks,
    tenfold_chain,
)

TORCH = backends.get("torch")
DIRECTIONS = st.sampled_from(["backward", "forward"])


def weighted(graph: PathGraph, seed: int) -> PathGraph:
    """The graph with weights from 1e-30 to 1e30 on its edges."""
    random = np.random.default_rng(seed)
    return dataclasses.replace(graph, weights=10 ** random.uniform(-30, 30, graph.num_edges))


def paths_backward(graph: PathGraph) -> list[tuple[int, ...]]:
    """Every path, from its output to its input."""
    before = [
        graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
        for node in range(graph.num_nodes)
    ]
    outputs = np.flatnonzero(graph.kind == Kind.OUTPUT).tolist()
    return [path for end in outputs for path in walks(end, before.__getitem__)]


def weight_of(graph: PathGraph, path: tuple[int, ...]) -> Fraction:
    """The product of the weights on a path that is given backward."""
    assert graph.weights is not None
    product = Fraction(1)
    for node, before in itertools.pairwise(path):
        first, last = graph.indptr[node], graph.indptr[node + 1]
        edge = first + int(np.searchsorted(graph.indices[first:last], before))
        product *= Fraction(float(graph.weights[edge]))
    return product


def chance_of(graph: PathGraph, path: tuple[int, ...], direction: str) -> Fraction:
    """The chance that the random walk takes a path that is given backward."""
    forward = direction == "forward"
    degrees = (
        np.bincount(graph.indices, minlength=graph.num_nodes) if forward else np.diff(graph.indptr)
    )
    start = path[-1] if forward else path[0]
    kind = Kind.INPUT if forward else Kind.OUTPUT
    tensors = np.unique(graph.layer[graph.kind == kind])
    own = np.count_nonzero((graph.kind == kind) & (graph.layer == graph.layer[start]))
    chance = Fraction(1, len(tensors) * int(own))
    for node in path[1:] if forward else path[:-1]:
        chance /= int(degrees[node])
    return chance


def lengths_of(graph: PathGraph, path: tuple[int, ...]) -> list[Fraction]:
    """The chance of each length, a unit of activity a counting with chance a."""
    polynomial = [Fraction(1)]
    for activity in graph.activity[list(path)].tolist():
        if activity:
            a = Fraction(activity)
            shifted = [Fraction(0), *polynomial]
            polynomial = [
                (1 - a) * here + a * moved
                for here, moved in zip([*polynomial, Fraction(0)], shifted, strict=True)
            ]
    return polynomial


@settings(deadline=None, max_examples=80)
@given(
    case=random_graphs(), seed=st.integers(0, 999), direction=DIRECTIONS, which=st.integers(0, 2)
)
def test_distribution_against_enumeration(
    case: RandomGraph, seed: int, direction: str, which: int
) -> None:
    graph = weighted(case.build(), seed)
    weighting = ("uniform", "normalized", "magnitude")[which]
    shares: dict[int, Fraction] = {}
    total = Fraction(0)
    for path in paths_backward(graph):
        share = (Fraction(1), chance_of(graph, path, direction), weight_of(graph, path))[which]
        total += share
        for length, chance in enumerate(lengths_of(graph, path)):
            shares[length] = shares.get(length, Fraction(0)) + share * chance
    found = TORCH.distribution(graph, weighting, direction)  # type: ignore[attr-defined]
    for length, share in enumerate(found.tolist()):
        assert math.isclose(share, shares.get(length, 0) / total, rel_tol=1e-12, abs_tol=1e-300)
    assert all(share == 0 for length, share in shares.items() if length >= len(found))


@settings(deadline=None, max_examples=80)
@given(case=random_graphs(), seed=st.integers(0, 999), direction=DIRECTIONS)
def test_weighted_paths_against_enumeration(case: RandomGraph, seed: int, direction: str) -> None:
    graph = weighted(case.build(), seed)
    weights = {path: weight_of(graph, path) for path in paths_backward(graph)}
    total = sum(weights.values())
    solution = TORCH.solve(graph, direction)
    assert solution.magnitude_share is not None
    assert solution.log10_magnitude is not None
    for node in range(graph.num_nodes):
        share = sum((w for path, w in weights.items() if node in path), Fraction(0)) / total
        assert math.isclose(solution.magnitude_share[node], share, rel_tol=1e-12, abs_tol=1e-300)
    assert math.isclose(solution.log10_magnitude, math.log10(total), rel_tol=1e-12, abs_tol=1e-12)


@settings(deadline=None, max_examples=60)
@given(case=random_graphs(), direction=DIRECTIONS)
def test_averages_against_enumeration(case: RandomGraph, direction: str) -> None:
    graph = case.build()
    wanted = enumerate_measures(graph, direction)
    found = TORCH.averages(graph, direction)  # type: ignore[attr-defined]
    assert found.direction == direction
    for name in ("average", "normalized_average"):
        value = getattr(found, name)
        assert math.isclose(value, getattr(wanted, name), rel_tol=1e-12, abs_tol=1e-300)
    logarithm = math.log10(wanted.path_count)
    assert math.isclose(found.log10_path_count, logarithm, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize("weighting", ["uniform", "normalized"])
def test_residual_blocks_have_binomial_lengths(weighting: str) -> None:
    blocks, width, hidden = 40, 3, 200
    graph = residual_blocks(blocks, width, hidden)
    found = TORCH.distribution(graph, weighting)  # type: ignore[attr-defined]
    taken = Fraction(width * hidden, width * hidden + 1)
    if weighting == "normalized":
        taken = Fraction(1, 2)
    for length, share in enumerate(found.tolist()):
        ways = math.comb(blocks, length) * taken**length * (1 - taken) ** (blocks - length)
        assert math.isclose(share, ways, rel_tol=1e-12)
    assert len(found) == blocks + 1


def test_more_paths_than_a_float_holds() -> None:
    graph = tenfold_chain(400)
    found = TORCH.averages(graph)  # type: ignore[attr-defined]
    assert math.isclose(found.average, 720, rel_tol=1e-12)
    assert math.isclose(found.normalized_average, 600, rel_tol=1e-12)
    assert math.isclose(found.log10_path_count, 400, rel_tol=1e-12)
    uniform = TORCH.distribution(graph)  # type: ignore[attr-defined]
    assert len(uniform) == 801
    for branches, share in enumerate(uniform[::2].tolist()):
        wanted = math.comb(400, branches) * Fraction(9**branches, 10**400)
        assert math.isclose(share, wanted, rel_tol=1e-11, abs_tol=1e-300)
    assert not uniform[1::2].any()


def hub_over(width: int) -> PathGraph:
    """Three inputs, one of them behind `width` units of activity 0.1 that meet in a hub."""
    units = np.arange(3, 3 + width)
    hub = 3 + width
    edges = [np.column_stack([np.zeros_like(units), units])]
    edges += [np.column_stack([units, np.full_like(units, hub)])]
    edges += [np.array([(hub, hub + 1), (1, hub + 1), (2, hub + 1)])]
    activity = np.zeros(hub + 2)
    activity[units] = 0.1
    return PathGraph.from_edges(np.concatenate(edges), activity=activity)


@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_width_costs_no_digits(direction: str) -> None:
    # Added up one by one, a hundred thousand tenths are wrong in the twelfth digit.
    width = 100_000
    graph = hub_over(width)
    tenth = Fraction(0.1)
    solution = TORCH.solve(graph, direction)
    averages = TORCH.averages(graph, direction)  # type: ignore[attr-defined]
    for found in (solution, averages):
        assert math.isclose(found.average, tenth * width / (width + 2), rel_tol=1e-14)
        assert math.isclose(found.normalized_average, tenth / 3, rel_tol=1e-14)
    for weighting, share in (("uniform", Fraction(width, width + 2)), ("normalized", 1 / 3)):
        lengths = TORCH.distribution(graph, weighting, direction)  # type: ignore[attr-defined]
        assert math.isclose(lengths[1], tenth * Fraction(share), rel_tol=1e-13)


def test_depth_costs_no_digits() -> None:
    size = 20_000
    edges = np.column_stack([np.arange(size - 1), np.arange(1, size)])
    graph = PathGraph.from_edges(edges, activity=[0.1] * size)
    solution = TORCH.solve(graph)
    for name in ("average", "normalized_average", "longest_path", "shortest_path"):
        assert math.isclose(getattr(solution, name), size * Fraction(0.1), rel_tol=1e-15), name


def test_more_memory_than_allowed_is_refused_before_the_work() -> None:
    graph = residual_blocks(100, 4, 50)
    with pytest.raises(BackendError, match=r"rows of \d+ lengths.*memory limit of 0\.0 MiB"):
        TORCH.distribution(graph, memory_limit=1000)  # type: ignore[attr-defined]
    assert len(TORCH.distribution(graph, memory_limit=1 << 30)) == 101  # type: ignore[attr-defined]


def test_questions_without_an_answer() -> None:
    graph = figure_1()
    with pytest.raises(BackendError, match="needs a graph whose edges have weights"):
        TORCH.distribution(graph, "magnitude")  # type: ignore[attr-defined]
    for method in (TORCH.averages, TORCH.distribution):  # type: ignore[attr-defined]
        with pytest.raises(BackendError, match="no direction 'sideways'"):
            method(graph, direction="sideways")


def test_another_device_is_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    assert backends.TorchBackend().name == "torch"
    with pytest.raises(BackendError, match="a backend named 'torch' exists"):
        backends.register(backends.TorchBackend())
    backends.register(backends.TorchBackend("cpu", name="torch again"))
    assert backends.get("torch again").solve(figure_1()).normalized_average == 2


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(BackendError, match=f"device '{device}' cannot hold float64 here"):
        backends.TorchBackend(device)


def test_a_device_without_values_is_refused() -> None:
    with pytest.raises(BackendError, match="device 'meta' holds no values"):
        backends.TorchBackend("meta")
