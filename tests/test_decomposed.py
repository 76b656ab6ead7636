"""A program decomposed to core ATen has the numbers of the program it was made from."""

import pytest
import torch
from torch import nn

import pathlen
from tests.vision import import_torchvision


def small_resnet():
    return import_torchvision().models.resnet18(), torch.randn(1, 3, 64, 64)


def squeeze_and_excitation():
    return import_torchvision().models.mobilenet_v3_small(), torch.randn(1, 3, 64, 64)


def vision_transformer():
    vision = import_torchvision().models.VisionTransformer(32, 8, 2, 2, 16, 32)
    return vision, torch.randn(1, 3, 32, 32)


def encoder_layer():
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), torch.randn(1, 5, 16)


def normalizations():
    layers = [nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.GroupNorm(2, 4), nn.GELU(), nn.Softmax(1)]
    return nn.Sequential(*layers), torch.randn(1, 3, 8, 8)


@pytest.mark.filterwarnings("ignore")  # what torch.export says of its own future
@pytest.mark.parametrize(
    "made",
    [small_resnet, squeeze_and_excitation, vision_transformer, encoder_layer, normalizations],
    ids=lambda made: made.__name__,
)
def test_decomposing_changes_no_number(made):
    model, example = made()
    whole = pathlen.measure(model, example, exact=True)
    program = torch.export.export(model.eval(), (example,), strict=False).run_decompositions()
    parts = pathlen.measure(program, exact=True)
    assert parts.status == whole.status == "exact"
    assert parts.num_active == whole.num_active
    assert parts.path_count == whole.path_count
    assert parts.average_path_length == whole.average_path_length
    assert parts.normalized_average_path_length == whole.normalized_average_path_length
