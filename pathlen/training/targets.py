"""Where linearization is to stop: at a depth, a number of units, or a number of ReLU calls.

Freezing a slope lowers each of these by a known cost, whatever else is frozen: 1 unit, its
positions, or the centrality c(u) of its unit (docs/algorithms/differentiable.md). So the prior
never overshoots: of the slopes that come near 1 in one step, those nearest are frozen first, as
long as the target allows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from pathlen.errors import PathlenError
from pathlen.monitor.monitor import DepthMonitor
from pathlen.printable import shown
from pathlen.training.slopes import Slopes, known_positions
from pathlen.training.values import require, require_number, require_whole

Quantity = Literal["napl", "units", "relu_calls"]
CLOSE = 0.02  # a target is reached within this share of it
ROUNDING = 1e-9  # of sums of costs, as a share of all of them
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True, slots=True)
class Target:
    """What to linearize down to.

    Attributes:
        quantity: "napl", the normalized average path length; "units", active units; "relu_calls",
            evaluations of nonlinearities in one sample.
        value: What it is to be, at least 0: a number, or a share such as "50 %" of what the network
            has while all of its units are active, however many of them are linear already.

    Raises:
        PathlenError: There is no such quantity, or the value is negative or no share.
    """

    quantity: Quantity
    value: float | str

    def __post_init__(self) -> None:
        """Check the values."""
        if self.quantity not in ("napl", "units", "relu_calls"):
            raise PathlenError(
                f"quantity={self.quantity!r}; choose 'napl', 'units' or 'relu_calls'"
            )
        if isinstance(self.value, str):
            if not _SHARE.fullmatch(self.value):
                raise PathlenError(
                    f"value={self.value!r}; give a number, or a share such as '50 %'"
                )
        elif not 0 <= require_number(self.value, "value") < math.inf:
            raise PathlenError(
                f"a target of {self.value!r} cannot be reached: it is below 0 or not finite"
            )

    def goal(self, whole: float) -> float:
        """The value as a number.

        Args:
            whole: What shares are shares of.
        """
        share = _SHARE.fullmatch(self.value) if isinstance(self.value, str) else None
        return float(share[1]) / 100 * whole if share else float(self.value)


@dataclass(frozen=True, slots=True)
class Plan:
    """When units become linear, and how many: on a straight line over a part of a phase.

    Attributes:
        target: Where to stop.
        steps: Length of the linearize phase.
        begin: Share of it before the first unit becomes linear.
        end: Share of it after which the target is reached.
        seed: Decides between units that are equal to a method.
        ahead: Share of the phase in which the sparsity prior draws a slope to 1 before it is due.

    Raises:
        PathlenError: A value is out of range.
    """

    target: Target
    steps: int
    begin: float = 0.0
    end: float = 0.8
    seed: int = 0
    ahead: float = 0.2

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.target, Target, "target", 'Target, such as Target("units", "50 %")')
        if require_whole(self.steps, "steps") < 1:
            raise PathlenError(f"a plan needs at least one step, not {self.steps}")
        if not 0 <= require_number(self.begin, "begin") < require_number(self.end, "end") <= 1:
            raise PathlenError(
                f"begin={self.begin!r} and end={self.end!r} must satisfy 0 <= begin < end <= 1"
            )
        if not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**64:
            raise PathlenError(f"seed={shown(self.seed)} is no integer of 64 bits")
        if not 0 <= require_number(self.ahead, "ahead") <= 1:
            raise PathlenError(f"ahead={self.ahead!r} must lie in [0, 1]")

    def share(self, step: float) -> float:
        """The share of the way to the target that is to be behind after a number of steps."""
        return min(1.0, max(0.0, (step / self.steps - self.begin) / (self.end - self.begin)))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far linearization is.

    Attributes:
        target: What it is to come down to, as a number.
        value: What it is now, frozen slopes counted as linear and all others as active.
        reached: Whether that is the target or less, or at most 2 % above it.
        finished: Whether nothing more will be frozen: it is reached, or each slope left costs more
            than remains.
    """

    target: Target
    value: float
    reached: bool
    finished: bool

    def __str__(self) -> str:
        """The progress in one line."""
        aim = float(self.target.value)
        goal = f"{self.target.quantity} {self.value:g}, target {aim:g}"
        if self.reached:
            exactly = self.value <= aim * (1 + ROUNDING)
            return f"{'reached' if exactly else f'reached within {100 * CLOSE:g} %'}: {goal}"
        return f"not reached{', and nothing left to freeze' if self.finished else ''}: {goal}"


class Budget:
    """What may still be frozen before a target is reached.

    Args:
        target: The target.
        slopes: Of the model.
        monitor: For a target of "napl".

    Attributes:
        target: The target, its value a number.
        goal: That value.

    Raises:
        PathlenError: The target is above what the model has, or below what it keeps with all slopes
            at 1; or what it counts is not known of these slopes.
    """

    def __init__(
        self, target: Target, slopes: tuple[Slopes, ...], monitor: DepthMonitor | None
    ) -> None:
        self._cost = _costs(target.quantity, slopes, monitor)
        self._rest = _fixed(target.quantity, monitor)
        self._whole = self._rest + float(self._cost.sum())
        self.goal = target.goal(self._whole)
        self.target = Target(target.quantity, self.goal)
        if self.goal > self._whole:
            raise PathlenError(
                f"a target of {self.goal:g} {target.quantity} is more than the model has:"
                f" {self._whole:g}"
            )
        if self.goal * (1 + CLOSE) < self._rest:
            raise PathlenError(
                f"a target of {self.goal:g} {target.quantity} cannot be reached: activations"
                f" without slopes keep it at {self._rest:g}"
            )

    def progress(self, frozen: Tensor) -> Progress:
        """How far a set of frozen slopes is: bool[slopes]. Waits for the device, once."""
        left = self._left(frozen)
        cheapest = left.masked_fill(left == 0, math.inf).min()
        value, price = torch.stack([left.sum() + self._rest, cheapest]).tolist()
        goal = self.goal
        reached = value <= goal * (1 + CLOSE)
        stuck = value - price < goal * (1 - CLOSE)
        return Progress(self.target, value, reached, reached or stuck)

    def allowed(self, order: Tensor, frozen: Tensor) -> Tensor:
        """Which of some slopes, given in the order to try them in, may be frozen: bool[slopes]."""
        left = self._left(frozen)
        prices = left[order]
        surplus = self._rest + float(left.sum()) - self.goal * (1 - CLOSE)
        chosen = torch.zeros_like(frozen)
        fits = prices.cumsum(0) <= surplus
        chosen[order[fits]] = True
        surplus -= float(prices[fits].sum())
        # behind one that costs too much, others may fit
        for slope, price in zip(order[~fits].tolist(), prices[~fits].tolist(), strict=True):
            if price <= surplus:
                chosen[slope] = True
                surplus -= price
        return chosen

    def first(self, order: Tensor, frozen: Tensor, share: float) -> Tensor:
        """The slopes to freeze next in an order of all of them: bool[slopes].

        They are the first of those not frozen, as many as leave the quantity no lower than it is to
        be after a share of the way. At the end of the way, where those leave it more than 2 % above
        the target, later ones that cost less are taken too. Only that waits for the device.

        Args:
            order: Of all slopes, by their numbers: int64[slopes].
            frozen: What is frozen already.
            share: Of the way from the whole quantity to the target.
        """
        left = self._left(frozen)
        goal = self._whole - share * (self._whole - self.goal)
        surplus = left.sum() + (self._rest - goal)
        chosen = torch.zeros_like(frozen)
        chosen[order] = left[order].cumsum(0) <= surplus + ROUNDING * self._whole
        chosen &= ~frozen
        if share >= 1 and not self.progress(frozen | chosen).reached:
            rest = order[~(frozen | chosen)[order]]
            chosen |= self.allowed(rest, frozen | chosen)
        return chosen

    def _left(self, frozen: Tensor) -> Tensor:
        """What slopes that are not frozen cost, and 0 for others: float64[slopes]."""
        if self._cost.device != frozen.device:
            self._cost = self._cost.to(frozen.device)
        return self._cost.masked_fill(frozen, 0.0)


def _fixed(quantity: Quantity, monitor: DepthMonitor | None) -> float:
    """The part of a quantity that no slope changes."""
    return monitor.fixed_part("normalized") if monitor and quantity == "napl" else 0.0


def _costs(quantity: Quantity, slopes: tuple[Slopes, ...], monitor: DepthMonitor | None) -> Tensor:
    """What freezing each slope takes off the quantity: float64[slopes]."""
    sizes = [own.parameter.numel() for own in slopes]
    if quantity != "napl":
        each = known_positions(slopes) if quantity == "relu_calls" else [1] * len(sizes)
        parts = [
            torch.full((size,), float(cost), dtype=torch.float64)
            for size, cost in zip(sizes, each, strict=True)
        ]
        return torch.cat(parts)
    if monitor is None:
        raise PathlenError("a target of 'napl' needs monitor=pathlen.DepthMonitor(model, args)")
    return slope_shares(slopes, monitor)


def slope_shares(slopes: tuple[Slopes, ...], monitor: DepthMonitor) -> Tensor:
    """Normalized centrality of what each slope makes linear: float64[slopes].

    Raises:
        PathlenError: The monitor does not read all of the slopes directly.
    """
    shares = monitor.slope_centrality()
    missing = [own.parameter_name for own in slopes if own.parameter_name not in shares]
    if missing and all(map(monitor.follows, missing)):
        raise PathlenError(
            f"no unit of the path graph is made linear by one of the slopes {missing[:3]} alone"
            " (with granularity='position' a unit has many), so they have no centrality; use"
            " granularity='channel' or 'layer', or count 'units' or 'relu_calls'"
        )
    if missing:
        raise PathlenError(
            f"the monitor does not know the slopes {missing[:3]}: it is of another model, or was"
            " made before make_linearizable; make pathlen.DepthMonitor(model, args) of this one"
        )
    return torch.cat([shares[own.parameter_name].reshape(-1) for own in slopes])


def ranked(values: Tensor, seed: int) -> Tensor:
    """The numbers of the slopes in the order of their values, the least first: int64[slopes].

    Slopes of equal values come in an order drawn from the seed: their own order is that of the
    layers, which would make one of every pair of layers linear before the other.
    """
    drawn = _drawn(len(values), seed, values.device)
    return drawn[values[drawn].argsort(stable=True)]


@lru_cache(maxsize=8)  # a plan asks in every step
def _drawn(count: int, seed: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator, device="cpu").to(device)
