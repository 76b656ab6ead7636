"""What detectors need: boxes as places in feature maps, images copied into a batch, kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pathlen
from tests.constructs import Model, answer
from tests.vision import align_regions, import_torchvision, suppress_overlaps

BOXES = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 1.0, 3.0, 3.0]])


def test_pooling_in_boxes_keeps_channels():
    # 3 channels, 2 units behind a hub, 4 behind another: 3 * 2 * 4 paths, each with one ReLU
    align = import_torchvision().ops.roi_align
    model = Model(
        lambda m, x: m.b(align(torch.relu(m.a(x)), BOXES, (2, 2))),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(2, 4, 1),
    )
    assert answer(model, torch.randn(1, 3, 6, 6)) == (24, 1, 1)


def test_boxes_computed_from_the_image_are_places_only():
    align = import_torchvision().ops.roi_align

    def forward(m, x):
        corner = m.box(x.mean((2, 3))).sigmoid()
        boxes = torch.cat([corner.new_zeros(1, 1), corner, corner + 2], dim=1)
        return align(torch.relu(m.a(x)), boxes, (2, 2))

    model = Model(forward, a=nn.Conv2d(3, 2, 1), box=nn.Linear(3, 2))
    assert answer(model, torch.randn(1, 3, 6, 6)) == (6, 1, 1)


def test_boxes_that_are_kept_are_chosen_by_value():
    suppress = import_torchvision().ops.nms

    def forward(m, x):
        corners = m.corners(x)
        boxes = torch.cat([corners, corners + 1], dim=1)
        return boxes[suppress(boxes, corners[:, 0], 0.5)]

    report = pathlen.measure(Model(forward, corners=nn.Linear(3, 2)), torch.randn(4, 3))
    assert report.tracer == "eager recorder (real tensors)"
    assert report.path_count == 6  # 3 inputs to 2 coordinates; a corner and its opposite are one


def test_a_constant_that_an_input_is_written_into_is_no_constant():
    # the slope of the PReLU is looked up after the board was written to; were the board still
    # taken to be zeros then, it would have no first element that is not zero
    def forward(m, x):
        board = torch.zeros(2, 4)
        board[:, :3].copy_(x)
        first = board.nonzero()[0]
        return m.prelu(m.a(x)) * (first >= 0).all()

    model = Model(forward, a=nn.Linear(3, 2), prelu=nn.PReLU(init=1.0))
    report = pathlen.measure(model, torch.ones(2, 3), exact=True)
    assert (report.path_count, report.average_path_length) == (6, 0)


# --- the kernels that stand in for torchvision's own ----------------------------------------------


def test_of_boxes_that_overlap_the_best_is_kept():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    kept = suppress_overlaps(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize("samples", [1, 2, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_a_linear_map_is_sampled_at_the_middle_of_the_cells(samples, aligned):
    # f(y, x) = 10 y + x; a box from 1 to 5 in two cells has its cells' middles at 2 and 4, and half
    # a pixel before them where pixels are taken to be areas (aligned)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    features = (10 * rows + columns)[None, None]
    pooled = align_regions(features, torch.tensor([[0.0, 1, 1, 5, 5]]), 1.0, 2, 2, samples, aligned)
    expected = torch.tensor([[22.0, 24], [42, 44]]) - 5.5 * aligned
    torch.testing.assert_close(pooled[0, 0], expected)
