"""What decides on the claim of a study: settings of its verdicts; see `judge`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pathlen.training.settings import Positive, Settings

Sides = Annotated[dict[str, Any], Field(min_length=1)]
Confidence = Annotated[float, Field(gt=0, lt=1)]


class _TwoSides(Settings):
    """What is compared seed by seed.

    Attributes:
        better: Labels and their values: the side that the claim says is better.
        than: The other side. All other labels are the same on both.
        metric: Column of the metrics to compare; the one that the task is judged by if not given.
        confidence: Of the interval.
    """

    better: Sides
    than: Sides
    metric: str | None = None
    confidence: Confidence = 0.95

    @model_validator(mode="after")
    def _check(self) -> _TwoSides:
        if self.better.keys() != self.than.keys():
            raise ValueError("'better' and 'than' must name the same labels")
        return self


class Comparison(_TwoSides):
    """One side is better than the other."""

    kind: Literal["comparison"] = "comparison"

    @property
    def labels(self) -> list[str]:
        """The labels that it names."""
        return [*self.better]


class Growth(_TwoSides):
    """One side is ahead of the other by the more, the larger a label is.

    Attributes:
        along: The label, whose values are numbers.
    """

    kind: Literal["growth"]
    along: str

    @property
    def labels(self) -> list[str]:
        """The labels that it names."""
        return [*self.better, self.along]


class Knee(Settings):
    """A metric decays slowly with depth, then collapses.

    Attributes:
        along: The label that moves a run along the curve.
        against: Column of depth.
        metric: Column of the metrics; the one that the task is judged by if not given.
        confidence: Of the intervals.
    """

    kind: Literal["knee"]
    along: str
    against: str = "napl"
    metric: str | None = None
    confidence: Confidence = 0.95

    @property
    def labels(self) -> list[str]:
        """The labels that it names."""
        return [self.along]


class Steadiness(Settings):
    """A column hardly changes while a label grows.

    Attributes:
        metric: Column of the metrics.
        along: The label, whose values are positive numbers.
        within: Largest change that is hardly one, as a share, for each doubling of the label.
        confidence: Of the interval.
    """

    kind: Literal["steadiness"]
    metric: str
    along: str
    within: Positive = 0.1
    confidence: Confidence = 0.95

    @property
    def labels(self) -> list[str]:
        """The labels that it names."""
        return [self.along]


Claim = Annotated[Comparison | Growth | Knee | Steadiness, Field(discriminator="kind")]


def as_claims(given: Any) -> Any:
    """One verdict or a list of them, of which those without a `kind` are comparisons."""
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        return given
    return [{"kind": "comparison", **one} if isinstance(one, dict) else one for one in given]
