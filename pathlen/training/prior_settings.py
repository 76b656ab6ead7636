"""Settings of the sparsity prior, as recipes have them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pathlen.training.settings import Count, Goals, NotNegative, Positive, Settings, Share


class ConstantOmega(Settings):
    """The same strength all the time."""

    name: Literal["constant"] = "constant"


class RampOmega(Settings):
    """Strength that grows linearly from 0 within some epochs."""

    name: Literal["ramp"] = "ramp"
    epochs: Positive


class GrowOmega(Settings):
    """Strength multiplied by `factor` whenever no unit became linear for `patience` steps."""

    name: Literal["grow"] = "grow"
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5
    patience: Count = 100


OmegaSchedule = Annotated[ConstantOmega | RampOmega | GrowOmega, Field(discriminator="name")]


class Pace(Settings):
    """The target is approached evenly; see :class:`pathlen.training.targets.Plan`.

    Attributes:
        begin: Share of the linearize phase before the first unit becomes linear.
        end: Share of it after which the target is reached.
        ahead: Share of it in which the prior draws a slope to 1 before it is due.
    """

    begin: Share = 0.2
    end: Annotated[float, Field(gt=0, le=1)] = 0.8
    ahead: Share = 0.2

    @model_validator(mode="after")
    def _check(self) -> Pace:
        if self.begin >= self.end:
            raise ValueError(f"begin is {self.begin} and end is {self.end}; nothing lies between")
        return self


class Prior(Goals):
    """See :class:`pathlen.training.SparsityPrior`.

    Attributes:
        omega: Strength.
        schedule: How the strength develops.
        p: Power.
        threshold: Slopes this near to 1 are frozen.
        weights: What a slope counts.
        method: Gradient or proximal step.
        pace: How the target is approached; as fast as the prior goes if not given.
    """

    omega: NotNegative
    schedule: OmegaSchedule = ConstantOmega()
    p: Annotated[float, Field(gt=0, le=1)] = 0.5
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.01
    weights: Literal["count", "napl", "relu_calls"] = "count"
    method: Literal["gradient", "proximal"] = "gradient"
    pace: Pace | None = None

    @model_validator(mode="after")
    def _check(self) -> Prior:
        if self.method == "proximal" and self.p not in (0.5, 1.0):
            raise ValueError(f"the proximal method takes p = 0.5 or 1, not {self.p}")
        if self.pace is not None and self.goal() is None:
            raise ValueError(
                "a pace needs a target: target_napl, target_units or target_relu_calls"
            )
        if isinstance(self.schedule, GrowOmega) and not self.omega:
            raise ValueError("omega is 0, which does not grow by being multiplied")
        return self
