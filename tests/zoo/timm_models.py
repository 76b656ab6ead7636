"""Every architecture that timm registers, on the meta device."""

from __future__ import annotations

import torch

from tests.vision import import_torchvision
from tests.zoo.subject import Subject, on_meta_or_cpu, without_initialization

_HAVE_BOUNDS = "gemma4_vit"  # clamps to bounds that are infinite unless weights are loaded


def names() -> list[str]:
    """All architectures: one of each family, then the others, giants last.

    A sweep that is cut short has then seen every family.
    """
    import_torchvision()  # timm imports it
    import timm

    by_family: dict[str, list[str]] = {}
    for name in timm.list_models():
        by_family.setdefault(family(name), []).append(name)
    members = list(by_family.values())
    others = [name for of in members for name in of[1:]]
    return [of[0] for of in members] + sorted(others, key=_is_giant)


def _is_giant(name: str) -> bool:
    return any(
        size in name for size in ("giant", "gigantic", "huge", "large", "so400m", "7b", "xl")
    )


def family(name: str) -> str:
    """The module of timm that defines an architecture."""
    from timm.models import _registry

    return str(_registry._model_to_module[name])


def build(name: str) -> Subject:
    """The architecture as registered, without weights, and one image of its default size."""
    import_torchvision()
    import timm

    def make() -> Subject:
        model = timm.create_model(name, pretrained=False).eval()
        image = torch.zeros(1, *model.default_cfg.get("input_size", (3, 224, 224)))
        return Subject(model, (image,))

    if name.startswith(_HAVE_BOUNDS):
        with without_initialization():
            return make()
    return on_meta_or_cpu(make)
