"""Sparse matrices that are made of inputs: units know no layout."""

import pytest
import torch
from torch import nn

import pathlen
from tests.constructs import Model, answer

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
X = torch.randn(4, 3)


def adjacency(edges, values=None):
    values = torch.ones(edges.shape[1]) if values is None else values
    return torch.sparse_coo_tensor(edges.flip(0), values, (4, 4))


def added_up(edges, h):
    return torch.zeros(4, h.shape[1]).index_add(0, edges[1], h[edges[0]])


CONVOLUTIONS = {
    "index_add": added_up,
    "@": lambda e, h: adjacency(e) @ h,
    "torch.sparse.mm": lambda e, h: torch.sparse.mm(adjacency(e), h),
    "torch.spmm": lambda e, h: torch.spmm(adjacency(e), h),
    "coalesced": lambda e, h: adjacency(e).coalesce() @ h,
    "weighted": lambda e, h: adjacency(e, torch.rand(5)) @ h,
    "normalized": lambda e, h: adjacency(e, 1 / e[1].bincount(minlength=4)[e[1]]) @ h,
    "dense": lambda e, h: adjacency(e).to_dense() @ h,
    "csr": lambda e, h: adjacency(e).to_sparse_csr() @ h,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_graph_convolution_by_an_input_of_edges(name):
    # nodes are positions, which the matrix adds up: 3 inputs, 5 channels, 2 outputs, one ReLU
    model = Model(
        lambda m, x, e: m.b(torch.relu(CONVOLUTIONS[name](e, m.a(x)))),
        a=nn.Linear(3, 5),
        b=nn.Linear(5, 2),
    )
    status = "example" if name == "normalized" else "exact"  # counts are as many as values say
    assert answer(model, X, EDGES, status=status) == (3 * 5 * 2, 1, 1)


def test_edges_with_values_of_the_network():
    """Attention over edges: each value has a path of its own to what it weighs."""
    model = Model(
        lambda m, x, e: adjacency(e, torch.sigmoid(m.b(x)[e[0], 0])) @ m.a(x),
        a=nn.Linear(3, 5),
        b=nn.Linear(3, 1),
    )
    # each of 5 channels has 3 paths over its own unit and 3 over the sigmoid
    report = pathlen.measure(model, (X, EDGES), exact=True)
    assert (report.path_count, report.num_active) == (5 * (3 + 3), 1)
