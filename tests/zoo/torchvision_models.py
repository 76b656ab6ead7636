"""Every model that torchvision registers: classifiers, segmentation, detection, video, flow.

The quantized ones are measured in floating point, as they are built before their conversion.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.vision import import_torchvision
from tests.zoo.subject import Subject, on_meta_or_cpu

# Scores of a network without training are even over the classes, so that by default a detector
# returns no box at all; without a threshold it returns what it does for an image with objects.
_ALL_BOXES: dict[str, Any] = {
    "fasterrcnn": {"box_score_thresh": 0.0},
    "maskrcnn": {"box_score_thresh": 0.0, "box_detections_per_img": 4},
    "keypointrcnn": {"box_score_thresh": 0.0, "box_detections_per_img": 4},
    "retinanet": {"score_thresh": 0.0},
    "fcos": {"score_thresh": 0.0},
    "ssd300": {"score_thresh": 0.0},
    "ssdlite320": {"score_thresh": 0.0},
}
_FIXED_SIZE = ("ssd300", "ssdlite320")  # the others resize to 800 pixels, which no layer needs
_SEGMENTATION = ("deeplabv3", "fcn", "lraspp")
_VIDEOS = {"mvit": 224, "swin3d": 224, "s3d": 224, "r3d": 112, "mc3": 112, "r2plus1d": 112}


def names() -> list[str]:
    """All registered models."""
    return list(import_torchvision().models.list_models())


def build(name: str) -> Subject:
    """The model as registered, without weights; on the meta device unless it looks at values."""
    models = import_torchvision().models
    family = name.split("_")[0]
    if family in _ALL_BOXES:
        return _detector(name, family)

    def make() -> Subject:
        options: dict[str, Any] = {"weights": None}
        if family == "quantized":
            options["quantize"] = False
        elif family in _SEGMENTATION:  # these would download the weights of their backbones
            options["weights_backbone"] = None
        return Subject(models.get_model(name, **options).eval(), _images(name, family))

    return on_meta_or_cpu(make)


def _detector(name: str, family: str) -> Subject:
    """Detectors choose boxes by their scores, so that they need values.

    They take images without a batch axis and resize them before a layer reads them, so that the
    axis of the channels has to be named.
    """
    options = dict(_ALL_BOXES[family])
    if family not in _FIXED_SIZE:
        options |= {"min_size": 160, "max_size": 160}
    torch.manual_seed(0)
    models = import_torchvision().models
    model = models.get_model(name, weights=None, weights_backbone=None, **options)
    return Subject(model.eval(), ([torch.rand(3, 160, 160)],), input_axis=0)


def _images(name: str, family: str) -> tuple[torch.Tensor, ...]:
    if family == "raft":
        return torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128)
    if family in _VIDEOS:
        return (torch.zeros(1, 3, 16, _VIDEOS[family], _VIDEOS[family]),)
    size = 299 if name.endswith("inception_v3") else 224
    return (torch.zeros(1, 3, size, size),)
