"""Empirical activities of networks made by hand: what each unit does on the data is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.activity import from_data
from pathlen.errors import ActivityError, DataError
from tests.constructs import Model

UNIFORM = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 10_000 - 1  # midpoints of [-1, 1]


def normal_quantiles(count=200_001):
    """Points whose distribution is standard normal."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.special.ndtri(shares)


def with_function(function, **modules):
    """The function of one unit, between an input and a layer that reads it; in float64."""
    last = nn.Linear(1, 1, dtype=torch.float64)
    return Model(lambda m, x: last(function(x)), last=last, **modules)


def nonlinearity(function, points, **modules):
    result = from_data(with_function(function, **modules), points[:, None].split(5_000))
    (value,) = result.nonlinearity
    return value


def leftover(x, y):
    """1 - R^2 of the best affine fit, from all of the data at once."""
    slope, intercept = np.polyfit(x, y, 1)
    return np.sum((y - slope * x - intercept) ** 2) / np.sum((y - y.mean()) ** 2)


def leftovers(entries, function):
    """The same for every column of a tensor."""
    with torch.no_grad():
        pairs = zip(entries.T.numpy(), function(entries).T.numpy(), strict=True)
        return [leftover(x, y) for x, y in pairs]


# ------------------------------------------------------------------ one unit in closed form


def test_relu_on_normal_inputs():
    # var relu = 1/2 - 1/(2 pi), cov(x, relu) = 1/2, so R^2 = pi / (2 (pi - 1))
    expected = 1 - math.pi / (2 * (math.pi - 1))
    assert nonlinearity(torch.relu, normal_quantiles()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, -1.0, 3.0])
def test_leaky_relu_on_uniform_inputs(slope):
    # y = slope x + (1 - slope) relu(x): the fit leaves (1 - slope)^2 / 48 over
    variance = slope**2 / 3 + slope * (1 - slope) / 3 + (1 - slope) ** 2 * 5 / 48
    expected = (1 - slope) ** 2 / 48 / variance
    found = nonlinearity(lambda x: F.leaky_relu(x, slope), UNIFORM)
    assert found == pytest.approx(expected, abs=1e-7)


def test_relu_of_three_points():
    points = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert nonlinearity(torch.relu, points) == pytest.approx(1 / 4, abs=1e-15)


@pytest.mark.parametrize(
    "absolute",
    [torch.abs, lambda x: torch.relu(x) + torch.relu(-x), lambda x: torch.maximum(x, -x)],
    ids=["abs", "two relus", "maximum"],
)
def test_absolute_value_of_symmetric_inputs_has_no_linear_part(absolute):
    assert nonlinearity(absolute, UNIFORM) == pytest.approx(1, abs=1e-12)


def test_square_of_uniform_inputs():
    # cov(x, (x + 1)^2) = 2/3, var (x + 1)^2 = 4/3 + 4/45: R^2 = 15/16
    assert nonlinearity(lambda x: (x + 1) ** 2, UNIFORM) == pytest.approx(1 / 16, abs=1e-7)


@pytest.mark.parametrize("function", [F.gelu, F.silu, torch.tanh, F.softplus, F.hardswish])
def test_smooth_functions(function):
    points = normal_quantiles(20_001)
    expected = leftover(points.numpy(), function(points).numpy())
    assert nonlinearity(function, points) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_prelu_of_slope_one_is_linear_and_of_minus_one_the_absolute_value(sign):
    slopes = nn.PReLU(init=sign, dtype=torch.float64)
    result = from_data(with_function(slopes, slopes=slopes), [UNIFORM[:, None]])
    assert result.nonlinearity[0] == pytest.approx(0 if sign == 1 else 1, abs=1e-12)
    assert result.always_on[0] == (sign == 1)
    assert result.report().average_path_length == result.nonlinearity[0]


def test_the_best_fit_is_given():
    result = from_data(with_function(torch.relu), [UNIFORM[:, None]])
    # cov(x, relu) / var x = (1/6) / (1/3), mean relu = 1/4
    assert result.slope[0] == pytest.approx(1 / 2, abs=1e-7)
    assert result.intercept[0] == pytest.approx(1 / 4, abs=1e-7)


# ------------------------------------------------------------------ always on, dead


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_always_on_and_dead(dtype):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)).to(dtype)
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[0].bias.copy_(torch.tensor([1.5, -1.5, 0.0]))  # inputs in (-1, 1)
    points = UNIFORM.view(100, 200)[:, :, None].expand(-1, -1, 3).to(dtype)
    result = from_data(model, list(points))
    assert result.always_on.tolist() == [True, False, False]
    assert result.dead.tolist() == [False, True, False]
    assert result.nonlinearity[:2].tolist() == [0, 0]
    assert result.nonlinearity[2] == pytest.approx(0.2, abs=5e-3)
    assert result.negative_share == pytest.approx([0, 1, 0.5], abs=1e-2)
    assert result.slope[:2] == pytest.approx([1, 0], abs=1e-12)
    assert result.samples.tolist() == [20_000] * 3
    (row,) = result.layers
    assert (row.dead, row.always_on, row.units, row.samples) == (1, 1, 3, 20_000)


def test_a_leaky_relu_of_negative_inputs_acts_affinely_too():
    result = from_data(with_function(F.leaky_relu), [UNIFORM[:, None] - 1.5])
    assert (result.always_on[0], result.dead[0]) == (True, False)
    assert (result.negative_share[0], result.nonlinearity[0]) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_value_on_the_other_side_is_enough(dtype):
    points = torch.linspace(1, 2, 10_001, dtype=dtype)
    points[77] = -1
    model = with_function(torch.relu).to(dtype)
    result = from_data(model, [points[:, None]])
    assert not result.always_on[0]
    expected = leftover(points.double().numpy(), points.double().relu().numpy())
    assert result.nonlinearity[0] == pytest.approx(expected, rel=1e-6)
    assert result.negative_share[0] == pytest.approx(1 / 10_001)


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_rounding_around_a_large_value_is_no_nonlinearity(offset):
    # sigmoid at large inputs is 1 up to the last digit of float32; softplus(x) is x there
    points = (UNIFORM + offset).float()[:, None]
    dead = from_data(with_function(torch.sigmoid).float(), [points])
    linear = from_data(with_function(F.softplus).float(), [points])
    assert (dead.dead[0], dead.always_on[0], dead.nonlinearity[0]) == (True, False, 0)
    assert (linear.dead[0], linear.always_on[0], linear.nonlinearity[0]) == (False, True, 0)


# ------------------------------------------------------------------ call sites


def test_a_module_that_is_called_twice_has_two_sites():
    relu = nn.ReLU()
    model = Model(lambda m, x: m.last(m.relu(m.relu(x) - 0.5)), relu=relu, last=nn.Linear(1, 1))
    points = UNIFORM.float()[:, None]
    result = from_data(model, [points])
    inner = points.relu().double().numpy()[:, 0] - 0.5
    expected = [0.2, leftover(inner, np.maximum(inner, 0))]
    assert [layer.name for layer in result.layers] == ["relu", "relu#2"]
    assert result.nonlinearity == pytest.approx(expected, abs=1e-6)


def silu_in_place(x):
    return x.mul_(torch.sigmoid(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.silu(x, inplace=True),
        lambda x: x * torch.sigmoid(x),
        lambda x: x / (1 + torch.exp(-x)),
        silu_in_place,
        lambda x: silu_in_place(x.view(-1)).view(x.shape),
    ],
    ids=["in place", "written out", "with exp", "written out in place", "in place by a view"],
)
def test_the_same_function_however_it_is_written(function):
    torch.manual_seed(0)
    model = Model(
        lambda m, x: m.last(function(m.first(x))),
        first=nn.Linear(2, 5, dtype=torch.float64),
        last=nn.Linear(5, 1, dtype=torch.float64),
    )
    data = torch.randn(300, 2, dtype=torch.float64)
    with torch.no_grad():
        expected = leftovers(model.first(data), F.silu)
    result = from_data(model, data.split(70))
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("write", [lambda h: h.add_(3.0), lambda h: h.view(-1).mul_(2.0)])
def test_an_entry_that_is_written_to_before_it_is_used(write):
    def function(model, x):
        h = model.first(x)
        y = torch.relu(h)
        write(h)  # the entry of relu is gone, its memory holds something else
        return model.last(torch.cat([y, torch.tanh(h)], 1))

    torch.manual_seed(0)
    layers = {"first": nn.Linear(2, 3).double(), "last": nn.Linear(6, 1).double()}
    model = Model(function, **layers)
    data = torch.randn(200, 2, dtype=torch.float64)
    with torch.no_grad():
        h = layers["first"](data)
        changed = h.clone()
        write(changed)
    expected = leftovers(h, torch.relu) + leftovers(changed, torch.tanh)
    result = from_data(model, [data])
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)


def test_convolutions_have_many_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3)).double()
    data = torch.randn(12, 3, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        entries = model[0](data).movedim(1, -1).reshape(-1, 5)
    expected = leftovers(entries, torch.relu)
    result = from_data(model, data.split(5))
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)
    assert result.negative_share == pytest.approx((entries < 0).double().mean(0).numpy())
    assert set(result.samples) == {12 * 7 * 5}


def test_pixels_are_units_where_a_linear_layer_tells_them_apart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    data = torch.randn(200, 1, 3, 4, dtype=torch.float64)
    result = from_data(model, data.split(64))
    expected = leftovers(data.reshape(200, 12), torch.relu)
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)


def test_labels_that_run_along_no_single_axis():
    # windows of two of six features: unit f is at (window, place) with 2 window + place = f
    torch.manual_seed(0)
    last = nn.Linear(6, 1).double()
    model = Model(lambda m, x: m.last(torch.relu(x.view(-1, 3, 2)).flatten(1)), last=last)
    data = torch.randn(90, 6, dtype=torch.float64)
    expected = leftovers(data, torch.relu)
    assert from_data(model, data.split(40)).nonlinearity == pytest.approx(expected, abs=1e-12)


def test_a_batch_axis_that_is_folded_into_the_heads():
    torch.manual_seed(0)
    last = nn.Linear(4, 1).double()

    def function(model, x):  # (batch, 4) -> (batch * 2 heads, 2) and back
        return model.last(torch.relu(x.view(-1, 2)).view(x.shape))

    data = torch.randn(60, 4, dtype=torch.float64)
    expected = leftovers(data, torch.relu)
    result = from_data(Model(function, last=last), data.split(25))
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)


def test_elements_of_no_input_are_left_out():
    # a constant token beside the others: its value is no pair of any unit
    torch.manual_seed(0)
    last = nn.Linear(3, 1).double()
    token = nn.Parameter(torch.full((1, 1, 3), 50.0, dtype=torch.float64))

    def function(model, x):
        return model.last(torch.relu(torch.cat([token.expand(len(x), -1, -1), x], 1)))

    data = torch.randn(30, 4, 3, dtype=torch.float64)
    result = from_data(Model(function, last=last), [data])
    expected = leftovers(data.reshape(-1, 3), torch.relu)
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)
    assert set(result.samples) == {120}


def test_a_slope_for_each_channel():
    slopes = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
    prelu = nn.PReLU(3, dtype=torch.float64)
    prelu.weight.data = slopes
    model = nn.Sequential(prelu, nn.Conv1d(3, 1, 1, dtype=torch.float64))
    data = UNIFORM.view(50, 1, 400).expand(-1, 3, -1)
    result = from_data(model, [data])
    assert result.nonlinearity[0] == 0
    assert result.nonlinearity[2] == pytest.approx(1)
    nominal = dict(zip(result.nodes.tolist(), result.nominal.activity[result.nodes], strict=True))
    assert list(nominal.values()) == [0, 1, 1]


def test_gates_of_a_recurrent_cell():
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 3).double()
    model = Model(lambda m, x: m.cell(x)[0], cell=cell)
    data = torch.randn(100, 2, dtype=torch.float64)
    with torch.no_grad():
        gates = F.linear(data, cell.weight_ih, cell.bias_ih + cell.bias_hh)
        enter, _, new, out = gates.chunk(4, 1)
        state = enter.sigmoid() * new.tanh()
    expected = leftovers(enter, torch.sigmoid) + leftovers(new, torch.tanh)
    expected += leftovers(out, torch.sigmoid) + leftovers(state, torch.tanh)
    result = from_data(model, data.split(30))
    assert len(result.nodes) == 15  # the forget gate too, though it has nothing to forget
    for value in expected:
        assert np.abs(result.nonlinearity - value).min() < 1e-12


# ------------------------------------------------------------------ whole networks


class Residual(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


def test_averages_of_residual_blocks():
    # B blocks x + W2 relu(W1 x): each unit of block b is on C (CH + 1)^(B-1) C of the paths; a
    # walk takes a branch with chance 1/2 and then each of its H units with 1/H
    torch.manual_seed(0)
    blocks, width, hidden = 3, 4, 5
    model = nn.Sequential(*[Residual(width, hidden) for _ in range(blocks)]).double()
    data = torch.randn(400, width, dtype=torch.float64)
    result = from_data(model, data.split(128))
    expected, x = [], data
    with torch.no_grad():
        for block in model:
            expected += leftovers(block.first(x), torch.relu)
            x = block(x)
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)
    report = result.report()
    share = width / (width * hidden + 1)
    assert report.average_path_length == pytest.approx(share * sum(expected))
    assert report.normalized_average_path_length == pytest.approx(sum(expected) / 2 / hidden)
    nominal = pathlen.measure(model, data[:1])
    assert pathlen.measure(result.nominal).average_path_length == nominal.average_path_length


def test_the_mlp_of_a_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    layer = layer.double().eval()
    data = torch.randn(20, 5, 8, dtype=torch.float64)
    result = from_data(layer, data.split(8))
    with torch.no_grad():  # post-norm: x + attention(x), normalized, is what the MLP reads
        attended = layer.self_attn(data, data, data, need_weights=False)[0]
        entries = layer.linear1(layer.norm1(data + attended)).flatten(0, 1)
    expected = leftovers(entries, F.gelu)
    assert result.nonlinearity == pytest.approx(expected, abs=1e-12)


# ------------------------------------------------------------------ activities


MASKED = {
    "masked_fill": lambda h, keep: h.masked_fill(~keep, -torch.inf).exp(),
    "where": lambda h, keep: torch.where(keep, h, -math.inf).exp(),
    "added": lambda h, keep: (h + torch.zeros(5, 4).masked_fill(~keep, -torch.inf)).exp(),
    "viewed": lambda h, keep: h.masked_fill(~keep, float("-inf"))[:, None].exp()[:, 0],
}


@pytest.mark.parametrize("name", MASKED)
def test_what_a_program_masks_with_infinity_is_no_value(name):
    """Decays between steps, exp(-inf) = 0 for those to come (state space models)."""
    torch.manual_seed(0)
    keep = torch.ones(5, 4, dtype=torch.bool).tril()
    model = Model(lambda m, x: MASKED[name](m.i(x), keep), i=nn.Linear(3, 4))
    x = torch.randn(64, 5, 3)
    result = from_data(model, x.split(32))
    assert result.samples.tolist() == [64 * 5, 64 * 4, 64 * 3, 64 * 2]
    h = model.i(x).detach()
    kept = [h[:, feature:, feature].flatten().double().numpy() for feature in range(4)]
    expected = [leftover(values, np.exp(values)) for values in kept]
    assert result.nonlinearity == pytest.approx(expected, rel=1e-4)


ROUTED = {
    "scatter": lambda h: torch.full_like(h, -torch.inf).scatter(1, *h.topk(2)[::-1]),
    "in place": lambda h: torch.full_like(h, float("-inf")).scatter_(1, *h.topk(2)[::-1]),
    "where": lambda h: torch.where(h >= h.topk(2)[0].amin(1, keepdim=True), h, -math.inf),
    "masked_fill": lambda h: h.masked_fill(h < h.topk(2)[0][:, 1:], -math.inf),
}


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("squash", [torch.sigmoid, torch.tanh])
def test_scores_of_experts_that_were_not_chosen_are_no_values(name, squash):
    """A router that leaves out by infinities (Llama 4): h passes where it is chosen."""
    torch.manual_seed(0)
    model = Model(lambda m, x: squash(ROUTED[name](m.i(x))), i=nn.Linear(3, 4))
    x = torch.randn(64, 3)
    result = from_data(model, x.split(32))
    h = model.i(x).detach()
    chosen = h >= h.topk(2)[0][:, 1:]
    kept = [h[chosen[:, feature], feature].double().numpy() for feature in range(4)]
    functions = (lambda t: t, squash)
    expected = [leftover(v, f(torch.from_numpy(v)).numpy()) for f in functions for v in kept]
    assert result.samples.tolist() == chosen.sum(0).tolist() * 2
    assert result.nonlinearity == pytest.approx(expected, abs=1e-4)


def test_infinities_of_a_function_beside_a_mask_are_errors():
    model = Model(
        lambda m, x: m.i(x).masked_fill(torch.eye(4).bool(), -math.inf).relu().log(),
        i=nn.Linear(3, 4),
    )
    with pytest.raises(DataError, match="NaN or infinities"):
        from_data(model, [torch.randn(4, 3)])


def test_infinities_that_no_mask_puts_there_are_errors():
    model = Model(lambda m, x: (m.i(x) * 1e38 * 1e38).relu(), i=nn.Linear(3, 4))
    with pytest.raises(DataError, match=r"NaN or infinities.*batch itself is finite"):
        from_data(model, [-torch.rand(64, 3)])


def make_result():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    return from_data(model, torch.randn(300, 2).split(100))


def test_soft_activities():
    result = make_result()
    activity = result.activity()
    assert activity.shape == (result.nominal.num_nodes,)
    assert np.array_equal(activity[result.nodes], result.nonlinearity)
    others = np.setdiff1d(np.arange(len(activity)), result.nodes)
    assert np.array_equal(activity[others], result.nominal.activity[others])
    assert np.array_equal(result.graph.activity, activity)
    assert np.array_equal(result.nominal.with_activity(activity).activity, activity)
    expected = result.nonlinearity[:4].mean() + result.nonlinearity[4:].mean()
    assert result.report().average_path_length == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0, 0.05, 0.3, 0.999])
def test_threshold(threshold):
    result = make_result()
    activity = result.activity(threshold)[result.nodes]
    assert np.array_equal(activity, (result.nonlinearity > threshold).astype(float))
    report = result.report(threshold, exact=True)
    assert report.num_active == activity.sum()
    assert result.activity(0).sum() >= result.activity(threshold).sum() >= 0


@pytest.mark.parametrize("threshold", [-0.1, 1, 2.0, float("nan")])
def test_a_threshold_outside_its_range(threshold):
    with pytest.raises(ActivityError, match="must lie in"):
        make_result().activity(threshold)


def test_plain_data():
    result = make_result()
    record = json.loads(json.dumps(result.to_dict(units=True), allow_nan=False))
    assert record["average_path_length"] == result.report().average_path_length
    assert record["nominal_normalized_average_path_length"] == pytest.approx(2)
    assert [row["name"] for row in record["layers"]] == ["1", "3"]
    assert record["units"]["nonlinearity"] == result.nonlinearity.tolist()
    assert (record["batches"], record["num_units"], record["unseen"]) == (3, 7, [])
    assert "units" not in result.to_dict()


def test_text():
    lines = str(make_result()).splitlines()
    assert lines[0].startswith("average path length")
    assert lines[0].endswith("2 nominal")
    assert lines[-2].split()[:3] == ["1", "relu", "4"]
    assert lines[-1].split()[:3] == ["3", "tanh", "3"]


def test_results_are_frozen():
    result = make_result()
    with pytest.raises(ValueError, match="read-only"):
        result.nonlinearity[0] = 0
    with pytest.raises(AttributeError):
        result.batches = 4
