"""Zoos of models: what the sweep of benchmarks/coverage.py and its sample in CI measure.

Each zoo is a module with `names()` and `build(name)`; building imports the library of the zoo.
"""

from __future__ import annotations

from types import ModuleType

from tests.zoo import timm_models, torchvision_models, transformers_models

ZOOS: dict[str, ModuleType] = {
    "torchvision": torchvision_models,
    "timm": timm_models,
    "transformers": transformers_models,
}
