"""Layers, data movement, gates, inputs and outputs as models write them, worked out by hand.

`answer` gives (path count, average path length, normalized average path length), all exact.
"Ways" of a unit are the paths from the inputs to it. A dense layer multiplies ways by the number of
units it reads; a merge adds the ways of the tensors it merges. The walk goes backward and takes
each predecessor of a node with the same chance.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen import Kind
from pathlen.training.resnet import PaddedShortcut
from tests.constructs import HALF, IMAGE, X2, Model, answer

# --- convolutions and moving data -----------------------------------------------------------------


def channel_shuffle(x, groups):
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


@pytest.mark.parametrize(
    "shuffle",
    [
        lambda x: channel_shuffle(x, 2),
        nn.ChannelShuffle(2),
        lambda x: F.channel_shuffle(x, 2),
        lambda x: x[:, [0, 2, 1, 3]],
        lambda x: torch.index_select(x, 1, torch.tensor([0, 2, 1, 3])),
    ],
    ids=["written out", "module", "functional", "index", "index_select"],
)
def test_channel_shuffle(shuffle):
    # a grouped convolution gives 4 units of 2 ways, of which 0 and 1 are active; the order after
    # the shuffle is 0 2 1 3, so that the first two are one active and one linear unit
    prelu = nn.PReLU(4)
    prelu.weight.data = torch.tensor([0.0, 0.0, 1.0, 1.0])
    model = Model(
        lambda m, x: shuffle(m.prelu(m.conv(x)))[:, :2],
        conv=nn.Conv2d(4, 4, 3, groups=2),
        prelu=prelu,
    )
    assert answer(model, torch.zeros(1, 4, 5, 5)) == (4, HALF, HALF)


def test_grouped_convolution():
    # 2 groups: each of 6 units reads 2 of the 4 channels
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU())
    assert answer(model, torch.zeros(1, 4, 5, 5)) == (12, 1, 1)
    graph = pathlen.trace(model, torch.zeros(1, 4, 5, 5))
    assert (graph.kind == Kind.HUB).sum() == 2


def test_depthwise_convolution_keeps_channels_apart():
    # each of 8 units reads one channel; then 3 units read all 8
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 3, 1))
    assert answer(model[:2], torch.zeros(1, 4, 5, 5)) == (8, 1, 1)
    assert answer(model, torch.zeros(1, 4, 5, 5)) == (24, 1, 1)


def test_zero_padded_shortcut():
    # 2 channels in, 3 hidden, 4 out: 6 ways through the branch; the shortcut reaches channels 1
    # and 2, whose walk takes the ReLU half the time; channels 0 and 3 have the branch alone
    model = Model(
        lambda m, x: m.branch(x) + m.shortcut(x),
        branch=nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 1, 1)),
        shortcut=PaddedShortcut(2, 4, 2),
    )
    assert answer(model, torch.zeros(1, 2, 6, 6)) == (26, Fraction(24, 26), Fraction(3, 4))


def test_zero_padded_shortcut_by_concatenation():
    def forward(m, x):
        return m.branch(x) + torch.cat([x, torch.zeros_like(x)], dim=1)

    model = Model(
        forward,
        branch=nn.Sequential(nn.Conv2d(2, 3, 3, 1, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 1, 1)),
    )
    assert answer(model, torch.zeros(1, 2, 6, 6)) == (26, Fraction(24, 26), Fraction(3, 4))


def test_an_image_flattened_into_a_linear_layer_has_one_input_unit_a_pixel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    assert answer(model, torch.zeros(5, 2, 2, 2)) == (8 * 3 * 2, 1, 1)
    assert pathlen.trace(model, torch.zeros(5, 2, 2, 2)).num_inputs == 8


def test_an_image_into_a_convolution_has_one_input_unit_a_channel():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    assert answer(model, torch.zeros(5, 2, 2, 2)) == (12, 0, 0)


def test_input_axis_overrides_what_the_first_layer_tells():
    # rows of an image into a linear layer along the columns: 4 columns by default, 3 rows else;
    # a linear layer along an axis of positions keeps the rows apart
    model = nn.Linear(4, 2)
    x = torch.zeros(1, 3, 4)
    assert answer(model, x) == (8, 0, 0)
    assert answer(model, x, input_axis=1) == (3, 0, 0)
    assert answer(model, x, input_axis={"input": -1}) == (8, 0, 0)


def test_flattened_channels_share_a_unit():
    # 4 positions of each of 3 channels are read by a dense layer: 2 * 3 ways, not 2 * 12
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    assert answer(model, torch.zeros(1, 2, 2, 2)) == (2 * 3 * 5, 1, 1)


@pytest.mark.parametrize(
    ("layer", "shape", "paths"),
    [
        (nn.Conv1d(2, 3, 3), (1, 2, 5), 6),
        (nn.Conv3d(2, 3, 3), (1, 2, 5, 5, 5), 6),
        (nn.Conv1d(2, 4, 3, groups=2), (1, 2, 5), 4),
        (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (1, 2, 5, 5), 6),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (1, 2, 5, 5), 6),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (1, 2, 5, 5), 6),
        (nn.ConvTranspose1d(2, 3, 3), (1, 2, 5), 6),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (1, 2, 5, 5), 6),
        (nn.ConvTranspose2d(2, 4, 3, groups=2), (1, 2, 5, 5), 4),  # each unit reads one channel
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), 12),  # each unit reads two of four
        (nn.ConvTranspose3d(2, 3, 3), (1, 2, 3, 3, 3), 6),
        (nn.Conv2d(2, 3, 3), (2, 5, 5), 6),  # without a batch axis
    ],
    ids=str,
)
def test_convolutions_of_all_dimensions(layer, shape, paths):
    assert answer(nn.Sequential(layer, nn.ReLU()), torch.zeros(shape)) == (paths, 1, 1)


POSITIONAL = {
    "max pool": nn.MaxPool2d(2),
    "average pool": nn.AvgPool2d(2),
    "adaptive": nn.AdaptiveAvgPool2d(2),
    "adaptive max": nn.AdaptiveMaxPool2d(1),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "zero pad": nn.ZeroPad2d(1),
    "reflection pad": nn.ReflectionPad2d(1),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll((1, 1), (2, 3)),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "subsampling": lambda x: x[:, :, ::2, ::2],
    "cumulative sum": lambda x: x.cumsum(-1),
    "mean over positions": lambda x: x.mean((2, 3), keepdim=True),
}


@pytest.mark.parametrize("function", POSITIONAL.values(), ids=POSITIONAL.keys())
def test_what_happens_between_positions_leaves_units_alone(function):
    model = Model(
        lambda m, x: m.b(function(torch.relu(m.a(x)))), a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(2, 4, 1)
    )
    assert answer(model, IMAGE) == (3 * 2 * 4, 1, 1)


@pytest.mark.parametrize(
    ("pool", "paths"),
    # 4 units of 2 ways: in pairs; or each with its neighbours, of which those at the ends have one
    [(lambda x: F.max_pool1d(x, 2), 8), (lambda x: F.avg_pool1d(x, 3, 1, 1), 20)],
    ids=["pairs", "overlapping"],
)
def test_pooling_along_features_has_a_hub_for_each_window(pool, paths):
    model = Model(lambda m, x: pool(torch.relu(m.a(x))), a=nn.Linear(2, 4))
    assert answer(model, torch.zeros(1, 3, 2)) == (paths, 1, 1)


def test_pixel_shuffle_lets_a_convolution_read_what_was_four_channels():
    # 4 units of 3 ways lie side by side in one channel; the next convolution reads them all
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 5, 1))
    assert answer(model, IMAGE) == (3 * 4 * 5, 1, 1)


@pytest.mark.parametrize("reduce", [torch.sum, torch.mean, torch.amax], ids=["sum", "mean", "amax"])
def test_a_reduction_over_channels_is_a_hub(reduce):
    # all 3 channels meet: 2 * 3 ways
    model = Model(lambda m, x: reduce(torch.relu(m.a(x)), -1, True), a=nn.Linear(2, 3))
    assert answer(model, X2) == (6, 1, 1)


def test_concatenation():
    # 2 units of x with 1 way, 3 of the layer with 2 ways and a ReLU; a dense layer reads all 5
    model = Model(
        lambda m, x: m.b(torch.cat([x, torch.relu(m.a(x))], dim=1)),
        a=nn.Linear(2, 3),
        b=nn.Linear(5, 1),
    )
    assert answer(model, X2) == (8, Fraction(6, 8), Fraction(3, 5))


def test_dense_connections():
    # as DenseNet: three layers of 1 unit that read all before: 2, 3 and 4 units. Ways: 2 for the
    # first; 2 + 2 for the second; 2 + 2 + 4 for the third; outputs are all 5 units.
    # Lengths summed, S: 2; 4 + 2 = 6; 8 + 2 + 6 = 16: (2 + 6 + 16) over 2 + 2 + 4 + 8 paths.
    # Walk, N: 1; 1 + 1/3; 1 + (1 + 4/3) / 4 = 19/12; of the 5 outputs: (1 + 4/3 + 19/12) / 5.
    def forward(m, x):
        for layer in (m.a, m.b, m.c):
            x = torch.cat([x, torch.relu(layer(x))], dim=1)
        return x

    model = Model(forward, a=nn.Linear(2, 1), b=nn.Linear(3, 1), c=nn.Linear(4, 1))
    expected = (16, Fraction(24, 16), (1 + Fraction(4, 3) + Fraction(19, 12)) / 5)
    assert answer(model, X2) == expected


# --- gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("squeeze", [nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), True)])
def test_a_squeeze_and_excitation_gate_is_a_merge(squeeze):
    # 2 channels of 3 ways; the gate reads both, one hidden unit, ReLU and sigmoid: 6 ways a
    # channel of length 2, beside 3 of length 0
    def forward(m, x):
        y = m.conv(x)
        return y * torch.sigmoid(m.expand(torch.relu(m.reduce(squeeze(y)))))

    model = Model(
        forward,
        conv=nn.Conv2d(3, 2, 1),
        reduce=nn.Conv2d(2, 1, 1),
        expand=nn.Conv2d(1, 2, 1),
    )
    assert answer(model, IMAGE) == (18, Fraction(12, 9), 1)


def glu_by_chunk(x):
    a, b = x.chunk(2, dim=-1)
    return a * torch.sigmoid(b)


@pytest.mark.parametrize("glu", [glu_by_chunk, F.glu, nn.GLU()], ids=["chunk", "F.glu", "nn.GLU"])
def test_gated_linear_unit(glu):
    # each of 2 results reads a unit of 2 ways and the sigmoid of another
    model = Model(lambda m, x: glu(m.a(x)), a=nn.Linear(2, 4))
    assert answer(model, X2) == (8, HALF, HALF)


def test_swiglu():
    # 3 products of a silu and a linear unit, 2 ways each, into 2 outputs
    model = Model(
        lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)),
        gate=nn.Linear(2, 3),
        up=nn.Linear(2, 3),
        down=nn.Linear(3, 2),
    )
    assert answer(model, X2) == (2 * 3 * 4, HALF, HALF)


# --- inputs and outputs ---------------------------------------------------------------------------


def test_an_unused_branch_is_not_there():
    def forward(m, x):
        m.unused(x).relu()
        return m.a(x)

    model = Model(forward, a=nn.Linear(2, 3), unused=nn.Linear(2, 50))
    assert answer(model, X2) == (6, 0, 0)
    assert pathlen.trace(model, X2).num_nodes == pathlen.trace(nn.Linear(2, 3), X2).num_nodes


def test_two_inputs():
    # a unit: 2 ways over x; 3 * 4 over y with a ReLU
    model = Model(
        lambda m, x, y: m.a(x) + m.b(y),
        a=nn.Linear(2, 2),
        b=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    )
    expected = (28, Fraction(12, 14), HALF)
    assert answer(model, X2, torch.zeros(2, 3)) == expected
    assert pathlen.trace(model, (X2, torch.zeros(2, 3))).num_inputs == 5


def test_two_outputs():
    # 2 * 3 * 1 paths of length 1 and 2 * 3 * 4 * 5 of length 2; each output half of the walks
    def forward(m, x):
        h = torch.relu(m.a(x))
        return m.b(h), m.c(h)

    model = Model(
        forward,
        a=nn.Linear(2, 3),
        b=nn.Linear(3, 1),
        c=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)),
    )
    assert answer(model, X2) == (126, Fraction(246, 126), Fraction(3, 2))
    assert answer(model, X2, outputs=0) == (6, 1, 1)
    assert answer(model, X2, outputs=1) == (120, 2, 2)


def test_one_tensor_returned_twice_is_two_outputs():
    # (h, h, x): 6 + 6 + 2 paths; two of three outputs have the ReLU
    model = Model(lambda m, x: ((h := torch.relu(m.a(x))), h, x), a=nn.Linear(2, 3))
    assert answer(model, X2) == (14, Fraction(12, 14), Fraction(2, 3))


def test_the_input_returned_as_it_is():
    assert answer(nn.Identity(), X2) == (2, 0, 0)


def test_embedding_of_integers():
    # one input unit, 3 features, and 2 units that read them all; positions come from no input
    def forward(m, tokens):
        places = torch.arange(tokens.shape[1])
        return torch.relu(m.out(m.tokens(tokens) + m.places(places)))

    model = Model(
        forward,
        tokens=nn.Embedding(10, 3),
        places=nn.Embedding(8, 3),
        out=nn.Linear(3, 2),
    )
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    assert answer(model, tokens) == (6, 1, 1)
    assert pathlen.trace(model, tokens).num_inputs == 1


def test_a_comparison_cuts():
    # the mask comes from x, but only m.a(x) has a path: 2 ways into 3 units
    model = Model(
        lambda m, x: torch.where(torch.relu(m.b(x)) > 0.5, m.a(x), 0.0),
        a=nn.Linear(2, 3),
        b=nn.Linear(2, 3),
    )
    assert answer(model, X2) == (6, 0, 0)


# --- writing through views ------------------------------------------------------------------------


def assigned(m, x):
    y = m.a(x)
    y[:, :2] = torch.relu(y[:, :2])
    return y


def relu_on_a_slice(m, x):
    y = m.a(x)
    y[:, :2].relu_()
    return y


def relu_on_a_chunk(m, x):
    y = m.a(x)
    first, _ = y.chunk(2, dim=1)
    F.relu_(first)
    return y


def relu_through_a_transpose(m, x):
    y = m.a(x)
    y.t()[:2].relu_()
    return y


def a_buffer_filled(m, x):
    y = m.a(x)
    out = torch.zeros(y.shape)
    out[:, :2] = torch.relu(y[:, :2])
    out[:, 2:] = y[:, 2:]
    return out


def copied(m, x):
    y = m.a(x)
    out = torch.empty_like(y)
    out.copy_(y)
    out[:, :2].relu_()
    return out


def view_taken_before(m, x):
    y = m.a(x)
    seen = y.view(-1, 2, 2)
    y[:, :2].relu_()
    return seen


@pytest.mark.parametrize(
    "forward",
    [
        assigned,
        relu_on_a_slice,
        relu_on_a_chunk,
        relu_through_a_transpose,
        a_buffer_filled,
        copied,
        view_taken_before,
    ],
)
def test_writing_through_a_view_shows_in_its_base(forward):
    # 4 units of 2 ways, the first two active
    assert answer(Model(forward, a=nn.Linear(2, 4)), X2) == (8, HALF, HALF)


def test_writing_constants_ends_paths():
    def forward(m, x):
        y = torch.relu(m.a(x))
        y[:, :3] = 0
        return y

    assert answer(Model(forward, a=nn.Linear(2, 4)), X2) == (2, 1, 1)


def test_writing_to_the_base_shows_in_its_views():
    def forward(m, x):
        y = m.a(x)
        part = y[:, 1:3]
        y.relu_()
        return part

    assert answer(Model(forward, a=nn.Linear(2, 4)), X2) == (4, 1, 1)


@pytest.mark.parametrize(
    ("take", "active"),
    [
        (lambda y: y.t().reshape(-1), 0),
        (lambda y: y.reshape(-1), 1),
        (lambda y: y.t().contiguous(), 0),
        (lambda y: y.contiguous(), 1),
        (lambda y: y.to(torch.float64), 0),
        (lambda y: y.to(torch.float32), 1),
        (lambda y: y.to(torch.float32, copy=True), 0),
        (lambda y: y.clone(), 0),
    ],
    ids=[
        "reshape that copies",
        "reshape that views",
        "contiguous that copies",
        "contiguous that does not",
        "cast",
        "cast to its own type",
        "forced copy",
        "clone",
    ],
)
def test_a_copy_does_not_show_later_writes_and_a_view_does(take, active):
    def forward(m, x):
        y = m.a(x)
        z = take(y)
        y.relu_()
        return z

    assert answer(Model(forward, a=nn.Linear(2, 4)), X2) == (8, active, active)


def test_what_was_read_before_a_write_stays():
    # z read y before its ReLU: a unit of z + relu(y): 2 * 2 ways of length 0, 2 of length 1
    def forward(m, x):
        y = m.a(x)
        z = m.b(y)
        y.relu_()
        return z + y

    model = Model(forward, a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    assert answer(model, X2) == (12, Fraction(1, 3), HALF)
