"""A linearizer attached to an optimizer: each step of that takes its penalty and is followed by it.

The gradient of the penalty is added when the optimizer steps, to what backward passes have left by
then. So it is there once a step, whatever was accumulated, and it is neither divided, clipped nor
scaled with the gradient of the loss; a step that is left out, as by a `GradScaler`, leaves it out.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pathlen.errors import PathlenError
from pathlen.printable import listed
from pathlen.training.groups import rate_of_slopes, warn_of_decay
from pathlen.training.slope_vector import SlopeVector

IDLE = 10
"""Steps without an effect before a warning: a `GradScaler` leaves out some at first."""

LOOK = 7
"""Steps from one look at what moves slopes between them to the next; Lookahead does so every 5, 6
or 10 steps, so that both fall together soon."""


_ATTRIBUTE = "_attached_linearizers"


class Attachable:
    """What a prior and the baselines share: a penalty that a loss or an optimizer takes."""

    _slopes: SlopeVector
    _frozen: Tensor
    _attachment: weakref.ref[Attachment] | None = None

    def penalty(self) -> Tensor:
        """What is added to the loss: a scalar.

        Once it is attached to an optimizer, which takes its gradient, it comes without one: a loss
        that holds it is logged with it, and does not count it twice. What else is attached to an
        optimizer for the same slopes is detached, with a warning, when this is differentiated.
        """
        by_hand = torch.is_grad_enabled() and not self.is_attached
        with torch.set_grad_enabled(by_hand):
            penalty = self._penalty(self._slopes.read())
        if by_hand and penalty.requires_grad and _others(self):
            penalty.register_hook(lambda gradient: _detach_others(self))
        return penalty

    @torch.no_grad()
    def add_gradient(self, scale: Tensor | float | None = None) -> Tensor:
        """Add the gradient of the penalty to those that the slopes have: for all sites at once.

        Args:
            scale: What gradients are multiplied by, while they are.

        Returns:
            The penalty.
        """
        flat = self._slopes.read().requires_grad_()
        with torch.enable_grad():
            penalty = self._penalty(flat)
        if penalty.requires_grad:
            (gradient,) = torch.autograd.grad(penalty, flat)
            self._slopes.add_gradient(gradient if scale is None else gradient * scale)
        return penalty.detach()

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let each step of an optimizer take the penalty and be followed by `step`.

        The loop calls neither `penalty` nor `step` then. An optimizer that takes the place of this
        one is attached to in its turn. The gradient of the penalty is added when
        the optimizer steps: once, whatever was accumulated, and not clipped, divided or scaled with
        the gradient of the loss.

        Args:
            optimizer: Holds all slopes. Wrappers of Accelerate and Fabric, and optimizers that hold
                another one (SAM, Lookahead), are seen through.

        Returns:
            What its `remove` detaches again. An earlier one is detached; so is, with a warning,
            what else was attached to this optimizer for the same slopes.

        Raises:
            PathlenError: The optimizer does not hold all slopes, here or in a later step.
        """
        if (before := self._attached()) is not None:
            before.remove()
        inside = unwrapped_optimizer(optimizer)
        attachment = Attachment(self, inside)
        attachment.supersede(inside)
        self._attachment = weakref.ref(attachment)
        return attachment

    @property
    def model(self) -> nn.Module:
        """The model whose slopes they are."""
        return self._slopes.model

    @property
    def is_attached(self) -> bool:
        """Whether an optimizer takes its penalty."""
        return self._attached() is not None

    def step(self, learning_rate: float = 0.0) -> None:
        """Make units linear, and keep those linear that are. After each step of the optimizer.

        While it is attached to an optimizer, whose steps count by themselves, this counts nothing:
        it sets to 1 again what is frozen, wherever something else has moved it (Lookahead). Where
        it is not, what else is attached to an optimizer for the same slopes is detached, with a
        warning.

        Args:
            learning_rate: Of the slopes in the step before; used by the proximal method only.

        Raises:
            ActivityError: A slope is NaN or infinite; no slope is changed then. (On a GPU only with
                a target: otherwise the answer would be waited for.)
            PathlenError: Weights were loaded that are not those of this prior.
        """
        attachment = self._attached()
        if attachment is None:
            _detach_others(self)
            self._step(learning_rate)
            return
        attachment.expect_steps()
        self._settle_again()

    @torch.no_grad()
    def _settle_again(self) -> None:
        """Bring slopes that something has moved to what the steps before have made of them."""
        flat = self._slopes.read()
        self._slopes.write(flat.masked_fill(self._frozen.to(flat.device), 1.0))

    def _step(self, learning_rate: float = 0.0) -> None:
        """A step that counts."""
        raise NotImplementedError

    def _attached(self) -> Attachment | None:
        found = None if self._attachment is None else self._attachment()
        return found if found is not None and found.handles else None

    def __getstate__(self) -> dict[str, Any]:
        """All but the attachment, for copies and pickles: those are not attached."""
        return {name: value for name, value in vars(self).items() if name != "_attachment"}

    def _penalty(self, flat: Tensor) -> Tensor:
        """The penalty, of all slopes in a row: float[slopes]."""
        return flat.new_zeros(())

    def _uses_rate(self) -> bool:
        """Whether a step depends on the learning rate of the slopes."""
        return False


class _Attached(weakref.WeakSet["Attachment"]):
    """What is attached to optimizers for slopes of a model, which keeps it as an attribute."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Nothing is attached for a copy of the model."""
        return type(self), ()


class Attachment:
    """What `attach` returns: it lives as long as the optimizer, whose hooks hold it.

    Attributes:
        of: What is attached.
        handles: Of the hooks; none once it is detached.
    """

    def __init__(self, of: Attachable, optimizer: Optimizer) -> None:
        self.of = of
        self._held: list[nn.Parameter] = []
        self._calls, self._steps = 0, -1
        self._moved: Tensor | None = None
        self._told = False
        self._require_held(optimizer)
        warn_of_decay(of._slopes.model, optimizer)
        self.handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            optimizer.register_load_state_dict_post_hook(self._loaded),
        ]
        vars(of.model).setdefault(_ATTRIBUTE, _Attached()).add(self)

    def remove(self) -> None:
        """Detach it: the optimizer steps without it from now on."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def supersede(self, optimizer: Optimizer) -> None:
        """Detach what else would add a penalty of the same slopes in each step of an optimizer."""
        own = set(map(id, self._held))
        others = [
            other
            for other in _attached_to(optimizer)
            if other is not self and own & set(map(id, other._held))
        ]
        for other in others:
            other.remove()
        if others:
            warnings.warn(
                f"{type(others[0].of).__name__} was attached to this optimizer for the same slopes"
                " before, and is detached: two penalties would add up",
                stacklevel=3,
            )

    def expect_steps(self) -> None:
        """Note that somebody's loop has come to a step; warn if the optimizer makes none."""
        self._calls += 1
        if self._calls == IDLE:
            warnings.warn(
                f"{type(self.of).__name__}.step() was called {IDLE} times, and the optimizer that"
                " it is attached to has made no step, so that it does nothing: attach it to the one"
                " that steps, or detach it (what attach() returned has remove())",
                stacklevel=3,
            )

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Add the gradient of the penalty; where a closure makes gradients, after the closure."""
        self._require_held(optimizer)
        self._calls = 0
        self._look_for_moved()
        positional = len(args) > 1  # the first is the optimizer
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            self._add(optimizer)
            return None

        def with_penalty() -> Any:
            loss = closure()
            penalty = self._add(optimizer)
            if not isinstance(loss, Tensor | float):
                return loss
            return loss - penalty if _ascends(optimizer, self._held) else loss + penalty

        if positional:
            return (args[0], with_penalty, *args[2:]), kwargs
        return args, {**kwargs, "closure": with_penalty}

    def _add(self, optimizer: Optimizer) -> Tensor:
        scale = getattr(optimizer, "grad_scale", None)
        if _ascends(optimizer, self._held):  # the penalty is to fall all the same
            scale = -1.0 if scale is None else -scale
        return self.of.add_gradient(scale)

    def _look_for_moved(self) -> None:
        """Warn once where something has moved slopes that are frozen, between two steps.

        It looks in every few steps only, which costs next to nothing. The answer is read a step
        later, when a device has it: nobody waits for it.
        """
        if self._told:
            return
        if self._moved is not None and bool(self._moved):
            self._told = True
            warnings.warn(
                "something else than the optimizer has moved slopes that are linear for good, such"
                " as Lookahead, or an average that was put in the place of the model. They are set"
                " to 1 again in each step of the optimizer, but not after the last one: call step()"
                f" of the {type(self.of).__name__} after whatever moves them",
                stacklevel=4,
            )
        self._moved = None
        self._steps += 1
        if self._steps % LOOK:
            return
        flat = self.of._slopes.read().detach()
        self._moved = (self.of._frozen.to(flat.device) & (flat != 1)).any()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step what is attached, unless a fused optimizer has left out the step."""
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and bool(overflow > 0):
            return
        rate = rate_of_slopes(self._held, [optimizer]) if self.of._uses_rate() else None
        self.of._step(rate or 0.0)

    def _loaded(self, optimizer: Optimizer) -> None:
        """Weight decay may come with a state of an optimizer."""
        warn_of_decay(self.of._slopes.model, optimizer)

    def _require_held(self, optimizer: Optimizer) -> None:
        """Look whether the optimizer holds the slopes, anew whenever they are other tensors."""
        slopes = self.of._slopes.parameters()
        if len(slopes) == len(self._held) and all(map(_is, slopes, self._held)):
            return
        held = {id(own) for group in optimizer.param_groups for own in group["params"]}
        names = [site.parameter_name for site in self.of._slopes.sites]
        missing = [name for name, own in zip(names, slopes, strict=True) if id(own) not in held]
        if missing:
            raise PathlenError(
                f"the optimizer does not hold {len(missing)} of the slopes"
                f" ({listed(missing, 3)}), so that the prior would do nothing to them: it was"
                " made before make_linearizable, of another model or of a part of it, or the"
                " parameters were replaced since (load_state_dict(assign=True)); make it anew from"
                " pathlen.training.parameter_groups(model, weight_decay), and attach the prior"
            )
        self._held = slopes


def _attached_to(optimizer: Optimizer) -> Iterator[Attachment]:
    """What is attached to an optimizer, by the hooks that it calls."""
    for hook in optimizer._optimizer_step_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Attachment):
            yield owner


def _others(of: Attachable) -> list[Attachment]:
    """What is attached for slopes that something else has too, which is not attached."""
    found: Iterable[Attachment] = vars(of.model).get(_ATTRIBUTE, ())
    slopes = set(map(id, of._slopes.parameters())) if found else set()
    return [
        other
        for other in found
        if other.handles and other.of is not of and slopes & set(map(id, other._held))
    ]


def _detach_others(of: Attachable) -> None:
    """Detach them: what is used by hand takes their place, as in the cell that is run again."""
    if not _others(of):
        return
    gc.collect()  # an optimizer with a scheduler is in a cycle: it may be gone for its owner
    others = _others(of)
    for other in others:
        other.remove()
    if others:
        warnings.warn(
            f"{type(others[0].of).__name__} is attached to an optimizer for the same slopes as"
            f" another {type(of).__name__}, which is used by hand now; it is detached: two"
            " penalties would add up",
            stacklevel=3,
        )


def _ascends(optimizer: Optimizer, slopes: Iterable[nn.Parameter]) -> bool:
    """Whether an optimizer goes up the gradient of slopes (`maximize=True`).

    Raises:
        PathlenError: It does so for some of them only.
    """
    groups = [group for group in optimizer.param_groups if group.get("maximize")]
    if not groups:
        return False
    up = {id(own) for group in groups for own in group["params"]}
    found = {id(slope) in up for slope in slopes}
    if len(found) > 1:
        raise PathlenError(
            "the optimizer goes up the gradient of some slopes (maximize=True) and down that of"
            " others; put them into one group (pathlen.training.parameter_groups)"
        )
    return found == {True}


def unwrapped_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer of torch inside of what holds one, which is what makes the steps.

    Such are the wrappers of Accelerate, Fabric and Lightning, and SAM and Lookahead.

    Raises:
        PathlenError: There is none.
    """
    seen: list[Any] = []
    while not any(optimizer is one for one in seen) and (inner := _inside(optimizer)) is not None:
        seen.append(optimizer)
        optimizer = inner
    # torch sets this where hooks are called: some classes that derive from Optimizer skip it
    if not isinstance(optimizer, Optimizer) or not hasattr(type(optimizer).step, "hooked"):
        raise PathlenError(
            f"a prior is attached to a torch.optim.Optimizer whose hooks are called, which those of"
            f" {type(optimizer).__name__} are not; attach it to the optimizer inside, or add"
            " penalty() to the loss and call step() after each step"
        )
    return optimizer


def _inside(optimizer: Any) -> Optimizer | None:
    """The one optimizer that something holds, None if it holds none or several."""
    inner = getattr(optimizer, "optimizer", None)  # a property, for some
    held = [inner, *getattr(optimizer, "__dict__", {}).values()]
    found = {id(one): one for one in held if isinstance(one, Optimizer)}
    return next(iter(found.values())) if len(found) == 1 else None


def _is(one: object, other: object) -> bool:
    return one is other
