"""Reports: figure 1 of the paper by hand, the forms of the numbers, and what is shown of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import pathlen
from pathlen import PathGraph, Report, backends
from pathlen.errors import BackendError
from pathlen.show.text import FULL_TABLE, SHOWN_AT_EACH_END, count_text, number_text


def figure_1() -> PathGraph:
    """An input, four layers of four active units, a linear sum of the last, and a skip over all.

    The sum is one node, so that the walk from the output takes it or the skip, half and half.
    """
    columns = [[0], *([first, first + 1, first + 2, first + 3] for first in (1, 5, 9, 13)), [17]]
    edges = [(0, 18), (17, 18)]
    for left, right in itertools.pairwise(columns):
        edges += [(a, b) for a in left for b in right]
    return PathGraph.from_edges(edges, activity=[0.0, *[1.0] * 16, 0.0, 0.0])


def chain(length: int, names: list[str] | None = None) -> PathGraph:
    """An input, that many active units in a row, an output."""
    return PathGraph.from_edges([(i, i + 1) for i in range(length + 1)], layers=names)


def as_floats(solution):
    """The same solution as a backend that computes in floats would give it."""
    return dataclasses.replace(
        solution,
        average=float(solution.average),
        normalized_average=float(solution.normalized_average),
        path_count=None,
        longest_path=float(solution.longest_path),
        shortest_path=float(solution.shortest_path),
        path_share=np.array([float(share) for share in solution.path_share]),
        walk_share=np.array([float(share) for share in solution.walk_share]),
    )


def build(graph: PathGraph, *, exact: bool) -> Report:
    solution = backends.get("exact").solve(graph)
    if not exact:
        solution = as_floats(solution)
    return Report.build(graph, solution, backend="by hand", seconds={"solve": 0.25}, exact=exact)


def test_figure_1_in_fractions():
    report = build(figure_1(), exact=True)
    assert report.path_count == 257
    assert report.average_path_length == Fraction(1024, 257)
    assert report.normalized_average_path_length == 2
    assert isinstance(report.normalized_average_path_length, Fraction)
    assert (report.longest_path, report.shortest_path) == (4, 0)
    assert (report.num_units, report.num_active) == (17, 16)
    assert report.effective_width == 4
    assert report.width_profile == (4, 4, 4, 4)
    active = [row for row in report.layers if row.active]
    assert [row.contribution for row in active] == [Fraction(256, 257)] * 4
    assert [row.normalized_contribution for row in active] == [Fraction(1, 2)] * 4


def test_figure_1_in_floats():
    report = build(figure_1(), exact=False)
    assert report.average_path_length == pytest.approx(1024 / 257, rel=1e-14)
    assert isinstance(report.average_path_length, float)
    assert isinstance(report.layers[0].contribution, float)
    assert type(report.longest_path) is int
    assert report.path_count == 257  # counted when asked for, by the exact backend


@pytest.mark.parametrize("exact", [True, False])
def test_contributions_add_up_to_the_averages(exact):
    rng = np.random.default_rng(0)
    edges = [(a, b) for b in range(30) for a in range(b) if rng.random() < 0.2]
    # Inputs are active too, which a layer of the table must carry.
    graph = PathGraph.from_edges(edges, activity=rng.random(30).round(3))
    report = build(graph, exact=exact)
    total = sum(row.contribution for row in report.layers)
    normalized = sum(row.normalized_contribution for row in report.layers)
    close = pytest.approx if not exact else lambda value, rel: value
    assert total == close(report.average_path_length, rel=1e-12)
    assert normalized == close(report.normalized_average_path_length, rel=1e-12)


def test_effective_width_weighs_layers_by_their_walks():
    # a (1 unit) then b (2 units), and a skip over b: the walk meets a always and b half the time.
    edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (1, 5), (4, 5)]
    activity = [0, 1, 1, 1, 0, 0]
    graph = PathGraph.from_edges(
        edges, activity=activity, layers=["in", "a", "b", "b", "sum", "out"]
    )
    report = build(graph, exact=True)
    assert report.normalized_average_path_length == Fraction(3, 2)
    assert report.effective_width == (1 * 1 + Fraction(1, 2) * 2) / Fraction(3, 2)


def test_a_linear_network_has_width_zero_and_still_its_layers():
    report = build(chain(3).with_activity(np.zeros(5)), exact=True)
    assert report.average_path_length == report.effective_width == 0
    assert report.width_profile == (0, 0, 0)
    assert "0 of 3 units" in str(report)


def test_soft_activities_give_lengths_that_are_not_whole():
    graph = chain(2).with_activity([0, 0.5, 0.25, 0])
    assert build(graph, exact=False).longest_path == 0.75
    assert build(graph, exact=True).longest_path == Fraction(3, 4)


def test_exact_reports_are_not_made_from_floats():
    graph = chain(1)
    solution = as_floats(backends.get("exact").solve(graph))
    with pytest.raises(BackendError, match="use backend='exact'"):
        Report.build(graph, solution, backend="numba", seconds={}, exact=True)


def test_a_report_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(chain(1), exact=False).num_units = 3


def test_json_holds_floats_beside_fractions():
    record = json.loads(build(figure_1(), exact=True).to_json())
    assert record["path_count"] == "257"
    assert record["average_path_length_exact"] == "1024/257"
    assert record["average_path_length"] == 1024 / 257
    assert record["normalized_average_path_length_exact"] == "2/1"
    assert record["layers"][1]["contribution_exact"] == "256/257"
    assert record["longest_path"] == 4
    assert record["seconds"] == {"solve": 0.25}
    assert record["width_profile"] == [4, 4, 4, 4]


def test_json_of_floats_has_no_fractions():
    text = build(figure_1(), exact=False).to_json(indent=None)
    assert "_exact" not in text
    assert "\n" not in text


def wide_and_deep(layers: int, width: int) -> PathGraph:
    """Fully connected layers through hubs that are nodes of activity 0: width ** layers paths."""
    edges, last, activity = [], 0, [0.0]
    for _ in range(layers):
        units = range(last + 1, last + 1 + width)
        edges += [(last, unit) for unit in units]
        last += width + 1
        edges += [(unit, last) for unit in units]
        activity += [1.0] * width + [0.0]
    return PathGraph.from_edges(edges, activity=activity)


@pytest.mark.parametrize("exact", [True, False])
def test_path_counts_of_more_digits_than_str_takes(exact):
    report = build(wide_and_deep(layers=5000, width=10), exact=exact)
    assert report.path_count == 10**5000
    record = json.loads(report.to_json())
    assert record["path_count"] == "1" + "0" * 5000
    assert record["log10_path_count"] == pytest.approx(5000)
    assert "1.000e5000" in str(report)


def test_text_is_aligned():
    text = str(build(chain(2, ["in", "first", "a.much.longer.name", "out"]), exact=False))
    head, first, second = text.splitlines()[-3:]
    assert head.index("operation") == first.index("first") + len("a.much.longer.name") + 2
    assert len(first) == len(second) == len(head)


def test_long_tables_lose_their_middle():
    length = FULL_TABLE + 5
    names = ["in", *(f"unit{i}" for i in range(length)), "out"]
    text = str(build(chain(length, names), exact=False))
    hidden = length - 2 * SHOWN_AT_EACH_END
    assert f"... {hidden} more layers ..." in text
    assert "unit0 " in text
    assert f"unit{length - 1} " in text
    assert f"unit{length // 2} " not in text


def test_html_escapes_what_came_from_the_model():
    html = build(chain(1, ["in", "<script>alert(1)</script>", "out"]), exact=False)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<table>") == html.count("</table>") == 2


@pytest.mark.parametrize(
    ("log10_count", "text"),
    [
        (0.0, "1"),
        (np.log10(257), "257"),
        (np.log10(123456789), "123,456,789"),
        (12 + np.log10(2.5), "2.500e12"),
        (20 - 1e-9, "1.000e20"),
    ],
)
def test_count_text(log10_count, text):
    assert count_text(float(log10_count)) == text


def test_number_text():
    assert number_text(4.0) == "4"
    assert number_text(Fraction(1024, 257)) == "1024/257 = 3.98444"
    assert number_text(Fraction(2)) == "2"
    assert number_text(Fraction(10**6000 + 1, 10**6000)) == "1"


def test_a_sum_with_a_padded_shortcut_is_no_activation():
    # Unit 4 reads one unit only, as where a shortcut is padded with zeros; its neighbour 5 two.
    edges = [(0, 1), (0, 2), (0, 3), (2, 4), (3, 5), (1, 5), (4, 6), (5, 7), (6, 8), (7, 8)]
    names = ["in", "before", "before", "before", "sum", "sum", "relu", "relu", "out"]
    graph = PathGraph.from_edges(edges, activity=[0, 0, 0, 0, 0, 0, 1, 1, 0], layers=names)
    rows = {row.name: row for row in build(graph, exact=True).layers}
    assert not rows["sum"].activation
    assert rows["relu"].activation
    assert list(rows) == ["in", "before", "sum", "relu", "out"]


def test_a_convolution_of_one_channel_is_no_place_of_an_activation():
    # each of its units reads one unit alone, as those of an activation do
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU())
    report = pathlen.measure(model, torch.randn(1, 1, 8, 8))
    assert [row.name for row in report.activation_layers] == ["2"]
    assert report.width_profile == (4,)
