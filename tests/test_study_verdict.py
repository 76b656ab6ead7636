"""Verdicts: what is computed from the runs of a study, beside what is worked out otherwise."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from pathlen.errors import SettingsError, StudyError
from pathlen.training.study import judge, load_study, make_study
from pathlen.training.study.results import Case as Finished
from pathlen.training.study.results import Record, Results
from tests.studies import settings

SIDES = {"better": {"case": "late"}, "than": {"case": "early"}, "metric": None, "confidence": 0.95}


def record(case, depth, seed, accuracy):
    last = {"test_accuracy": accuracy, "napl": depth}
    labels = {"case": case, "depth": depth}
    return Record(labels, seed, f"{case}{seed}", "test_accuracy", last, {}, [last], {}, {})


def results(records, verdict=SIDES):
    cases = tuple(Finished(one.labels, (one,), 1) for one in records)
    return Results({"verdict": verdict}, tuple(records), cases)


def of(late, early, depth=3):
    pairs = [("late", late), ("early", early)]
    return [
        record(case, depth, seed, value)
        for case, values in pairs
        for seed, value in enumerate(values)
    ]


def test_numbers_of_a_comparison():
    late, early = [0.9, 0.8, 0.95, 0.85], [0.7, 0.75, 0.8, 0.7]
    (found,) = judge(results(of(late, early)))
    differences = [one - two for one, two in zip(late, early, strict=True)]
    assert found.value == pytest.approx(0.1375)
    assert found.effect == pytest.approx(0.1375 / statistics.stdev(differences))
    # all 4^4 resamples of four seeds, in place of random ones
    means = sorted(statistics.fmean(draw) for draw in itertools.product(differences, repeat=4))
    assert means[0] <= found.low <= means[len(means) // 20]
    assert means[-len(means) // 20] <= found.high <= means[-1]
    assert (found.says, found.seeds, dict(found.at)) == ("supported", 4, {"depth": 3})


@pytest.mark.parametrize(
    ("late", "early", "says"),
    [
        ([0.7, 0.8], [0.8, 0.9], "contradicted"),
        ([0.7, 0.9, 0.8], [0.8, 0.8, 0.8], "not decided"),
        ([0.8, 0.8], [0.8, 0.8], "not decided"),
    ],
)
def test_what_it_says(late, early, says):
    assert judge(results(of(late, early)))[0].says == says


def test_seeds_are_paired_and_settings_kept_apart():
    records = of([0.9, 0.9, 0.1], [0.5, 0.5]) + of([0.4, 0.4], [0.6, 0.6], depth=1)
    deep, shallow = judge(results(records))
    assert (deep.value, deep.seeds) == (pytest.approx(0.4), 2)  # the third has no partner
    assert deep.effect == math.inf
    assert shallow.value == pytest.approx(-0.2)
    assert judge(results(of([0.9], [0.5]))) == []  # one pair has no spread


@pytest.mark.parametrize(
    "claim",
    [
        {"kind": "knee", "along": "omega"},
        {"kind": "steadiness", "along": "omega", "metric": "napl"},
    ],
)
def test_there_is_nothing_to_say_before_a_run_is_finished(claim):
    assert judge(results([], claim)) == []


def test_what_cannot_be_judged():
    with pytest.raises(StudyError, match="no 'verdict'"):
        judge(results(of([0.9], [0.5]), None))
    with pytest.raises(StudyError, match=r"verdict.than: no case"):
        judge(results(of([0.9], [0.5]), SIDES | {"than": {"case": "never"}}))
    with pytest.raises(StudyError, match="not every run has 'bleu'"):
        judge(results(of([0.9, 0.8], [0.5, 0.5]), SIDES | {"metric": "bleu"}))


def test_settings_of_verdicts():
    sides = {"better": {"omega": 0.1}, "than": {"omega": 5.0}}
    assert make_study(settings(verdict=sides)).verdict[0].confidence == 0.95
    for wrong, message in [
        ({"better": {"omega": 1}}, "'than' is missing"),
        (sides | {"then": 1}, "did you mean 'than'"),
        ({"better": {"omga": 1}, "than": {"omga": 2}}, "did you mean 'omega'"),
        ({"better": {"omega": 1}, "than": {"case": 2}}, "must name the same labels"),
    ]:
        with pytest.raises(SettingsError, match=message):
            make_study(settings(verdict=wrong))
    late = load_study("late_beats_early")
    assert late.verdict[0].better["case"] in [case.label for case in late.cases]


def run_at(labels, seed, **columns):
    last = {"test_accuracy": 0.5, "napl": 1.0} | columns
    return Record(labels, seed, "", "test_accuracy", last, {}, [last], {}, {})


def test_a_gap_that_grows():
    # late is ahead by 1, 3 and 7 points at 2, 5 and 10 classes, give or take the same for a seed
    records = []
    for classes, gap in [(2, 0.01), (5, 0.03), (10, 0.07)]:
        for seed, extra in enumerate([-0.002, 0.0, 0.002]):
            labels = {"classes": classes, "omega": 1}
            late = 0.8 + gap + extra * classes
            records.append(run_at({"case": "late"} | labels, seed, test_accuracy=late))
            records.append(run_at({"case": "early"} | labels, seed, test_accuracy=0.8))
    claim = SIDES | {"kind": "growth", "along": "classes"}
    (found,) = judge(results(records, claim))
    line = statistics.linear_regression([2, 5, 10], [0.01, 0.03, 0.07])
    assert found.value == pytest.approx(line.slope * 8)
    assert (found.says, found.seeds, dict(found.at)) == ("supported", 3, {"omega": 1})
    assert found.low == pytest.approx(line.slope * 8 - 0.016, abs=1e-9)  # one seed, drawn thrice
    assert found.number == "more of late against early at classes 10 than at 2"
    only = [one for one in records if one.labels["classes"] == 2]
    assert judge(results(only, claim)) == []  # one value is no growth
    named = [run_at(dict(one.labels) | {"classes": "two"}, one.seed) for one in records]
    with pytest.raises(StudyError, match="classes has to be a number"):
        judge(results(named, claim))


@pytest.mark.parametrize("collapses", [True, False])
def test_a_knee_is_found_where_two_lines_meet(collapses):
    depths = [0.5, 1.0, 2.0, 4.0, 8.0, 14.0]
    records = []
    for seed, knee in enumerate([2.5, 3.0, 3.5]):
        for number, depth in enumerate(depths):
            below = min(depth - knee, 0.0) if collapses else (-1) ** (number + seed) * 0.1
            accuracy = 0.9 + 0.001 * (depth - knee) + 0.2 * below
            records.append(run_at({"omega": number}, seed, test_accuracy=accuracy, napl=depth))
    place, bend, decay = judge(results(records, {"kind": "knee", "along": "omega"}))
    assert (place.metric, bend.metric, place.seeds) == ("napl", "test_accuracy", 3)
    if not collapses:
        assert (place.says, bend.says) == ("not decided", "not decided")
        return
    assert (place.says, bend.says, decay.says) == ("located", "supported", "")
    assert place.value == pytest.approx(3.0, abs=0.02)
    assert 2.49 < place.low < place.high < 3.51
    assert bend.value == pytest.approx(0.2, rel=0.02)
    assert decay.value == pytest.approx(0.011, rel=0.05)


def test_a_curve_of_few_points_has_no_knee():
    records = [run_at({"omega": n}, seed, napl=n) for n in range(4) for seed in range(3)]
    assert judge(results(records, {"kind": "knee", "along": "omega"})) == []


@pytest.mark.parametrize(
    ("slope", "says"), [(0.02, "supported"), (-0.5, "contradicted"), (0.1, "not decided")]
)
def test_steadiness(slope, says):
    records = [
        run_at({"omega": omega}, seed, effective_width=10 * (1 + (slope + extra) * step))
        for seed, extra in enumerate([-0.01, 0.0, 0.01])
        for step, omega in enumerate([0.5, 1.0, 2.0], start=-1)  # the mean is 10
    ]
    claim = {"kind": "steadiness", "metric": "effective_width", "along": "omega"}
    (found,) = judge(results(records, claim))
    assert (found.value, found.says) == (pytest.approx(slope), says)
    assert found.effect == pytest.approx(slope / 0.01)
    for wrong, message in [
        ({"omega": 0.0}, "0 is never doubled"),
        ({"omega": -1.0}, "has to be a number"),
    ]:
        with pytest.raises(StudyError, match=message):
            judge(
                results(
                    [*records, *(run_at(wrong, seed, effective_width=1) for seed in (0, 1, 2))],
                    claim,
                )
            )
    flat = [run_at(one.labels, one.seed, effective_width=0) for one in records]
    with pytest.raises(StudyError, match="effective_width is 0 in all runs"):
        judge(results(flat, claim))


def test_several_verdicts_in_one_study():
    sides = {"better": {"case": "late"}, "than": {"case": "early"}}
    steady = {"kind": "steadiness", "metric": "napl", "along": "depth"}
    records = of([0.9, 0.8], [0.7, 0.7]) + of([0.9, 0.8], [0.7, 0.6], depth=6)
    found = judge(results(records, [sides, steady]))
    assert found[0].number == "late against early"
    by_depth = judge(results(records, sides | {"metric": "napl"}))
    assert by_depth[0].number == "napl of late against early"
    assert [one.claim.kind for one in found] == ["comparison"] * 2 + ["steadiness"] * 2
    for wrong, message in [
        ({"kind": "knees", "along": "omega"}, "knees"),
        ({"kind": "knee", "along": "omga"}, "did you mean 'omega'"),
        ({"kind": "steadiness", "along": "omega"}, "'metric' is missing"),
        (sides | {"kind": "growth", "along": "omega"}, "there is no label 'case'"),
        ("late", "verdict"),
    ]:
        with pytest.raises(SettingsError, match=message):
            make_study(settings(verdict=wrong))
