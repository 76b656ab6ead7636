"""Averages alone: every backend that has them against enumeration, solutions and laws."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pathlen import backends
from pathlen.backends import registry
from pathlen.backends.protocol import Averages, HasAverages
from pathlen.errors import BackendError
from pathlen.graph import PathGraph
from tests.path_enumeration import enumerate_measures
from tests.path_graphs import (
    RandomGraph,
    figure_1,
    random_graphs,
    residual_blocks,
    tenfold_chain,
    tripling,
)

ABLE = [n for n in backends.available() if backends.get(n).capabilities.averages]
EVERY_BACKEND = pytest.mark.parametrize("name", ABLE)
EVERY_DIRECTION = pytest.mark.parametrize("direction", ["backward", "forward"])


def averages(name: str, graph: PathGraph, direction: str = "backward") -> Averages:
    backend: Any = backends.get(name)
    able: HasAverages = backend
    return able.averages(graph, direction)


def is_exact(name: str) -> bool:
    return backends.get(name).capabilities.exact


def agree(value: Any, wanted: Any, exact: bool) -> bool:
    if exact:
        return isinstance(value, Fraction | int) and value == wanted
    return isinstance(value, float) and math.isclose(value, wanted, rel_tol=1e-12, abs_tol=1e-300)


def test_the_built_in_backends_have_them() -> None:
    assert {"exact", "residues", "numba", "scipy", "igraph", "torch"} <= set(ABLE)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=60)
@given(case=random_graphs())
def test_agrees_with_enumeration(name: str, direction: str, case: RandomGraph) -> None:
    graph = case.build()
    wanted = enumerate_measures(graph, direction)
    found = averages(name, graph, direction)
    assert found.direction == direction
    assert agree(found.average, wanted.average, is_exact(name))
    assert agree(found.normalized_average, wanted.normalized_average, is_exact(name))
    assert found.path_count == (wanted.path_count if is_exact(name) else None)
    logarithm = math.log10(wanted.path_count)
    assert math.isclose(found.log10_path_count, logarithm, rel_tol=1e-12, abs_tol=1e-15)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=20)
@given(case=random_graphs(weighted=True))
def test_weights_change_nothing(name: str, direction: str, case: RandomGraph) -> None:
    graph = case.build()
    solver = backends.get(name if backends.gives(backends.get(name), "solution") else "exact")
    found, whole = averages(name, graph, direction), solver.solve(graph, direction)
    assert agree(found.average, whole.average, is_exact(name))
    assert agree(found.normalized_average, whole.normalized_average, is_exact(name))


@EVERY_BACKEND
def test_figure_1(name: str) -> None:
    found = averages(name, figure_1())
    assert agree(found.average, Fraction(1024, 257), is_exact(name))
    assert agree(found.normalized_average, Fraction(2), is_exact(name))


@EVERY_BACKEND
@EVERY_DIRECTION
def test_ten_to_the_three_thousand_paths(name: str, direction: str) -> None:
    found = averages(name, tenfold_chain(3000), direction)
    assert agree(found.average, Fraction(9, 5) * 3000, is_exact(name))
    assert agree(found.normalized_average, Fraction(3, 2) * 3000, is_exact(name))
    assert math.isclose(found.log10_path_count, 3000, rel_tol=1e-12)
    assert found.path_count == (10**3000 if is_exact(name) else None)


@EVERY_BACKEND
@EVERY_DIRECTION
def test_wide_residual_blocks(name: str, direction: str) -> None:
    found = averages(name, residual_blocks(300, 5, 70), direction)
    assert agree(found.average, Fraction(300 * 350, 351), is_exact(name))
    assert agree(found.normalized_average, Fraction(150), is_exact(name))


@EVERY_BACKEND
def test_one_unit_alone_is_soft(name: str) -> None:
    # One path whose units count a third and a half; nothing else.
    graph = PathGraph.from_edges([(0, 1), (1, 2), (2, 3)], activity=[0, 1 / 3, 0.5, 0])
    wanted = Fraction(1 / 3) + Fraction(1, 2)
    found = averages(name, graph)
    assert agree(found.average, wanted, is_exact(name))
    assert agree(found.normalized_average, wanted, is_exact(name))
    assert found.log10_path_count == 0.0


# Where rounding errors might add up: the compiled sweep against residues, to the last digits.


def assert_the_last_digits_are_right(graph: PathGraph) -> None:
    found, wanted = averages("numba", graph), averages("residues", graph)
    assert math.isclose(found.average, wanted.average, rel_tol=1e-15)
    assert math.isclose(found.normalized_average, wanted.normalized_average, rel_tol=1e-15)
    assert wanted.path_count is not None
    if wanted.path_count < 10**300:
        assert math.isclose(10**found.log10_path_count, wanted.path_count, rel_tol=1e-13)
    assert math.isclose(found.log10_path_count, wanted.log10_path_count, rel_tol=1e-15)


@pytest.mark.parametrize("value", [1 / 3, 1e-200])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_same_addition_in_100_000_nodes_in_a_row(width: int, value: float) -> None:
    # Each rounding of a sum to 53 bits would err the same way.
    edges = [(node - step, node) for node in range(1, 100_000) for step in range(1, width + 1)]
    activity = np.full(100_000, value)
    assert_the_last_digits_are_right(
        PathGraph.from_edges([edge for edge in edges if edge[0] >= 0], activity=activity)
    )


@pytest.mark.parametrize("stages", [20, 42])
@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_a_long_chain_to_which_few_paths_are_added(width: int, stages: int) -> None:
    # 3**45 paths come along the chain; 3**stages enter at each node in `width` places.
    length, edges, sides, first = 20_000, tripling(1, 45), [], 1 + 3 * 45 + 1
    last = first - 1
    for _ in range(width):
        edges += tripling(first, stages)
        first += 3 * stages + 1
        sides.append(first - 1)
    for node in range(first, first + length):
        edges += [(side, node) for side in sides] + [(last, node)]
        last = node
    assert_the_last_digits_are_right(PathGraph.from_edges(edges, activity=np.full(last + 1, 1 / 3)))


@pytest.mark.parametrize("width", [63, 64, 65, 100_000])
def test_a_wide_layer_of_very_different_counts(width: int) -> None:
    # One unit of 3**45 paths among others of 3**20, read by a hub.
    edges, few = tripling(1, 45), tripling(200, 20)
    many_end, few_end, hub = 1 + 3 * 45, 200 + 3 * 20, 300 + width
    edges += few + [(few_end, unit) for unit in range(300, hub)]
    edges += [(unit, hub) for unit in range(300, hub)] + [(many_end, hub), (hub, hub + 1)]
    activity = np.zeros(hub + 2)
    activity[:300] = 1 / 3
    activity[300:hub] = np.linspace(0.0, 1.0, width)
    assert_the_last_digits_are_right(PathGraph.from_edges(edges, activity=activity))


@pytest.mark.parametrize("name", ["exact", "residues", "numba"])
@pytest.mark.parametrize(("linear", "active"), [(500, 0), (1020, 0), (1100, 200), (1500, 500)])
def test_few_paths_that_alone_are_active(name: str, linear: int, active: int) -> None:
    # 2**active paths through one active unit beside 2**linear paths through none.
    edges, ends = [], []
    first = 1
    for stages in (linear, active):
        before = [0]
        for node in range(first, first + 2 * stages, 2):
            edges += [(one, other) for one in before for other in (node, node + 1)]
            before = [node, node + 1]
        first += 2 * stages + 1
        edges += [(one, first - 1) for one in before]
        ends.append(first - 1)
    edges += [(end, first) for end in ends]
    activity = np.zeros(first + 1)
    activity[ends[1]] = 1.0
    graph = PathGraph.from_edges(edges, activity=activity)
    wanted = Fraction(2**active, 2**linear + 2**active)
    assert math.isclose(averages(name, graph).average, wanted, rel_tol=1e-12)


@EVERY_BACKEND
def test_unknown_direction(name: str) -> None:
    with pytest.raises(BackendError, match="no direction 'sideways'"):
        averages(name, figure_1(), "sideways")


# What a backend is asked for, and what it gives.


class Partial:
    """A third-party backend with some methods."""

    def __init__(self, name: str, **able: bool) -> None:
        self.name = name
        self.capabilities = backends.Capabilities(exact=False, summary="partial", **able)


class Solving(Partial):
    def solve(self, graph: PathGraph, direction: str = "backward") -> backends.Solution:
        return backends.get("numba").solve(graph, direction)


class Averaging(Partial):
    def averages(self, graph: PathGraph, direction: str = "backward") -> Averages:
        return averages("numba", graph, direction)


@pytest.fixture
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.mark.usefixtures("_no_leftovers")
@EVERY_DIRECTION
def test_a_backend_that_only_solves_gives_averages(direction: str) -> None:
    backends.register(Solving("solving"))
    solving = backends.get("solving")
    assert [need for need in backends.NEEDS if backends.gives(solving, need)] == [
        "solution",
        "averages",
    ]
    graph = residual_blocks(3, 2, 5)
    found = backends.averages_of(solving, graph, direction)
    wanted = averages("numba", graph, direction)
    assert found.direction == direction
    assert math.isclose(found.average, wanted.average, rel_tol=1e-14)
    assert math.isclose(found.normalized_average, wanted.normalized_average, rel_tol=1e-14)
    assert math.isclose(found.log10_path_count, wanted.log10_path_count, rel_tol=1e-14)
    with pytest.raises(
        BackendError, match=r"backend 'solving' gives no distribution; these do: 'numba', .*'exact'"
    ):
        backends.distribution_of(solving, graph)


@pytest.mark.usefixtures("_no_leftovers")
def test_a_backend_that_does_not_solve() -> None:
    averaging: Any = Averaging("averaging", solution=False, averages=True)
    backends.register(averaging)
    assert backends.averages_of(averaging, figure_1()).normalized_average == 2.0
    with pytest.raises(BackendError, match=r"backend 'averaging' gives no solution; these do"):
        backends.solution_of(averaging, figure_1())
    from pathlen import measure

    with pytest.raises(BackendError, match="gives no solution"):
        measure(figure_1(), backend="averaging")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Partial("nothing", solution=False), "gives nothing; it must be an object with at least"),
        (Partial("hollow"), "gives solution; it must be an object with the methods solve"),
        (Solving("boasting", averages=True, distribution=True), "methods averages, distribution"),
        (Averaging("silent", averages=True), "gives solution, averages; .* methods solve"),
    ],
)
def test_register_checks_what_is_promised(wrong: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        backends.register(wrong)
    assert wrong.name not in backends.available()


@pytest.mark.parametrize("need", backends.NEEDS)
@pytest.mark.parametrize("exact", [False, True])
def test_choose_by_need(need: str, exact: bool) -> None:
    backend, reason = backends.choose(figure_1(), exact, need)
    assert backends.gives(backend, need)
    assert backend.capabilities.exact == exact
    assert ("integers and fractions" if exact else "fastest for floats") in reason


def test_choose_an_unknown_need() -> None:
    with pytest.raises(BackendError, match="no need 'speed'; use one of solution, averages"):
        backends.choose(figure_1(), need="speed")


def test_averages_read_off_a_solution_are_plain_floats() -> None:
    found = backends.averages_of(Solving("solving"), figure_1())
    assert type(found.average) is float
    assert not isinstance(found.normalized_average, np.floating)
