"""Layers of torch_geometric on a small graph, and a denoising network of diffusers.

Nodes of a graph are positions: what is summed over neighbours keeps channels apart, and the edges
themselves, integers, only say where.
"""

from __future__ import annotations

import warnings
from fractions import Fraction

import pytest
import torch
from torch import nn

import pathlen
from tests.constructs import answer
from tests.vision import import_torchvision

NODES = torch.randn(4, 2)
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


@pytest.fixture(scope="module")
def layers():
    import_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_geometric.nn")


class Network(nn.Module):
    """A graph layer of 2 to 4 channels, a ReLU, and a dense layer to 1."""

    def __init__(self, layer, edges=None):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(4, 1)
        self.register_buffer("edges", edges)

    def forward(self, x, edges=None):
        return self.out(torch.relu(self.layer(x, self.edges if edges is None else edges)))


def both(layer):
    """The numbers with the edges held by the model, and with the edges given."""
    return answer(Network(layer, EDGES), NODES), answer(Network(layer), NODES, EDGES)


def test_a_graph_isomorphism_layer(layers):
    # an MLP 2 -> 3 -> 4 of the sum of a node and its neighbours: 2 * 3 * 4 paths over two ReLUs
    mlp = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    assert both(layers.GINConv(mlp)) == ((24, 2, 2), (24, 2, 2))


@pytest.mark.parametrize("name", ["SAGEConv", "GraphConv"])
def test_layers_with_a_matrix_for_the_node_and_one_for_its_neighbours(layers, name):
    # two dense layers are summed: 2 + 2 ways to each of 4 ReLUs
    assert both(getattr(layers, name)(2, 4)) == ((16, 1, 1), (16, 1, 1))


@pytest.mark.parametrize("self_loops", [True, False])
def test_a_graph_convolution(layers, self_loops):
    # a dense layer and sums weighted by constants: 2 * 4 paths over one ReLU
    layer = layers.GCNConv(2, 4, add_self_loops=self_loops)
    assert answer(Network(layer, EDGES), NODES) == (8, 1, 1)
    # edges that are given are counted, and say where to read the counts: no path from them
    assert answer(Network(layer), NODES, EDGES) == (8, 1, 1)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv"])
def test_graph_attention(layers, name):
    # h = W x of 4 channels, 2 ways each; a score is a sum of 4 channels of either end: 8 + 8 ways;
    # a result h_c * score: 2 + 16 ways, for 4 channels; those of the score pass a leaky ReLU and a
    # softmax over the neighbours, which is none
    for found in both(getattr(layers, name)(2, 4)):
        assert found == (4 * 18, Fraction(2 * 1 + 16 * 2, 18), Fraction(3, 2))


def test_transformer_layers(layers):
    # score: query 8 + key 8 ways; with the value 2 ways, and a dense layer from the node 2 ways
    for found in both(layers.TransformerConv(2, 4)):
        assert found == (4 * 20, 1, 1)


def test_graph_attention_is_verified(layers):
    for layer in (layers.GATConv(2, 2, heads=2), layers.GATv2Conv(2, 4), layers.GCNConv(2, 4)):
        assert pathlen.verify(Network(layer, EDGES), NODES).ok
        assert pathlen.verify(Network(layer), (NODES, EDGES)).ok


def test_a_denoising_network():
    import_torchvision()
    diffusers = pytest.importorskip("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=2,
            out_channels=2,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        args = (torch.randn(1, 2, 8, 8), torch.tensor([3]), torch.randn(1, 5, 8))
        report = pathlen.measure(model, args)
    assert report.status == "exact"
    names = {row.operation: [] for row in report.layers}
    for row in report.layers:
        names[row.operation].append(row.name)
    # the output has the name of the first input, and says so
    assert names["input"] == ["sample", "timestep", "encoder_hidden_states"]
    assert names["output"] == ["sample.output"]
    # SiLU after the last normalization, which every path passes
    assert report.shortest_path >= 1
    assert any(row.name.startswith("conv_act") and row.active == 8 for row in report.layers)
