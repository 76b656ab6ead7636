"""Weights that the input chooses but that carry no path are weights: layers, not products.

Each spelling has the numbers of the layer with weights that are the same for all inputs.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.errors import UnsupportedOperation
from tests.constructs import Model, answer

X, TOKENS, IDS = torch.randn(2, 4), torch.randn(2, 6, 4), torch.randint(0, 7, (2, 6))


def model(function):
    """A function between dense layers 4 -> 4 and 5 -> 2, with weights of three experts."""
    made = Model(
        lambda m, *args: m.leave(function(m, m.enter(args[0]), *args[1:]).relu()),
        enter=nn.Linear(4, 4),
        leave=nn.Linear(5, 2),
        gate=nn.Linear(4, 3),
    )
    for name, shape in {"w": (4, 5), "v": (5, 4), "kernel": (5, 4, 3), "bi": (5, 4, 4)}.items():
        setattr(made, name, nn.Parameter(torch.randn(3, *shape)))
    made.table = nn.Parameter(torch.randn(3, 7, 5))
    return made


def expert(m, h):
    """The expert that the gate likes best, for each item."""
    return m.gate(h.mean(1)).argmax(-1)


def one_expert(m, h):
    """The same for the first item, on the CPU as an index of one element."""
    return m.gate(h.mean(1))[:1].argmax(-1)


MATRICES = {
    "bmm": lambda m, h: torch.bmm(h, m.w[expert(m, h)]),
    "matmul": lambda m, h: h @ m.w[expert(m, h)],
    "einsum": lambda m, h: torch.einsum("btc,bco->bto", h, m.w[expert(m, h)]),
    "index_select": lambda m, h: torch.bmm(h, m.w.index_select(0, expert(m, h))),
    "gather": lambda m, h: torch.bmm(h, m.w.gather(0, expert(m, h)[:, None, None].expand(2, 4, 5))),
    "one hot": lambda m, h: torch.bmm(
        h,
        torch.einsum("be,eco->bco", (expert(m, h)[:, None] == torch.arange(3)).float(), m.w),
    ),
    "baddbmm": lambda m, h: torch.baddbmm(m.table[0, 0], h, m.w[expert(m, h)]),
    "linear": lambda m, h: F.linear(h, m.v[one_expert(m, h)][0]),
    "linear with a bias": lambda m, h: F.linear(h, m.v[0], m.table[one_expert(m, h), 0][0]),
    "a mask of a weight": lambda m, h: h @ (m.w[0] * (m.w[0].abs() > 0.5)),
    "a mask that the input decides on": lambda m, h: h @ (m.w[0] * (m.w[0].abs() > h.mean())),
    "where": lambda m, h: h @ torch.where(m.w[0].abs() > h.mean(), m.w[0], 0.0),
    "masked_fill": lambda m, h: h @ m.w[0].masked_fill(m.w[0].abs() > h.mean(), 0.0),
    "the sign of a weight": lambda m, h: h @ (m.w[0] * (h.mean() > 0).float()),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_that_is_chosen_is_a_layer(name):
    plain = answer(model(lambda m, h: h @ m.w[0]), TOKENS)
    assert plain == (4 * 4 * 5 * 2, 1, 1)
    assert answer(model(MATRICES[name]), TOKENS) == plain


CONVOLUTIONS = {
    "conv1d": lambda m, h, k: F.conv1d(h.mT, k, padding=1).mT,
    "conv_transpose1d": lambda m, h, k: F.conv_transpose1d(h.mT, k.transpose(0, 1)).mT,
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_kernel_that_is_chosen_is_a_layer(name):
    convolve = CONVOLUTIONS[name]
    chosen = model(lambda m, h: convolve(m, h, m.kernel[one_expert(m, h)][0]))
    assert answer(chosen, TOKENS) == (4 * 4 * 5 * 2, 1, 1)
    assert answer(model(lambda m, h: convolve(m, h, m.kernel[0])), TOKENS) == (160, 1, 1)


def test_a_bilinear_layer_that_is_chosen():
    chosen = model(lambda m, h: F.bilinear(h, h, m.bi[one_expert(m, h)][0]))
    assert answer(chosen, TOKENS) == answer(model(lambda m, h: F.bilinear(h, h, m.bi[0])), TOKENS)


@pytest.mark.parametrize(
    "look_up",
    [
        lambda m, h, ids: F.embedding(ids, m.table[one_expert(m, h)][0]),
        lambda m, h, ids: m.table[one_expert(m, h)][0][ids],
        lambda m, h, ids: F.embedding(ids, m.table[0] * (m.table[0] > h.mean())),
        lambda m, h, ids: F.embedding(ids, m.table[0]),
    ],
)
def test_a_table_that_is_chosen_is_an_embedding(look_up):
    # one unit for the ids, read by 5 features, each of which 2 outputs read
    assert answer(model(look_up), TOKENS, IDS) == (10, 1, 1)


def test_counts_of_the_input_are_no_table():
    def function(m, h, ids):
        degrees = torch.zeros(7).scatter_add(0, ids.flatten(), torch.ones(12))
        return (h @ m.w[0]) * degrees[ids][..., None]

    assert answer(model(function), TOKENS, IDS) == (160, 1, 1)


def test_a_table_that_comes_from_the_input_is_read_at_places():
    def function(m, h, ids):
        return F.embedding(ids, (h @ m.w[0]).flatten(0, 1))

    assert answer(model(function), TOKENS, IDS) == (160, 1, 1)


# --- weights that carry a path -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "paths"),
    [
        # h and w: 4 units of 4 ways each; w as (4 in, 2 out): channel 0 has weights w0 w2 w0 w2,
        # channel 1 w1 w3 w1 w3. A channel of the result: 16 ways of h and 8 of w
        (1, 2 * (16 + 8)),
        # in groups of two inputs and two outputs: 8 ways of h and 8 of w each
        (2, 4 * (8 + 8)),
    ],
)
def test_a_transposed_convolution_by_a_computed_weight(groups, paths):
    def function(m, x):
        return F.conv_transpose1d(m.a(x)[..., None], m.b(x).view(4, 2, 1), groups=groups)

    made = Model(function, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    assert answer(made, X) == (paths, 0, 0)
    counted = pathlen.Policy(count={"product"})
    assert answer(made, X, policy=counted) == (paths, 1, 1)


def test_a_modulated_transposed_convolution():
    # StyleGAN2: styles scale the weight, batch items are groups
    def modulated(m, x):
        weight = m.weight * m.style(x).view(2, 4, 1, 1, 1)  # item, in, out, kernel
        weight = weight.reshape(8, 3, 3, 3)
        image = m.enter(x)[..., None, None].expand(2, 4, 5, 5).reshape(1, 8, 5, 5)
        return F.conv_transpose2d(image, weight, stride=2, groups=2).view(2, 3, 11, 11)

    made = Model(modulated, enter=nn.Linear(4, 4), style=nn.Linear(4, 4))
    made.weight = nn.Parameter(torch.randn(1, 4, 3, 3, 3))
    # each of 3 channels: 16 ways of the image and 16 of the weight
    assert answer(made, X) == (3 * 32, 0, 0)


def test_a_bias_that_comes_from_the_input_meets_the_result():
    def function(m, x):
        return F.conv1d(m.a(x)[..., None], m.weight, m.b(x).relu()[0, :2])

    made = Model(function, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    made.weight = nn.Parameter(torch.randn(2, 4, 1))
    # each of 2 channels: 16 ways of the layer, 4 of the bias, over a ReLU
    assert answer(made, X)[0] == 2 * (16 + 4)
    assert pathlen.measure(made, X).normalized_average_path_length == 0.5


def test_a_bag_of_a_computed_table_is_refused():
    def function(m, x):
        return F.embedding_bag(torch.zeros(2, 2, dtype=torch.int64), m.a(x))

    with pytest.raises(UnsupportedOperation, match="its weight is computed from the model's input"):
        pathlen.measure(Model(function, a=nn.Linear(4, 4)), X)


# --- edges with weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bmm", "linear", "a mask that the input decides on"])
def test_the_graph_is_the_same_with_weights(name):
    made = model(MATRICES[name])
    graph = pathlen.trace(made, TOKENS, edges="weights")
    assert answer(made, TOKENS)[0] == pathlen.measure(graph, exact=True).path_count


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 3])
def test_sums_over_neighbours_that_the_input_decides_on_mix_positions(features):
    def function(m, x):
        places = m.place(x)
        return (places[:, :, None] > places[:, None, :]).float() @ m.enter(x)

    place = nn.Sequential(nn.Linear(4, 1), nn.Flatten(1))
    made = Model(function, enter=nn.Linear(4, features), place=place)
    assert answer(made, TOKENS) == (4 * features, 0, 0)


@pytest.mark.parametrize("edges", ["connections", "weights"])
@pytest.mark.parametrize(("rows", "matrices"), [((1,), (3,)), ((1,), (2, 3)), ((2, 1), (3,))])
def test_a_batch_of_one_times_a_batch_of_weights(rows, matrices, edges):
    """`torch.matmul` broadcasts both; each matrix is a layer of its own."""
    torch.manual_seed(0)
    batch = torch.broadcast_shapes(rows, matrices)
    count = 2 * 4 * torch.Size(rows).numel()
    parts = {"first": nn.Linear(6, count), "w": nn.Parameter(torch.randn(*matrices, 4, 5))}

    def read(s, x):
        return torch.relu(s.first(x)).view(*rows, 2, 4)

    spellings = {
        "matmul": lambda s, x: read(s, x) @ s.w,
        "expanded": lambda s, x: read(s, x).expand(*batch, 2, 4) @ s.w.expand(*batch, 4, 5),
        "transposed": lambda s, x: (s.w.mT @ read(s, x).mT).mT,
        "einsum": lambda s, x: torch.einsum("...ik,...kj->...ij", read(s, x), s.w),
    }
    found = {
        name: answer(Model(body, **parts), torch.randn(6), edges=edges)
        for name, body in spellings.items()
    }
    assert len({*found.values()}) == 1, found
    assert found["matmul"][0] == 6 * 8 * torch.Size(batch).numel() * 5


@pytest.mark.parametrize("computed", [False, True])
def test_a_vector_of_weights_is_a_layer_of_one_feature(computed):
    torch.manual_seed(0)
    parts = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), "w": nn.Parameter(torch.randn(3))}

    def measured(product):
        def forward(s, x):
            weight = s.b(x).mean(0) if computed else s.w
            return product(s.a(x).relu(), weight)

        return answer(Model(forward, **parts), X)

    assert measured(F.linear) == measured(torch.matmul)
    assert measured(torch.mv)[0] == (24 if computed else 12)


@pytest.mark.parametrize("computed", [False, True])
def test_a_convolution_with_time_first(computed):
    torch.manual_seed(0)
    parts = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 30), "w": nn.Parameter(torch.randn(2, 3, 5))}

    def measured(convolve):
        def forward(s, x):
            weight = s.b(x[0, 0]).view(2, 3, 5) if computed else s.w
            return convolve(s.a(x).relu(), weight)

        return answer(Model(forward, **parts), TOKENS)

    def channels_first(x, w):
        return F.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0)).permute(2, 0, 1)

    time_first = measured(lambda x, w: torch.conv_tbc(x, w, torch.zeros(5)))
    assert time_first == measured(channels_first)
    assert time_first[0] == (4 * 3 * 5 if not computed else 4 * 5 * (3 + 6))
