"""The statistics of a report against enumeration of all paths, closed forms and laws."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pathlen
from pathlen import PathGraph, Report, backends
from pathlen.backends.protocol import WEIGHTINGS
from pathlen.errors import BackendError, GraphError
from pathlen.graph.path_graph import Kind
from pathlen.report.statistics import quantile
from pathlen.show.distribution import distribution_record, distribution_text
from pathlen.show.text import FULL_TABLE
from tests.path_graphs import RandomGraph, figure_1, random_graphs, residual_blocks
from tests.path_lists import length_distribution, length_of, weighted_paths

EVERY_BACKEND = pytest.mark.parametrize(
    "name",
    [name for name in backends.available() if backends.gives(backends.get(name), "distribution")],
)
EVERY_WEIGHTING = pytest.mark.parametrize("weighting", WEIGHTINGS)


def weighted(graph: PathGraph, seed: int = 0) -> PathGraph:
    """The graph with weights from 1e-3 to 1e3 on its edges."""
    random = np.random.default_rng(seed)
    return dataclasses.replace(graph, weights=10 ** random.uniform(-3, 3, graph.num_edges))


def measure(name: str, graph: PathGraph) -> Report:
    return pathlen.measure(graph, backend=name, exact=backends.get(name).capabilities.exact)


def agree(value: Any, wanted: Fraction | int, exact: bool) -> bool:
    if exact:
        return isinstance(value, Fraction | int) and value == wanted
    return math.isclose(value, wanted, rel_tol=1e-11, abs_tol=1e-290)


@EVERY_BACKEND
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=30)
@given(case=random_graphs())
def test_everything_against_enumeration(name: str, weighting: str, case: RandomGraph) -> None:
    graph = weighted(case.build())
    report = measure(name, graph)
    exact = report.exact
    paths = weighted_paths(graph, weighting)
    activity = [Fraction(value) for value in graph.activity.tolist()]

    average = sum(share * length_of(activity, path) for path, share in paths)
    assert agree(report.average(weighting), average, exact)

    central = [Fraction(0)] * graph.num_nodes
    for path, share in paths:
        for node in path:
            central[node] += share
    for node, value in enumerate(report.centrality(weighting)):
        assert agree(value, central[node], exact)
    of_layer, contributions = report.layer_centrality(weighting), report.contributions(weighting)
    assert list(of_layer) == list(contributions) == [row.name for row in report.layers]
    for row in graph.layers:
        if row.name in of_layer:
            units = graph.units_of(row).tolist()
            assert agree(of_layer[row.name], sum(central[u] for u in units), exact)
            added = sum(activity[u] * central[u] for u in units)
            assert agree(contributions[row.name], added, exact)

    wanted = length_distribution(graph, paths)
    shares = report.path_length_distribution(weighting)
    assert max(wanted) < len(shares)
    for length, share in enumerate(shares):
        assert agree(share, wanted.get(length, Fraction(0)), exact)
    variance = sum(share * (length - average) ** 2 for length, share in wanted.items())
    found = report.path_length_variance(weighting)
    assert found == variance if exact else math.isclose(found, variance, abs_tol=1e-11)
    assert isinstance(found, Fraction if exact else float)


@EVERY_BACKEND
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=30)
@given(case=random_graphs(), q=st.fractions(0, 1, max_denominator=64))
def test_quantiles(name: str, weighting: str, case: RandomGraph, q: Fraction) -> None:
    graph = case.build()
    # Activities of 0 and 1, as from a model: lengths occur or they do not.
    graph = weighted(graph.with_activity(np.round(graph.activity)))
    wanted = length_distribution(graph, weighted_paths(graph, weighting))
    found = measure(name, graph).path_length_quantile(q, weighting)
    assert type(found) is int
    up_to = {length: sum(wanted.get(k, 0) for k in range(length + 1)) for length in range(20)}
    # Rounded magnitudes cannot decide ties: no share of these is a fraction of 64ths but 0 and 1.
    assert found == min(k for k, share in up_to.items() if share >= q and share)


@pytest.mark.parametrize(
    ("shares", "q", "length"),
    [
        ([0.1] * 10, 0.3, 2),  # 0.1 + 0.1 + 0.1 is more than 0.3 in floats
        ([0.1] * 10, 0.7, 6),  # and seven of them are less than 0.7
        ([0.1] * 10, 0.8, 7),
        ([1e-30, 0.5, 0.5 - 1e-30, 1e-30], 0, 0),
        ([1e-30, 0.5, 0.5 - 1e-30, 1e-30], 1, 3),
        ([1e-30, 0.5, 0.5 - 1e-30, 1e-30], 1e-29, 1),
        ([0.0, 0.0, 1.0, 0.0], 0, 2),
        ([0.0, 0.0, 1.0, 0.0], 1, 2),
        ([1.0], 0.5, 0),
    ],
)
def test_quantiles_of_rounded_shares(shares: list[float], q: float, length: int) -> None:
    assert quantile(np.array(shares), q) == length


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, "median", None])
def test_a_quantile_is_asked_for_by_a_part(q: Any) -> None:
    with pytest.raises(GraphError, match=r"number q in \[0, 1\]"):
        pathlen.measure(figure_1()).path_length_quantile(q)


@EVERY_BACKEND
@settings(deadline=None, max_examples=15)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 6))
def test_residual_blocks_are_binomial(name: str, blocks: int, width: int, hidden: int) -> None:
    report = measure(name, residual_blocks(blocks, width, hidden))
    uniform = report.path_length_distribution()
    normalized = report.path_length_distribution("normalized")
    assert len(uniform) == len(normalized) == blocks + 1
    ways = width * hidden  # generating functions (1 + C H z)^B and (1/2 + z/2)^B
    for length in range(blocks + 1):
        choices = math.comb(blocks, length)
        wanted = Fraction(choices * ways**length, (1 + ways) ** blocks)
        assert agree(uniform[length], wanted, report.exact)
        assert agree(normalized[length], Fraction(choices, 2**blocks), report.exact)
    part = Fraction(ways, 1 + ways)
    assert math.isclose(report.path_length_variance(), blocks * part * (1 - part), rel_tol=1e-9)
    assert math.isclose(report.path_length_variance("normalized"), blocks / 4, rel_tol=1e-9)


@EVERY_BACKEND
@EVERY_WEIGHTING
@settings(deadline=None, max_examples=20)
@given(case=random_graphs(), data=st.data())
def test_laws(name: str, weighting: str, case: RandomGraph, data: st.DataObject) -> None:
    graph = weighted(case.build())
    report = measure(name, graph)
    average = report.average(weighting)
    close = {"rel_tol": 1e-11, "abs_tol": 1e-290}
    shares = report.path_length_distribution(weighting)
    assert math.isclose(shares.sum(), 1, rel_tol=1e-12)
    assert math.isclose((shares * np.arange(len(shares))).sum(), average, **close)
    assert math.isclose(sum(report.contributions(weighting).values()), average, **close)
    quarters = [report.path_length_quantile(i / 4, weighting) for i in range(5)]
    assert quarters == sorted(quarters)
    # Monotone: a unit that is more active makes nothing shallower, and adds what c says.
    units = np.flatnonzero(graph.kind != Kind.HUB)
    node = data.draw(st.sampled_from(units.tolist()))
    activity = graph.activity.copy()
    activity[node] = 1.0
    more = measure(name, graph.with_activity(activity))
    assert more.average(weighting) >= average * (1 - 1e-12)
    change = (1 - graph.activity[node]) * float(report.centrality(weighting)[node])
    assert math.isclose(more.average(weighting), average + change, **close)
    assert more.longest_path >= report.longest_path
    assert more.shortest_path >= report.shortest_path
    # Of distributions: no length up to any k becomes more frequent.
    longer = more.path_length_distribution(weighting)
    before = np.cumsum(np.append(shares, [0] * (len(longer) - len(shares))))
    assert (np.cumsum(longer) <= before + 1e-12).all()


def test_forms() -> None:
    graph = weighted(figure_1())
    report = pathlen.measure(graph)
    shares = report.path_length_distribution()
    assert shares.dtype == np.float64
    assert shares.tolist() == pytest.approx([1 / 257, 0, 0, 0, 256 / 257], rel=1e-14)
    with pytest.raises(ValueError, match="read-only"):
        shares[0] = 1
    assert report.path_length_distribution() is shares  # kept
    exact = pathlen.measure(graph, exact=True)
    assert exact.exact
    assert not report.exact
    wanted = [Fraction(1, 257), 0, 0, 0, Fraction(256, 257)]
    assert exact.path_length_distribution().tolist() == wanted
    assert exact.path_length_distribution("normalized").sum() == 1
    assert exact.centrality()[0] == 1
    assert graph.by_node_id(report.centrality("normalized"))[0] == 1


def test_a_report_by_another_backend_takes_the_automatic_one_for_distributions() -> None:
    graph = figure_1()
    solution = backends.get("numba").solve(graph)
    report = Report.build(graph, solution, backend="by hand", seconds={}, exact=False)
    assert len(report.path_length_distribution()) == 5


def test_where_a_backend_has_no_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, exact = (pathlen.measure(figure_1(), exact=exact) for exact in (False, True))
    for name in ("numba", "exact"):
        plain = dataclasses.replace(backends.get(name).capabilities, distribution=False)
        monkeypatch.setattr(type(backends.get(name)), "capabilities", plain)
    assert fast.path_length_distribution()[0] == pytest.approx(1 / 257)  # by another one
    with pytest.raises(BackendError, match="no backend gives a distribution in integers"):
        exact.path_length_distribution()


def test_walks_of_a_report_go_where_its_solution_says() -> None:
    # Forward, one of two inputs and then one of two ways leads to the unit: a chance of 1/4.
    # Backward, one of three ways does.
    graph = PathGraph.from_edges([(0, 1), (1, 2), (0, 2), (3, 2)], activity=[0, 1, 0, 0])
    solution = backends.get("numba").solve(graph, "forward")
    report = Report.build(graph, solution, backend="numba", seconds={}, exact=False)
    shares = report.path_length_distribution("normalized")
    assert shares.tolist() == pytest.approx([3 / 4, 1 / 4])
    backward = pathlen.measure(graph).path_length_distribution("normalized")
    assert backward.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_memory_limit() -> None:
    report = pathlen.measure(residual_blocks(100, 4, 4))
    for ask in (
        report.path_length_distribution,
        report.path_length_variance,
        lambda **limit: report.path_length_quantile(0.5, **limit),
    ):
        with pytest.raises(BackendError, match="memory limit"):
            ask(memory_limit=1000)
    assert len(report.path_length_distribution(memory_limit=1 << 30)) == 101


def test_errors_of_weightings() -> None:
    report = pathlen.measure(figure_1())
    asks = (
        report.average,
        report.centrality,
        report.layer_centrality,
        report.contributions,
        report.path_length_distribution,
        report.path_length_variance,
    )
    for ask in asks:
        with pytest.raises(BackendError, match="'unifrom'; use one of uniform, normalized"):
            ask("unifrom")
        with pytest.raises(BackendError, match="needs a graph whose edges have weights"):
            ask("magnitude")


def test_a_backend_that_knows_no_magnitudes() -> None:
    graph = weighted(figure_1())
    solution = dataclasses.replace(
        backends.get("numba").solve(graph), magnitude_average=None, magnitude_share=None
    )
    report = Report.build(graph, solution, backend="mine", seconds={}, exact=False)
    with pytest.raises(BackendError, match="does not weigh paths by magnitude"):
        report.average("magnitude")
    with pytest.raises(BackendError, match="does not weigh paths by magnitude"):
        report.contributions("magnitude")


def test_magnitudes_are_shown_where_there_are_weights() -> None:
    # Two paths: one of weight 2 * 3 with an active unit, one of weight 4 without.
    graph = PathGraph.from_edges([(0, 1), (1, 2), (0, 2)], layers=["in", "relu", "out"])
    graph = dataclasses.replace(graph, weights=[2.0, 4.0, 3.0])
    report = pathlen.measure(graph, exact=True)
    assert graph.indices.tolist() == [0, 0, 1]
    assert report.average("magnitude") == Fraction(6, 10)
    assert report.magnitude_average_path_length == Fraction(6, 10)
    assert report.log10_magnitude == pytest.approx(1)
    record = report.to_dict()
    assert record["magnitude_average_path_length_exact"] == "3/5"
    assert record["layers"][1]["magnitude_contribution_exact"] == "3/5"
    assert "average path length by magnitude" in str(report)
    assert "of magnitude" in str(report)
    assert "of magnitude" in report._repr_html_()
    plain = pathlen.measure(figure_1())
    assert plain.magnitude_average_path_length is None
    assert not any("magnitude" in key for key in plain.to_dict())
    assert "magnitude" not in str(plain)


def test_a_report_holds_the_arrays_of_the_solution_and_no_copies() -> None:
    graph = residual_blocks(3, 4, 5)
    solution = backends.get("numba").solve(graph)
    report = Report.build(graph, solution, backend="numba", seconds={}, exact=False)
    assert report.centrality() is solution.path_share
    assert report.centrality("normalized") is solution.walk_share
    assert report.graph is graph


def test_a_wide_distribution_is_shown_by_ranges() -> None:
    report = pathlen.measure(residual_blocks(1000, 1, 1))
    lines = distribution_text(report).splitlines()
    assert lines[:3] == [
        "path lengths  mean  deviation  5 %  median  95 %",
        "of paths       500      15.81  474     500   526",
        "of walks       500      15.81  474     500   526",
    ]
    rows = [line.split() for line in lines[5:]]
    assert len(rows) <= FULL_TABLE
    assert rows[0][1] == "to"
    assert 430 < int(rows[0][0]) < 450
    assert 550 < int(rows[-1][-3]) < 570
    assert sum(float(row[-1]) for row in rows) == pytest.approx(1, abs=0.005)


def test_a_distribution_by_magnitude_is_shown_where_there_are_weights() -> None:
    report = pathlen.measure(weighted(figure_1()), exact=True)
    assert "by magnitude" in distribution_text(report)
    record = distribution_record(report)
    assert record["uniform_exact"] == ["1/257", "0/1", "0/1", "0/1", "256/257"]
    assert sum(record["magnitude"]) == pytest.approx(1)
