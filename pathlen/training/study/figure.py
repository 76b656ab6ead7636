"""The figure of a study: what its first claim is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathlen import figures
from pathlen.errors import StudyError
from pathlen.printable import shown
from pathlen.training.study.claims import Claim, Growth, Knee, Steadiness
from pathlen.training.study.results import Record, Results, points
from pathlen.training.study.verdict import (
    claims_of,
    differences,
    judge,
    metric_of,
    named,
    without,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(results: Results, metric: str | None = None) -> Axes:
    """Draw a study: its cases one below another, a column along a label, or quality against depth.

    Args:
        results: Of a study, of which some runs are finished.
        metric: The column to draw; what the claim is about if not given.

    Raises:
        StudyError: No run is finished, or runs have not what the claim is about.
    """
    if not results.records:
        raise StudyError("no run of the study is finished: there is nothing to draw yet")
    claims = claims_of(results)
    kind = results.study.get("figure") or _usual(claims)
    if kind == "cases":
        return _cases(results, metric)
    if kind == "trend":
        return _trend(results, claims, metric)
    knee = _knee(results) if any(isinstance(claim, Knee) for claim in claims) else None
    return figures.plot_tradeoff(points(results, metric), metric=metric, knee=knee)


def _usual(claims: list[Claim]) -> str:
    return "trend" if claims and isinstance(claims[0], Growth | Steadiness) else "tradeoff"


def _cases(results: Results, metric: str | None) -> Axes:
    name = metric_of(results, metric)
    first = results.records[0].labels
    varied = [
        label
        for label in first
        if any(record.labels[label] != first[label] for record in results.records)
    ]
    rows = [
        {"case": named({label: record.labels[label] for label in varied or first})}
        | {name: _column(record, name)}
        for record in results.records
    ]
    return figures.plot_cases(rows, metric=name)


def _trend(results: Results, claims: list[Claim], metric: str | None) -> Axes:
    growing = [claim for claim in claims if isinstance(claim, Growth)]
    if growing:
        name = metric_of(results, metric or growing[0].metric)
        claim = growing[0].model_copy(update={"metric": name})
        rows = [
            {"series": named(without(at, [claim.along])), claim.along: at[claim.along], name: gap}
            for at, by_seed in differences(results, claim)
            for gap in by_seed.values()
        ]
        return figures.plot_trend(_plain(rows), x=claim.along, y=name, zero=True)
    steady = [claim for claim in claims if isinstance(claim, Steadiness)]
    if not steady:
        raise StudyError("figure: a trend is that of a verdict of kind growth or steadiness")
    along = steady[0].along
    columns = [metric] if metric else [one.metric for one in steady if one.along == along]
    rows = [
        {"series": named(without(record.labels, [along])), along: record.labels[along]}
        | {name: _column(record, name) for name in columns}
        for record in results.records
    ]
    return figures.plot_trend(_plain(rows), x=along, y=columns, log_x=True)


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without their series, if all are of one without a name."""
    if any(row["series"] for row in rows):
        return rows
    return [without(row, ["series"]) for row in rows]


def _column(record: Record, name: str) -> Any:
    if record.last.get(name) is None:
        raise StudyError(f"not every run has {shown(name)} in its last row")
    return record.last[name]


def _knee(results: Results) -> tuple[float, float, float] | None:
    """The knee, where there is one; of several curves the table tells."""
    located = [one for one in judge(results) if one.says == "located"]
    if len(located) != 1:
        return None
    (knee,) = located
    return knee.value, knee.low, knee.high
