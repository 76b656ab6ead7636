"""Which number a slope has: units are counted as they appear in a tensor, so slope i is channel i.

Before, units were counted by their labels in the path graph. Where a call's labels do not ascend
along its channels (behind zeros that a shortcut pads, in a flipped or shuffled order) these are two
different numberings. A module with such a call has a buffer beside its slopes that says which one
they have, and so its `state_dict` does; elsewhere nothing is added, and nothing has changed. A file
without that key is older, and what it holds is put in order when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathlen.training.slopes import Slopes, SlopeSite

VERSION = 2
"""Of the numbering: 2, by first appearance; 1, which no file says of itself, by label."""


def version_key(name: str) -> str:
    """Name of what says how slopes are numbered, by that of the slopes."""
    return f"{name}_version"


def number_units(labels: np.ndarray) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Number the units of a call in the order in which they first appear.

    Args:
        labels: int64[...], unit of each element, negative where there is none.

    Returns:
        The number of each element's unit, in the same shape, that of units where there is none;
        how many units there are; and for each the number that it had by label, None if the same.
    """
    live = labels >= 0
    units, first, inverse = np.unique(labels[live], return_index=True, return_inverse=True)
    former = np.argsort(first)
    rank = np.empty_like(former)
    rank[former] = np.arange(len(units))
    numbers = np.full(labels.shape, len(units))
    numbers[live] = rank[inverse]
    return numbers, len(units), None if (former == np.arange(len(units))).all() else former


def update_state(
    module: nn.Module,
    sites: tuple[SlopeSite, ...],
    state: dict[str, Any],
    prefix: str,
    errors: list[str],
) -> None:
    """Make a `state_dict` that a module is about to load one of the module as it is now.

    Slopes that it lacks stay as they are, and those of an older file are put in order.

    Args:
        module: Has the slopes.
        sites: Which it has.
        state: Is changed.
        prefix: Of the module's keys in it.
        errors: Gets a line for slopes that a newer program has numbered.
    """
    for site in sites:
        key, version = prefix + site.attribute, version_key(prefix + site.attribute)
        if version in state and int(state[version]) > VERSION:
            errors.append(
                f"{version} is {int(state[version])}: a newer pathlen has numbered the slopes"
                f" {key!r} in another way than this one, which knows {VERSION}"
            )
        if site.former is None:
            state.pop(version, None)  # the file's trace had another order of labels, not of slopes
        elif version not in state:
            if key in state and state[key].numel() == len(site.former):
                state[key] = in_order(state[key], site.former)
            state[version] = getattr(module, version_key(site.attribute))
        if site.attribute in module._parameters:  # and is not computed by a parametrization
            state.setdefault(key, getattr(module, site.attribute).detach())


def in_order(tensor: Tensor, former: Tensor) -> Tensor:
    """Something of each slope in the order of now, given in the former one: of the same shape."""
    return tensor.reshape(-1)[former].view(tensor.shape)


def is_former(own: Slopes, state: Mapping[str, Any]) -> bool:
    """Whether a state has the former numbers of slopes whose numbers have changed."""
    return own.former is not None and version_key(own.parameter_name) not in state


def version_tensor() -> Tensor:
    """What stands in a `state_dict` beside slopes whose number has changed."""
    return torch.tensor(VERSION)
