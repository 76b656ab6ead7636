"""Figures of claims: knees, trends and rows of cases, against the numbers of the runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib import pyplot

from pathlen import figures
from pathlen.errors import DataError
from tests.figure_cases import case_runs, drawn_labels, omega_runs, tradeoff_runs, trend_runs


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


# Knees


def test_a_knee_is_a_line_in_a_band_over_the_axis_of_depths():
    ax = figures.plot_tradeoff(tradeoff_runs(), knee=(2.93, 2.0, 20.0))
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (2.0, 20.0)
    assert [line.get_xdata() for line in ax.lines if list(line.get_ydata()) == [0, 1]] == [
        [2.93, 2.93]
    ]
    assert [text.get_text() for text in ax.texts] == ["knee 2.9"]
    assert ax.get_xlim()[1] > 20  # the whole interval is seen


def test_knees_of_series_have_their_colours_and_stay_inside():
    knees = {"early": (11.3, 11.0, 11.6), "late": (0.5, 0.2, 0.9)}
    ax = figures.plot_tradeoff(tradeoff_runs(), knee=knees)
    colors = {c.lines[0].get_label(): c.lines[0].get_color() for c in ax.containers}
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [
        ("knee 0.5", colors["late"]),
        ("knee 11.3", colors["early"]),
    ]
    ax.figure.canvas.draw()
    for text in ax.texts:
        box = text.get_window_extent()
        assert ax.bbox.x0 <= box.x0
        assert box.x1 <= ax.bbox.x1
    one = figures.plot_tradeoff(tradeoff_runs(), knee={"late": (2.0, 2.0, 2.0)})
    assert len(one.texts) == 1


@pytest.mark.parametrize(
    ("knee", "message"),
    [
        ((1.0, 2.0), r"three numbers \(place, low, high\), not \(1.0, 2.0\)"),
        (3.0, "three numbers"),
        ((1.0, None, 2.0), "three numbers"),
        ((1.0, float("nan"), 2.0), "the knee must be finite"),
        ((1.0, 2.0, 0.5), "low is 2 and high is 0.5"),
        ({"later": (1.0, 0.5, 2.0)}, "no series 'later'; use one of 'late', 'early'"),
        ({"late": (1.0, 2.0)}, "the knee of 'late' should be three numbers"),
    ],
)
def test_knees_that_cannot_be_drawn(knee, message):
    with pytest.raises(DataError, match=message):
        figures.plot_tradeoff(tradeoff_runs(), knee=knee)


# Trends


def every_resample(values: list[float]) -> tuple[float, float]:
    """The percentile interval of the mean over all n^n resamples, listed one by one."""
    means = sorted(np.mean(some) for some in itertools.product(values, repeat=len(values)))
    return np.quantile(means, 0.025), np.quantile(means, 0.975)


def test_lines_go_through_means_in_a_bootstrap_band():
    runs = trend_runs()
    first = figures.plot_trend(runs, x="classes", y=["test_accuracy", "napl"])
    assert len(first.figure.axes) == 2
    for ax, name, factor in zip(
        first.figure.axes, ["test_accuracy", "napl"], [100, 1], strict=True
    ):
        lines = [line for line in ax.lines if line.get_alpha() is None]
        assert [line.get_label() for line in lines] == ["late", "early"]
        for line, band in zip(lines, ax.collections, strict=True):
            mine = [run for run in runs if run["series"] == line.get_label()]
            groups = [[factor * r[name] for r in mine if r["classes"] == c] for c in (2, 5, 10)]
            assert list(line.get_xdata()) == [2, 5, 10]
            assert line.get_ydata() == pytest.approx([np.mean(group) for group in groups])
            corners = band.get_paths()[0].vertices
            for place, group in zip((2, 5, 10), groups, strict=True):
                ends = corners[corners[:, 0] == place][:, 1]
                reach = max(group) - min(group)
                assert (ends.min(), ends.max()) == pytest.approx(
                    every_resample(group), abs=0.03 * reach
                )
        pale = [line for line in ax.lines if line.get_alpha() == 0.4]
        assert sum(len(line.get_xdata()) for line in pale) == len(runs)
        assert list(ax.get_xticks()) == [2, 5, 10]
        assert ax.get_xlabel() == "classes"
    assert [ax.get_ylabel() for ax in first.figure.axes] == ["test accuracy (%)", "NAPL"]
    (legend,) = first.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "late",
        "early",
        "mean, 95 % interval",
    ]


def test_differences_on_a_logarithmic_axis():
    ax = figures.plot_trend(omega_runs(), x="omega", y="accuracy", log_x=True, zero=True)
    assert ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("strength of the prior (ω)", "accuracy (points)")
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)
    # 0.1 has one run, and so no interval: the band has a gap there
    (band,) = ax.collections
    shaded = {x for path in band.get_paths() for x in path.vertices[:, 0]}
    assert shaded == {0.01, 0.02, 0.2, 0.5, 1.0, 2.0}


def test_an_interval_without_neighbours_is_a_bar():
    runs = [{"depth": 1, "napl": 1.0}, *({"depth": 2, "napl": float(n)} for n in range(4))]
    ax = figures.plot_trend(runs, x="depth", y="napl")
    (bar,) = ax.collections[1].get_segments()
    assert list(bar[:, 0]) == [2, 2]
    assert list(bar[:, 1]) == pytest.approx(every_resample([0, 1, 2, 3]), abs=0.1)


def test_one_run_is_a_point_without_an_interval():
    ax = figures.plot_trend([{"omega": 0.1, "napl": 2.0}], x="omega", y="napl")
    (point,) = ax.lines
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([0.1], [2.0])
    assert ax.get_legend() is None
    assert list(ax.get_xticks()) == [0.1]


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize(
    "places", [[2, 5, 10], [2, 3, 100], [0.01, 0.011, 5], [*range(1, 40)], [1e-6, 1e6], [7]]
)
def test_labels_of_values_never_overlap(places, log_x):
    runs = [{"x": place, "napl": 1.0 + place} for place in places]
    ax = figures.plot_trend(runs, x="x", y=["napl"] * 4, log_x=log_x)
    boxes = drawn_labels(ax)
    for left, right in itertools.pairwise(boxes):
        assert left.x1 <= right.x0


def test_trends_in_axes_of_the_caller_and_of_a_table():
    import pandas

    _, axes = pyplot.subplots(1, 3)
    table = pandas.DataFrame(trend_runs())
    names = ["napl", "test_accuracy"]
    assert figures.plot_trend(table, axes[1:], x="classes", y=names) is axes[1]
    assert not axes[0].has_data()
    assert axes[2].get_ylabel() == "test accuracy (%)"
    assert len(axes[1].get_legend().get_texts()) == 3
    with pytest.raises(DataError, match="2 panels to draw and 3 axes"):
        figures.plot_trend(table, axes, x="classes", y=names)


WHOLE = {"classes": 2, "napl": 1.0}


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "no runs to draw: give at least one"),
        (WHOLE, {}, "a sequence of mappings"),
        ("metrics.jsonl", {}, "a sequence of mappings"),
        ([WHOLE, 3], {}, "run 2: 3 is no mapping"),
        ([{"napl": 1.0}], {}, "no row has 'classes'; there are 'napl'"),
        ([WHOLE, {"classes": 2}], {}, "run 2: 'napl' must be a finite number, not None"),
        ([WHOLE, {**WHOLE, "napl": float("nan")}], {}, "run 2: 'napl' must be a finite"),
        ([{**WHOLE, "classes": "few"}], {}, "'classes' should be a number, not 'few'"),
        ([WHOLE], {"y": []}, "y names no column"),
        ([{**WHOLE, "classes": 0}], {"log_x": True}, "no place on a logarithmic axis"),
        ([WHOLE, {**WHOLE, "series": "a"}], {}, "run 1 has no 'series', and others have"),
        ([{**WHOLE, "accuracy": -0.1}], {"y": "accuracy"}, "between 0 and 1; there is -0.1"),
        (
            [{**WHOLE, "accuracy": -1.1}],
            {"y": "accuracy", "zero": True},
            "between -1 and 1; there is -1.1",
        ),
    ],
)
def test_trends_that_cannot_be_drawn(runs, options, message):
    with pytest.raises(DataError, match=message):
        figures.plot_trend(runs, **{"x": "classes", "y": "napl", **options})


# Cases


def test_a_row_of_dots_for_each_case_in_a_panel_for_each_setting():
    runs = case_runs()
    first = figures.plot_cases(runs, reference="from the start")
    cases = list(dict.fromkeys(run["case"] for run in runs))
    assert [text.get_text().replace("\n", " ") for text in first.get_yticklabels()] == cases
    assert first.yaxis_inverted()
    for ax, setting in zip(first.figure.axes, ["NAPL 25 %", "NAPL 50 %"], strict=True):
        assert ax.get_title(loc="left") == setting
        assert ax.get_xlabel() == "test accuracy (%)"
        means = []
        for container, case, row in zip(ax.containers, cases, first.get_yticks(), strict=True):
            group = [
                100 * run["test_accuracy"]
                for run in runs
                if run["case"] == case and run["setting"] == setting
            ]
            dot, _, bars = container.lines
            means.append(np.mean(group))
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((means[-1], row))
            pale = [line for line in ax.lines if line.get_alpha() == 0.4]
            mine = [line.get_xdata() for line in pale if line.get_ydata()[0] == row]
            if len(group) == 1:
                assert not bars
                assert not mine
                continue
            assert sorted(mine[0]) == pytest.approx(sorted(group))
            (bar,) = bars[0].get_segments()
            reach = max(group) - min(group)
            assert list(bar[:, 0]) == pytest.approx(every_resample(group), abs=0.03 * reach)
        reference = [line for line in ax.lines if list(line.get_ydata()) == [0, 1]]
        assert [line.get_xdata()[0] for line in reference] == pytest.approx(means[:1])


def test_cases_without_settings_are_one_panel_as_high_as_its_names():
    def drawn(names):
        return figures.plot_cases(
            [{"case": name, "bleu": 20.0} for name in names for _ in range(2)]
        )

    ax = drawn("abc")
    assert len(ax.figure.axes) == 1
    assert ax.get_title(loc="left") == ""
    assert ax.get_xlabel() == "BLEU"
    for names in (
        [f"case {number}" for number in range(12)],
        [f"{'a rather long name ' * (number % 5 + 1)}{number}" for number in range(12)],
    ):
        ax = drawn(names)
        ax.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        for upper, lower in itertools.pairwise(boxes):
            assert lower.y1 <= upper.y0


def test_a_reference_is_drawn_where_it_has_runs_and_gaps_stay_empty():
    runs = [run for run in case_runs() if run["case"] != "pruned" or run["setting"] == "NAPL 50 %"]
    first = figures.plot_cases(runs, reference="pruned")
    lines = [
        [line for line in ax.lines if list(line.get_ydata()) == [0, 1]] for ax in first.figure.axes
    ]
    assert [len(part) for part in lines] == [0, 1]
    assert [len(ax.containers) for ax in first.figure.axes] == [2, 3]
    _, axes = pyplot.subplots(1, 2)
    assert figures.plot_cases(runs, axes) is axes[0]


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "no runs to draw: give at least one"),
        ([{"accuracy": 0.5}], {}, "no run has a 'case'"),
        ([{"case": "a", "accuracy": 0.5}, {"accuracy": 0.5}], {}, "run 2 has no 'case'"),
        ([{"case": "a", "loss": 0.5}], {}, "name the metric, one of 'case', 'loss'"),
        ([{"case": "a", "accuracy": 0.5}], {"metric": "napl"}, "no row has 'napl'"),
        (
            [{"case": "a", "accuracy": 0.5}, {"case": "b", "accuracy": None}],
            {},
            "run 2: 'accuracy' must be a finite number, not None",
        ),
        (
            [{"case": "a", "accuracy": 0.5}, {"case": "b", "accuracy": 0.5}],
            {"reference": "c"},
            "no case 'c'; use one of 'a', 'b'",
        ),
        (
            [{"case": "a", "accuracy": 0.5, "setting": 1}, {"case": "b", "accuracy": 0.5}],
            {},
            "run 2 has no 'setting'",
        ),
    ],
)
def test_cases_that_cannot_be_drawn(runs, options, message):
    with pytest.raises(DataError, match=message):
        figures.plot_cases(runs, **options)
