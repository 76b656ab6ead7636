"""What the path graph says is connected, against the Jacobian that autograd computes.

Input unit i reaches unit j in the graph exactly where an element of j depends on an element of i,
for generic weights and inputs: so the support of the Jacobian is united over several random inputs
and weights. Statistics of normalizations and softmax are held fixed, as batch norm in eval mode
holds its own: their functions are replaced by ones that detach them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen import Kind

DRAWS = 8


def layer_norm_with_fixed_statistics(x, shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(shape), 0))
    mean = x.mean(axes, keepdim=True).detach()
    deviation = (x.var(axes, keepdim=True, correction=0) + eps).sqrt().detach()
    y = (x - mean) / deviation
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


def softmax_with_fixed_denominator(x, dim):
    e = torch.exp(x)
    return e / e.sum(dim, keepdim=True).detach()


@pytest.fixture
def fixed_statistics(monkeypatch):
    """Replace F.layer_norm and torch.softmax by functions with detached statistics."""

    def activate():
        monkeypatch.setattr(F, "layer_norm", layer_norm_with_fixed_statistics)
        monkeypatch.setattr(torch, "softmax", softmax_with_fixed_denominator)

    return activate


def by_unit(matrix, rows, columns):
    """bool[a, b] of elements as bool[units, units]: whether any element of one is on any."""
    rows_of_unit = np.eye(rows.max() + 1, dtype=int)[rows]
    columns_of_unit = np.eye(columns.max() + 1, dtype=int)[columns]
    return rows_of_unit.T @ matrix @ columns_of_unit > 0


def channels_of(shape, axis):
    """The unit of every element of a tensor whose units lie along an axis.  # (elements,)"""
    along = [1] * len(shape)
    along[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(along), shape).reshape(-1)


def jacobian_support(make, shape, tap, axis, input_axis):
    """bool[units of the tapped tensor, input units], united over weights and inputs."""
    support = None
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        model = make().double().eval()
        randomize(model)
        x = torch.randn(shape, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(tap(model), x, vectorize=True)
        ends = jacobian.shape[: jacobian.ndim - x.ndim]
        matrix = (jacobian.reshape(ends.numel(), x.numel()) != 0).numpy()
        found = by_unit(matrix, channels_of(ends, axis), channels_of(shape, input_axis))
        support = found if support is None else support | found
    return support


def randomize(model):
    """Weights with no accidental structure: batch norm starts out as the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)


def reachability(graph, nodes):
    """bool[nodes, input nodes]: which inputs have a path to which of the nodes."""
    inputs = np.flatnonzero(graph.kind == Kind.INPUT)
    edges = csr_array(graph.to_scipy())
    reached = np.zeros((graph.num_nodes, len(inputs)), dtype=bool)
    reached[inputs, np.arange(len(inputs))] = True
    for node in range(graph.num_nodes):
        before = edges.indices[edges.indptr[node] : edges.indptr[node + 1]]
        if len(before):
            reached[node] = reached[before].any(axis=0)
    return reached[nodes]


def through(name):
    """A tap that gives the output of a module, by its name; "" is the model's own."""

    def tap(model):
        def run(x):
            seen = []
            module = model.get_submodule(name)
            handle = module.register_forward_hook(lambda *args: seen.append(args[-1]))
            try:
                model(x)
            finally:
                handle.remove()
            return seen[-1]

        return run

    return tap


class SmallCNN(nn.Module):
    """Residual sum, concatenation, groups, depthwise and strided convolution, batch norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.act = nn.SiLU()
        self.pair = nn.Conv2d(6, 6, 1, groups=3)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(6, 4, 3, padding=1, groups=2)

    def forward(self, x):
        y = self.relu(self.bn(self.stem(x)))
        y = y + self.act(self.depthwise(y))
        # channels 0 and 1 beside the 4 of y; the input itself once more for the last of them
        y = torch.cat([y[:, 2:], x[:, :2], y[:, :2]], dim=1)
        y = self.pair(y)
        return self.last(self.pool(torch.relu(y)))


CNN_SHAPE = (1, 4, 2, 2)


def test_cnn_from_end_to_end():
    graph = pathlen.trace(SmallCNN(), torch.zeros(CNN_SHAPE))
    expected = jacobian_support(SmallCNN, CNN_SHAPE, through(""), 1, 1)
    found = reachability(graph, np.flatnonzero(graph.kind == Kind.OUTPUT))
    assert not expected.all()  # groups: or the comparison would say little
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layer", ["stem", "relu", "depthwise", "act", "pair", "last"])
def test_cnn_layer_by_layer(layer):
    graph = pathlen.trace(SmallCNN(), torch.zeros(CNN_SHAPE))
    expected = jacobian_support(SmallCNN, CNN_SHAPE, through(layer), 1, 1)
    np.testing.assert_array_equal(reachability(graph, graph.units_of(layer)), expected)


class Block(nn.Module):
    """Attention and feed-forward with layer norm, heads that read separate halves of the stream.

    Grouped projections keep the heads apart: with dense ones everything would reach everything.
    """

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.query = nn.Conv1d(6, 4, 1, groups=2)
        self.key = nn.Conv1d(6, 4, 1, groups=2)
        self.value = nn.Conv1d(6, 6, 1, groups=6)
        self.up = nn.Conv1d(6, 8, 1, groups=2)
        self.down = nn.Conv1d(8, 6, 1, groups=2)
        self.gelu = nn.GELU()
        self.attended = nn.Identity()

    def forward(self, x):
        y = self.norm1(x).transpose(1, 2)
        q, k, v = (
            part(y).unflatten(1, (2, -1)).transpose(2, 3)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3), dim=-1)
        attended = (weights @ v).transpose(2, 3).flatten(1, 2).transpose(1, 2)
        x = x + self.attended(attended)
        y = self.down(self.gelu(self.up(self.norm2(x).transpose(1, 2))))
        return x + y.transpose(1, 2)


TOKENS = (1, 3, 6)
END = {"": 2, "query": 1, "value": 1, "up": 1, "gelu": 1, "down": 1}


@pytest.mark.parametrize("layer", END)
def test_transformer_block(layer, fixed_statistics):
    graph = pathlen.trace(Block(), torch.zeros(TOKENS), input_axis=2)
    nodes = graph.units_of(layer) if layer else np.flatnonzero(graph.kind == Kind.OUTPUT)
    fixed_statistics()
    expected = jacobian_support(Block, TOKENS, through(layer), END[layer], 2)
    assert not expected.all()
    np.testing.assert_array_equal(reachability(graph, nodes), expected)


def test_attention_scores_and_outputs(fixed_statistics):
    # the sum after attention: head h of 3 stream units reads its own half by the scores
    graph = pathlen.trace(Block(), torch.zeros(TOKENS), input_axis=2)
    fixed_statistics()
    expected = jacobian_support(Block, TOKENS, through("attended"), 2, 2)
    half = np.kron(np.eye(2, dtype=bool), np.ones((3, 3), dtype=bool))
    np.testing.assert_array_equal(expected, half)
    rows = [row.name for row in graph.layers if row.operation == "matmul"]
    np.testing.assert_array_equal(reachability(graph, graph.units_of(rows[-1])), expected)


class Rewriting(nn.Module):
    """Writes through views, shuffles, pads: what labels must follow element by element."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 6, 1, groups=2)
        self.second = nn.Conv2d(6, 6, 1, groups=3)
        self.third = nn.Conv2d(2, 2, 1, groups=2)

    def forward(self, x):
        y = self.first(x)
        y[:, 4:] = self.third(x[:, :2])
        y[:, :2].relu_()
        y = F.channel_shuffle(y, 3)
        y = self.second(y)
        y[:, 1::3] *= 0.5
        padded = F.pad(x, (0, 0, 0, 0, 1, 1))
        return y.roll(1, dims=1) + padded


def test_views_and_shuffles():
    graph = pathlen.trace(Rewriting(), torch.zeros(CNN_SHAPE))
    expected = jacobian_support(Rewriting, CNN_SHAPE, through(""), 1, 1)
    assert not expected.all()
    found = reachability(graph, np.flatnonzero(graph.kind == Kind.OUTPUT))
    # the channels were rolled: the graph has the same units, in the order in which they were made
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(expected, axis=0))
    assert sorted(found.tolist()) == sorted(expected.tolist())


class Reductions(nn.Module):
    """Means over channels, a gate, a maximum, an einsum: hubs that are no layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(2, 2, 3))

    def forward(self, x):
        pairs = x.unflatten(1, (2, 2))
        mixed = torch.einsum("bgi,gio->bgo", pairs, self.weight)  # a layer for each pair
        gate = torch.sigmoid(pairs.mean(2))
        top = pairs.amax(2)
        return torch.cat([mixed.flatten(1), gate, top, pairs[:, :, 0] * pairs[:, :, 1]], dim=1)


def test_reductions_and_products():
    graph = pathlen.trace(Reductions(), torch.zeros(2, 4), input_axis=1)
    expected = jacobian_support(Reductions, (2, 4), through(""), 1, 1)
    assert not expected.all()
    found = reachability(graph, np.flatnonzero(graph.kind == Kind.OUTPUT))
    np.testing.assert_array_equal(found, expected)
