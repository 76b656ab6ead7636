"""Notices that weights were loaded into a model, and which slopes were among them.

`load_state_dict` of a module, or of any module around it, calls a hook that notes the slopes as
they are then: a step of an optimizer later nobody could tell what was loaded. Hooks hold names and
tensors only, so that copies of the model, and pickles of it, take notes of their own along.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class _Note:
    """A hook that notes the slopes of one module.

    Args:
        attributes: Names of the slopes in the model, and what the module calls them.
        values: Is given the slopes, by their names in the model.
    """

    def __init__(self, attributes: Mapping[str, str], values: dict[str, Tensor]) -> None:
        self._attributes, self._values = attributes, values

    def __call__(self, module: nn.Module, incompatible_keys: Any) -> None:
        """Note them; torch calls this when the module has loaded."""
        for name, attribute in self._attributes.items():
            slope = module._parameters.get(attribute)
            if slope is not None:
                self._values[name] = slope.detach().clone()


def note_loads(model: nn.Module, names: list[str], owner: object) -> dict[str, Tensor]:
    """What is loaded into slopes of a model from now on, as long as an object lives.

    Args:
        model: The model.
        names: Of its slopes.
        owner: The one that asks; the hooks go with it.

    Returns:
        Slopes by their names, as they were loaded; to be emptied when they have been seen.
    """
    values: dict[str, Tensor] = {}
    attributes: dict[str, dict[str, str]] = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        attributes.setdefault(path, {})[name] = attribute
    for path, own in attributes.items():
        hook = _Note(own, values)
        handle = model.get_submodule(path).register_load_state_dict_post_hook(hook)
        weakref.finalize(owner, handle.remove).atexit = False
    return values
