"""What a study says of its claim, computed from its runs.

Two cases are compared seed by seed, once for each setting that both have: the mean difference of
the metric, a bootstrap confidence interval over seeds (Efron, "Bootstrap Methods: Another Look at
the Jackknife", Ann. Statist. 7, 1979), and the effect size, the mean difference in units of the
standard deviation of the differences (Cohen's d of paired samples).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from pathlen.errors import StudyError
from pathlen.training.study.results import Record, Results, setting_of

RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the runs at one setting say of the claim.

    Attributes:
        at: Labels that both sides share.
        metric: The column that is compared.
        difference: Mean over seeds of better minus other, in units of the metric.
        low: Lower end of the confidence interval of it.
        high: Upper end.
        effect: Difference divided by the standard deviation over seeds; infinite without one.
        seeds: Number of pairs.
    """

    at: Mapping[str, Any]
    metric: str
    difference: float
    low: float
    high: float
    effect: float
    seeds: int

    @property
    def says(self) -> str:
        """What the interval allows to say: 0 in it decides nothing."""
        if self.low > 0:
            return "supported"
        return "contradicted" if self.high < 0 else "not decided"


def judge(results: Results) -> list[Verdict]:
    """Compare the two sides that the study's `verdict` names.

    Args:
        results: Of a study; only seeds that are finished on both sides count.

    Returns:
        One verdict a setting of the other labels; none where there are fewer than two pairs.

    Raises:
        StudyError: The study names no sides, or no case is on one of them.
    """
    settings = results.study.get("verdict")
    if not settings:
        raise StudyError("the study has no 'verdict', which names the cases to compare")
    sides = []
    for name in ("better", "than"):
        labels = settings[name]
        if not any(_has(case.labels, labels) for case in results.cases):
            raise StudyError(f"verdict.{name}: no case of the study has {labels}")
        sides.append(_by_setting(results.records, labels))
    better, other = sides
    found = []
    for setting, own in better.items():
        pairs = [(own[seed], other.get(setting, {}).get(seed)) for seed in sorted(own)]
        whole = [(one, two) for one, two in pairs if two is not None]
        if len(whole) > 1:
            found.append(_verdict(whole, settings))
    return found


def _has(labels: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in labels and labels[name] == value for name, value in wanted.items())


def _rest(record: Record, wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.labels.items() if name not in wanted}


def _by_setting(
    records: Sequence[Record], wanted: Mapping[str, Any]
) -> dict[str, dict[int, Record]]:
    """The runs of a side by the labels that are left, and by seed."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        if _has(record.labels, wanted):
            found.setdefault(setting_of(_rest(record, wanted)), {})[record.seed] = record
    return found


def _verdict(pairs: Sequence[tuple[Record, Record]], settings: Mapping[str, Any]) -> Verdict:
    first = pairs[0][0]
    metric = settings.get("metric") or first.metric
    values = [(one.last.get(metric), two.last.get(metric)) for one, two in pairs]
    if any(value is None for pair in values for value in pair):
        raise StudyError(f"verdict.metric: not every run has {metric!r} in its last row")
    differences = [float(one) - float(two) for one, two in values]  # type: ignore[arg-type]
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    interval = bootstrap(
        (np.array(differences),),
        np.mean,
        confidence_level=settings["confidence"],
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    effect = mean / deviation if deviation else math.copysign(math.inf, mean) if mean else 0.0
    at = _rest(first, settings["better"])
    low, high = float(interval.low), float(interval.high)
    return Verdict(at, metric, mean, low, high, effect, len(pairs))
