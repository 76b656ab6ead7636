"""A linearizer attached to an optimizer: each step of that takes its penalty and is followed by it.

The gradient of the penalty is added when the optimizer steps, to what backward passes have left by
then. So it is there once a step, whatever was accumulated, and it is neither divided, clipped nor
scaled with the gradient of the loss; a step that is left out, as by a `GradScaler`, leaves it out.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pathlen.errors import PathlenError
from pathlen.printable import listed
from pathlen.training.groups import rate_of_slopes, warn_of_decay
from pathlen.training.slope_vector import SlopeVector


class Attachable:
    """What a prior and the baselines share: a penalty that a loss or an optimizer takes."""

    _slopes: SlopeVector
    _attachment: weakref.ref[Attachment] | None = None

    def penalty(self) -> Tensor:
        """What is added to the loss: a scalar.

        Once it is attached to an optimizer, which takes its gradient, it comes without one: a loss
        that holds it is logged with it, and does not count it twice.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_attached):
            return self._penalty()

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let each step of an optimizer take the penalty and be followed by `step`.

        The loop calls neither `penalty` nor `step` then. An optimizer that takes the place of this
        one is attached to in its turn. The gradient of the penalty is added when
        the optimizer steps: once, whatever was accumulated, and not clipped, divided or scaled with
        the gradient of the loss.

        Args:
            optimizer: Holds all slopes. Wrappers of Accelerate and Fabric are seen through.

        Returns:
            What its `remove` detaches again. An earlier one is detached.

        Raises:
            PathlenError: The optimizer does not hold all slopes, here or in a later step.
        """
        if (before := self._attached()) is not None:
            before.remove()
        attachment = Attachment(self, unwrapped_optimizer(optimizer))
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
        """After each step of the optimizer."""
        raise NotImplementedError

    def _attached(self) -> Attachment | None:
        found = None if self._attachment is None else self._attachment()
        return found if found is not None and found.handles else None

    def __getstate__(self) -> dict[str, Any]:
        """All but the attachment, for copies and pickles: those are not attached."""
        return {name: value for name, value in vars(self).items() if name != "_attachment"}

    def _penalty(self) -> Tensor:
        return self._slopes.zero()

    def _uses_rate(self) -> bool:
        """Whether a step depends on the learning rate of the slopes."""
        return False


class Attachment:
    """What `attach` returns: it lives as long as the optimizer, whose hooks hold it.

    Attributes:
        of: What is attached.
        handles: Of the hooks; none once it is detached.
    """

    def __init__(self, of: Attachable, optimizer: Optimizer) -> None:
        self.of = of
        self._held: list[nn.Parameter] = []
        self._require_held(optimizer)
        warn_of_decay(of._slopes.model, optimizer)
        self.handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Detach it: the optimizer steps without it from now on."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Add the gradient of the penalty; where a closure makes gradients, after the closure."""
        self._require_held(optimizer)
        positional = len(args) > 1  # the first is the optimizer
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            self._add(optimizer)
            return None

        def with_penalty() -> Any:
            loss = closure()
            penalty = self._add(optimizer)
            return loss + penalty if isinstance(loss, Tensor | float) else loss

        if positional:
            return (args[0], with_penalty, *args[2:]), kwargs
        return args, {**kwargs, "closure": with_penalty}

    def _add(self, optimizer: Optimizer) -> Tensor:
        with torch.enable_grad():
            penalty = self.of._penalty()
        add_gradient(penalty, self._held, getattr(optimizer, "grad_scale", None))
        return penalty.detach()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step what is attached, unless a fused optimizer has left out the step."""
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and bool(overflow > 0):
            return
        rate = rate_of_slopes(self._held, [optimizer]) if self.of._uses_rate() else None
        self.of.step(rate or 0.0)

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


@torch.no_grad()
def add_gradient(
    penalty: Tensor, slopes: Iterable[nn.Parameter], scale: Tensor | float | None = None
) -> None:
    """Add the gradient of a penalty to those that slopes have; nothing if it has none.

    Args:
        penalty: A scalar.
        slopes: That it is a function of.
        scale: What gradients are multiplied by, while they are.
    """
    if not penalty.requires_grad:
        return
    slopes = [slope for slope in slopes if slope.requires_grad]
    for slope, own in zip(
        slopes, torch.autograd.grad(penalty, slopes, allow_unused=True), strict=True
    ):
        if own is None:
            continue
        scaled = own if scale is None else own * scale
        if slope.grad is None:
            slope.grad = scaled.to(slope.dtype)
        else:
            slope.grad += scaled


def unwrapped_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer of torch inside of the wrappers of Accelerate, Fabric and Lightning.

    Raises:
        PathlenError: There is none.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    # torch sets this where hooks are called: some classes that derive from Optimizer skip it
    if not isinstance(optimizer, Optimizer) or not hasattr(type(optimizer).step, "hooked"):
        raise PathlenError(
            f"a prior is attached to a torch.optim.Optimizer whose hooks are called, which those of"
            f" {type(optimizer).__name__} are not; attach it to the optimizer inside, or add"
            " penalty() to the loss and call step() after each step"
        )
    return optimizer


def _is(one: object, other: object) -> bool:
    return one is other
