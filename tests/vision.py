"""torchvision for the tests, also beside a torch of another build.

The torchvision on PyPI is built for CUDA and its compiled operators do not load beside a CPU build
of torch; importing it then fails, because it gives its operators fake implementations and they do
not exist. Here they get schemas, and those that its detectors call get plain implementations.
"""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
)

_libraries = []  # a schema is gone as soon as its library object is


def import_torchvision() -> ModuleType:
    """Import torchvision, with its operators defined where they are missing."""
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    library.impl("nms", suppress_overlaps, "CPU")
    library.impl("roi_align", align_regions, "CPU")
    _libraries.append(library)
    torchvision = importlib.import_module("torchvision")
    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        sys.modules[module]._has_ops = lambda: True  # type: ignore[attr-defined]
    return torchvision


def suppress_overlaps(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Boxes from the best score down, those left out that overlap one kept before them."""
    import torch
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True, stable=True)
    overlaps = box_iou(boxes[order], boxes[order]) > iou_threshold
    suppressed = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for place in range(len(order)):
        if not suppressed[place]:
            kept.append(place)
            suppressed |= overlaps[place]
    return order[kept]


def align_regions(
    features: Any,  # (n, c, height, width)
    boxes: Any,  # (k, 5): number of the image, then left, top, right, bottom
    scale: float,
    rows: int,
    columns: int,
    samples: int,
    aligned: bool,
) -> Any:  # (k, c, rows, columns)
    """Each box as a grid of rows x columns cells, each the mean of bilinear samples in it."""
    import torch

    regions = [features.new_empty(0, features.shape[1], rows, columns)]
    for image, *corners in boxes.tolist():
        left, top, right, bottom = (corner * scale - 0.5 * aligned for corner in corners)
        least = 0.0 if aligned else 1.0
        y, number_y = _places(top, max(bottom - top, least), rows, samples)
        x, number_x = _places(left, max(right - left, least), columns, samples)
        height, width = features.shape[2:]
        down, across = torch.meshgrid(
            (2 * y + 1) / height - 1, (2 * x + 1) / width - 1, indexing="ij"
        )
        values = torch.nn.functional.grid_sample(
            features[int(image)][None],
            torch.stack([across, down], dim=-1)[None].to(features.dtype),
            padding_mode="border",
            align_corners=False,
        )
        inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))
        cells = (values * inside).unflatten(3, (columns, number_x)).unflatten(2, (rows, number_y))
        regions.append(cells.mean(dim=(3, 5)))
    return torch.cat(regions)


def _places(start: float, length: float, cells: int, samples: int) -> tuple[Any, int]:
    """Where an axis is sampled, and how often in each cell."""
    import torch

    number = samples if samples > 0 else max(math.ceil(length / cells), 1)
    return start + (torch.arange(cells * number) + 0.5) * (length / (cells * number)), number
