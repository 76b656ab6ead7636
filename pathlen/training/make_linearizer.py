"""From a recipe to what makes its units linear: the prior, or a baseline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from pathlen.monitor.monitor import DepthMonitor
from pathlen.training.baselines import settings as baselines
from pathlen.training.baselines.chance import RandomUnits
from pathlen.training.baselines.entropy import LowestEntropy
from pathlen.training.baselines.greedy import ByCentrality
from pathlen.training.baselines.layer_folding import FoldedLayers
from pathlen.training.baselines.magnitude import SmallestDistance
from pathlen.training.baselines.snl import SelectiveLinearization
from pathlen.training.linearizer import Linearizer
from pathlen.training.omega import GrowUntilFalling, Schedule, constant, ramp
from pathlen.training.prior import SparsityPrior
from pathlen.training.prior_settings import GrowOmega, Prior, RampOmega
from pathlen.training.recipe import Recipe
from pathlen.training.settings import Goals
from pathlen.training.slopes import known_positions, slopes_of
from pathlen.training.targets import Budget, Plan, Target, slope_shares


def make_linearizer(
    recipe: Recipe,
    model: nn.Module,
    monitor: DepthMonitor,
    steps: int,
    count_signs: Callable[[int], Tensor],
) -> Linearizer:
    """What makes the units of a recipe linear.

    Args:
        recipe: The recipe.
        model: With slopes.
        monitor: Of the model.
        steps: Length of the linearize phase.
        count_signs: Counts signs of pre-activations in a number of batches: int64[slopes, 2], the
            same in each process.
    """
    chosen = _chosen(recipe)
    target = make_target(chosen)
    if isinstance(chosen, Prior):
        plan = None
        if chosen.pace is not None and target is not None:
            pace = chosen.pace
            plan = Plan(target, steps, pace.begin, pace.end, recipe.seed, pace.ahead)
        return SparsityPrior(
            model,
            omega=chosen.omega,
            p=chosen.p,
            threshold=chosen.threshold,
            weights=chosen.weights,
            method=chosen.method,
            monitor=monitor,
            target=None if plan else target,
            plan=plan,
        )
    assert target is not None  # a baseline without one is refused with the recipe
    begin = getattr(chosen, "begin", 0.0)
    plan = Plan(target, steps, begin=begin, end=chosen.end, seed=recipe.seed)
    return _baseline(chosen, model, plan, monitor, count_signs)


def _baseline(
    chosen: baselines.BaselineSettings,
    model: nn.Module,
    plan: Plan,
    monitor: DepthMonitor,
    count_signs: Callable[[int], Tensor],
) -> Linearizer:
    match chosen:
        case baselines.Random(train_slopes=trained):
            return RandomUnits(model, plan, monitor, train_slopes=trained)
        case baselines.Greedy(first=first, train_slopes=trained):
            return ByCentrality(model, plan, monitor, first=first, train_slopes=trained)
        case baselines.Magnitude():
            return SmallestDistance(model, plan, monitor)
        case baselines.SNL(omega=omega, threshold=threshold):
            return SelectiveLinearization(model, plan, monitor, omega=omega, threshold=threshold)
        case baselines.LayerFolding(omega=omega, p=p):
            return FoldedLayers(model, plan, monitor, omega=omega, p=p)
        case baselines.Entropy(batches=batches, train_slopes=trained):
            counted = partial(count_signs, batches)
            return LowestEntropy(model, plan, monitor, count_signs=counted, train_slopes=trained)
    raise AssertionError(f"{type(chosen).__name__} has no baseline")


def make_target(goals: Goals) -> Target | None:
    """Where linearization is to stop."""
    goal = goals.goal()
    if goal is None:
        return None
    quantity = goal[0]
    return Target(quantity, getattr(goals, f"target_{quantity}"))


def check_linearizer(recipe: Recipe, model: nn.Module, monitor: DepthMonitor) -> None:
    """Find out at once what making it would find out only when linearization begins.

    Raises:
        PathlenError: The target is above the model's, or something is not known of the slopes.
    """
    chosen, slopes = _chosen(recipe), slopes_of(model)
    target = make_target(chosen)
    if target is not None:
        Budget(target, slopes, monitor)
    if isinstance(chosen, Prior) and chosen.weights == "relu_calls":
        known_positions(slopes)
    if isinstance(chosen, baselines.Greedy):
        slope_shares(slopes, monitor)


def make_omega(recipe: Recipe, steps: int) -> Schedule:
    """The strength of the penalty over the steps of the linearize phase.

    Args:
        recipe: The recipe.
        steps: In an epoch.
    """
    chosen = _chosen(recipe)
    if isinstance(chosen, baselines.SNL):
        return GrowUntilFalling(chosen.omega, chosen.factor, steps)
    if not isinstance(chosen, Prior):
        return constant(getattr(chosen, "omega", 0.0))
    if isinstance(chosen.schedule, RampOmega):
        return ramp(chosen.omega, max(1, round(chosen.schedule.epochs * steps)))
    if isinstance(chosen.schedule, GrowOmega):
        return GrowUntilFalling(chosen.omega, chosen.schedule.factor, chosen.schedule.patience)
    return constant(chosen.omega)


def _chosen(recipe: Recipe) -> Prior | baselines.BaselineSettings:
    chosen = recipe.linearize.baseline or recipe.linearize.prior
    assert chosen is not None  # a recipe without both is refused
    return chosen
