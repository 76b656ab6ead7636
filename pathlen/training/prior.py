"""The sparsity prior: a penalty on slopes that makes units linear, one after another, for good.

Ali Mehmeti-Goepel & Disselhoff, "Nonlinear Advantage", ICML 2023, arXiv:2211.17180: the loss gets
omega * sum |1 - alpha|^p with p = 1/2. Its gradient diverges at alpha = 1, so a slope that comes
within a threshold is set to 1 and frozen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pathlen.errors import PathlenError
from pathlen.monitor.monitor import DepthMonitor
from pathlen.policy import DEFAULT_POLICY
from pathlen.printable import listed
from pathlen.training.attachment import IDLE, Attachable
from pathlen.training.linearizer_state import (
    Plain,
    frozen_in,
    goal_settings,
    numbers_in,
    require_same,
)
from pathlen.training.proximal import POWERS, prox
from pathlen.training.slope_vector import SlopeVector
from pathlen.training.slopes import Slopes, known_positions
from pathlen.training.targets import Budget, Plan, Progress, Target, ranked, slope_shares
from pathlen.training.values import require, require_number

Weights = Literal["count", "napl", "relu_calls"]
Method = Literal["gradient", "proximal"]


LINEAR = DEFAULT_POLICY.tolerance
"""A slope that is this near to 1 makes a linear unit, for whoever measures it."""


class SparsityPrior(Attachable):
    """omega * sum over slopes of weight * |1 - alpha|^p, and what becomes of slopes near 1.

    Either `attach(optimizer)` once, or in each training step: add `penalty()` to the loss, and call
    `step()` after the optimizer's. Slopes must get no weight decay; `parameter_groups` does that.

    Slopes that are near 1 when it is made, within the threshold, are frozen first and count as
    linear: what is linear stays linear. So do those of weights that are loaded later
    (`load_state_dict` of the model); weights in which units are not linear that it has frozen are
    refused at the next step, unless its own state is loaded with them.

    Args:
        model: A model with slopes (`make_linearizable`, or channel-wise PReLUs).
        omega: Strength, at least 0; may be changed at any time.
        p: Power, in (0, 1]; 0.5 or 1 for the proximal method.
        threshold: Slopes with |1 - alpha| within it are set to 1 and frozen.
        weights: What a slope counts: "count" 1; "napl" the centrality of its unit in the normalized
            average path length, so that the penalty is one on depth itself; "relu_calls" the number
            of positions, evaluations of the nonlinearity in one sample. Weights are divided by
            their mean, so that omega means the same for each.
        method: "gradient" of the penalty, or the exact "proximal" step after the optimizer's.
        monitor: For weights or a target of "napl": it knows the centralities.
        target: Where to stop, within 2 %. Of the slopes that come near 1 in a step, no more are
            frozen than it allows, others are held outside of the threshold; once it is reached the
            penalty is 0.
        plan: In place of a target: when to come down to it. In each step the slopes that are due,
            those nearest to 1, are frozen and no others; the penalty is only on those that are due
            soon, which it draws near before.

    Raises:
        PathlenError: An argument is out of range, or the model has no slopes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        omega: float,
        p: float = 0.5,
        threshold: float = 0.01,
        weights: Weights = "count",
        method: Method = "gradient",
        monitor: DepthMonitor | None = None,
        target: Target | None = None,
        plan: Plan | None = None,
    ) -> None:
        self._slopes = SlopeVector(model)
        _check(omega, p, threshold, weights, method, monitor)
        require(target, Target, "target", 'Target, such as Target("units", "50 %")')
        require(plan, Plan, "plan", "Plan, which says when to reach a target")
        require(monitor, DepthMonitor, "monitor", "DepthMonitor, made of the model")
        if plan is not None:
            if target is not None:
                raise PathlenError("a plan has its own target: give one of target and plan")
            target = plan.target
        self.p, self.threshold = p, threshold
        self.omega = omega
        self.weights, self.method = weights, method
        sites, device = self._slopes.sites, self._slopes.device
        self._weight = _weights(sites, weights, monitor).to(device)
        self._frozen = torch.zeros(len(self._slopes), dtype=torch.bool, device=device)
        self._budget = None if target is None else Budget(target, sites, monitor)
        self._finished = False
        self._plan, self._done = plan, 0
        self._resting = torch.zeros_like(self._frozen)
        self._asked, self._idle, self._still = False, 0, torch.empty(0)
        self._adopt(self._slopes.read_checked(wait=True).detach())
        self._settle()

    def _penalty(self, flat: Tensor) -> Tensor:
        """The penalty of the slopes that are not frozen: a scalar; 0 for the proximal method."""
        self._slopes.require_all()
        self._follow()
        if self.method == "proximal" or self._finished:
            return flat.new_zeros(())
        self._require_trained()
        self._asked = torch.is_grad_enabled() and self.omega > 0
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()  # sums of 16 bits lose small parts, or overflow
        # the distance of a frozen slope is set to 1 before the power: no infinite gradient times 0
        held = self._held(flat)
        distance = (1 - flat).masked_fill(held, 1.0).abs().pow(self.p)
        return self.omega * (distance * self._scale(flat, held)).sum()

    def _step(self, learning_rate: float = 0.0) -> None:
        """Proximal step, if that is the method; then freeze what is near 1."""
        self._slopes.require_all()
        self._follow()
        self._warn_if_idle()
        self._done += 1
        self._settle(learning_rate)

    def _settle_again(self) -> None:
        self._follow()
        self._settle()

    @torch.no_grad()
    def _settle(self, learning_rate: float = 0.0) -> None:
        """Bring the slopes to what they are to be after the steps that are done."""
        flat = self._slopes.read_checked(wait=self._budget is not None)
        self._move_to(flat)
        proximal = self.method == "proximal" and not self._finished
        if proximal and learning_rate > 0 and self.omega > 0:
            strength = (learning_rate * self.omega) * self._scale(flat, self._held(flat))
            distance = 1 - flat
            flat = flat + (distance - prox(distance, strength, self.p))  # others keep all digits
        self._slopes.write(self._freeze(flat).masked_fill(self._frozen, 1.0))

    def _freeze(self, flat: Tensor) -> Tensor:
        """Freeze what is near 1, as far as the target allows; the slopes, others held off."""
        distance = (1 - flat).abs()
        near = (distance <= self.threshold) & ~self._frozen
        if self._budget is None:
            self._frozen |= near
            return flat
        if not self._finished or bool(near.any()):
            if self._plan is None:
                order = distance.argsort(stable=True)
                allowed = self._budget.allowed(order[near[order]], self._frozen)
            else:
                allowed = self._due(distance)
            self._frozen |= allowed
            # so far that whoever measures the unit counts it as active, too
            outside = torch.where(flat > 1, 1.0, -1.0) * 2 * max(self.threshold, LINEAR) + 1
            flat = torch.where(near & ~allowed, outside.to(flat.dtype), flat)
            self._finished = self._budget.progress(self._frozen).finished
        return flat

    def _adopt(self, flat: Tensor) -> None:
        """Freeze what is linear already, whatever the target says: nothing makes it nonlinear."""
        self._frozen |= (1 - flat).abs() <= min(self.threshold, LINEAR)
        self._finished = self._budget is not None and self._budget.progress(self._frozen).finished

    @torch.no_grad()
    def _follow(self, *, strictly: bool = True) -> None:
        """Take up weights that were loaded since the last step.

        Args:
            strictly: Whether to raise an error; otherwise the next step will.

        Raises:
            PathlenError: Units that are frozen are not linear in them.
        """
        flat = self._slopes.loaded()
        if flat is None:
            return
        self._move_to(flat)
        lost = self._frozen & ((1 - flat).abs() > LINEAR)
        if bool(lost.any()):
            if not strictly:
                return
            raise PathlenError(
                f"weights were loaded in which {int(lost.sum())} unit(s) are not linear that this"
                f" prior has made linear for good: {self._slopes.places(lost, flat)}. Load its own"
                " state that was saved with them (prior.load_state_dict); or make a new"
                " SparsityPrior, to begin anew from these weights; or make the same units linear in"
                " them by prior.load_state_dict(prior.state_dict())"
            )
        self._adopt(flat)
        self._slopes.forget_loaded()

    def _warn_if_idle(self) -> None:
        """Warn once where a penalty was asked for in step after step, and nothing moved a slope."""
        idle, self._asked = self._asked and not self._slopes.were_written(), False
        self._idle = self._idle + 1 if idle else 0
        if self._idle == 1:
            self._still = self._slopes.read().detach()
        if self._idle != IDLE:
            return
        now = self._slopes.read().to(self._still)
        if not torch.equal(now, self._still):  # fused optimizers write without a trace
            self._idle = 0
            return
        warnings.warn(
            f"no optimizer has moved the slopes in the last {IDLE} steps, so that the prior does"
            " nothing: the optimizer was made before make_linearizable, or without them; make it"
            " from pathlen.training.parameter_groups(model, weight_decay), and attach the prior to"
            " it",
            stacklevel=3,
        )

    def _require_trained(self) -> None:
        """Raise PathlenError where the penalty would be without effect."""
        resting = self._slopes.resting()
        if not resting or not self.omega > 0:
            return
        parts = zip(
            self._slopes.sites, resting, self._frozen.split(self._slopes.sizes), strict=True
        )
        names = [site.parameter_name for site, rests, part in parts if rests and not part.all()]
        if names:
            raise PathlenError(
                f"{len(names)} of the slopes do not require gradients ({listed(names, 3)}), so"
                " the prior does nothing to them; after model.requires_grad_(False) call"
                " requires_grad_(True) of the slopes (pathlen.training.slopes_of), or set"
                " prior.omega = 0 for as long as they rest"
            )

    def _due(self, distance: Tensor) -> Tensor:
        """What the plan says is to be linear by now; what it leaves alone is noted."""
        assert self._plan is not None
        assert self._budget is not None
        order = ranked(distance, self._plan.seed)
        ahead = self._plan.ahead * self._plan.steps
        now, soon = (self._plan.share(self._done + steps) for steps in (0.0, ahead))
        self._resting = ~self._budget.first(order, self._frozen, soon)
        return self._budget.first(order, self._frozen, now)

    @property
    def progress(self) -> Progress | None:
        """How far linearization is from its target, None without one. Waits for the device."""
        self._follow(strictly=False)
        return None if self._budget is None else self._budget.progress(self._frozen)

    @property
    def num_units(self) -> int:
        """Number of slopes."""
        return len(self._frozen)

    @property
    def num_active(self) -> int:
        """Number of slopes that are not frozen. Waits for the device."""
        self._follow(strictly=False)
        return self.num_units - int(self._frozen.sum())

    @property
    def active_relu_calls(self) -> int:
        """Evaluations of nonlinearities left in one sample: positions of slopes not frozen.

        Raises:
            PathlenError: The model has PReLUs whose number of positions is not known.
        """
        self._follow(strictly=False)
        parts = self._frozen.split(self._slopes.sizes)
        positions = known_positions(self._slopes.sites)
        counts = [int((~part).sum()) for part in parts]
        return sum(c * p for c, p in zip(counts, positions, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on besides the model, and how the prior was made.

        Returns:
            Tensors by parameter names, plain values and dictionaries of these.
        """
        return {
            "omega": self.omega,
            "step": self._done,
            "frozen": self._slopes.by_name(self._frozen),
            "resting": self._slopes.by_name(self._resting),
            "settings": self._settings(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; slopes that are frozen in it are set to 1.

        The weights of the model that it was saved with may be loaded before or after.

        Raises:
            PathlenError: It is of a model with other slopes, or of a prior that was made with
                another target, plan, power, threshold, method or other weights.
        """
        frozen = frozen_in(state, set(self.state_dict()), self._slopes, "a prior")
        require_same(state["settings"], self._settings(), "a prior")
        resting = self._slopes.from_names(state["resting"]).bool()
        omega, done = numbers_in(state, "a prior")  # all is read before anything changes
        _check_omega(omega)
        self._omega, self._done = omega, done
        flat = self._slopes.read()
        loaded = self._slopes.loaded()
        self._frozen, self._resting = frozen.to(flat.device), resting.to(flat.device)
        self._slopes.write(flat.masked_fill(self._frozen, 1.0))
        self._adopt(torch.full_like(flat, torch.nan) if loaded is None else loaded)
        self._slopes.forget_loaded()  # weights that come after this are held against it

    def _settings(self) -> Plain:
        own: Plain = {"p": self.p, "threshold": self.threshold}
        own |= {"weights": self.weights, "method": self.method}
        return own | goal_settings(self._budget, self._plan)

    def _uses_rate(self) -> bool:
        return self.method == "proximal"

    @property
    def omega(self) -> float:
        """Strength of the prior."""
        return self._omega

    @omega.setter
    def omega(self, omega: float) -> None:
        _check_omega(omega)
        self._omega = omega

    def __repr__(self) -> str:
        """Say how strong it is, and on what."""
        return (
            f"SparsityPrior({self.num_active} of {self.num_units} units active,"
            f" omega={self.omega:g}, p={self.p:g}, weights={self.weights!r},"
            f" method={self.method!r})"
        )

    def _move_to(self, flat: Tensor) -> None:
        if self._frozen.device != flat.device:
            self._frozen, self._weight = self._frozen.to(flat.device), self._weight.to(flat.device)
            self._resting = self._resting.to(flat.device)

    def _held(self, flat: Tensor) -> Tensor:
        """Slopes without a penalty: the frozen ones, and any that is exactly 1."""
        self._move_to(flat)
        return self._frozen | self._resting | (flat.detach() == 1)

    def _scale(self, flat: Tensor, held: Tensor) -> Tensor:
        """Weights of the penalty, 0 for slopes that are held."""
        return self._weight.to(flat.dtype).masked_fill(held, 0.0)


def _check(
    omega: float,
    p: float,
    threshold: float,
    weights: str,
    method: str,
    monitor: DepthMonitor | None,
) -> None:
    """Raise PathlenError for arguments that make no prior."""
    _check_omega(omega)
    if not 0 < require_number(p, "p") <= 1:
        raise PathlenError(f"p={p!r} must lie in (0, 1]: larger powers make nothing sparse")
    if not 0 <= require_number(threshold, "threshold") < 1:
        raise PathlenError(f"threshold={threshold!r} must lie in [0, 1)")
    if weights not in ("count", "napl", "relu_calls"):
        raise PathlenError(f"weights={weights!r}; choose 'count', 'napl' or 'relu_calls'")
    if method not in ("gradient", "proximal"):
        raise PathlenError(f"method={method!r}; choose 'gradient' or 'proximal'")
    if method == "proximal" and p not in POWERS:
        raise PathlenError(f"the proximal method takes p = 0.5 or 1, not {p!r}")
    if weights == "napl" and monitor is None:
        raise PathlenError("weights='napl' needs monitor=pathlen.DepthMonitor(model, args)")


def _check_omega(omega: float) -> None:
    if not 0 <= require_number(omega, "omega") < math.inf:
        raise PathlenError(f"omega={omega!r} must be a finite number of at least 0")


def _weights(slopes: tuple[Slopes, ...], weights: str, monitor: DepthMonitor | None) -> Tensor:
    """Weight of each slope, of mean 1: float64[slopes]."""
    if weights == "napl":
        assert monitor is not None
        flat = slope_shares(slopes, monitor)
    else:
        each = known_positions(slopes) if weights == "relu_calls" else [1] * len(slopes)
        sizes = torch.tensor([own.parameter.numel() for own in slopes])
        flat = torch.tensor(each, dtype=torch.float64).repeat_interleave(sizes)
    if not flat.sum() > 0:
        raise PathlenError("no slope lies on a path of the walk, so all weights would be 0")
    return flat / flat.mean()
