"""What a study says of its claim, computed from its runs.

Each kind of claim gives a number for each seed, once for each setting that it leaves open: the
difference of two cases, how that grows along a label, the knee of a curve, the change of a
column along a label. Reported are the mean over seeds, a bootstrap confidence interval of it
(:mod:`pathlen.bootstrap`) and the effect size, the mean in units of the standard deviation over
seeds (Cohen's d; of a comparison, that of paired samples).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from pathlen.bootstrap import mean_interval
from pathlen.errors import StudyError
from pathlen.printable import shown
from pathlen.training.study.claims import (
    Claim,
    Comparison,
    Growth,
    Knee,
    Steadiness,
    as_claims,
)
from pathlen.training.study.knee import LEAST_POINTS, fit_knee
from pathlen.training.study.results import Record, Results, setting_of

_CLAIMS: TypeAdapter[list[Claim]] = TypeAdapter(list[Claim])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the runs at one setting say of a claim.

    Attributes:
        claim: What was asked.
        number: What the value is, in words.
        at: Labels of the setting.
        metric: The column that it is computed from.
        value: Mean over seeds.
        low: Lower end of its confidence interval.
        high: Upper end.
        effect: Value divided by the standard deviation over seeds; infinite without one.
        seeds: How many.
        says: "supported", "contradicted", or "not decided" where the interval has both in it.
            The place of a knee is "located" where there is one.
    """

    claim: Claim
    number: str
    at: Mapping[str, Any]
    metric: str
    value: float
    low: float
    high: float
    effect: float
    seeds: int
    says: str


def judge(results: Results) -> list[Verdict]:
    """Compute what the study's `verdict` asks for.

    Args:
        results: Of a study; only seeds whose runs are finished count.

    Returns:
        One or more verdicts a claim and a setting of the other labels; none where there are fewer
        than two seeds.

    Raises:
        StudyError: The study has no verdict, or its runs have not what one needs.
    """
    claims = claims_of(results)
    if not claims:
        raise StudyError("the study has no 'verdict', which names what decides on its claim")
    return [verdict for claim in claims for verdict in _judged(results, claim)]


def claims_of(results: Results) -> list[Claim]:
    """What the study's `verdict` asks for."""
    return _CLAIMS.validate_python(as_claims(results.study.get("verdict") or []))


def _judged(results: Results, claim: Claim) -> list[Verdict]:
    match claim:
        case Comparison():
            return _comparison(results, claim)
        case Growth():
            return _growth(results, claim)
        case Knee():
            return _knee(results, claim)
        case Steadiness():
            return _steadiness(results, claim)


def _comparison(results: Results, claim: Comparison) -> list[Verdict]:
    what = f"{claim.metric} of " if claim.metric else ""
    number = f"{what}{named(claim.better)} against {named(claim.than)}"
    found = []
    for at, by_seed in differences(results, claim):
        metric = metric_of(results, claim.metric)
        found += _verdict(claim, number, at, metric, by_seed.values(), _sign)
    return found


def differences(
    results: Results, claim: Comparison | Growth
) -> list[tuple[Mapping[str, Any], dict[int, float]]]:
    """Better minus other for each seed that both sides have, by the labels that are left."""
    sides = []
    for name, labels in (("better", claim.better), ("than", claim.than)):
        if not any(_has(case.labels, labels) for case in results.cases):
            raise StudyError(f"verdict.{name}: no case of the study has {shown(dict(labels))}")
        records = [record for record in results.records if _has(record.labels, labels)]
        sides.append(_by_setting(records, labels))
    better, other = sides
    found = []
    for setting, (at, own) in better.items():
        _, rest = other.get(setting, (at, {}))
        pairs = {seed: (own[seed][0], rest[seed][0]) for seed in sorted(own.keys() & rest.keys())}
        values = {
            seed: _value(one, claim.metric) - _value(two, claim.metric)
            for seed, (one, two) in pairs.items()
        }
        found.append((at, values))
    return found


def _growth(results: Results, claim: Growth) -> list[Verdict]:
    """How much more the difference is at the largest value of a label than at the least.

    It is taken from a straight line through the differences, so that values between count too.
    """
    places: dict[str, tuple[dict[str, Any], dict[int, dict[float, float]]]] = {}
    for labels, by_seed in differences(results, claim):
        at = without(labels, [claim.along])
        place = _not_negative(labels[claim.along], claim.along)
        _, lines = places.setdefault(setting_of(at), (at, {}))
        for seed, difference in by_seed.items():
            lines.setdefault(seed, {})[place] = difference
    sides = f"{named(claim.better)} against {named(claim.than)}"
    found = []
    for at, lines in places.values():
        whole = {place for line in lines.values() for place in line}
        if len(whole) < 2:
            continue
        least, largest = min(whole), max(whole)
        number = f"more of {sides} at {claim.along} {largest:g} than at {least:g}"
        values = [
            float(np.polyfit([*line], [*line.values()], 1)[0]) * (largest - least)
            for line in lines.values()
            if line.keys() == whole
        ]
        found += _verdict(claim, number, at, metric_of(results, claim.metric), values, _sign)
    return found


def _knee(results: Results, claim: Knee) -> list[Verdict]:
    """Where two lines meet that are fitted to the curve of each seed, and how they bend."""
    steeper = f"steeper below the knee than above it, for each 1 of {claim.against}"
    found = []
    for at, curves in _curves(results, claim.along, LEAST_POINTS):
        fits = [
            fit_knee(
                [_value(record, claim.against) for record in curve],
                [_value(record, claim.metric) for record in curve],
            )
            for curve in curves
        ]
        metric = metric_of(results, claim.metric)
        bends = _verdict(claim, steeper, at, metric, [fit.bend for fit in fits], _sign)
        there = "located" if bends and bends[0].says == "supported" else "not decided"
        knees, lost = [fit.place for fit in fits], [fit.decay for fit in fits]
        found += _verdict(claim, "knee at", at, claim.against, knees, there)
        found += bends
        found += _verdict(claim, "lost before the knee", at, metric, lost, "")
    return found


def _steadiness(results: Results, claim: Steadiness) -> list[Verdict]:
    """The slope of a line through the column over log2 of the label, as a share of its mean."""

    def says(low: float, high: float) -> str:
        if -claim.within < low and high < claim.within:
            return "supported"
        return "contradicted" if low > claim.within or high < -claim.within else "not decided"

    number = f"change of {claim.metric} with each doubling of {claim.along}"
    found = []
    for at, curves in _curves(results, claim.along, 2):
        values = []
        for curve in curves:
            places = [_not_negative(one.labels[claim.along], claim.along) for one in curve]
            if min(places) <= 0:
                raise StudyError(f"verdict: {claim.along} is 0 in a run, and 0 is never doubled")
            column = np.array([_value(record, claim.metric) for record in curve])
            if not column.any():
                raise StudyError(f"verdict: {claim.metric} is 0 in all runs at {dict(at)}")
            values.append(float(np.polyfit(np.log2(places), column / column.mean(), 1)[0]))
        found += _verdict(claim, number, at, claim.metric, values, says)
    return found


def _curves(
    results: Results, along: str, least: int
) -> list[tuple[Mapping[str, Any], list[list[Record]]]]:
    """The runs along a label, of each seed that has as many as any, at each setting of the others.

    Settings at which no seed has `least` runs are left out.
    """
    found = []
    for at, by_seed in _by_setting(results.records, [along]).values():
        whole = max(map(len, by_seed.values()))
        if whole >= least:
            found.append((at, [curve for curve in by_seed.values() if len(curve) == whole]))
    return found


def _verdict(
    claim: Claim,
    number: str,
    at: Mapping[str, Any],
    metric: str,
    values: Iterable[float],
    says: str | Callable[[float, float], str],
) -> list[Verdict]:
    """A verdict on one number a seed; none of fewer than two."""
    numbers = [*values]
    interval = mean_interval(numbers, claim.confidence)
    if interval is None:
        return []
    low, high = interval
    mean, deviation = statistics.fmean(numbers), statistics.stdev(numbers)
    effect = mean / deviation if deviation else math.copysign(math.inf, mean) if mean else 0.0
    said = says if isinstance(says, str) else says(low, high)
    return [Verdict(claim, number, at, metric, mean, low, high, effect, len(numbers), said)]


def _sign(low: float, high: float) -> str:
    if low > 0:
        return "supported"
    return "contradicted" if high < 0 else "not decided"


def _has(labels: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in labels and labels[name] == value for name, value in wanted.items())


def without(labels: Mapping[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    """Labels but for some."""
    return {name: value for name, value in labels.items() if name not in dropped}


def named(labels: Mapping[str, Any]) -> str:
    """What a case is called in verdicts and figures: "late, omega 0.1"."""
    values = [str(value) if name == "case" else f"{name} {value}" for name, value in labels.items()]
    return ", ".join(values)


def _by_setting(
    records: Sequence[Record], dropped: Collection[str]
) -> dict[str, tuple[Mapping[str, Any], dict[int, list[Record]]]]:
    """Records by their labels but for some, and by seed."""
    found: dict[str, tuple[Mapping[str, Any], dict[int, list[Record]]]] = {}
    for record in records:
        at = without(record.labels, dropped)
        _, by_seed = found.setdefault(setting_of(at), (at, {}))
        by_seed.setdefault(record.seed, []).append(record)
    return found


def metric_of(results: Results, given: str | None) -> str:
    """The column that is given, else the one that the task is judged by."""
    return given or results.records[0].metric


def _value(record: Record, column: str | None) -> float:
    name = column or record.metric
    value = record.last.get(name)
    if not isinstance(value, int | float):
        raise StudyError(f"verdict: not every run has {shown(name)} in its last row")
    return float(value)


def _not_negative(value: object, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise StudyError(f"verdict: {label} has to be a number of at least 0, not {shown(value)}")
    return float(value)
