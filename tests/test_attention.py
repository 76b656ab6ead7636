"""Attention, token mixing and other contractions, however they are written, worked out by hand.

`answer` gives (path count, average path length, normalized average path length), all exact.
"Ways" of a unit are the paths from the inputs to it. A dense layer multiplies ways by the number of
units it reads; a merge adds the ways of the tensors it merges. The walk goes backward and takes
each predecessor of a node with the same chance.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen import Policy
from tests.constructs import HALF, IMAGE, TOKENS, X2, Model, answer

# --- attention ------------------------------------------------------------------------------------


class Attention(nn.Module):
    """2 heads of width 2 on a stream of width 4, with a ReLU on the values if asked for."""

    def __init__(self, attend, *, relu: bool, heads: int = 2, shared_heads: int = 2):
        super().__init__()
        self.attend, self.relu, self.heads, self.shared = attend, relu, heads, shared_heads
        self.q, self.out = nn.Linear(4, 2 * heads), nn.Linear(2 * heads, 4)
        self.k, self.v = nn.Linear(4, 2 * shared_heads), nn.Linear(4, 2 * shared_heads)

    def forward(self, x):
        batch, tokens, _ = x.shape
        v = torch.relu(self.v(x)) if self.relu else self.v(x)
        q = self.q(x).view(batch, tokens, self.heads, 2).transpose(1, 2)
        k, v = (t.view(batch, tokens, self.shared, 2).transpose(1, 2) for t in (self.k(x), v))
        joined = self.attend(q, k, v).transpose(1, 2).reshape(batch, tokens, 2 * self.heads)
        return self.out(joined)


def by_matmul(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(2), dim=-1) @ v


def by_scaled_keys(q, k, v):
    scores = (q * 0.5**0.5) @ k.transpose(-2, -1)
    return F.dropout(scores.softmax(-1), 0.1, training=False) @ v


def by_einsum(q, k, v):
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


def by_bmm(q, k, v):
    shape = q.shape
    q, k, v = (t.reshape(-1, *t.shape[-2:]) for t in (q, k, v))
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v).view(shape)


def with_mask(q, k, v):
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    scores = (q @ k.transpose(-2, -1)).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def softmax_by_hand(q, k, v):
    e = torch.exp(q @ k.transpose(-2, -1))
    return (e / e.sum(-1, keepdim=True)) @ v


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


FORMS_OF_ATTENTION = [
    F.scaled_dot_product_attention,
    causal,
    by_matmul,
    by_scaled_keys,
    by_einsum,
    by_bmm,
    with_mask,
    softmax_by_hand,
]


@pytest.mark.parametrize("attend", FORMS_OF_ATTENTION)
def test_attention_is_its_two_contractions_however_it_is_written(attend):
    # A head output reads its value unit (1 way, a ReLU) and the score of the head, which reads
    # 2 query and 2 key units: 5 ways; 4 units below each; 4 head outputs below each of 4 outputs.
    # The walk steps to the value unit half the time.
    model = Attention(attend, relu=True)
    assert answer(model, TOKENS) == (4 * 4 * 5 * 4, Fraction(1, 5), HALF)
    assert answer(model, TOKENS, policy=Policy(attention="value")) == (4 * 4 * 4, 1, 1)


@pytest.mark.parametrize("attend", FORMS_OF_ATTENTION)
def test_counting_the_softmax(attend):
    # its unit lies on the 4 of 5 ways over the scores
    model = Attention(attend, relu=False)
    assert answer(model, TOKENS) == (320, 0, 0)
    policy = Policy(count={"softmax"})
    assert answer(model, TOKENS, policy=policy) == (320, Fraction(4, 5), HALF)


@pytest.mark.parametrize("attend", [F.scaled_dot_product_attention, by_matmul, by_einsum])
def test_counting_products(attend):
    # both contractions multiply two path tensors: a way over the values has one product, one
    # over the scores two
    model = Attention(attend, relu=False)
    policy = Policy(count={"product"})
    assert answer(model, TOKENS, policy=policy) == (320, Fraction(9, 5), Fraction(3, 2))


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_module(need_weights):
    model = Model(
        lambda m, x: m.attention(x, x, x, need_weights=need_weights)[0],
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
    )
    assert answer(model, TOKENS) == (320, 0, 0)
    counted = answer(model, TOKENS, policy=Policy(count={"softmax"}))
    assert counted == (320, Fraction(4, 5), HALF)
    assert answer(model, TOKENS, policy=Policy(attention="value")) == (64, 0, 0)


# --- attention with learned queries or keys -------------------------------------------------------


def by_heads(q, k, v):
    heads = range(q.shape[1])
    each = [torch.softmax(q[:, h] @ k[:, h].mT * 0.5**0.5, -1) @ v[:, h] for h in heads]
    return torch.stack(each, 1)


def by_keys(q, k, v):
    return torch.softmax(k @ q.mT, -2).mT @ v


def by_products(q, k, v):
    scores = (q[:, :, :, None] * k[:, :, None]).sum(-1).softmax(-1)
    return (scores[..., None] * v[:, :, None]).sum(-2)


UNMASKED = [a for a in FORMS_OF_ATTENTION if a not in (causal, with_mask)]
UNMASKED += [by_heads, by_keys, by_products]


class Learned(nn.Module):
    """Two heads of width 2, with 5 learned queries, or with 5 learned keys and their values."""

    def __init__(self, attend, learned):
        super().__init__()
        self.attend, self.learned = attend, learned
        self.tokens = nn.Parameter(torch.randn(1, 5, 4))
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in "qkvo")

    def forward(self, x):
        learned = self.tokens.expand(len(x), -1, -1)
        from_query, from_key = (learned, x) if self.learned == "queries" else (x, learned)
        q, k, v = self.q(from_query), self.k(from_key), self.v(from_key)
        q, k, v = (t.view(len(x), -1, 2, 2).transpose(1, 2) for t in (q, k, v))
        return self.out(self.attend(q, k, v).transpose(1, 2).reshape(len(x), -1, 4))


BATCH = torch.randn(2, 3, 4)


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize("attend", UNMASKED, ids=lambda a: a.__name__)
def test_learned_queries_are_the_features_of_a_layer_on_the_keys(attend, edges):
    # Each of 5 queries is a linear function of a head's 2 key units, 8 ways; with 2 value units of
    # 4 ways each it makes 2 units of 12. All 2 * 5 * 2 of them are read by each of 4 outputs.
    model = Learned(attend, "queries")
    assert answer(model, BATCH, edges=edges) == (4 * 20 * 12, 0, 0)
    counted = answer(model, BATCH, edges=edges, policy=Policy(count={"product"}))
    assert counted == (960, 1, 1)  # queries times keys is none


def test_learned_queries_in_the_module_of_torch():
    def attend(m, x, **settings):
        queries = m.tokens.expand(len(x), -1, -1)
        return m.attention(queries, x, x, **settings)[0]

    for need_weights in (True, False):
        model = Model(
            lambda m, x, w=need_weights: attend(m, x, need_weights=w),
            attention=nn.MultiheadAttention(4, 2, batch_first=True),
        )
        model.tokens = nn.Parameter(torch.randn(1, 5, 4))
        assert answer(model, BATCH) == (960, 0, 0)


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize("attend", UNMASKED[:-2] + UNMASKED[-1:], ids=lambda a: a.__name__)
def test_learned_keys_are_a_layer_on_the_queries(attend, edges):
    # A head is two layers, 2 -> 5 and, over the softmax, 5 -> 2: 4 * 2 * 5 ways to each of its
    # units, all 4 of which each output reads.
    model = Learned(attend, "keys")
    assert answer(model, BATCH, edges=edges) == (4 * 4 * 40, 0, 0)


EXPERTS = {
    "einsum": lambda h, w: torch.einsum("btd,edf->ebtf", h, w),
    "matmul": lambda h, w: h @ w[:, None],
    "bmm, expanded": lambda h, w: torch.bmm(h.flatten(0, 1).expand(3, -1, -1), w),
    "bmm, repeated": lambda h, w: torch.bmm(h.flatten(0, 1).repeat(3, 1, 1), w),
    "product and sum": lambda h, w: (h[None, ..., None] * w[:, None, None]).sum(-2),
    "one by one": lambda h, w: torch.stack([h @ matrix for matrix in w]),
}


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize("name", EXPERTS)
def test_matrices_on_one_tensor_are_a_layer_each(name, edges):
    weight = torch.randn(3, 4, 2)
    model = Model(
        lambda m, x: m.b(EXPERTS[name](m.a(x), weight).relu().movedim(0, -2).flatten(-2)),
        a=nn.Linear(4, 4),
        b=nn.Linear(6, 2),
    )
    assert answer(model, BATCH, edges=edges) == (4 * 4 * 6 * 2, 1, 1)


def repeated(q, k, v):
    k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def expanded(q, k, v):
    batch, heads, tokens, width = k.shape
    k, v = (
        t[:, :, None]
        .expand(batch, heads, 2, tokens, width)
        .reshape(batch, 2 * heads, tokens, width)
        for t in (k, v)
    )
    return by_matmul(q, k, v)


def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pytest.mark.parametrize("attend", [grouped, repeated, expanded])
@pytest.mark.parametrize("shared_heads", [1, 2])
def test_grouped_query_attention_shares_keys_and_values(attend, shared_heads):
    # 2 query heads a shared head: 4 * shared head outputs, each with 1 + 2 + 2 ways as before
    model = Attention(attend, relu=True, heads=2 * shared_heads, shared_heads=shared_heads)
    expected = (4 * 4 * shared_heads * 5 * 4, Fraction(1, 5), HALF)
    assert answer(model, TOKENS) == expected
    # the two heads of a group read the same 2 value units, so there are 2 * shared active units
    assert pathlen.trace(model, TOKENS).num_active == 2 * shared_heads


def test_cross_attention():
    # queries from y (width 3), keys and values from x (width 2), one head of width 2: an output
    # unit of the head has 2 * 3 ways over the queries, 2 * 2 over the keys, 2 over its value
    def forward(m, x, y):
        return F.scaled_dot_product_attention(m.q(y), m.k(x), torch.relu(m.v(x)))

    model = Model(forward, q=nn.Linear(3, 2), k=nn.Linear(2, 2), v=nn.Linear(2, 2))
    expected = (2 * 12, Fraction(2, 12), HALF)
    assert answer(model, torch.zeros(1, 5, 2), torch.zeros(1, 4, 3)) == expected


def test_token_mixing_keeps_channels_apart():
    # 2 channels of 3 ways (an image of 3 channels cut into 4 patches). The linear layers along
    # the tokens pass each channel to itself, with a ReLU: 2 ways into each sum, one of length 1.
    # The channel layers: 2 * 4 + 1 ways. A dense layer reads both channels.
    def forward(m, image):
        x = m.patches(image).flatten(2).transpose(1, 2)  # (1, tokens, channels)
        x = x + m.tokens(m.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + m.channels(m.norm2(x))
        return m.head(x.mean(1))

    model = Model(
        forward,
        patches=nn.Conv2d(3, 2, 2, 2),
        tokens=nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 4)),
        channels=nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)),
        norm1=nn.LayerNorm(2),
        norm2=nn.LayerNorm(2),
        head=nn.Linear(2, 1),
    )
    assert answer(model, IMAGE) == (3 * 2 * 9 * 2, HALF + Fraction(8, 9), 1)


# --- contractions ---------------------------------------------------------------------------------


def weight(*shape):
    return nn.Parameter(torch.randn(*shape))


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x @ w,
        lambda x, w: torch.einsum("bi,io->bo", x, w),
        lambda x, w: torch.einsum("...i,io->...o", x, w),
        lambda x, w: torch.einsum("io,bi->bo", w, x),
        lambda x, w: torch.mm(x, w),
        lambda x, w: torch.addmm(torch.zeros(3), x, w),
        lambda x, w: (w.t() @ x.t()).t(),
        lambda x, w: torch.tensordot(x, w, dims=1),
    ],
)
def test_a_product_with_a_constant_is_a_layer(product):
    model = Model(lambda m, x: torch.relu(product(x, m.w)), w=weight(2, 3))
    assert answer(model, X2) == (6, 1, 1)


def two_layers(combine, width=3):
    """b = relu(dense(x)) of the given width beside a = dense(x) of 2."""
    return Model(
        lambda m, x: combine(m.a(x), torch.relu(m.b(x))), a=nn.Linear(2, 2), b=nn.Linear(2, width)
    )


@pytest.mark.parametrize(
    "outer",
    [
        lambda a, b: torch.einsum("bi,bj->bij", a, b),
        lambda a, b: a[:, :, None] @ b[:, None, :],
        lambda a, b: a[:, :, None] * b[:, None, :],
    ],
)
def test_an_outer_product_has_a_unit_for_each_pair(outer):
    # 2 * 3 units, each reading one unit of a (2 ways) and one of b (2 ways, a ReLU)
    assert answer(two_layers(outer), X2) == (24, HALF, HALF)


@pytest.mark.parametrize(
    "dot",
    [
        lambda a, b: torch.einsum("bi,bi->b", a, b),
        lambda a, b: (a[:, None, :] @ b[:, :, None]).squeeze(),
    ],
)
def test_a_dot_product_is_one_unit_behind_two_hubs(dot):
    # one hub over the 2 units of a, one over those of b: 4 + 4 ways
    assert answer(two_layers(dot, width=2), X2) == (8, HALF, HALF)


def test_a_dot_product_with_itself_is_a_sum_of_squares():
    model = Model(lambda m, x: torch.einsum("bi,bi->b", (h := m.a(x)), h), a=nn.Linear(2, 3))
    assert answer(model, X2) == (6, 1, 1)
