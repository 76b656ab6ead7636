"""What `pathlen.verify` finds by other spellings of a model, and by what parameters tell apart."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.errors import VerificationError
from pathlen.lowering import lower, rules
from pathlen.lowering.labels import broadcast, distinct
from pathlen.policy import DEFAULT_POLICY
from pathlen.tracing import trace_model
from pathlen.verification import respell, run, spellings
from pathlen.verification.respell import Respeller
from pathlen.verification.rewrites import linear_as_einsum
from tests.verify_families import FAMILIES
from tests.wrong_rules import as_cut, replace_rule

QUICK = ("perceptron", "residual", "blended", "pointnet", "swin")


class Applied(nn.Module):
    """A function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.first, self.function, self.last = nn.Linear(4, 5), function, nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def verified(function, **options):
    torch.manual_seed(0)
    return pathlen.verify(Applied(function), torch.randn(2, 4), **options)


# ------------------------------------------------------------------ sums with products in them


class Layers(nn.Module):
    """A function of four dense layers."""

    def __init__(self, function):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.function = function

    def forward(self, x):
        return self.function(*(layer(x) for layer in self.layers))


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c, d: torch.addcmul(torch.addcmul(a, b, c), d, b * c),
        lambda a, b, c, d: torch.addcmul(torch.lerp(a, b, c.sigmoid()), d, c),
        lambda a, b, c, d: torch.addcdiv(torch.addcdiv(a, b, c), d, b),
    ],
    ids=["addcmul", "addcmul of lerp", "addcdiv"],
)
def test_nested_sums_with_products_are_no_fault(function):
    torch.manual_seed(0)
    verdict = pathlen.verify(Layers(function), torch.randn(2, 4), samples=2, spellings=0)
    assert verdict.ok, str(verdict)


# ------------------------------------------------------------------ spellings


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_families_have_the_numbers_of_their_spellings(name):
    torch.manual_seed(0)
    model, args = FAMILIES[name]()
    found = pathlen.verify(model, args, spellings=2).check("spellings")
    assert found.ok, str(found)
    assert found.count


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return x + self.body(x)


def test_what_decomposes_to_an_operator_that_is_lowered_wrong(monkeypatch):
    replace_rule(monkeypatch, "aten.addmm", as_cut)
    verdict = pathlen.verify(Residual(), torch.randn(2, 4), spellings=1)
    assert not verdict.ok
    worst = verdict.check("spellings").worst
    assert worst.operation == "spelling 'torch.export, core ATen'"
    assert "number of active units 0, not 4" in worst.what
    assert worst.module == "body.1"  # whose units have no path any more


def test_a_softmax_that_is_written_out(monkeypatch):
    def softmax(h):
        return torch.cat([h[:, :2], (h - h.logsumexp(1, keepdim=True)).exp()[:, 2:]], 1)

    assert verified(softmax, spellings=1).ok
    replace_rule(monkeypatch, "aten.softmax", as_cut)
    worst = verified(softmax, spellings=1).check("spellings").worst
    assert worst.operation == "spelling 'written plainly'"
    assert "aten.exp.default of module '' by 'softmax_of_a_difference'" in worst.what


def test_a_rewrite_that_differs_is_a_fault_with_its_name_and_place(monkeypatch):
    monkeypatch.setattr(respell, "RULES", (linear_as_einsum,))
    monkeypatch.setattr(respell, "_SHARE", 1.0)
    monkeypatch.setattr(respell, "_SHARE_OF_DETOURS", 0.0)
    replace_rule(monkeypatch, "aten.einsum", as_cut)
    verdict = pathlen.verify(Residual(), torch.randn(2, 4), spellings=1)
    assert not verdict.ok
    worst = verdict.check("spellings").worst
    assert worst.operation == "spelling 'rewritten, seed 0'"
    assert worst.module == "body.1"  # whose units have no path any more
    assert "number of active units 0, not 4" in worst.what
    assert "rewritten were aten.linear.default of module 'body.0' by 'linear_as_" in worst.what


class Choosing(nn.Module):
    """Experts that are chosen by their scores, with weights of their own."""

    def __init__(self):
        super().__init__()
        self.gate, self.last = nn.Linear(4, 3), nn.Linear(5, 2)
        self.experts = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x):
        chosen = self.experts[self.gate(x).argmax(-1)]
        return self.last(torch.bmm(x[:, None], chosen)[:, 0].relu())


def one_unit(call, lowering):
    """All that is read, in one unit."""
    (read,) = [value for value in call.values() if value.is_path]
    lowering.layer(call)
    unit = lowering.builder.units(distinct(read.labels)[:1])
    return lowering.result(call, torch.from_numpy(unit).view(1, 1, 1).expand(call.shape))


def test_weights_that_are_chosen_are_weights(monkeypatch):
    torch.manual_seed(0)
    model, x = Choosing(), torch.randn(2, 4)
    assert pathlen.verify(model, x, spellings=0).ok
    recording = trace_model(model, (x,), {}, None)
    ways = Respeller(recording, [x]).rewritten(None)
    assert [name for name, _ in ways.values()] == ["chosen_rows_as_constants"]
    bmm = rules._RULES["aten.bmm"].apply

    def apply(call, lowering):
        return (one_unit if call["mat2"].varies else bmm)(call, lowering)

    replace_rule(monkeypatch, "aten.bmm", apply)
    worst = pathlen.verify(model, x, spellings=1).check("spellings").worst
    assert "by 'chosen_rows_as_constants'" in worst.what
    assert "number of active units 5, not 1" in worst.what


def test_an_einsum_along_an_axis_of_length_1(monkeypatch):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 1))

    def einsum(h):
        return torch.einsum("bi,oi->bo", h[:, :1], weight).relu()

    x = torch.randn(2, 4)
    recording = trace_model(Applied(einsum), (x,), {}, None)
    respeller = Respeller(recording, [x])
    ways = respeller.rewritten(None)
    assert [name for name, _ in ways.values()] == ["einsum_as_linear"]

    def apply(call, lowering):
        return lowering.result(call, call["tensors"][0].labels.expand(call.shape))

    active = [measured_active(recording), measured_active(respeller.record(ways))]
    replace_rule(monkeypatch, "aten.einsum", apply)
    active += [measured_active(recording), measured_active(respeller.record(ways))]
    assert active == [5, 5, 1, 5]


def measured_active(recording):
    return pathlen.measure(lower(recording, DEFAULT_POLICY)).num_active


def block(x, first, norm, last, scale):
    """What most rules have something to do with."""
    h = first(x)
    h = F.silu(h) + F.gelu(h) + (h - scale) * 2.0
    h = norm(h) * h.softmax(-1) + h / 4.0
    h.relu_()
    kept = h[:, :2].clone()
    h[:, :2] = kept.sigmoid() + h[:, :2]
    return last(h.tanh().mean(-1, keepdim=True) + h).exp()


def test_rewrites_compute_the_same():
    torch.manual_seed(0)
    first, norm, last = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    scale, x = torch.randn(6), torch.randn(3, 4)
    model = partial(block, first=first, norm=norm, last=last, scale=scale)
    recording = trace_model(model, (x,), {}, None)
    respeller = Respeller(recording, [x])
    done = set()
    for seed in range(12):
        ways = respeller.rewritten(seed)
        done |= {part for name, _ in ways.values() for part in name.split(", ")}
        again = respeller.record(ways).to_module()
        other = torch.randn(3, 4)
        with torch.no_grad():
            (found,) = again(other.clone())
            assert torch.allclose(found, model(other.clone()), atol=1e-5)
    wanted = {"swapped_operands", "linear_as_einsum", "softmax_by_logsumexp", "reciprocal"}
    wanted |= {"layer_norm_written_out", "mean_as_sum", "transpose twice", "in place"}
    assert wanted <= done


def test_a_program_that_writes_through_views_is_rewritten_with_care():
    torch.manual_seed(0)
    model, x = FAMILIES["rewriting"]()
    recording = trace_model(model, (x,), {}, None)
    respeller = Respeller(recording, [x])
    for seed in range(4):
        again = respeller.record(respeller.rewritten(seed)).to_module()
        with torch.no_grad():
            assert torch.allclose(again(x.clone())[0], model(x.clone()), atol=1e-5)


def test_large_models_are_left_out_and_that_is_said(monkeypatch):
    monkeypatch.setattr(spellings, "MOST_CALLS", 2)
    found = verified(F.relu).check("spellings")
    assert found.ok
    assert found.unchecked == 1
    assert "spellings are compared of up to 2 calls, and here are 3" in str(found)


def test_how_many_rewrites():
    names = [check.name for check in verified(F.relu, spellings=0).checks]
    assert "spellings" not in names
    assert verified(F.relu, spellings=1).check("spellings").count == 16
    with pytest.raises(VerificationError, match="spellings=-1"):
        verified(F.relu, spellings=-1)


# ------------------------------------------------------------------ features of inputs


class FirstLayer(nn.Module):
    """A first layer in some spelling, and a block behind it."""

    def __init__(self, first):
        super().__init__()
        self.w, self.last, self.first = nn.Linear(4, 6), nn.Linear(6, 3), first

    def forward(self, x):
        return self.last(F.gelu(self.first(x, self.w)))


FIRST_LAYERS = {
    "einsum": lambda x, w: torch.einsum("btc,dc->btd", x, w.weight) + w.bias,
    "mean over tokens": lambda x, w: w(x.mean(1)),
    "differences": lambda x, w: w(x[:, 1:] - x[:, :-1]),
    "product and sum": lambda x, w: (x[..., None, :] * w.weight).sum(-1) + w.bias,
}


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_features_are_what_a_parameter_tells_apart(name, monkeypatch):
    torch.manual_seed(0)
    model, x = FirstLayer(FIRST_LAYERS[name]), torch.randn(2, 5, 4)
    assert pathlen.verify(model, x, spellings=0).check("input features").ok
    chosen = pathlen.verify(model, x, spellings=0, input_axis=1).check("input features")
    assert chosen.ok
    assert "chosen by input_axis, nothing to compare" in str(chosen)

    lower_watched = run.lower_watched
    monkeypatch.setattr(run, "lower_watched", lambda *args: lower_watched(*args[:2], 1))
    found = pathlen.verify(model, x, spellings=0).check("input features")
    assert not found.ok
    assert found.worst.what == (
        "the units of input 'x' are the places along axis 1, but 'w.weight' tells apart the places"
        " along axis 2"
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_kernels_tell_no_features_apart(groups):
    model = nn.Sequential(nn.Conv2d(4, 8, 2, 2, groups=groups), nn.GELU(), nn.Conv2d(8, 2, 1))
    found = pathlen.verify(model, torch.randn(1, 4, 6, 6), spellings=0).check("input features")
    assert found.ok, str(found)
    assert "nothing to compare" not in str(found)


@pytest.mark.parametrize("activation", [nn.Hardsigmoid, nn.Hardswish, nn.ReLU6])
def test_features_need_no_second_derivatives_and_no_biases(activation, monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), activation(), nn.Conv2d(4, 2, 1)
    )
    x = torch.randn(1, 3, 4, 4)
    found = pathlen.verify(model, x, spellings=0).check("input features")
    assert found.ok
    assert not found.unchecked
    assert not found.notes
    lower_watched = run.lower_watched
    monkeypatch.setattr(run, "lower_watched", lambda *args: lower_watched(*args[:2], 3))
    worst = pathlen.verify(model, x, spellings=0).check("input features").worst
    assert "'0.weight' tells apart the places along axis 1" in worst.what


def test_features_of_what_a_normalization_shifts():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].running_mean.normal_()
    found = pathlen.verify(model, torch.randn(5, 4), spellings=0).check("input features")
    assert found.ok


# ------------------------------------------------------------------ no false alarms


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h * 0.0,
        lambda h: h / float("inf"),
        lambda h: F.relu(h) * 0 + h,
        lambda h: F.relu(h - 100),
        lambda h: h * (h - h.logsumexp(1, keepdim=True)).exp(),
    ],
    ids=["times 0", "over infinity", "a term of 0", "a dead ReLU", "its softmax"],
)
def test_no_false_alarm(function):
    verdict = verified(function, spellings=0)
    assert verdict.ok, str(verdict)


def test_a_product_with_0_that_mixes_is_found(monkeypatch):
    def apply(call, lowering):
        return lowering.result(call, broadcast(call["self"].labels, call.shape).flip(-1))

    replace_rule(monkeypatch, "aten.mul", apply)
    assert not verified(lambda h: h * 0.0, spellings=0).ok
