"""Torchvision's classifiers against exact values from an independent implementation."""

from __future__ import annotations

import functools
import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import pathlen
from tests.vision import import_torchvision

GOLDEN = json.loads(
    Path(__file__).with_name("data").joinpath("torchvision_golden.json").read_text()
)


@functools.cache
def graph_of(name: str) -> pathlen.PathGraph:
    """The network traced on the meta device: no activation of these has a parameter."""
    models = import_torchvision().models
    with torch.device("meta"):
        model, image = models.get_model(name), torch.zeros(GOLDEN[name]["input"])
    return pathlen.trace(model, image)


@pytest.mark.parametrize("name", GOLDEN)
def test_equal_as_integers_and_fractions(name):
    golden = GOLDEN[name]
    report = pathlen.measure(graph_of(name), exact=True)
    assert report.path_count == int(golden["path_count"])
    assert report.num_active == golden["active_units"]
    assert report.average_path_length == Fraction(golden["average_path_length_exact"])
    normalized = Fraction(golden["normalized_average_path_length_exact"])
    assert report.normalized_average_path_length == normalized
    assert report.status == "exact"


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
@pytest.mark.parametrize("backend", ["numba", "scipy", "igraph"])
def test_floats_agree_with_the_fractions_to_1e_12(name, backend):
    golden = GOLDEN[name]
    report = pathlen.measure(graph_of(name), backend=backend)
    assert report.average_path_length == pytest.approx(golden["average_path_length"], rel=1e-12)
    assert report.normalized_average_path_length == pytest.approx(
        golden["normalized_average_path_length"], rel=1e-12
    )


def test_weights_and_image_size_do_not_matter():
    """Real tensors and another image size: the graph is of channels, so nothing changes."""
    model = import_torchvision().models.resnet18()
    report = pathlen.measure(model, torch.randn(2, 3, 64, 96), exact=True)
    assert report.path_count == int(GOLDEN["resnet18"]["path_count"])
    assert report.normalized_average_path_length == 13
