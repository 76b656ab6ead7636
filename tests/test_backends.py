"""Backends against enumeration, closed forms and laws; the registry."""

import dataclasses
import functools
import math
import operator
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlen import backends, measure
from pathlen.backends import registry
from pathlen.errors import BackendError
from pathlen.graph.path_graph import PathGraph
from tests.path_enumeration import Measures, enumerate_measures
from tests.path_graphs import (
    RandomGraph,
    figure_1,
    random_graphs,
    residual_blocks,
    tenfold_chain,
)

DIRECTIONS = ("backward", "forward")
EVERY_BACKEND = pytest.mark.parametrize("name", backends.available())
EVERY_DIRECTION = pytest.mark.parametrize("direction", DIRECTIONS)
# What float64 cannot hold to twelve digits: numbers below its normal range.
TINY = 1e-300


def solve(name: str, graph: PathGraph, direction: str = "backward") -> backends.Solution:
    return backends.get(name).solve(graph, direction)


def agree(value: Any, wanted: Any, exact: bool) -> bool:
    if exact:
        return isinstance(value, Fraction | int) and value == wanted
    return type(value) in (float, np.float64) and math.isclose(
        value, wanted, rel_tol=1e-12, abs_tol=TINY
    )


def assert_agrees(name: str, solution: backends.Solution, wanted: Measures) -> None:
    exact = backends.get(name).capabilities.exact
    for field in ("average", "normalized_average", "longest_path", "shortest_path"):
        assert agree(getattr(solution, field), getattr(wanted, field), exact), field
    for field in ("path_share", "walk_share"):
        shares = zip(getattr(solution, field), getattr(wanted, field), strict=True)
        assert all(agree(value, other, exact) for value, other in shares), field
    assert solution.path_count == (wanted.path_count if exact else None)
    logarithm = math.log10(wanted.path_count)
    assert math.isclose(solution.log10_path_count, logarithm, rel_tol=1e-12, abs_tol=1e-15)


def test_the_four_backends_are_there() -> None:
    assert set(backends.available()) >= {"exact", "numba", "scipy", "igraph"}
    exact = [n for n in backends.available() if backends.get(n).capabilities.exact]
    assert exact == ["residues", "exact"]


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=60)
@given(case=random_graphs())
def test_agrees_with_enumeration(name: str, direction: str, case: RandomGraph) -> None:
    graph = case.build()
    solution = solve(name, graph, direction)
    assert solution.direction == direction
    assert_agrees(name, solution, enumerate_measures(graph, direction))


@EVERY_BACKEND
def test_figure_1(name: str) -> None:
    graph = figure_1()
    solution = solve(name, graph)
    assert_agrees(name, solution, enumerate_measures(graph))
    exact = backends.get(name).capabilities.exact
    assert agree(solution.average, Fraction(1024, 257), exact)
    assert agree(solution.normalized_average, Fraction(2), exact)
    assert round(10**solution.log10_path_count) == 257
    assert (solution.longest_path, solution.shortest_path) == (4, 0)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=10)
@given(st.integers(1, 400), st.integers(1, 6), st.integers(1, 20))
def test_residual_blocks(name: str, direction: str, blocks: int, width: int, hidden: int) -> None:
    solution = solve(name, residual_blocks(blocks, width, hidden), direction)
    exact = backends.get(name).capabilities.exact
    count = width * (width * hidden + 1) ** blocks
    assert agree(solution.average, Fraction(blocks * width * hidden, width * hidden + 1), exact)
    # Forward, a sum leads to the next hub and the next sum: one half each as well.
    assert agree(solution.normalized_average, Fraction(blocks, 2), exact)
    assert math.isclose(solution.log10_path_count, math.log10(count), rel_tol=1e-12, abs_tol=1e-15)
    assert (solution.longest_path, solution.shortest_path) == (blocks, 0)
    if exact:
        assert solution.path_count == count


@EVERY_BACKEND
@pytest.mark.parametrize(("direction", "blocks"), [("backward", 10_000), ("forward", 400)])
def test_ten_to_the_ten_thousand_paths(name: str, direction: str, blocks: int) -> None:
    if name == "residues":  # gives each of seven layers a block a fraction: long ones take minutes
        blocks = min(blocks, 400)
    graph = tenfold_chain(blocks)
    solution = solve(name, graph, direction)
    exact = backends.get(name).capabilities.exact
    assert agree(solution.average, Fraction(9, 5) * blocks, exact)
    assert agree(solution.normalized_average, Fraction(3, 2) * blocks, exact)
    assert math.isclose(solution.log10_path_count, blocks, rel_tol=1e-12)
    assert (solution.longest_path, solution.shortest_path) == (2 * blocks, 0)
    assert solution.path_count == (10**blocks if exact else None)
    # Every path passes the ends of a block. 9 of 10 paths and 3 of 4 walks take its branch.
    assert graph.node_ids is not None
    positions = np.argsort(graph.node_ids)
    if exact:  # reducing all of these fractions would take long
        positions = np.concatenate([positions[:24], positions[-25:]])
    for shares, branch in (
        (solution.path_share, Fraction(9, 10)),
        (solution.walk_share, Fraction(3, 4)),
    ):
        block = [Fraction(1), *[branch / 3] * 3, branch, *[branch / 3] * 3]
        wanted = [*block * (len(positions) // 8), Fraction(1)]
        assert all(
            agree(shares[position], share, exact)
            for position, share in zip(positions.tolist(), wanted, strict=True)
        )


@EVERY_BACKEND
def test_a_share_too_small_for_floats_is_zero(name: str) -> None:
    chain = tenfold_chain(500)
    sources = np.repeat(np.arange(chain.num_nodes), np.diff(chain.indptr))
    edges = np.column_stack([chain.indices, sources])
    aside = chain.num_nodes  # the only node of one path among 10**500 + 1
    edges = np.concatenate([edges, [(0, aside), (aside, chain.num_nodes - 1)]])
    graph = PathGraph.from_edges(edges, activity=[*chain.activity, 0.5])
    solution = solve(name, graph)
    assert float(graph.by_node_id(solution.path_share)[aside]) == 0.0
    assert math.isclose(graph.by_node_id(solution.walk_share)[aside], 1 / 5, rel_tol=1e-12)
    assert solution.shortest_path == 0.0
    assert math.isclose(solution.average, 900, rel_tol=1e-12)


@EVERY_DIRECTION
def test_depth_costs_numba_no_digits(direction: str) -> None:
    # Added up one by one, a hundred thousand tenths are wrong in the twelfth digit.
    size = 100_000
    one_by_one = functools.reduce(operator.add, [0.1] * size)  # sum() of Python 3.12 is exact
    assert abs(one_by_one / float(size * Fraction(0.1)) - 1) > 1e-12
    edges = np.column_stack([np.arange(size - 1), np.arange(1, size)])
    solution = solve("numba", PathGraph.from_edges(edges, activity=[0.1] * size), direction)
    for field in ("average", "normalized_average", "longest_path", "shortest_path"):
        assert math.isclose(getattr(solution, field), size * Fraction(0.1), rel_tol=1e-15), field


def test_width_costs_numba_no_digits() -> None:
    # Hubs joined by layers of these widths; plain sums lose the fourteenth digit of 1/3.
    widths = [21, 211, 123, 186, 291, 212] * 50
    edges, hub = [], 0
    for width in widths:
        units = range(hub + 1, hub + 1 + width)
        edges += [(hub, unit) for unit in units] + [(unit, units.stop) for unit in units]
        hub = units.stop
    outputs = [hub, hub + 1, hub + 2]
    edges += [(0, node) for node in outputs[1:]]
    layers = {node: f"{node}" for node in range(hub + 3)}
    graph = PathGraph.from_edges(edges, layers=layers)
    share = graph.by_node_id(solve("numba", graph).walk_share)
    for node in np.cumsum([1 + width for width in widths[:-1]]).tolist():
        assert math.isclose(share[node], 1 / 3, rel_tol=1e-15)


@EVERY_BACKEND
@settings(deadline=None, max_examples=15)
@given(
    chains=st.lists(
        st.tuples(st.sampled_from([0, 1, 400, 511, 512, 513, 900, 1023, 1024]), st.booleans()),
        min_size=2,
        max_size=4,
    )
)
def test_counts_of_all_sizes_meet(name: str, chains: list[tuple[int, bool]]) -> None:
    # Chains with 2**length paths each, some of them delayed, so that they meet in any order.
    edges: list[tuple[int, int]] = []
    active, node = [0.0, 0.0], 2
    for length, delayed in chains:
        before = 0
        for _ in range(length):
            edges += [(before, node), (before, node + 1), (node, node + 2), (node + 1, node + 2)]
            before, node = node + 2, node + 3
        active += [1.0, 1.0, 0.0] * length
        for _ in range(2100 if delayed else 1):
            edges.append((before, node))
            before, node = node, node + 1
            active.append(0.0)
        edges.append((before, 1))
    graph = PathGraph.from_edges(edges, activity=active)
    solution = solve(name, graph)
    exact = backends.get(name).capabilities.exact
    total = sum(2**length for length, _ in chains)
    average = Fraction(sum(length * 2**length for length, _ in chains), total)
    assert agree(solution.average, average, exact)
    assert math.isclose(solution.log10_path_count, math.log10(total), rel_tol=1e-12)
    assert solution.longest_path == max(chains)[0]
    assert solution.shortest_path == min(chains)[0]
    assert agree(solution.path_share[0], 1, exact)
    assert agree(solution.path_share[-1], 1, exact)


@EVERY_BACKEND
@settings(deadline=None, max_examples=25)
@given(case=random_graphs(), data=st.data())
def test_numbering_does_not_matter(name: str, case: RandomGraph, data: st.DataObject) -> None:
    ids = list(case.activity)
    number = dict(zip(ids, data.draw(st.permutations(range(len(ids)))), strict=True))
    renamed = RandomGraph(
        edges=data.draw(st.permutations([(number[a], number[b]) for a, b in case.edges])),
        activity={number[node]: value for node, value in case.activity.items()},
        inputs=[number[node] for node in case.inputs],
        outputs=[number[node] for node in case.outputs],
        layers={number[node]: layer for node, layer in case.layers.items()},
    )
    exact = backends.get(name).capabilities.exact
    graphs = case.build(), renamed.build()
    first, second = (solve(name, graph) for graph in graphs)
    assert agree(first.average, second.average, exact)
    assert agree(first.normalized_average, second.normalized_average, exact)
    for field in ("path_share", "walk_share"):
        shares, others = (
            graph.by_node_id(getattr(solution, field))
            for graph, solution in zip(graphs, (first, second), strict=True)
        )
        assert {number[node] for node in shares} == set(others)
        assert all(agree(shares[node], others[number[node]], exact) for node in shares)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=25)
@given(case=random_graphs(), data=st.data())
def test_contributions_add_up(
    name: str, direction: str, case: RandomGraph, data: st.DataObject
) -> None:
    graph = case.build()
    solution = solve(name, graph, direction)
    share_of_other = data.draw(st.lists(st.floats(0, 1), min_size=graph.num_nodes))
    other = graph.with_activity(share_of_other[: graph.num_nodes])
    again = solve(name, other, direction)
    for field, average in (("path_share", "average"), ("walk_share", "normalized_average")):
        shares = getattr(solution, field)
        # Shares do not depend on the activities: they predict the average of other ones.
        assert list(shares) == list(getattr(again, field))
        predicted = sum(
            Fraction(a) * Fraction(c) for a, c in zip(other.activity.tolist(), shares, strict=True)
        )
        assert math.isclose(predicted, getattr(again, average), rel_tol=1e-12, abs_tol=TINY)
        for kind in (0, 3):  # every path passes one input and one output
            assert math.isclose(sum(shares[n] for n in np.flatnonzero(graph.kind == kind)), 1)


def shifted(case: RandomGraph, offset: int) -> list[tuple[int, int]]:
    return [(a + offset, b + offset) for a, b in case.edges]


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=25)
@given(first=random_graphs(one_tensor=True), second=random_graphs(one_tensor=True))
def test_lengths_add_in_series(
    name: str, direction: str, first: RandomGraph, second: RandomGraph
) -> None:
    offset, hub = 1000, 2000
    edges = first.edges + shifted(second, offset)
    edges += [(node, hub) for node in first.outputs]
    edges += [(hub, node + offset) for node in second.inputs]
    activity = first.activity | {node + offset: a for node, a in second.activity.items()}
    both = solve(name, PathGraph.from_edges(edges, activity=activity | {hub: 0.0}), direction)
    parts = [solve(name, case.build(), direction) for case in (first, second)]
    exact = backends.get(name).capabilities.exact
    for field in ("average", "normalized_average", "longest_path", "shortest_path"):
        assert agree(getattr(both, field), sum(getattr(part, field) for part in parts), exact)
    logarithm = sum(part.log10_path_count for part in parts)
    assert math.isclose(both.log10_path_count, logarithm, rel_tol=1e-12, abs_tol=1e-14)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=25)
@given(first=random_graphs(one_tensor=True), second=random_graphs(one_tensor=True))
def test_averages_mix_in_parallel(
    name: str, direction: str, first: RandomGraph, second: RandomGraph
) -> None:
    offset = 1000
    union = RandomGraph(
        edges=first.edges + shifted(second, offset),
        activity=first.activity | {node + offset: a for node, a in second.activity.items()},
        inputs=first.inputs + [node + offset for node in second.inputs],
        outputs=first.outputs + [node + offset for node in second.outputs],
        layers=first.layers | {n + offset: f"second {layer}" for n, layer in second.layers.items()},
    )
    both = solve(name, union.build(), direction)
    parts = [solve(name, case.build(), direction) for case in (first, second)]
    counts = [solve("exact", case.build()).path_count or 0 for case in (first, second)]
    sums = (Fraction(p.average) * n for p, n in zip(parts, counts, strict=True))
    mixed = sum(sums, Fraction(0)) / sum(counts)
    exact = backends.get(name).capabilities.exact
    assert agree(both.average, mixed, exact)
    # Each part is one output tensor (and one input tensor): the walk picks one at even odds.
    normalized = sum(Fraction(part.normalized_average) for part in parts) / 2
    assert agree(both.normalized_average, normalized, exact)
    assert both.longest_path == max(part.longest_path for part in parts)
    assert both.shortest_path == min(part.shortest_path for part in parts)


@EVERY_BACKEND
def test_unknown_direction(name: str) -> None:
    with pytest.raises(BackendError, match=r"'sideways'; use one of backward, forward"):
        solve(name, figure_1(), "sideways")


@EVERY_BACKEND
def test_float_shares_are_read_only(name: str) -> None:
    solution = solve(name, figure_1())
    if not backends.get(name).capabilities.exact:
        for share in (solution.path_share, solution.walk_share):
            assert isinstance(share, np.ndarray)
            with pytest.raises(ValueError, match="read-only"):
                share[0] = 0.5


def test_exact_shares_are_a_sequence() -> None:
    solution = solve("exact", figure_1())
    shares = solution.path_share
    assert shares[-1] == 1
    assert shares[:2] == [1, Fraction(256, 257)]
    with pytest.raises(IndexError):
        shares[len(shares)]


# The registry.


@dataclasses.dataclass
class Shouting:
    """A third-party backend: numba under another name."""

    name: str = "shouting"
    capabilities = backends.Capabilities(exact=False, summary="loud")

    def solve(self, graph: PathGraph, direction: str = "backward") -> backends.Solution:
        return backends.get("numba").solve(graph, direction)


class Quiet(Shouting):
    """One that gives the fields that every solution has, and nothing that came later."""

    def solve(self, graph: PathGraph, direction: str = "backward") -> backends.Solution:
        found = super().solve(graph, direction)
        return backends.Solution(
            found.direction,
            found.average,
            found.normalized_average,
            found.path_count,
            found.log10_path_count,
            found.longest_path,
            found.shortest_path,
            found.path_share,
            found.walk_share,
        )


BACKEND = Shouting("installed")


@pytest.fixture
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.mark.usefixtures("_no_leftovers")
def test_register() -> None:
    backend = Shouting()
    backends.register(backend)
    backends.register(backend)  # the same one again is no conflict
    assert "shouting" in backends.available()
    assert backends.get("shouting") is backend
    assert_agrees("shouting", solve("shouting", figure_1()), enumerate_measures(figure_1()))
    with pytest.raises(BackendError, match="'shouting' exists; give this one another name"):
        backends.register(Shouting())
    with pytest.raises(BackendError, match="'exact' exists"):
        backends.register(Shouting("exact"))


@pytest.mark.usefixtures("_no_leftovers")
def test_a_backend_that_only_solves() -> None:
    # Its solution has shares and no sums of layers: a report adds these up.
    quiet = Quiet("quiet")
    backends.register(quiet)
    assert [need for need in backends.NEEDS if backends.gives(quiet, need)] == ["solution"]
    with pytest.raises(
        BackendError, match=r"'quiet' gives no distribution; these do: 'numba', .*'"
    ):
        backends.distribution_of(quiet, figure_1())
    report, wanted = measure(residual_blocks(3, 2, 5), backend="quiet"), residual_blocks(3, 2, 5)
    for row, other in zip(report.layers, measure(wanted).layers, strict=True):
        assert math.isclose(row.contribution, other.contribution, rel_tol=1e-14)
        assert math.isclose(row.normalized_contribution, other.normalized_contribution)
    assert len(report.path_length_distribution()) == 4


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("need", backends.NEEDS)
def test_choose_by_need(need: str, exact: bool) -> None:
    backend, reason = backends.choose(figure_1(), exact, need)
    assert backends.gives(backend, need)
    assert backend.capabilities.exact == exact
    assert ("integers and fractions" if exact else "fastest for floats") in reason


def test_choose_an_unknown_need() -> None:
    with pytest.raises(BackendError, match="no need 'speed'; use one of solution, distribution"):
        backends.choose(figure_1(), need="speed")


def test_register_checks_what_is_promised() -> None:
    promising = Shouting("promising")
    promising.capabilities = backends.Capabilities(exact=False, summary="", distribution=True)
    with pytest.raises(BackendError, match="object with the methods distribution"):
        backends.register(promising)
    assert "promising" not in backends.available()


@pytest.mark.parametrize("wrong", [object(), Shouting, "numba"])
def test_register_checks_the_protocol(wrong: Any) -> None:
    with pytest.raises(BackendError, match="must be an object"):
        backends.register(wrong)


def test_unknown_backend_lists_the_choices() -> None:
    with pytest.raises(BackendError, match=r"no backend 'nunba'.*numba, scipy, igraph.*exact"):
        backends.get("nunba")


def install(folder: Path, entry: str, package: str = "loud") -> None:
    """Put a distribution with one entry point where imports find it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pathlen.backends]\n{entry}\n")


def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "installed = tests.test_backends:BACKEND")
    monkeypatch.syspath_prepend(tmp_path)
    assert "installed" in backends.available()
    assert backends.get("installed").name == "installed"
    assert solve("installed", figure_1()).longest_path == 4


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("broken = no_such_module:BACKEND", "cannot be loaded: ModuleNotFoundError"),
        ("broken = loud_module:BACKEND", "cannot be loaded: ZeroDivisionError"),
        ("broken = tests.test_backends:missing", "cannot be loaded: AttributeError"),
        ("broken = tests.test_backends:Shouting", "must be an object"),
        ("broken = tests.test_backends:BACKEND", "leads to a backend named 'installed'"),
    ],
)
def test_broken_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, message: str
) -> None:
    install(tmp_path, entry)
    (tmp_path / "loud_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=f"entry point 'broken' = .*{message}"):
        backends.get("broken")
    assert backends.get("numba").name == "numba"  # the others are not affected


def test_two_entry_points_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "installed = tests.test_backends:BACKEND")
    install(tmp_path, "installed = other:BACKEND", package="other")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="two installed packages offer a backend 'installed'"):
        backends.get("installed")


def test_choose() -> None:
    backend, reason = backends.choose(figure_1(), exact=True)
    assert (backend.name, reason) == ("exact", "integers and fractions were asked for")
    backend, reason = backends.choose(figure_1())
    assert backend.name == "numba"
    assert "fastest" in reason


def test_choose_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("_numba", "_compiled"):
        monkeypatch.delitem(sys.modules, f"pathlen.backends.{module}", raising=False)
    backend, reason = backends.choose(figure_1())
    assert backend.name == "scipy"
    assert "numba" in reason
    with pytest.raises(BackendError, match=r"cannot be imported .*install what it needs"):
        backends.get("numba")
