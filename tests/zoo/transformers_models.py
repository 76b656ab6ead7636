"""Architectures of transformers from small configurations, with random weights."""

from __future__ import annotations

import copy

import torch

from tests.vision import import_torchvision
from tests.zoo.entry import Entry
from tests.zoo.language import LANGUAGE
from tests.zoo.perception import PERCEPTION
from tests.zoo.subject import Subject

_ENTRIES: dict[str, Entry] = {**LANGUAGE, **PERCEPTION}


def names() -> list[str]:
    """All architectures listed; a name is that of the class."""
    return sorted(_ENTRIES)


def build(name: str) -> Subject:
    """The model from its configuration, with values: some look at masks or choose experts."""
    import_torchvision()  # transformers imports it
    import transformers

    transformers.logging.set_verbosity_error()
    entry = _ENTRIES[name]
    kind = getattr(transformers, entry.model)
    torch.manual_seed(0)
    model = kind(kind.config_class(**copy.deepcopy(dict(entry.settings)))).eval()
    return Subject(model, kwargs=entry.inputs())
