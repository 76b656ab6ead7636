"""Paths weighted by magnitudes: every backend against enumeration, matrix products and laws."""

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlen import backends
from pathlen.graph.path_graph import Kind, PathGraph
from tests.path_enumeration import enumerate_lengths, enumerate_measures
from tests.path_graphs import RandomGraph, figure_1, random_graphs, tenfold_chain

# Every built-in backend does magnitudes; one of a third party may leave them out.
BUILT_IN = ("numba", "scipy", "igraph", "exact", "residues")
EVERY_BACKEND = pytest.mark.parametrize("name", BUILT_IN)
EVERY_DIRECTION = pytest.mark.parametrize("direction", ["backward", "forward"])
TINY = 1e-300


def is_exact(name: str) -> bool:
    return backends.get(name).capabilities.exact


def agree(value: Any, wanted: Any, exact: bool) -> bool:
    if exact:
        return isinstance(value, Fraction) and value == wanted
    return isinstance(value, float) and math.isclose(value, wanted, rel_tol=1e-12, abs_tol=TINY)


def log10(value: Fraction) -> float:
    """Of a positive fraction of any size, right to the last digits."""
    power = value.numerator.bit_length() - value.denominator.bit_length()
    rest = value / Fraction(2) ** power
    return power * math.log10(2) + math.log10(rest)


def assert_magnitudes(name: str, graph: PathGraph, direction: str = "backward") -> None:
    """All magnitude measures of a small graph against enumeration."""
    exact = is_exact(name)
    wanted = enumerate_measures(graph, direction)
    solution = backends.get(name).solve(graph, direction)
    assert agree(solution.magnitude_average, wanted.magnitude_average, exact)
    assert solution.magnitude_share is not None
    shares = zip(solution.magnitude_share, wanted.magnitude_share, strict=True)
    assert all(agree(share, other, exact) for share, other in shares)
    assert solution.log10_magnitude is not None
    logarithm = log10(wanted.magnitude)
    assert math.isclose(solution.log10_magnitude, logarithm, rel_tol=1e-12, abs_tol=1e-12)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=80)
@given(case=random_graphs(weighted=True))
def test_agrees_with_enumeration(name: str, direction: str, case: RandomGraph) -> None:
    assert_magnitudes(name, case.build(), direction)


@EVERY_BACKEND
@EVERY_DIRECTION
@settings(deadline=None, max_examples=20)
@given(case=random_graphs(weighted=True))
def test_weights_change_nothing_else(name: str, direction: str, case: RandomGraph) -> None:
    weighted = case.build()
    plain = dataclasses.replace(weighted, weights=None)
    found, wanted = (backends.get(name).solve(graph, direction) for graph in (weighted, plain))
    nothing = (wanted.magnitude_average, wanted.magnitude_share, wanted.log10_magnitude)
    assert nothing == (None, None, None)
    for field in dataclasses.fields(found):
        if "magnitude" not in field.name:
            one, two = getattr(found, field.name), getattr(wanted, field.name)
            if field.name.endswith(("share", "contribution")) and one is not None:
                one, two = list(one), list(two)
            assert one == two


@EVERY_BACKEND
@settings(deadline=None, max_examples=25)
@given(case=random_graphs(), weight=st.floats(1e-300, 1e300))
def test_equal_weights_of_paths_of_equal_hops_are_uniform(
    name: str, case: RandomGraph, weight: float
) -> None:
    # With weight 1 every path counts the same, with any other one the number of its edges decides.
    graph = case.build()
    ones = dataclasses.replace(graph, weights=np.ones(graph.num_edges))
    solution = backends.get(name).solve(ones)
    assert agree(solution.magnitude_average, solution.average, is_exact(name))
    assert_magnitudes(name, dataclasses.replace(graph, weights=np.full(graph.num_edges, weight)))


FLOATS = st.sampled_from([5e-324, 2.2e-308, 1.0, 1.7976931348623157e308]) | st.floats(
    5e-324, 1.7976931348623157e308, exclude_min=False
)


@EVERY_BACKEND
@settings(deadline=None, max_examples=60)
@given(case=random_graphs(), data=st.data())
def test_weights_of_any_size(name: str, case: RandomGraph, data: st.DataObject) -> None:
    # From the smallest float to the largest, so that products leave the range of floats at once.
    graph = case.build()
    size = graph.num_edges
    weights = data.draw(st.lists(FLOATS, min_size=size, max_size=size))
    graph = dataclasses.replace(graph, weights=np.array(weights))
    assert_magnitudes(name, graph)
    backend: Any = backends.get(name)
    found = backend.distribution(graph, "magnitude")
    wanted = enumerate_lengths(graph, "magnitude")
    assert all(agree(float(s), w, False) for s, w in zip(found, wanted, strict=True))


def perceptron(matrices: list[np.ndarray]) -> PathGraph:
    """Layers joined by explicit edges with the absolute weights of matrices [inputs, outputs]."""
    edges, weights, first = [], [], 0
    for matrix in matrices:
        rows, columns = matrix.shape
        for row in range(rows):
            for column in range(columns):
                edges.append((first + row, first + rows + column))
                weights.append(abs(matrix[row, column]))
        first += rows
    return PathGraph.from_edges(edges, weights=weights)


@EVERY_BACKEND
def test_path_norm_is_a_product_of_absolute_matrices(name: str) -> None:
    random = np.random.default_rng(5)
    widths = [3, 7, 5, 6, 2]
    matrices = [random.normal(size=shape) for shape in itertools.pairwise(widths)]
    graph = perceptron(matrices)
    absolute = [np.abs(matrix) for matrix in matrices]
    product = np.linalg.multi_dot(absolute)
    solution = backends.get(name).solve(graph)
    assert solution.log10_magnitude is not None
    assert math.isclose(10**solution.log10_magnitude, product.sum(), rel_tol=1e-12)
    # Every path has one unit of each hidden layer.
    assert solution.magnitude_average is not None
    assert math.isclose(solution.magnitude_average, 3, rel_tol=1e-12)
    # The weight of all paths that pass a layer's units, from products up to it and from it.
    assert solution.magnitude_share is not None
    shares = graph.by_node_id(solution.magnitude_share)
    first = 0
    for place, width in enumerate(widths):
        into = np.ones(widths[0])
        for matrix in absolute[:place]:
            into = into @ matrix
        out = np.ones(widths[-1])
        for matrix in reversed(absolute[place:]):
            out = matrix @ out
        for unit in range(width):
            wanted = into[unit] * out[unit] / product.sum()
            assert math.isclose(shares[first + unit], wanted, rel_tol=1e-12)
        first += width


@EVERY_BACKEND
def test_a_residual_block_with_a_small_branch_is_nearly_linear(name: str) -> None:
    # Skip of weight 1 beside four units, each of weight 1/8 in and 1/4 out: 1 + 1/8 in all.
    edges = [(0, 5)] + [(0, unit) for unit in range(1, 5)] + [(unit, 5) for unit in range(1, 5)]
    graph = PathGraph.from_edges([*edges, (5, 6)], weights=[1, *[1 / 8] * 4, *[1 / 4] * 4, 2])
    graph = graph.with_activity(np.where(np.diff(graph.indptr) == 1, graph.activity, 0.0))
    solution = backends.get(name).solve(graph)
    assert agree(solution.average, Fraction(4, 5), is_exact(name))
    assert agree(solution.magnitude_average, Fraction(1, 9), is_exact(name))
    assert solution.log10_magnitude is not None
    assert math.isclose(solution.log10_magnitude, math.log10(2.25), rel_tol=1e-13)
    backend: Any = backends.get(name)
    found = backend.distribution(graph, "magnitude")
    assert agree(found[0], Fraction(8, 9), is_exact(name)) or found[0] == pytest.approx(8 / 9)
    assert len(found) == 2


@EVERY_BACKEND
@pytest.mark.parametrize("weight", [1e-300, 1e-3, 7.0, 1e300])
def test_products_far_outside_the_range_of_floats(name: str, weight: float) -> None:
    # 4 edges a block along the branch, 1 along the skip: the skip's weight makes them equal.
    blocks = 500
    graph = tenfold_chain(blocks)
    targets = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    assert graph.node_ids is not None
    hop = graph.node_ids[targets] - graph.node_ids[graph.indices]
    graph = dataclasses.replace(graph, weights=np.where(hop == 8, 9 * weight, np.sqrt(weight)))
    # A branch of two edges into a unit and two out of it: 9 paths of sqrt(weight)**4 = weight**2.
    branch, skip = Fraction(float(np.sqrt(weight))) ** 4, Fraction(9 * weight)
    chance = 9 * branch / (9 * branch + skip)
    solution = backends.get(name).solve(graph)
    exact = is_exact(name)
    assert agree(solution.magnitude_average, 2 * blocks * chance, exact)
    assert solution.log10_magnitude is not None
    logarithm = blocks * log10(9 * branch + skip)
    assert math.isclose(solution.log10_magnitude, logarithm, rel_tol=1e-12)


@EVERY_BACKEND
def test_many_light_paths_against_one_heavy(name: str) -> None:
    # 10**400 paths that weigh 10**-400 each beside one path of weight 1: half of the weight.
    blocks = 400
    chain = tenfold_chain(blocks)
    assert chain.node_ids is not None
    targets = chain.node_ids[np.repeat(np.arange(chain.num_nodes), np.diff(chain.indptr))]
    sources = chain.node_ids[chain.indices]
    # The light factor stands on the last edges into each block's end.
    weights = np.where((targets % 8 == 0), 0.125, 1.0)
    weights[targets % 8 == 4] = 0.8
    weights[(targets - sources) == 8] = 0.1
    count = 9 * Fraction(0.8) * Fraction(0.125) + Fraction(0.1)  # of a block, nearly 1
    start, end = 8 * blocks + 1, 8 * blocks
    edges = [*zip(sources.tolist(), targets.tolist(), strict=True), (start, 0), (start, end + 2)]
    edges += [(end, end + 3), (end + 2, end + 3)]
    activity = dict.fromkeys(range(end + 4), 0.0) | {end + 2: 1.0}
    graph = PathGraph.from_edges(edges, weights=[*weights, 1, 1, 1, 1], activity=activity)
    solution = backends.get(name).solve(graph)
    wanted = 1 / (1 + count**blocks)
    assert math.isclose(wanted, 0.5, rel_tol=1e-9)
    assert agree(solution.magnitude_average, wanted, is_exact(name))


@EVERY_BACKEND
@settings(deadline=None, max_examples=25)
@given(case=random_graphs(weighted=True), data=st.data())
def test_rescaling_a_unit_changes_nothing(
    name: str, case: RandomGraph, data: st.DataObject
) -> None:
    # ReLU networks are the same function if a unit's inputs grow and its outputs shrink.
    graph = case.build()
    inner = np.flatnonzero((graph.kind != Kind.INPUT) & (graph.kind != Kind.OUTPUT))
    if not inner.size:
        return
    unit = data.draw(st.sampled_from(inner.tolist()))
    factor = 2.0 ** data.draw(st.integers(-20, 20))
    assert graph.weights is not None
    weights = graph.weights.copy()
    weights[graph.indptr[unit] : graph.indptr[unit + 1]] *= factor
    weights[graph.indices == unit] /= factor
    other = dataclasses.replace(graph, weights=weights)
    found, again = (backends.get(name).solve(g) for g in (graph, other))
    exact = is_exact(name)
    assert agree(again.magnitude_average, found.magnitude_average, exact)
    assert found.log10_magnitude is not None
    assert again.log10_magnitude is not None
    assert math.isclose(again.log10_magnitude, found.log10_magnitude, rel_tol=1e-12, abs_tol=1e-12)


@EVERY_BACKEND
def test_shares_are_read_only_and_add_up(name: str) -> None:
    graph = dataclasses.replace(figure_1(), weights=np.linspace(0.1, 3, figure_1().num_edges))
    solution = backends.get(name).solve(graph)
    assert solution.magnitude_share is not None
    for kind in (Kind.INPUT, Kind.OUTPUT):
        nodes = np.flatnonzero(graph.kind == kind).tolist()
        total = sum(solution.magnitude_share[node] for node in nodes)
        assert math.isclose(total, 1, rel_tol=1e-13)
    if not is_exact(name):
        assert isinstance(solution.magnitude_share, np.ndarray)
        assert not solution.magnitude_share.flags.writeable
