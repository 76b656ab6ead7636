"""`make_linearizable`: a slope for every activation call of a model, which stays the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pathlen.errors import LinearizationError, PathlenError
from pathlen.policy import DEFAULT_POLICY, Policy
from pathlen.training.call_sites import find_call_sites
from pathlen.training.site_choice import Choice
from pathlen.training.slope_installer import Granularity, Installed, Installer


def make_linearizable(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    granularity: Granularity = "channel",
    unplaced: Literal["refuse", "keep"] = "refuse",
    policy: Policy = DEFAULT_POLICY,
    input_axis: int | Mapping[str, int] | None = None,
    only: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> nn.Module:
    """Give every counted activation call of a model its own slopes.

    An activation phi becomes alpha * x + (1 - alpha) * phi(x), with one alpha a unit: for ReLU
    that is PReLU. Slopes are 0 at first, so the model computes what it did. They are parameters
    named "slope" (or "slope_0", "slope_1", ... where a module has several) of the activation
    module, or of the module whose forward calls the function; `slopes_of(model)` lists them. All
    other names and keys stay, and a `state_dict` from before loads, which leaves the slopes as
    they are.

    It is still the user's model: its own forward runs, in train and eval mode. A forward that
    calls its activations otherwise than traced raises `LinearizationError` (docs/linearizable.md).

    A model that has slopes in some parts gets them in others too; those that it has stay as they
    are, and so do their names.

    Args:
        model: The model; it is changed in place.
        args: A tensor, or a tuple of positional arguments, to trace it with.
        kwargs: Keyword arguments.
        granularity: "channel", one slope for each unit of the path graph; "layer", one for each
            call; "position", one for each element of a sample (inputs must then keep their size).
        unplaced: What to do where an activation has no place of its own in the model's Python
            (inside a fused operator such as `torch.lstm`): "refuse", or "keep" it nonlinear.
        policy: What counts as a nonlinearity; see `pathlen.trace`.
        input_axis: See `pathlen.trace`.
        only: Paths of modules, or patterns such as "layer*.relu": only activations in these, and
            those that they call, get slopes. "" is the model's own forward.
        exclude: The same, of those that get none.

    Returns:
        The same object.

    Raises:
        LinearizationError: There is no activation, or one without a place; all have slopes already;
            or a pattern matches none.
        ModelError: The model is traced by running another program than its own.
        PathlenError: Whatever `pathlen.trace` raises.
    """
    _check_arguments(model, granularity, unplaced)
    choice, installed = Choice(model, only, exclude), Installed(model)
    with installed.suspended():
        sites, unplaced_ones, seen = find_call_sites(model, args, kwargs, policy, input_axis)
    if sites or unplaced_ones:
        choice.check(sites, unplaced_ones)
    left = tuple(str(one) for one in unplaced_ones if choice.takes(one))
    chosen = [site for site in sites if choice.takes(site)]
    if left and (unplaced == "refuse" or not chosen):
        raise LinearizationError(
            "no slope can be put at these activations, which torch computes inside an operator:\n  "
            + "\n  ".join(left)
            + "\nwrite them out in Python, or leave them nonlinear with unplaced='keep'"
        )
    if not sites:
        raise LinearizationError(
            f"{type(model).__name__} has no activation that lies on a path from input to output:"
            " there is nothing to linearize"
        )
    there = installed.slots(sites, seen)
    if not set(chosen) - there.keys():
        raise LinearizationError(
            f"every activation of {type(model).__name__}"
            + (" has slopes already" if len(there) == len(sites) else " chosen has slopes already")
        )
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 1
    Installer(model, sites, chosen, seen, installed, left, granularity, batch).install()
    return model


def _check_arguments(model: nn.Module, granularity: str, unplaced: str) -> None:
    if not isinstance(model, nn.Module):
        raise PathlenError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if granularity not in ("channel", "layer", "position"):
        raise PathlenError(f"granularity={granularity!r}; choose 'channel', 'layer' or 'position'")
    if unplaced not in ("refuse", "keep"):
        raise PathlenError(f"unplaced={unplaced!r}; choose 'refuse' or 'keep'")
    for path, module in model.named_modules():
        if "_orig_mod" in module._modules:
            raise LinearizationError(
                f"module {path or '(the model)'!r} is what torch.compile returned; make the model"
                " linearizable first and compile it then: torch.compile(make_linearizable(model,"
                " args)). The model inside is its attribute _orig_mod"
            )
        if "forward" in vars(module):
            raise LinearizationError(
                f"module {path or '(the model)'!r} has a forward of its own in place of its"
                " class's; make it a method of a class"
            )
        if isinstance(module, fx.GraphModule):
            raise LinearizationError(
                f"module {path or '(the model)'!r} is a torch.fx.GraphModule, a program that was"
                " traced; make the model linearizable that it was traced from"
            )
