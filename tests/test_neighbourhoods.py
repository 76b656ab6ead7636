"""Graphs in plain torch: softmax over neighbours, counts of them, and integers that say where.

The nodes of a graph are positions: sums over neighbours keep channels apart.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model, answer

NODES = torch.randn(4, 2)
SOURCE = torch.tensor([0, 1, 1, 2, 2, 3, 0, 1, 2, 3])
TARGET = torch.tensor([1, 0, 2, 1, 3, 2, 0, 1, 2, 3])
IDS = torch.tensor([[0, 3, 1, 2, 6, 5], [1, 1, 2, 4, 0, 3]])


def zeros(x):
    return x.new_zeros(4, *x.shape[1:])


def expanded(index, x):
    return index.view(-1, 1).expand_as(x)


ADDED = {
    "scatter_add": lambda x, i: zeros(x).scatter_add(0, expanded(i, x), x),
    "scatter_add_": lambda x, i: zeros(x).scatter_add_(0, expanded(i, x), x),
    "scatter_reduce": lambda x, i: zeros(x).scatter_reduce(0, expanded(i, x), x, "sum"),
    "index_add": lambda x, i: zeros(x).index_add(0, i, x),
    "index_put": lambda x, i: zeros(x).index_put((i,), x, accumulate=True),
}
READ = {
    "index_select": lambda x, i: x.index_select(0, i),
    "index": lambda x, i: x[i],
    "gather": lambda x, i: x.gather(0, i.unsqueeze(-1).expand(-1, x.shape[1])),
}


def largest(x, index):
    start = zeros(x)
    return start.scatter_reduce_(0, expanded(index, x), x.detach(), "amax", include_self=False)


def neighbour_softmax(scores, index, add="scatter_add_", read="index_select", shift=True):
    if shift:
        scores = scores - READ[read](largest(scores, index), index)
    powers = scores.exp()
    return powers / READ[read](ADDED[add](powers, index) + 1e-16, index)


class Attention(nn.Module):
    """Additive attention of nodes of 2 features to their neighbours, in 4 channels."""

    def __init__(self, softmax, *, held=True):
        super().__init__()
        self.softmax = softmax
        self.h, self.left, self.right = nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(4, 1)
        self.held = (SOURCE, TARGET) if held else None

    def forward(self, x, *edges):
        source, target = edges or self.held
        h = self.h(x)
        scores = F.leaky_relu(self.left(h)[source] + self.right(h)[target], 0.2)
        messages = self.softmax(scores, target) * h[source]
        return zeros(messages).index_add_(0, target, messages)


# h: 2 ways to each of 4 channels; a score: 8 + 8 ways, each over the leaky ReLU; channel c of a
# message: 2 ways of h_c, 16 of the score
ATTENTION = (4 * 18, Fraction(16, 18), Fraction(1, 2))


def both(softmax):
    """A model with its edges, and one that is given them."""
    return (Attention(softmax), (NODES,)), (Attention(softmax, held=False), (NODES, SOURCE, TARGET))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("add", ADDED)
def test_a_softmax_over_neighbours_is_a_pass(add, read, shift):
    for model, args in both(lambda s, i: neighbour_softmax(s, i, add, read, shift)):
        assert answer(model, *args) == ATTENTION


@pytest.mark.parametrize("add", ["scatter_add_", "index_put"])
def test_a_softmax_over_neighbours_is_verified(add):
    for model, args in both(lambda s, i: neighbour_softmax(s, i, add)):
        verdict = pathlen.verify(model, args)
        assert verdict.ok, verdict


def test_scores_that_differ_from_edge_to_edge_keep_their_units():
    # edges 0 to 5 have a score of their own (2 ways), the loops 6 to 9 have none; over one ReLU
    def scores(m, x, features):
        own = m.a(features).relu()
        return neighbour_softmax(torch.cat([own, torch.zeros(4, 1)]), TARGET)

    model = Model(scores, a=nn.Linear(2, 1))
    report = pathlen.measure(model, (NODES, torch.randn(6, 2)))
    assert report.status == "exact"
    averages = report.average_path_length, report.normalized_average_path_length
    assert (report.path_count, *averages) == (2, 1, 1)
    assert pathlen.verify(model, (NODES, torch.randn(6, 2))).ok


def test_it_counts_as_a_softmax_where_the_policy_counts_these():
    policy = pathlen.Policy(count={"softmax"})
    count, average, _ = answer(Attention(neighbour_softmax), NODES, policy=policy)
    assert (count, average) == (72, Fraction(16, 18))


def test_a_dense_softmax_has_the_numbers_of_one_over_all_neighbours():
    source, target = torch.arange(4).repeat(4), torch.arange(4).repeat_interleave(4)

    def dense(m, x):
        h = m.h(x)
        scores = F.leaky_relu(m.left(h).view(1, 4) + m.right(h), 0.2)
        return (scores.softmax(-1).unsqueeze(-1) * h).sum(1)

    sparse = Attention(neighbour_softmax, held=False)
    written = Model(dense, h=sparse.h, left=sparse.left, right=sparse.right)
    torch.testing.assert_close(written(NODES), sparse(NODES, source, target))
    assert answer(written, NODES) == answer(sparse, NODES, source, target) == ATTENTION


OTHER_SUMS = {
    "read at other nodes": lambda s, i: s.exp() / zeros(s).index_add(0, i, s.exp())[SOURCE],
    "of something else": lambda s, i: s.exp() / zeros(s).index_add(0, i, (2 * s).exp())[i],
    "the last, not the sum": lambda s, i: s.exp() / zeros(s).index_put((i,), s.exp())[i],
    "the largest": lambda s, i: s.exp() / largest(s.exp(), i)[i],
}


@pytest.mark.parametrize("name", OTHER_SUMS)
def test_quotients_that_are_no_softmax_are_bent(name):
    _, average, _ = answer(Attention(OTHER_SUMS[name]), NODES)
    assert average > ATTENTION[1]


def test_a_quotient_of_exponentials_of_two_tensors_is_no_softmax():
    # one exp a channel: 3 ways to the one above, 4 * 3 to the sum below
    model = Model(
        lambda m, x: m.a(x).exp() / m.b(x).exp().sum(-1, keepdim=True),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
    )
    assert answer(model, torch.randn(5, 3)) == (4 * (3 + 12), 1, 1)
    assert pathlen.verify(model, torch.randn(5, 3)).ok


def test_a_softmax_computed_apart_is_one():
    # 3 * 4 paths, each over the tanh alone
    def twice(m, x):
        h = m.a(x).tanh()
        return (h - h.amax(-1, keepdim=True)).exp() / h.exp().sum(-1, keepdim=True)

    assert answer(Model(twice, a=nn.Linear(3, 4)), torch.randn(5, 3)) == (12, 1, 1)


def convolve(m, x, source, target):
    """A graph convolution: messages weighted by 1 / sqrt(degree) at either end."""
    degrees = torch.zeros(4).scatter_add_(0, target, torch.ones(len(target))).pow_(-0.5)
    weights = degrees.masked_fill_(degrees == torch.inf, 0)[source] * degrees[target]
    messages = weights.unsqueeze(-1) * m.a(x)[source]
    return m.b(torch.zeros(4, 4).index_add_(0, target, messages).relu())


def test_counted_integers_have_no_path():
    # 2 * 4 * 1 ways over one ReLU, whether the edges are held or given
    layers = {"a": nn.Linear(2, 4), "b": nn.Linear(4, 1)}
    given = Model(convolve, **layers)
    held = Model(lambda m, x: convolve(m, x, SOURCE, TARGET), **layers)
    assert answer(given, NODES, SOURCE, TARGET) == answer(held, NODES) == (8, 1, 1)
    assert pathlen.verify(given, (NODES, SOURCE, TARGET)).ok


TABLE = torch.randn(7, 7, 4)
LOOKED_UP = {  # a look-up, and the units that it makes of the one unit of the ids
    "embedding": (lambda ids: F.embedding(ids, TABLE[:, 0]), 4),
    "rows": (lambda ids: TABLE[:, 0][ids], 4),
    "columns": (lambda ids: TABLE[:, 0].T[:, ids], 4),
    "columns selected": (lambda ids: TABLE[:, 0].T.index_select(1, ids[0]), 4),
    "numbers": (lambda ids: TABLE[:, 0, 0][ids], 1),
    "numbers gathered": (lambda ids: TABLE[:, 0, 0].gather(0, ids[0]), 1),
    "gathered from copies": (lambda ids: TABLE[:, 0, 0].expand(2, 7).gather(1, ids), 1),
    "two axes": (lambda ids: TABLE[ids, 6 - ids], 4),
    "axes apart": (lambda ids: TABLE.transpose(1, 2)[ids, :, ids], 4),
    "other integers first": (lambda ids: TABLE[:, 0][torch.arange(7).flip(0)[ids]], 4),
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a_look_up_in_a_constant_table_is_a_layer(name):
    function, units = LOOKED_UP[name]
    model = Model(lambda m, ids: function(ids).relu())
    assert answer(model, IDS) == (units, 1, 1)
    assert pathlen.verify(model, IDS).ok


def test_a_look_up_at_two_inputs_reads_both():
    model = Model(lambda m, ids, others: TABLE[ids, others].relu())
    assert answer(model, IDS, IDS) == (2 * 4, 1, 1)
