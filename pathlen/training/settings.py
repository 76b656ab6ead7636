"""What all parts of a recipe are made of: how settings are checked, and targets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pathlen.printable import shown

if TYPE_CHECKING:  # settings are read without loading torch
    from pathlen.training.targets import Quantity

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Epochs = Annotated[int, Field(ge=0, lt=2**31)]
Goal = NotNegative | str | None


class Settings(BaseModel):
    """A part of a recipe: immutable, without unknown keys, and nothing is converted but int."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Goals(Settings):
    """Where linearization is to stop; at most one is given.

    Attributes:
        target_napl: A number, or a share of the dense network's as "50 %".
        target_units: The same of active units.
        target_relu_calls: The same of evaluations of nonlinearities in a sample.
    """

    target_napl: Goal = None
    target_units: Goal = None
    target_relu_calls: Goal = None

    @model_validator(mode="after")
    def _check_goals(self) -> Self:
        goals = [name for name in GOALS if getattr(self, name) is not None]
        if len(goals) > 1:
            raise ValueError(f"{' and '.join(goals)} are given; a run has one target")
        for name in goals:
            value = getattr(self, name)
            if isinstance(value, str) and not _SHARE.fullmatch(value):
                raise ValueError(
                    f"{name} is {shown(value)}; give a number, or a share such as '50 %'"
                )
        return self

    def goal(self) -> tuple[Quantity, float, bool] | None:
        """Which quantity is to be brought down, to what, and whether that is a share."""
        for name, quantity in GOALS.items():
            value = getattr(self, name)
            if value is not None:
                share = _SHARE.fullmatch(value) if isinstance(value, str) else None
                return quantity, float(share[1]) / 100 if share else float(value), bool(share)
        return None


GOALS: dict[str, Quantity] = {
    "target_napl": "napl",
    "target_units": "units",
    "target_relu_calls": "relu_calls",
}
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
