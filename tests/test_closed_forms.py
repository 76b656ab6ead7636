"""The closed forms of the worked values, at random sizes, in integers and fractions.

A path through a dense layer from n to m units is one of n * m; a path count of a chain is thus the
product of all widths. Every unit of a ReLU layer lies on its paths once.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen.training.resnet import CifarResNet

few = settings(max_examples=8, deadline=None, derandomize=True)
WIDTHS = st.lists(st.integers(1, 5), min_size=2, max_size=6)


def measure(model, *args, **kwargs):
    return pathlen.measure(model, args, exact=True, **kwargs)


def sequential(layers):
    return nn.Sequential(*layers)


@few
@given(WIDTHS)
def test_mlp(widths):
    # hidden layers have a ReLU, the output has none: L = number of widths - 2
    layers = []
    for i in range(len(widths) - 1):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    report = measure(sequential(layers[:-1]), torch.zeros(2, widths[0]))
    hidden = len(widths) - 2
    assert report.path_count == prod(widths)
    assert report.average_path_length == hidden
    assert report.normalized_average_path_length == hidden
    assert report.longest_path == report.shortest_path == hidden
    assert report.num_active == sum(widths[1:-1])


class Figure1(nn.Module):
    """An input, `depth` ReLU layers of `width`, one output, and a skip from input to output."""

    def __init__(self, depth: int = 4, width: int = 4):
        super().__init__()
        layers = []
        for i in range(depth):
            layers += [nn.Linear(width if i else 1, width), nn.ReLU()]
        self.branch = sequential([*layers, nn.Linear(width, 1)])

    def forward(self, x):
        return x + self.branch(x)


def test_figure_1_of_the_paper():
    report = measure(Figure1(), torch.zeros(3, 1))
    assert report.path_count == 257
    assert report.average_path_length == Fraction(1024, 257)
    assert report.normalized_average_path_length == 2
    assert (report.longest_path, report.shortest_path) == (4, 0)
    assert (report.num_active, report.effective_width) == (16, 4)


@few
@given(st.integers(1, 5), st.integers(1, 5))
def test_figure_1_of_any_size(depth, width):
    # width^depth paths of length depth and one of length 0; the walk takes either half the time
    report = measure(Figure1(depth, width), torch.zeros(3, 1))
    assert report.path_count == width**depth + 1
    assert report.average_path_length == Fraction(depth * width**depth, width**depth + 1)
    assert report.normalized_average_path_length == Fraction(depth, 2)


class Residual(nn.Module):
    """x + W2 relu(W1 x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


@few
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
def test_residual_blocks(blocks, width, hidden):
    # From one unit of the stream to the units of the next: itself, and any of C by any of H.
    # Of the C H + 1 ways into a unit C H pass one ReLU; the walk takes the branch half the time.
    model = sequential(Residual(width, hidden) for _ in range(blocks))
    report = measure(model, torch.zeros(2, width))
    ways = width * hidden + 1
    assert report.path_count == width * ways**blocks
    assert report.average_path_length == Fraction(blocks * width * hidden, ways)
    assert report.normalized_average_path_length == Fraction(blocks, 2)
    assert report.longest_path == blocks
    assert report.shortest_path == 0


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_cifar_resnet_with_projection_shortcuts(n, width, image_channels):
    # A block: the second ReLU on every path, the first on the branch only: 1 + 1/2.
    # 3 n blocks, and the ReLU after the first convolution.
    with torch.device("meta"):
        model = CifarResNet(6 * n + 2, width=width, in_channels=image_channels)
        image = torch.zeros(1, image_channels, 8, 8)
    report = measure(model, image)
    assert report.normalized_average_path_length == 1 + Fraction(3, 2) * 3 * n
    assert report.num_active == width * (1 + 2 * n * (1 + 2 + 4))
    assert (report.longest_path, report.shortest_path) == (1 + 6 * n, 1 + 3 * n)


def test_cifar_resnet_8_by_hand():
    # Ways into each unit: the image 3; a block of w channels on v channels multiplies them by
    # v * w (branch: hidden unit, channel) + 1 (identity) or + v (projection). At the end any of
    # 8 channels and any of 10 classes.
    with torch.device("meta"):
        model, image = CifarResNet(8, width=2), torch.zeros(1, 3, 8, 8)
    report = measure(model, image)
    assert report.path_count == 3 * (2 * 2 + 1) * (2 * 4 + 2) * (4 * 8 + 4) * 8 * 10
    # one ReLU after the first convolution, one at the end of each block, and the one in its branch
    branches = Fraction(4, 5) + Fraction(8, 10) + Fraction(32, 36)
    assert report.average_path_length == 4 + branches


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@few
@given(st.integers(1, 3), st.sampled_from([1, 2]), st.integers(1, 3), st.integers(1, 5))
def test_post_norm_transformer_encoder(layers, heads, head_width, hidden):
    # The feed-forward sum is walked to its branch half the time, where one ReLU lies; softmax
    # and layer norm do not count, and attention holds no ReLU.
    width = heads * head_width
    layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True)
    model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    report = measure(model, torch.zeros(2, 3, width))
    assert report.normalized_average_path_length == Fraction(layers, 2)
    # One layer, from the back: a unit of the feed-forward sum has d f + 1 ways to the attention
    # sum, d f of them with a ReLU. These shares are the same in every layer.
    ways = width * hidden
    assert report.average_path_length == Fraction(layers * ways, ways + 1)
    # A unit of the attention sum: the stream, or any of d head outputs; behind one of these are
    # its value unit and, over the score of its head, the head's query and key units; behind any of
    # those the d units of the stream.
    attention = 1 + width * (1 + 2 * head_width) * width
    assert report.path_count == width * ((1 + ways) * attention) ** layers


@few
@given(
    st.integers(1, 3),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
)
def test_plain_convolutional_network(image_channels, convolutions, dense):
    # as VGG: convolution, batch norm, ReLU, pooling; then flattened into dense layers. The image
    # of 4 x 4 shrinks to 2 x 2, and all four pixels of a channel are one unit.
    layers, width = [], image_channels
    for channels in convolutions:
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        width = channels
    layers += [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    inputs = 4 * width
    for channels in dense:
        layers += [nn.Linear(inputs, channels), nn.ReLU(), nn.Dropout()]
        inputs = channels
    report = measure(
        sequential([*layers, nn.Linear(inputs, 3)]), torch.zeros(1, image_channels, 4, 4)
    )
    depth = len(convolutions) + len(dense)
    assert report.path_count == image_channels * prod(convolutions) * prod(dense) * 3
    assert report.average_path_length == report.normalized_average_path_length == depth
