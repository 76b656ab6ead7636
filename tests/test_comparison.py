"""Two reports side by side: layers matched by name, changes that add up, what is refused."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import PathGraph, compare, linearize
from pathlen.errors import GraphError, PathlenError
from tests.path_graphs import RandomGraph, figure_1, random_graphs


def chain(names: list[str]) -> PathGraph:
    """An input, that many active units in a row, an output."""
    edges = [(i, i + 1) for i in range(len(names) + 1)]
    return PathGraph.from_edges(edges, layers=["in", *names, "out"])


def test_before_and_after() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2), nn.PReLU(2))
    x = torch.zeros(1, 3)
    before = pathlen.measure(model, x)
    with torch.no_grad():
        model[1].weight[:3] = 1.0  # three channels became linear
    comparison = compare(before, pathlen.measure(model, x))
    assert comparison.normalized_average_change == pytest.approx(-3 / 4)
    assert comparison.average_change == pytest.approx(-3 / 4)
    changed = [pair for pair in comparison.layers if pair.active_change]
    assert [(pair.name, pair.active_change) for pair in changed] == [("1", -3)]
    assert str(comparison).splitlines() == [
        "average path length             2 -> 1.25",
        "normalized average path length  2 -> 1.25",
        "active units                    6 -> 3",
        "",
        "layer  active        of average   change     of normalized   change",
        "1      4 -> 1  1.0000 -> 0.2500  -0.7500  1.0000 -> 0.2500  -0.7500",
        "3      2 -> 2  1.0000 -> 1.0000  +0.0000  1.0000 -> 1.0000  +0.0000",
    ]


@settings(deadline=None, max_examples=40)
@given(case=random_graphs(), data=st.data(), exact=st.booleans())
def test_changes_add_up(case: RandomGraph, data: st.DataObject, exact: bool) -> None:
    graph = case.build()
    names = [row.name for row in graph.layers]
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1))
    other = linearize(graph, layers=chosen)
    comparison = compare(pathlen.measure(graph, exact=exact), pathlen.measure(other, exact=exact))
    close = (lambda value: value) if exact else (lambda value: pytest.approx(value, abs=1e-12))
    total = sum(pair.contribution_change for pair in comparison.layers)
    assert total == close(comparison.average_change)
    total = sum(pair.normalized_contribution_change for pair in comparison.layers)
    assert total == close(comparison.normalized_average_change)
    # Only the layers that were linearized lose anything, and they lose all they had.
    for pair in comparison.layers:
        assert pair.before is not None
        assert pair.after is not None
        lost = pair.before.contribution if pair.name in chosen else 0
        assert pair.contribution_change == close(-lost)
    same = compare(graph, graph)
    assert same.average_change == 0
    assert same.only_before == same.only_after == ()


def test_layers_in_only_one() -> None:
    comparison = compare(chain(["a", "b"]), chain(["b", "c", "d"]))
    assert [pair.name for pair in comparison.layers] == ["in", "a", "b", "out", "c", "d"]
    assert comparison.only_before == ("a",)
    assert comparison.only_after == ("c", "d")
    by_name = {pair.name: pair for pair in comparison.layers}
    assert (by_name["a"].active_change, by_name["a"].contribution_change) == (-1, -1)
    assert (by_name["c"].active_change, by_name["c"].normalized_contribution_change) == (1, 1)
    text = str(comparison)
    assert "layers only before              a\n" in text
    assert "layers only after               c, d\n" in text
    assert "1 -> none" in text
    assert comparison.to_dict()["only_after"] == ["c", "d"]


def test_as_data() -> None:
    graph = figure_1()
    reports = pathlen.measure(graph, exact=True), pathlen.measure(chain(["generation 2"]))
    record = json.loads(json.dumps(compare(*reports).to_dict(), allow_nan=False))
    assert record["average_path_length_before_exact"] == "1024/257"
    assert record["average_path_length_after"] == 1
    assert record["average_path_length_change"] == pytest.approx(1 - 1024 / 257)
    assert record["num_active_change"] == 1 - 16
    layer = next(row for row in record["layers"] if row["name"] == "generation 1")
    assert layer["units_before"] == 1
    assert layer["units_after"] is None
    assert layer["contribution_after"] is None
    both = compare(reports[0], linearize(graph, layers="*"))
    assert both.average_change == pytest.approx(-1024 / 257)
    exact = compare(reports[0], pathlen.measure(linearize(graph, layers="*"), exact=True))
    assert exact.average_change == -Fraction(1024, 257)
    assert exact.to_dict()["average_path_length_change_exact"] == "-1024/257"


def test_different_networks_are_refused() -> None:
    with pytest.raises(GraphError, match=r"different networks: .* \(a, b and c, d, e and 1 more\)"):
        compare(chain(["a", "b"]), chain(["c", "d", "e", "f"]))


def test_networks_without_inner_layers_have_nothing_to_match() -> None:
    bare = PathGraph.from_edges([(0, 1)], layers=["in", "out"])
    assert compare(bare, chain(["a"])).only_after == ("a",)


def test_a_model_is_not_a_report() -> None:
    with pytest.raises(PathlenError, match="not Linear; measure the model first"):
        compare(nn.Linear(1, 1), figure_1())  # type: ignore[arg-type]


def test_long_tables_lose_their_middle() -> None:
    names = [f"unit{i}" for i in range(60)]
    text = str(compare(chain(names), chain(names)))
    assert "... 30 more layers ..." in text
    assert "unit30" not in text


def test_html_escapes_what_came_from_the_model() -> None:
    graph = chain(["<b>"])
    html = compare(graph, linearize(graph, layers="*"))._repr_html_()
    assert "<b>" not in html
    assert "<td>&lt;b&gt;</td><td>1 -&gt; 0</td>" in html
    assert "<td style='text-align:left'>1 -&gt; 0</td>" in html
    assert html.count("<table>") == html.count("</table>") == 2
