"""Settings of the baselines, `linearize.baseline` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pathlen.training.settings import Count, Goals, NotNegative, Positive, Share


class BaselineSettings(Goals):
    """What all baselines have.

    Attributes:
        end: Share of the linearize phase after which the target is reached.
    """

    end: Annotated[float, Field(gt=0, le=1)] = 0.8

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.goal() is None:
            raise ValueError(
                "a baseline needs a target: target_napl, target_units or target_relu_calls"
            )
        begin = getattr(self, "begin", 0.0)
        if begin >= self.end:
            raise ValueError(f"begin is {begin} and end is {self.end}; nothing lies between them")
        return self


class Random(BaselineSettings):
    """See :class:`pathlen.training.baselines.chance.RandomUnits`.

    Attributes:
        begin: Share of the linearize phase before the first unit becomes linear.
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    name: Literal["random"] = "random"
    begin: Share = 0.0
    train_slopes: bool = True


class Magnitude(BaselineSettings):
    """See :class:`pathlen.training.baselines.magnitude.SmallestDistance`.

    Attributes:
        begin: Share of the linearize phase before the first unit becomes linear.
    """

    name: Literal["magnitude"] = "magnitude"
    begin: Share = 0.4


class SNL(BaselineSettings):
    """See :class:`pathlen.training.baselines.snl.SelectiveLinearization`.

    Attributes:
        omega: Strength of the L1 penalty, lambda in the paper.
        factor: To multiply omega by after an epoch without a new least count, kappa in the paper.
        threshold: Slopes this near to 1 count as linear, epsilon in the paper.
    """

    name: Literal["snl"] = "snl"
    omega: Positive = 1e-5
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.1
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.01


class LayerFolding(BaselineSettings):
    """See :class:`pathlen.training.baselines.layer_folding.FoldedLayers`.

    Attributes:
        omega: Strength of the penalty, lambda in the paper.
        p: Power of the slope in the penalty.
    """

    name: Literal["layer_folding"] = "layer_folding"
    omega: NotNegative = 0.25
    p: Positive = 2.0


class Entropy(BaselineSettings):
    """See :class:`pathlen.training.baselines.entropy.LowestEntropy`.

    Attributes:
        begin: Share of the linearize phase before the first unit becomes linear.
        batches: Batches of the training data that signs are counted in.
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    name: Literal["entropy"] = "entropy"
    begin: Share = 0.0
    batches: Count = 10
    train_slopes: bool = False


class Greedy(BaselineSettings):
    """See :class:`pathlen.training.baselines.greedy.ByCentrality`.

    Attributes:
        begin: Share of the linearize phase before the first unit becomes linear.
        first: Whether units of the largest or of the smallest centrality come first.
        train_slopes: Whether slopes that are not 1 are trained, or stay as they are.
    """

    name: Literal["greedy"] = "greedy"
    begin: Share = 0.0
    first: Literal["largest", "smallest"] = "largest"
    train_slopes: bool = True


AnyBaseline = Annotated[
    Random | Magnitude | SNL | LayerFolding | Entropy | Greedy, Field(discriminator="name")
]
