"""torchvision for the tests, also beside a torch of another build.

The torchvision on PyPI is built for CUDA and its compiled operators do not load beside a CPU build
of torch; importing it then fails, because it gives its operators fake implementations and they do
not exist. No model that the tests measure calls these operators, so their schemas are enough.
"""

from __future__ import annotations

import importlib
from types import ModuleType

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
)

_libraries = []  # a schema is gone as soon as its library object is


def import_torchvision() -> ModuleType:
    """Import torchvision, with the schemas of its operators defined where they are missing."""
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    return importlib.import_module("torchvision")
