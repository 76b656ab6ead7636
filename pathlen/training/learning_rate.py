"""The learning rate as a function of time alone, so that an interrupted run finds its way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pathlen.training.optimizer_settings import Constant, Cosine, Step
from pathlen.training.recipe import Phase, Recipe


@dataclass(frozen=True, slots=True)
class Stage:
    """A phase of a run, with its place in the plan.

    Attributes:
        name: "train", "linearize" or "finetune".
        settings: Of the phase.
        start: Planned epoch to begin with, counted from 0 over the run.
        epochs: Planned length.
        total: Planned epochs of the whole run.
    """

    name: str
    settings: Phase
    start: int
    epochs: int
    total: int


def stages(recipe: Recipe) -> list[Stage]:
    """The phases of a run that have epochs."""
    lengths = {
        "train": recipe.train_epochs,
        "linearize": recipe.linearize.epochs,
        "finetune": recipe.finetune.epochs,
    }
    found, start = [], 0
    for name, length in lengths.items():
        if length:
            stage = Stage(name, getattr(recipe, name), start, length, sum(lengths.values()))
            found.append(stage)
        start += length
    return found


def learning_rate(recipe: Recipe, stage: Stage, epoch: float) -> float:
    """Learning rate at a time of a phase.

    Args:
        recipe: The recipe.
        stage: The phase.
        epoch: Time since the phase began, in epochs.
    """
    schedule = stage.settings.schedule or recipe.schedule
    highest = stage.settings.learning_rate or recipe.optimizer.learning_rate
    length: float = stage.epochs
    if not isinstance(schedule, Constant) and schedule.span == "run":
        epoch, length = stage.start + epoch, stage.total
    if epoch < schedule.warmup:
        return highest * epoch / schedule.warmup
    rest = length - schedule.warmup
    share = min(1.0, (epoch - schedule.warmup) / rest) if rest > 0 else 1.0
    return highest * _factor(schedule, share)


def _factor(schedule: Constant | Cosine | Step, share: float) -> float:
    """Share of the highest learning rate, after a share of the time."""
    if isinstance(schedule, Cosine):
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * share)) / 2
    if isinstance(schedule, Step):
        passed = sum(share >= milestone for milestone in schedule.milestones)
        return float(schedule.factor**passed)
    return 1.0
