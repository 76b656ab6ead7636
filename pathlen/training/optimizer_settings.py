"""Settings of the optimizer and of its learning rate, as recipes have them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pathlen.training.settings import NotNegative, Positive, Settings, Share


class SGD(Settings):
    """`torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.1
    slope_learning_rate: Positive | None = None
    weight_decay: NotNegative = 5e-4
    momentum: Share = 0.9
    nesterov: bool = False


class AdamW(Settings):
    """`torch.optim.AdamW`."""

    name: Literal["adamw"] = "adamw"
    learning_rate: Positive = 1e-3
    slope_learning_rate: Positive | None = None
    weight_decay: NotNegative = 0.01
    beta1: Share = 0.9
    beta2: Share = 0.999


class Constant(Settings):
    """The same learning rate all the time, after a warmup in epochs."""

    name: Literal["constant"] = "constant"
    warmup: NotNegative = 0.0


class Cosine(Settings):
    """Half a cosine from the learning rate to `final` times it.

    Attributes:
        warmup: Epochs in which the learning rate grows from 0.
        final: Share of the learning rate at the end.
        span: Whether each phase has a cosine of its own, or there is one over the whole run.
    """

    name: Literal["cosine"] = "cosine"
    warmup: NotNegative = 0.0
    final: Share = 0.0
    span: Literal["phase", "run"] = "phase"


class Step(Settings):
    """The learning rate is multiplied by `factor` at each milestone, a share of the span."""

    name: Literal["step"] = "step"
    warmup: NotNegative = 0.0
    milestones: list[Share] = Field([0.5, 0.75])
    factor: Positive = 0.1
    span: Literal["phase", "run"] = "phase"


Optimizer = Annotated[SGD | AdamW, Field(discriminator="name")]
Schedule = Annotated[Constant | Cosine | Step, Field(discriminator="name")]
