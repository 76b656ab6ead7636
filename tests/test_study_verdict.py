"""Verdicts: what is computed from the runs of a study, beside what is worked out otherwise."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from pathlen import SettingsError, StudyError
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
    assert found.difference == pytest.approx(0.1375)
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
    assert (deep.difference, deep.seeds) == (pytest.approx(0.4), 2)  # the third has no partner
    assert deep.effect == math.inf
    assert shallow.difference == pytest.approx(-0.2)
    assert judge(results(of([0.9], [0.5]))) == []  # one pair has no spread


def test_what_cannot_be_judged():
    with pytest.raises(StudyError, match="no 'verdict'"):
        judge(results(of([0.9], [0.5]), None))
    with pytest.raises(StudyError, match=r"verdict.than: no case"):
        judge(results(of([0.9], [0.5]), SIDES | {"than": {"case": "never"}}))
    with pytest.raises(StudyError, match="not every run has 'bleu'"):
        judge(results(of([0.9, 0.8], [0.5, 0.5]), SIDES | {"metric": "bleu"}))


def test_settings_of_verdicts():
    sides = {"better": {"omega": 0.1}, "than": {"omega": 5.0}}
    assert make_study(settings(verdict=sides)).verdict.confidence == 0.95
    for wrong, message in [
        ({"better": {"omega": 1}}, "'than' is missing"),
        (sides | {"then": 1}, "did you mean 'than'"),
        ({"better": {"omga": 1}, "than": {"omga": 2}}, "did you mean 'omega'"),
        ({"better": {"omega": 1}, "than": {"case": 2}}, "must name the same labels"),
    ]:
        with pytest.raises(SettingsError, match=message):
            make_study(settings(verdict=wrong))
    late = load_study("late_beats_early")
    assert late.verdict.better["case"] in [case.label for case in late.cases]
