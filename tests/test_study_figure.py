"""Figures of studies: what is drawn is what the claim is about."""

from __future__ import annotations

import pytest

from pathlen.errors import StudyError
from pathlen.training.study import judge
from pathlen.training.study.figure import draw
from pathlen.training.study.results import Case, Record, Results

SIDES = {"better": {"case": "late"}, "than": {"case": "early"}}


def study(verdict, runs, **settings):
    """Results of runs, each (labels, seed, columns)."""
    records = [
        Record(labels, seed, "", "test_accuracy", last, {}, [last], {}, {})
        for labels, seed, last in runs
    ]
    cases = tuple(Case(one.labels, (one,), 1) for one in records)
    labels = runs[0][0] if runs else {}
    facts = {"verdict": verdict, "cases": ["late"] if "case" in labels else [], "series": None}
    return Results(facts | settings, tuple(records), cases)


def curve():
    for seed, knee in enumerate([2.5, 3.0, 3.5]):
        for number, depth in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 14.0]):
            accuracy = 0.9 + 0.2 * min(depth - knee, 0.0)
            yield {"omega": number}, seed, {"test_accuracy": accuracy, "napl": depth}


def sides(along="classes"):
    for place, gap in [(2, 0.01), (5, 0.03), (10, 0.07)]:
        for seed in range(2):
            for case, accuracy in [("late", 0.8 + gap), ("early", 0.8)]:
                yield (
                    {"case": case, along: place},
                    seed,
                    {"test_accuracy": accuracy, "napl": 1.0, "effective_width": 4.0 + place},
                )


def test_a_knee_is_drawn_where_the_verdict_has_it():
    results = study({"kind": "knee", "along": "omega"}, [*curve()])
    axes = draw(results)
    knee = next(one for one in judge(results) if one.says == "located")
    (line,) = [
        line
        for line in axes.lines
        if len(set(line.get_xdata())) == 1 and line.get_xdata()[0] == pytest.approx(knee.value)
    ]
    assert line is not None
    plain = draw(study([], [*curve()]))
    assert plain.get_xlabel() == axes.get_xlabel() == "normalized average path length"
    assert len(plain.lines) < len(axes.lines)


def test_growth_draws_the_gap_of_each_seed():
    claim = SIDES | {"kind": "growth", "along": "classes"}
    axes = draw(study(claim, [*sides()]))
    drawn = {
        (x, round(y, 6)) for line in axes.lines for x, y in line.get_xydata().tolist() if x > 1
    }
    assert sorted(drawn) == [(2, 1.0), (5, 3.0), (10, 7.0)]
    assert "classes" in axes.get_xlabel()


def test_growth_draws_the_gap_of_the_column_that_is_asked_for():
    claim = SIDES | {"kind": "growth", "along": "classes"}
    axes = draw(study(claim, [*sides()]), "effective_width")  # the same on both sides
    gaps = {y for line in axes.lines for x, y in line.get_xydata().tolist() if x > 1}
    assert gaps == {0.0}


def test_steadiness_draws_a_panel_for_each_column():
    claims = [
        {"kind": "steadiness", "metric": name, "along": "classes"}
        for name in ("napl", "effective_width")
    ]
    axes = draw(study(claims, [*sides()]))
    panels = axes.figure.axes
    assert [panel.get_ylabel() for panel in panels] == ["NAPL", "effective width"]
    assert [panel.get_xscale() for panel in panels] == ["log", "log"]
    only = draw(study(claims, [*sides()]), "test_accuracy")
    assert len(only.figure.axes) == 1


def test_cases_one_below_another():
    axes = draw(study(SIDES, [*sides()], figure="cases"))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "late, classes 2"
    assert len(names) == 6
    one = [run for run in sides() if run[0]["classes"] == 2]  # what all share is left out
    axes = draw(study(SIDES, one, figure="cases"))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["late", "early"]


def test_what_cannot_be_drawn():
    with pytest.raises(StudyError, match="nothing to draw yet"):
        draw(study(SIDES, []))
    with pytest.raises(StudyError, match="not every run has 'bleu'"):
        draw(study(SIDES, [*sides()], figure="cases"), "bleu")
    with pytest.raises(StudyError, match="a trend is that of a verdict"):
        draw(study(SIDES, [*sides()], figure="trend"))
