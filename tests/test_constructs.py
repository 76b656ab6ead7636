"""One construct of real models a test, each with a path count and averages worked out by hand.

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
from pathlen import Kind, Policy
from pathlen.training.resnet import PaddedShortcut

HALF = Fraction(1, 2)


def answer(model, *args, **kwargs):
    report = pathlen.measure(model, args, exact=True, **kwargs)
    assert report.status == "exact", report.causes
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
    )


class Model(nn.Module):
    """A model from a function of the modules and the inputs."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args):
        return self.function(self, *args)


def pointwise(function):
    """A function of a tensor between dense layers 2 -> 3 and 3 -> 1: 2 * 3 * 1 = 6 paths."""
    if isinstance(function, nn.Module):
        return nn.Sequential(nn.Linear(2, 3), function, nn.Linear(3, 1))
    return Model(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(2, 3), b=nn.Linear(3, 1))


X2 = torch.empty(2, 2)
IMAGE = torch.empty(1, 3, 4, 4)

# --- activations in residual blocks -------------------------------------------------------------

RELUS = {
    "shared module": lambda m, x: m.relu(x),
    "shared in-place module": lambda m, x: m.relu_in_place(x),
    "F.relu": lambda m, x: F.relu(x),
    "F.relu in place": lambda m, x: F.relu(x, inplace=True),
    "torch.relu": lambda m, x: torch.relu(x),
    "relu_": lambda m, x: x.relu_(),
    "clamp": lambda m, x: x.clamp(min=0),
    "clamp_": lambda m, x: x.clamp_min_(0),
    "maximum with zeros": lambda m, x: torch.maximum(x, torch.zeros_like(x)),
}


def block(relu, width=4, hidden=3):
    """Torchvision's basic block: one activation called twice, the second after the sum."""

    def forward(m, x):
        out = relu(m, m.bn1(m.conv1(x)))
        out = m.bn2(m.conv2(out))
        out += x
        return relu(m, out)

    return Model(
        forward,
        conv1=nn.Conv2d(width, hidden, 3, padding=1),
        bn1=nn.BatchNorm2d(hidden),
        conv2=nn.Conv2d(hidden, width, 3, padding=1),
        bn2=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        relu_in_place=nn.ReLU(inplace=True),
    )


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_each_call_of_an_activation_is_a_site_of_its_own(relu):
    # an output unit: 4 * 3 ways through the branch of length 2, 1 past it of length 1
    model = block(relu)
    assert answer(model, torch.empty(1, 4, 5, 5)) == (4 * 13, Fraction(25, 13), Fraction(3, 2))
    report = pathlen.measure(model, torch.empty(1, 4, 5, 5))
    active = [row for row in report.layers if row.active]
    assert [row.active for row in active] == [3, 4]
    assert len({row.name for row in report.layers}) == len(report.layers)


def test_names_of_calls_of_one_module_start_with_its_path():
    report = pathlen.measure(block(RELUS["shared module"]), torch.empty(1, 4, 5, 5))
    names = [row.name for row in report.layers if row.active]
    assert all(name.startswith("relu") for name in names)


# --- scalar functions: one unit, however they are written ---------------------------------------

ALPHA = torch.tensor([0.0, 0.25, 0.5])
SCALAR_FUNCTIONS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "silu with a slope": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu with tanh": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))
    ),
    "gelu with erf": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "blend": lambda x: 0.3 * x + (1 - 0.3) * torch.relu(x),
    "blend by channel": lambda x: ALPHA * x + (1 - ALPHA) * torch.relu(x),
    "prelu with where": lambda x: torch.where(x > 0, x, 0.25 * x),
    "prelu with where by channel": lambda x: torch.where(x > 0, x, ALPHA * x),
    "prelu from two relus": lambda x: torch.relu(x) - 0.25 * torch.relu(-x),
    "leaky relu as a maximum": lambda x: torch.maximum(x, 0.1 * x),
    "mask times x": lambda x: (x > 0) * x,
    "mask as float times x": lambda x: (x > 0).float() * x,
    "masked fill": lambda x: x.masked_fill(x < 0, 0.0),
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "hard swish": lambda x: x * F.relu6(x + 3) / 6,
    "x + relu(x)": lambda x: x + torch.relu(x),
    "square": lambda x: x * x,
    "power": lambda x: x**2,
    "absolute value": lambda x: x.abs(),
    "double application": lambda x: (x + torch.sigmoid(x)) * torch.tanh(x),
    "in place": lambda x: x.mul_(torch.sigmoid(x)),
    "soft sign": lambda x: x / (1 + x.abs()),
    "dead zone": lambda x: x - x.clamp(-1, 1),
}


@pytest.mark.parametrize("function", SCALAR_FUNCTIONS.values(), ids=SCALAR_FUNCTIONS.keys())
def test_a_scalar_function_is_one_active_unit_a_channel(function):
    model = pointwise(function)
    assert answer(model, X2) == (6, 1, 1)
    assert pathlen.trace(model, X2).num_active == 3


LINEAR_FUNCTIONS = {
    "identity": lambda x: x,
    "x + x": lambda x: x + x,
    "x - x / 2": lambda x: x - x / 2,
    "scaling": lambda x: 3 * x,
    "scaling by channel": lambda x: x * ALPHA + 1,
    "adding a constant": lambda x: x + ALPHA,
    "cast": lambda x: x.double().float(),
    "dropout in eval mode": lambda x: F.dropout(x, 0.5, training=False),
    "clone": lambda x: x.clone().contiguous(),
    "minus": lambda x: -x,
    "where with a constant mask": lambda x: torch.where(ALPHA > 0.1, x, 2 * x),
}


@pytest.mark.parametrize("function", LINEAR_FUNCTIONS.values(), ids=LINEAR_FUNCTIONS.keys())
def test_an_affine_function_of_one_tensor_is_no_nonlinearity(function):
    assert answer(pointwise(function), X2) == (6, 0, 0)


def test_x_plus_x_adds_no_path_and_no_unit():
    # predecessors are counted once each: the sum of a tensor with itself is that tensor
    doubled = pathlen.trace(pointwise(lambda x: x + x), X2)
    assert doubled.num_nodes == pathlen.trace(pointwise(lambda x: x), X2).num_nodes


@pytest.mark.parametrize("slope", [1.0, torch.ones(3)], ids=["number", "by channel"])
def test_a_blend_that_is_all_linear_is_an_inactive_unit(slope):
    model = pointwise(lambda x: slope * x + (1 - slope) * torch.relu(x))
    assert answer(model, X2) == (6, 0, 0)


def test_a_blend_by_channel_is_active_where_its_slope_is_not_1():
    # 3 channels with 2 ways each, and one of them is linear
    alpha = torch.tensor([0.0, 1.0, 0.5])
    model = pointwise(lambda x: alpha * x + (1 - alpha) * torch.relu(x))
    assert answer(model, X2) == (6, Fraction(2, 3), Fraction(2, 3))


# --- normalizations: no unit --------------------------------------------------------------------


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * ALPHA + 1


def softmax_safe(x):
    e = torch.exp(x - x.max(dim=-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


def standardize(x):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def grn(x):
    """Global response normalization (ConvNeXt V2)."""
    norm = torch.linalg.vector_norm(x, dim=0, keepdim=True)
    return x + ALPHA * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + 1


NORMALIZATIONS = {
    "nn.LayerNorm": nn.LayerNorm(3),
    "nn.RMSNorm": nn.RMSNorm(3),
    "nn.BatchNorm1d": nn.BatchNorm1d(3),
    "nn.GroupNorm": nn.GroupNorm(3, 3),
    "LayerNorm written out": layer_norm,
    "standardized": standardize,
    "RMSNorm written out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "F.normalize": lambda x: F.normalize(x, dim=-1),
    "over its norm": lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6),
    "minus its mean": lambda x: x - x.mean(-1, keepdim=True),
    "global response": grn,
    "F.softmax": lambda x: F.softmax(x, -1),
    "F.log_softmax": lambda x: F.log_softmax(x, -1),
    "softmax written out": lambda x: (e := torch.exp(x)) / e.sum(-1, keepdim=True),
    "softmax with its maximum": softmax_safe,
    "log softmax written out": lambda x: x - torch.logsumexp(x, -1, keepdim=True),
}


@pytest.mark.parametrize("function", NORMALIZATIONS.values(), ids=NORMALIZATIONS.keys())
def test_a_normalization_passes_each_unit_to_itself(function):
    assert answer(pointwise(function), X2) == (6, 0, 0)


def test_a_nonlinearity_between_norm_and_sum_counts_once():
    # x + relu(x / |x|): one scalar function of x, the norm held fixed
    model = pointwise(lambda x: x + torch.relu(F.normalize(x, dim=-1)))
    assert answer(model, X2) == (6, 1, 1)


# --- sums -----------------------------------------------------------------------------------------


def three_tensors(combine):
    """a = x, b = dense(x), c = dense(relu(dense(x))), all of width 2."""

    def forward(m, x):
        return combine(x, m.b(x), m.c(x))

    return Model(
        forward,
        b=nn.Linear(2, 2),
        c=nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
    )


SUMS_OF_THREE = {
    "(a + b) + c": lambda a, b, c: (a + b) + c,
    "a + (b + c)": lambda a, b, c: a + (b + c),
    "(c + b) + a": lambda a, b, c: (c + b) + a,
    "sum of a list": lambda a, b, c: sum([a, b, c]),
    "in place": lambda a, b, c: b.add_(c).add_(a),
    "a - b + c": lambda a, b, c: a - b + c,
    "stacked": lambda a, b, c: torch.stack([a, b, c]).sum(0),
}


@pytest.mark.parametrize("combine", SUMS_OF_THREE.values(), ids=SUMS_OF_THREE.keys())
def test_a_nested_sum_is_one_merge(combine):
    # a unit: 1 way over a, 2 over b, 2 * 2 over c with one ReLU: 7 ways, 2 units; the walk takes
    # each of the three tensors with chance 1/3
    assert answer(three_tensors(combine), X2) == (14, Fraction(4, 7), Fraction(1, 3))


def test_a_nested_sum_with_another_reader_is_two_merges():
    # outputs (a + b) + c and a + b: 2 * 7 and 2 * 3 paths, 2 * 4 of them with a ReLU; the walk from
    # the first takes c half the time, the other output has no ReLU
    def combine(a, b, c):
        inner = a + b
        return inner + c, inner

    assert answer(three_tensors(combine), X2) == (20, Fraction(8, 20), Fraction(1, 4))


def test_an_inner_sum_read_twice_is_a_merge_of_its_own():
    # inner = a + b with 3 ways; out = (inner + c) + dense(inner): three tensors, inner among them:
    # 3 + 4 + 2 * 3 ways, 2 units, and ReLU only on the 4 of c
    def forward(m, x):
        inner = x + m.b(x)
        return inner + m.c(x) + m.d(inner)

    model = Model(
        forward,
        b=nn.Linear(2, 2),
        c=nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
        d=nn.Linear(2, 2),
    )
    assert answer(model, X2) == (26, Fraction(8, 26), Fraction(1, 3))


def test_skip_and_layer_of_one_unit_are_two_predecessors():
    # width 1: x + relu(w x): the unit of the sum reads x and the ReLU
    model = Model(lambda m, x: x + torch.relu(m.a(x)), a=nn.Linear(1, 1))
    assert answer(model, torch.empty(2, 1)) == (2, HALF, HALF)


@pytest.mark.parametrize(
    "combine",
    [torch.mul, torch.div, torch.maximum, torch.minimum, torch.sub, torch.atan2],
)
def test_other_functions_of_two_tensors_merge_too(combine):
    # a unit: 2 ways over the one layer, 2 with a ReLU over the other
    model = Model(
        lambda m, x: combine(m.a(x), torch.relu(m.b(x))), a=nn.Linear(2, 3), b=nn.Linear(2, 3)
    )
    assert answer(model, X2) == (12, HALF, HALF)


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b, c: torch.lerp(a, b, torch.sigmoid(c)),
        lambda a, b, c: torch.addcmul(a, b, torch.sigmoid(c)),
        lambda a, b, c: torch.addcdiv(a, b, torch.sigmoid(c)),
    ],
    ids=["lerp", "addcmul", "addcdiv"],
)
def test_functions_of_three_tensors(combine):
    # 2 units with 3 predecessors of 2 ways each, a sigmoid behind one of them
    model = Model(
        lambda m, x: combine(m.a(x), m.b(x), m.c(x)),
        a=nn.Linear(2, 2),
        b=nn.Linear(2, 2),
        c=nn.Linear(2, 2),
    )
    assert answer(model, X2) == (12, Fraction(1, 3), Fraction(1, 3))


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
    assert answer(model, torch.empty(1, 4, 5, 5)) == (4, HALF, HALF)


def test_grouped_convolution():
    # 2 groups: each of 6 units reads 2 of the 4 channels
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU())
    assert answer(model, torch.empty(1, 4, 5, 5)) == (12, 1, 1)
    graph = pathlen.trace(model, torch.empty(1, 4, 5, 5))
    assert (graph.kind == Kind.HUB).sum() == 2


def test_depthwise_convolution_keeps_channels_apart():
    # each of 8 units reads one channel; then 3 units read all 8
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 3, 1))
    assert answer(model[:2], torch.empty(1, 4, 5, 5)) == (8, 1, 1)
    assert answer(model, torch.empty(1, 4, 5, 5)) == (24, 1, 1)


def test_zero_padded_shortcut():
    # 2 channels in, 3 hidden, 4 out: 6 ways through the branch; the shortcut reaches channels 1
    # and 2, whose walk takes the ReLU half the time; channels 0 and 3 have the branch alone
    model = Model(
        lambda m, x: m.branch(x) + m.shortcut(x),
        branch=nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 1, 1)),
        shortcut=PaddedShortcut(2, 4, 2),
    )
    assert answer(model, torch.empty(1, 2, 6, 6)) == (26, Fraction(24, 26), Fraction(3, 4))


def test_zero_padded_shortcut_by_concatenation():
    def forward(m, x):
        return m.branch(x) + torch.cat([x, torch.zeros_like(x)], dim=1)

    model = Model(
        forward,
        branch=nn.Sequential(nn.Conv2d(2, 3, 3, 1, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 1, 1)),
    )
    assert answer(model, torch.empty(1, 2, 6, 6)) == (26, Fraction(24, 26), Fraction(3, 4))


def test_an_image_flattened_into_a_linear_layer_has_one_input_unit_a_pixel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    assert answer(model, torch.empty(5, 2, 2, 2)) == (8 * 3 * 2, 1, 1)
    assert pathlen.trace(model, torch.empty(5, 2, 2, 2)).num_inputs == 8


def test_an_image_into_a_convolution_has_one_input_unit_a_channel():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    assert answer(model, torch.empty(5, 2, 2, 2)) == (12, 0, 0)


def test_input_axis_overrides_what_the_first_layer_tells():
    # rows of an image into a linear layer along the columns: 4 columns by default, 3 rows else;
    # a linear layer along an axis of positions keeps the rows apart
    model = nn.Linear(4, 2)
    x = torch.empty(1, 3, 4)
    assert answer(model, x) == (8, 0, 0)
    assert answer(model, x, input_axis=1) == (3, 0, 0)
    assert answer(model, x, input_axis={"input": -1}) == (8, 0, 0)


def test_flattened_channels_share_a_unit():
    # 4 positions of each of 3 channels are read by a dense layer: 2 * 3 ways, not 2 * 12
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    assert answer(model, torch.empty(1, 2, 2, 2)) == (2 * 3 * 5, 1, 1)


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
    assert answer(nn.Sequential(layer, nn.ReLU()), torch.empty(shape)) == (paths, 1, 1)


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
    assert answer(model, X2, torch.empty(2, 3)) == expected
    assert pathlen.trace(model, (X2, torch.empty(2, 3))).num_inputs == 5


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


def test_what_was_read_before_a_write_stays():
    # z read y before its ReLU: a unit of z + relu(y): 2 * 2 ways of length 0, 2 of length 1
    def forward(m, x):
        y = m.a(x)
        z = m.b(y)
        y.relu_()
        return z + y

    model = Model(forward, a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    assert answer(model, X2) == (12, Fraction(1, 3), HALF)


# --- attention ------------------------------------------------------------------------------------

TOKENS = torch.empty(1, 3, 4)


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
    assert answer(model, torch.empty(1, 5, 2), torch.empty(1, 4, 3)) == expected


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


def test_a_dot_product_with_itself_reads_one_hub():
    model = Model(lambda m, x: torch.einsum("bi,bi->b", (h := m.a(x)), h), a=nn.Linear(2, 3))
    assert answer(model, X2) == (6, 0, 0)


# --- policies and modes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("softmax", lambda x: F.softmax(x, -1)),
        ("softmax", NORMALIZATIONS["softmax written out"]),
        ("softmax", softmax_safe),
        ("normalization", nn.LayerNorm(3)),
        ("normalization", nn.RMSNorm(3)),
        ("product", lambda x: x * ALPHA.flip(0)),
        ("activation", torch.relu),
    ],
)
def test_only_what_the_policy_names_counts(kind, function):
    model = pointwise(function)
    expected = 0 if kind == "product" else 1  # a product with a constant is a scaling
    everything = {"activation", "softmax", "normalization", "pooling", "product"}
    assert answer(model, X2, policy=Policy(count={kind})) == (6, expected, expected)
    assert answer(model, X2, policy=Policy(count=everything - {kind})) == (6, 0, 0)
    assert answer(model, X2, policy=Policy(count=everything)) == (6, expected, expected)


def test_batch_norm_is_affine_and_never_a_nonlinearity():
    model = pointwise(nn.BatchNorm1d(3))
    assert answer(model, X2, policy=Policy(count={"normalization"})) == (6, 0, 0)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1)])
def test_counting_pooling(pool):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), pool, nn.Conv2d(2, 5, 1))
    assert answer(model, IMAGE) == (30, 0, 0)
    assert answer(model, IMAGE, policy=Policy(count={"pooling"})) == (30, 1, 1)


def test_counting_products_of_two_tensors():
    # the product is on every path, the sigmoid is not counted
    model = Model(lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), a=nn.Linear(2, 3), b=nn.Linear(2, 3))
    assert answer(model, X2, policy=Policy(count={"product"})) == (12, 1, 1)
    assert answer(model, X2, policy=Policy(count={"product", "activation"})) == (
        12,
        Fraction(3, 2),
        Fraction(3, 2),
    )


def test_a_model_in_training_mode_is_measured_in_eval_mode():
    # dropout and batch norm pass; in training mode dropout would multiply by a random mask
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.ReLU())
    model.train()
    model[1].eval()
    assert answer(model, X2) == (6, 1, 1)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
