"""Backend residues against `exact`, closed forms and whole numbers of Python."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathlen import backends, measure
from pathlen.backends import _residues
from pathlen.backends import _residues_bounds as bounds
from pathlen.backends import _residues_primes as primes
from pathlen.backends._exact import BACKEND as EXACT
from pathlen.backends._residues import BACKEND
from pathlen.errors import BackendError
from pathlen.graph.path_graph import PathGraph
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks, tenfold_chain

SHARE = {"contribution": "path_share", "normalized_contribution": "walk_share"}
EVERY_DIRECTION = pytest.mark.parametrize("direction", ["backward", "forward"])


def assert_same(graph: PathGraph, direction: str) -> None:
    found, wanted = BACKEND.solve(graph, direction), EXACT.solve(graph, direction)
    for field in dataclasses.fields(found):
        if field.name.endswith("share"):  # those of `exact` itself
            continue
        value = getattr(found, field.name)
        if field.name.endswith("contribution"):
            if value is not None:
                assert value == sums_of_layers(graph, getattr(wanted, SHARE[field.name]))
        else:
            assert value == getattr(wanted, field.name), field.name


def sums_of_layers(graph: PathGraph, shares: Any) -> list[Fraction]:
    sums = [Fraction(0)] * len(graph.layers)
    for node in np.flatnonzero(graph.activity).tolist():
        sums[graph.layer[node]] += Fraction(float(graph.activity[node])) * shares[node]
    return sums


@EVERY_DIRECTION
@settings(deadline=None, max_examples=60)
@given(case=random_graphs(size=30))
def test_small_graphs(direction: str, case: RandomGraph) -> None:
    assert_same(case.build(), direction)


def windowed(nodes: int, window: int, seed: int, soft: bool = False) -> PathGraph:
    """Nodes that read some of those just before them, any number of them."""
    random = np.random.default_rng(seed)
    edges = [
        (int(before), node)
        for node in range(1, nodes)
        for before in random.choice(
            np.arange(max(node - window, 0), node),
            size=random.integers(1, min(node, window) + 1),
            replace=False,
        )
    ]
    activity = random.random(nodes) if soft else random.integers(0, 2, nodes)
    return PathGraph.from_edges(edges, activity=activity.astype(np.float64))


@EVERY_DIRECTION
@pytest.mark.parametrize("soft", [False, True])
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32), window=st.integers(2, 40))
def test_many_degrees_take_many_primes(direction: str, soft: bool, seed: int, window: int) -> None:
    graph = windowed(300, window, seed, soft)
    assert_same(graph, direction)


@EVERY_DIRECTION
def test_more_than_one_batch_of_primes(direction: str) -> None:
    graph = tenfold_chain(1200)
    found = BACKEND.solve(graph, direction)
    assert primes.primes_for(int(math.log2(10) * 1200)) > 4 * primes.LANES
    assert found.path_count == 10**1200
    assert found.average == Fraction(9, 5) * 1200
    assert found.normalized_average == Fraction(3, 2) * 1200


def test_walks_as_unlikely_as_the_bound_says() -> None:
    # From the last node one walk passes every node, each with a chance of its own.
    size = 120
    edges = [(a, b) for b in range(size) for a in range(b)]
    graph = PathGraph.from_edges(edges)
    denominator = bounds.walk_denominator(bounds.reading_of(graph, "backward"))
    whole = math.prod(prime**times for prime, times in denominator.items())
    assert whole == math.factorial(size - 1)
    assert_same(graph, "backward")


@pytest.mark.parametrize("weighting", ["uniform", "normalized"])
@EVERY_DIRECTION
def test_distributions_of_many_primes(weighting: str, direction: str) -> None:
    graph = windowed(60, 12, 5, soft=True)
    found = BACKEND.distribution(graph, weighting, direction)
    wanted = backends.get("exact")
    assert found == backends.distribution_of(wanted, graph, weighting, direction)
    assert max(share.denominator for share in found).bit_length() > 1000


# Numbers and their residues.


@settings(deadline=None)
@given(count=st.integers(1, 200), data=st.data())
def test_numbers_from_residues(count: int, data: st.DataObject) -> None:
    some = primes.largest_primes(count)
    number = data.draw(st.integers(0, math.prod(some.tolist()) - 1))
    residues = np.array([number % prime for prime in some.tolist()], dtype=np.uint32)
    assert primes.Remainders(some).number(residues) == number


@given(bits=st.integers(0, 20_000))
@settings(deadline=None)
def test_enough_primes(bits: int) -> None:
    assert math.prod(primes.largest_primes(primes.primes_for(bits)).tolist()) >= 2**bits


def test_primes_are_primes() -> None:
    found = primes.largest_primes(50_000).tolist()
    assert found[:3] == [2**31 - 1, 2**31 - 19, 2**31 - 61]
    assert found == sorted(set(found), reverse=True)
    for prime in [*found[:50], *found[-50:]]:
        assert all(prime % factor for factor in range(2, math.isqrt(prime) + 1))
    # as many as there are: the density of primes here is one over the logarithm
    assert len(found) == pytest.approx((found[0] - found[-1]) / math.log(2**31), rel=0.01)


def test_the_last_prime_that_can_be_needed_is_large_enough() -> None:
    found = primes.largest_primes(primes.primes_for(bounds.MOST_BITS))
    assert int(found[-1]) > primes.LEAST_PRIME > 2**primes.BITS_OF_PRIME


@given(values=st.lists(st.floats(0, allow_infinity=False), min_size=1))
@example(values=[5e-324, 1.7976931348623157e308, 0.0, 1.0, 0.1])
def test_floats_are_whole_numbers_times_powers_of_two(values: list[float]) -> None:
    odd, exponent = bounds.dyadic(np.array(values))
    for value, whole, power in zip(values, odd.tolist(), exponent.tolist(), strict=True):
        assert Fraction(value) == whole * Fraction(2) ** power
        assert whole % 2 == (value > 0)


@given(numbers=st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
@settings(deadline=None)
def test_prime_factors(numbers: list[int]) -> None:
    found = bounds.prime_factors(np.array(numbers, dtype=np.int64)).tolist()
    for number in numbers:
        left = number
        for factor in found:
            assert all(factor % other for other in range(2, math.isqrt(factor) + 1))
            while left % factor == 0:
                left //= factor
        assert left == 1
    assert all(any(number % factor == 0 for number in numbers) for factor in found)


# The choice, and refusals.


def test_choice_of_an_exact_backend() -> None:
    large = residual_blocks(60, 40, 400)
    weighted = dataclasses.replace(large, weights=np.ones(large.num_edges))
    assert large.num_edges > 50_000
    for graph, need, name in (
        (large, "solution", "residues"),
        (large, "distribution", "residues"),
        (weighted, "solution", "exact"),
        (weighted, "distribution", "residues"),
        (figure_1(), "solution", "exact"),
    ):
        assert backends.choose(graph, exact=True, need=need)[0].name == name


def test_too_many_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = windowed(300, 40, 1)
    monkeypatch.setattr(bounds, "MOST_BITS", 600)
    with pytest.raises(BackendError, match=r"normalized .* up to \d+ bits, .* 600 .*take floats"):
        BACKEND.solve(graph)
    with pytest.raises(BackendError, match=r"normalized distribution is a number of up to \d+ bit"):
        BACKEND.distribution(graph, "normalized")
    monkeypatch.setattr(bounds, "MOST_BITS", 60)
    with pytest.raises(BackendError, match=r"uniform distribution is .* take floats"):
        BACKEND.distribution(graph, "uniform")


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LEAST_PRIME", 10)
    with pytest.raises(BackendError, match=r"23 nodes, so use the backend 'exact'"):
        BACKEND.solve(figure_1())


def test_more_layers_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = windowed(300, 40, 1)
    monkeypatch.setattr(_residues, "MOST_BITS_OF_LAYERS", 1000 * len(graph.layers))
    with pytest.raises(BackendError, match=r"each of \d+ layers adds is a fraction of up to \d+ b"):
        BACKEND.solve(graph)


def test_shares_are_computed_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, asked = residual_blocks(3, 2, 5), []
    solve = type(EXACT).solve

    def watched(*args: Any) -> backends.Solution:
        asked.append(args)
        return solve(*args)

    monkeypatch.setattr(type(EXACT), "solve", watched)
    found = BACKEND.solve(graph)
    assert len(found.path_share) == graph.num_nodes
    assert not asked
    wanted = solve(EXACT, graph)
    assert list(found.path_share) == list(wanted.path_share)
    assert found.walk_share[:3] == wanted.walk_share[:3]
    assert len(asked) == 1


def test_measuring_a_large_graph_exactly() -> None:
    graph = windowed(2200, 60, 3, soft=True)
    assert graph.num_edges > 50_000
    found = measure(graph, exact=True)
    assert found.backend == "residues"
    floats = measure(graph)
    assert math.isclose(found.average_path_length, floats.average_path_length, rel_tol=1e-14)
    assert found.path_count > 10**300
    assert sum(found.contributions().values()) == found.average_path_length
    for row, other in zip(found.layers, floats.layers, strict=True):
        assert isinstance(row.contribution, Fraction)
        assert math.isclose(row.contribution, other.contribution, rel_tol=1e-13)
        assert math.isclose(
            row.normalized_contribution, other.normalized_contribution, rel_tol=1e-13
        )
    assert math.isclose(found.longest_path, floats.longest_path, rel_tol=1e-14)
