"""`pathlen.verify` passes on right graphs of many architectures, and fails on every wrong one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen import Policy
from pathlen.errors import VerificationError
from pathlen.lowering import elementwise, rules
from pathlen.lowering.builder import GraphBuilder
from pathlen.lowering.elementwise import merge_labels
from pathlen.lowering.labels import LabelSets, broadcast
from pathlen.verification import compare, run
from tests.constructs import Function, Model
from tests.verify_families import FAMILIES
from tests.vision import import_torchvision
from tests.wrong_rules import as_cut, as_pass, replace_rule

# other spellings have a file of their own: test_verify_spellings.py
verify = partial(pathlen.verify, spellings=0)
COUNTED = Policy(count={"activation", "softmax", "normalization", "pooling", "product"})


def verify_family(name, **options):
    torch.manual_seed(0)
    model, args = FAMILIES[name]()
    return verify(model, args, **options)


def assert_right(verdict, status="exact"):
    assert verdict.ok, str(verdict)
    assert verdict.complete, str(verdict)
    assert verdict.status == status
    assert all(check.count for check in verdict.checks), str(verdict)


# ------------------------------------------------------------------ right graphs


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    assert_right(verify_family(name))


@pytest.mark.parametrize("name", ["residual", "vision transformer", "gated", "convnext v2", "swin"])
def test_everything_counted(name):
    assert_right(verify_family(name, policy=COUNTED))


@pytest.mark.parametrize("name", ["vision transformer", "swin", "decoder", "encoder"])
def test_value_paths_only(name):
    assert_right(verify_family(name, policy=Policy(attention="value")))


def torchvision_models():
    models = import_torchvision().models
    resnet = models.resnet
    swin = models.swin_transformer.SwinTransformer
    convnext = models.convnext
    blocks = [convnext.CNBlockConfig(4, 8, 1), convnext.CNBlockConfig(8, None, 1)]
    return {
        "shufflenet": (models.ShuffleNetV2([1, 1, 1], [4, 4, 8, 8, 8], num_classes=3), 32),
        "densenet": (models.DenseNet(2, (2, 2), 4, num_classes=3), 32),
        "swin": (swin([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=3), 32),
        "vit": (models.VisionTransformer(16, 8, 1, 2, 8, 12, num_classes=3), 16),
        "convnext": (convnext.ConvNeXt(blocks, num_classes=3), 32),
        "resnext": (
            resnet.ResNet(resnet.Bottleneck, [1, 1, 0, 0], 3, groups=2, width_per_group=2),
            32,
        ),
    }


@pytest.mark.parametrize("name", ["shufflenet", "densenet", "swin", "vit", "convnext"])
def test_torchvision(name):
    torch.manual_seed(0)
    model, size = torchvision_models()[name]
    assert_right(verify(model, torch.randn(1, 3, size, size)))


@pytest.mark.slow
def test_torchvision_mobilenet():
    models = import_torchvision().models
    model = models.mobilenet_v3_small(width_mult=0.2, num_classes=4)
    assert_right(verify(model, torch.randn(1, 3, 32, 32)))


def timm_models():
    timm = pytest.importorskip("timm")
    models = timm.models
    small = {"num_classes": 3, "embed_dim": 8}
    return {
        "convnextv2": timm.create_model("convnextv2_atto", depths=(1, 1, 1, 1), dims=(4, 4, 8, 8)),
        "mixer": models.mlp_mixer.MlpMixer(img_size=16, patch_size=8, num_blocks=1, **small),
        "xcit": models.xcit.Xcit(
            img_size=16, patch_size=8, depth=1, num_heads=2, cls_attn_layers=1, **small
        ),
        "eva": models.eva.Eva(
            img_size=16, patch_size=8, depth=1, num_heads=2, use_rot_pos_emb=True, **small
        ),
        "poolformer": models.metaformer.MetaFormer(
            num_classes=3, depths=(1, 1, 1, 1), dims=(4, 4, 8, 8)
        ),
    }


@pytest.mark.parametrize("name", ["convnextv2", "mixer", "xcit", "eva", "poolformer"])
def test_timm(name):
    import_torchvision()
    torch.manual_seed(0)
    model = timm_models()[name]
    size = 32 if name in ("convnextv2", "poolformer") else 16
    assert_right(verify(model, torch.randn(1, 3, size, size)))


def test_an_exported_program_with_its_own_inputs():
    torch.manual_seed(0)
    model, args = FAMILIES["perceptron"]()
    program = torch.export.export(model.eval(), (args,))
    assert_right(verify(program))


def test_the_rung_of_torch_export_and_of_real_tensors():
    class Branches(nn.Module):
        def forward(self, x):
            return x.relu() if x.sum() > 0 else x.tanh()

    verdict = verify(Branches(), torch.ones(1, 2))
    assert "real tensors" in verdict.tracer
    assert_right(verdict, status="example")


def test_large_layers_are_sampled_and_that_is_said():
    model = nn.Sequential(nn.Linear(8, 100), nn.ReLU(), nn.Linear(100, 3))
    verdict = verify(model, torch.randn(2, 8))
    assert_right(verdict)
    assert "64 units of a result were drawn from more: 2 calls" in str(verdict)


def test_rounding_and_choosing_are_seen_by_changing_units():
    class Chooses(nn.Module):
        def forward(self, x):
            return x.round() + x.amax(1, keepdim=True)

    assert_right(verify(Chooses(), torch.randn(2, 30), input_axis=1))


def test_model_and_process_are_left_as_they_were():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            self.calls += 1
            x.mul_(2)
            return self.layer(x).relu_()

    model, x = Remembers().train(), torch.randn(2, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept, dtype, threads = x.clone(), torch.get_default_dtype(), torch.get_num_threads()
    state = torch.get_rng_state()
    assert_right(verify(model, x))
    assert model.training
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_cannot_be_run_is_refused():
    with pytest.raises(VerificationError, match=r"weight lies on meta.*\.cpu\(\)"):
        verify(nn.Linear(2, 2, device="meta"), torch.ones(1, 2))
    with pytest.raises(VerificationError, match="samples=0"):
        verify(nn.Linear(2, 2), torch.ones(1, 2), samples=0)


class Applied(nn.Module):
    """A function of six channels, of which each half reads half of the input."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Conv1d(4, 6, 1, groups=2), function

    def forward(self, x):
        return self.function(self.layer(x))


def strided(x):
    """Overlapping windows of a transposed tensor, whose strides are not those of its labels."""
    y = x.transpose(1, 2).contiguous().transpose(1, 2)
    return y.as_strided((2, 6, 2, 3), (30, 1, 6, 6))


# Each of these was wrong, or refused, before `verify` was tried on it.
ONCE_WRONG = {
    "padding of windows is constant": lambda x: F.unfold(x[..., None], (3, 1), padding=(1, 0)),
    "a tensor laid out anew": strided,
    "the range, two statistics": lambda x: x.amax(1) - x.amin(1),
    "a ratio of two statistics": lambda x: x.mean(1, keepdim=True) / x.std(1, keepdim=True),
    "a mean without what is missing": lambda x: x.nanmean(1),
    "a complex number plus a constant": lambda x: (torch.fft.fft(x, dim=1) + 1).real,
}


@pytest.mark.parametrize("name", ONCE_WRONG)
def test_what_was_once_wrong(name):
    torch.manual_seed(0)
    model, x = Applied(ONCE_WRONG[name]), torch.randn(2, 4, 5)
    assert_right(verify(model, x))
    assert pathlen.measure(model, x).average_path_length == 0


def sum_of_a_stack(x, v):
    return torch.stack([x, v.relu(), x + v]).sum(0)


# Sums that are flat across whatever adds up, functions of one tensor `v` in them put together.
FLAT_SUMS = {
    "in another sum": lambda x, v: x + v.relu() + (x + v),
    "a scaled copy": lambda x, v: v.relu() + x + 2 * v,
    "two groups": lambda x, v: v.relu() + x + v + x.tanh(),
    "a mask": lambda x, v: (x + torch.where(v > 0, v, 0.0)) + v,
    "a normalization": lambda x, v: x + (v - v.mean(-1, keepdim=True)) + v.relu(),
    "a view": lambda x, v: (x + v.relu()).view(-1).view(2, 3) + v,
    "a stack": sum_of_a_stack,
    "a product with ones": lambda x, v: (
        torch.stack([x, v.relu(), v], -1) @ torch.tensor([[1.0], [2.0], [3.0]])
    )[..., 0],
    "a nested interpolation": lambda x, v: torch.lerp(torch.lerp(x, v, 0.4), v.relu(), 0.3),
    "a layer in one call with a sum": lambda x, v: (
        torch.addmm(x + v, x.relu(), torch.ones(3, 3)) + v.relu()
    ),
    "the same elsewhere": lambda x, v: (v.flip(1) + v.relu()) + v,
}


class FlatSum(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.function = function

    def forward(self, x):
        return self.c(self.function(self.a(x), self.b(x)))


@pytest.mark.parametrize("name", FLAT_SUMS)
def test_flat_sums_that_hold_functions_of_one_tensor(name):
    torch.manual_seed(0)
    assert_right(verify(FlatSum(FLAT_SUMS[name]), torch.randn(2, 3)))


def filled(h):
    h = h.clone()
    h[h < 0] = 0.0
    return h


def hat(h):
    knots = torch.tensor([[-0.4, 0.1], [0.2, 0.9]])
    above, below = h[..., None] >= knots[0], h[..., None] < knots[1]
    return ((h[..., None] - knots[0]) * (above & below)).flatten(1)


# Functions of one tensor that end in other calls than arithmetic, or with statistics of it.
FUNCTIONS = {
    "a mask written to": filled,
    "between knots": hat,
    "a norm by a product with ones": lambda h: h / (h.square() @ torch.ones(3, 1)).sqrt(),
    "a norm by a product with itself": lambda h: h / (h[:, None] @ h[..., None]).sqrt()[..., 0],
    "its mean in a sum by a stack": lambda h: torch.stack(
        [h, -h.mean(1, keepdim=True).expand(2, 3)]
    ).sum(0),
    "its gate in a product by a stack": lambda h: torch.stack(
        [h, h.logsumexp(1, keepdim=True).sigmoid().expand(2, 3)]
    ).prod(0),
    "units of rows of a layer": lambda h: (
        lambda y: torch.addcmul(y.relu(), torch.tensor([0.5, 1.0, 0.0]), y)
    )(torch.stack([(h * w).sum(-1) for w in torch.eye(3) + 0.5], -1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_end_in_other_calls(name):
    torch.manual_seed(0)
    head = nn.Linear(6 if name == "between knots" else 3, 2)
    model = nn.Sequential(nn.Linear(3, 3), Function(FUNCTIONS[name]), head)
    assert_right(verify(model, torch.randn(2, 3)))


def test_memory_that_is_read_behind_a_sum():
    class Fills(nn.Module):
        def forward(self, x):
            y = torch.empty_like(x)
            for step in range(x.shape[1]):
                y[:, step] = x[:, step]
            return torch.lerp(x * 2, y * -2, 0.5)

    assert_right(verify(Fills(), torch.randn(2, 3, 4)))


def test_integers_of_another_width_are_the_same_integers():
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 3)

        def forward(self, ids):
            return self.embed(ids.to(torch.int32) + 1)

    ids = torch.tensor([[1, 2]])
    assert_right(verify(Casts(), ids))
    assert pathlen.measure(Casts(), ids).average_path_length == 0


# ------------------------------------------------------------------ wrong graphs


def assert_wrong(verdict, check, operation):
    assert not verdict.ok, str(verdict)
    found = verdict.check(check)
    assert not found.ok, str(verdict)
    assert found.worst is not None
    assert found.worst.operation == operation
    assert "WRONG" in str(verdict)
    with pytest.raises(VerificationError, match="WRONG"):
        verdict.raise_if_wrong()


@pytest.mark.parametrize(
    ("family", "operation"),
    [("mixer", "linear"), ("mobilenet", "conv2d"), ("swin", "conv1d")],
)
def test_a_mixing_operation_taken_to_be_elementwise(monkeypatch, family, operation):
    def apply(call, lowering):
        labels = call["input"].labels
        if labels.shape != call.shape:  # as many channels as fit
            axis = 1 if "conv" in operation else -1
            index = torch.arange(call.shape[axis]) % labels.shape[axis]
            labels = labels.index_select(axis, index)
            for other, size in enumerate(call.shape):
                labels = labels.narrow(other, 0, min(size, labels.shape[other]))
        return lowering.result(call, labels.expand(call.shape))

    replace_rule(monkeypatch, f"aten.{operation}", apply)
    verdict = verify_family(family)
    assert_wrong(verdict, "nothing missing", operation)
    # in the windows of swin the softmax and the values connect what the layer no longer does
    assert family == "swin" or not verdict.check("whole model").ok


def test_a_layer_without_its_groups(monkeypatch):
    original = rules._RULES["aten.conv2d"].apply

    def apply(call, lowering):
        return original(replace(call, arguments={**call.arguments, "groups": 1}), lowering)

    replace_rule(monkeypatch, "aten.conv2d", apply)
    assert_wrong(verify_family("residual"), "nothing extra", "conv2d")

    def bounded(call, lowering):
        lowering.remark(f"{lowering.site(call)}: groups left out", "bound")
        return apply(call, lowering)

    replace_rule(monkeypatch, "aten.conv2d", bounded)
    verdict = verify_family("residual")
    assert verdict.ok
    assert verdict.status == "bound"
    assert "bounds have more paths than dependences" in str(verdict)


def test_a_sum_that_drops_an_operand(monkeypatch):
    def apply(call, lowering):
        return lowering.result(call, broadcast(call["self"].labels, call.shape))

    replace_rule(monkeypatch, "aten.add", apply)
    verdict = verify_family("residual")
    assert_wrong(verdict, "nothing missing", "add")


@pytest.mark.parametrize("family", ["vision transformer", "encoder", "decoder"])
def test_attention_without_its_keys(monkeypatch, family):
    original = rules._RULES["aten.scaled_dot_product_attention"].apply

    def apply(call, lowering):
        key = replace(call["key"], labels=call["value"].labels, _path=None)
        return original(replace(call, arguments={**call.arguments, "key": key}), lowering)

    replace_rule(monkeypatch, "aten.scaled_dot_product_attention", apply)
    verdict = verify_family(family)
    assert_wrong(verdict, "nothing missing", "scaled_dot_product_attention")


def test_a_norm_that_mixes_and_a_softmax_that_cuts(monkeypatch):
    replace_rule(monkeypatch, "aten.softmax", as_cut)
    assert_wrong(verify_family("swin"), "nothing missing", "softmax")


def test_a_movement_that_forgets_to_move(monkeypatch):
    def apply(call, lowering):
        return lowering.result(call, call["self"].labels)

    replace_rule(monkeypatch, "aten.flip", apply)
    assert_wrong(verify_family("rewriting"), "nothing missing", "flip")


def test_a_concatenation_in_the_wrong_order(monkeypatch):
    original = rules._RULES["aten.cat"].apply

    def apply(call, lowering):
        tensors = list(reversed(call["tensors"]))
        return original(replace(call, arguments={**call.arguments, "tensors": tensors}), lowering)

    replace_rule(monkeypatch, "aten.cat", apply)
    assert_wrong(verify_family("shufflenet"), "nothing missing", "cat")


def test_an_embedding_that_cuts(monkeypatch):
    # a row that no input reaches: seen by changing the indices, which have no derivative
    original = rules._RULES["aten.embedding"].apply

    def apply(call, lowering):
        value = original(call, lowering)
        half = torch.arange(call.shape[-1]) < call.shape[-1] // 2
        value.labels = torch.where(half, value.labels, -1)
        return value

    replace_rule(monkeypatch, "aten.embedding", apply)
    verdict = verify_family("decoder")
    assert_wrong(verdict, "nothing missing", "embedding")
    assert verdict.check("nothing missing").worst.what.startswith("elements without a unit")


def test_an_activation_that_no_unit_is_made_for(monkeypatch):
    replace_rule(monkeypatch, "aten.gelu", as_pass)
    assert_wrong(verify_family("vision transformer"), "activities", "gelu")


@pytest.mark.parametrize("name", ["in another sum", "a stack", "a mask"])
def test_a_wrong_function_within_a_flat_sum(monkeypatch, name):
    original = elementwise.activation_units

    def apply(call, split, active, lowering):
        adds = call.name in ("aten.add", "aten.sum")
        return original(call, split, torch.zeros_like(active) if adds else active, lowering)

    model, x = FlatSum(FLAT_SUMS[name]), torch.randn(2, 3)
    assert verify(model, x).ok
    monkeypatch.setattr(elementwise, "activation_units", apply)
    verdict = verify(model, x)
    assert_wrong(verdict, "activities", "sum" if name == "a stack" else "add")
    assert "is a linear function of 'linear_default_1'" in str(verdict)


def test_a_sum_through_a_product(monkeypatch):
    """(a * b) + c is no merge of three."""
    original = elementwise.merged

    def apply(call, meeting, lowering, **options):
        if meeting.operator == "sum":
            inner = [
                o.call.values() if o.call.name == "aten.mul" else [o] for o in meeting.operands
            ]
            flat = [value for values in inner for value in values]
            meeting = replace(meeting, operands=flat)
        return original(call, meeting, lowering, **options)

    monkeypatch.setattr(elementwise, "merged", apply)
    verdict = verify(FlatSum(lambda x, v: x * v + (x @ torch.ones(3, 3)).tanh()), torch.randn(2, 3))
    assert_wrong(verdict, "nothing missing", "add")


def test_a_constant_mask_that_is_not_looked_at(monkeypatch):
    def where(h):
        return torch.where(torch.tensor([True, False] * 3)[:, None], h, torch.zeros(()))

    model, x = Applied(where), torch.randn(2, 4, 5)
    assert_right(verify(model, x))
    replace_rule(monkeypatch, "aten.where", as_pass)
    assert_wrong(verify(model, x), "nothing extra", "where")


@pytest.mark.parametrize("count", [0.0, 1.0])
def test_wrong_activities(monkeypatch, count):
    # all units linear, or all active: of the blend and the PReLU some are either
    units = GraphBuilder.units
    monkeypatch.setattr(
        GraphBuilder,
        "units",
        lambda self, before, activity=0.0: units(
            self, before, activity if np.ndim(activity) == 0 else np.full(len(before), count)
        ),
    )
    verdict = verify_family("blended")
    assert_wrong(verdict, "activities", "add")
    assert all(check.ok for check in verdict.checks if check.name != "activities")


def test_an_active_layer_is_wrong(monkeypatch):
    merges = GraphBuilder.merges
    monkeypatch.setattr(
        GraphBuilder, "merges", lambda self, sets, activity=0.0: merges(self, sets, 1.0)
    )
    assert_wrong(verify_family("mobilenet"), "activities", "add")


def test_one_edge_that_is_dropped(monkeypatch):
    hubs = GraphBuilder.hubs

    def drop(self, sets):
        if len(sets.sizes) == 1 and sets.sizes[0] == 12:  # the second layer of the feed-forward
            sets = LabelSets(sets.members[1:], sets.sizes - 1)
        return hubs(self, sets)

    monkeypatch.setattr(GraphBuilder, "hubs", drop)
    verdict = verify_family("encoder")
    assert_wrong(verdict, "nothing missing", "linear")
    assert verdict.check("nothing missing").places == 1


def test_one_edge_too_many(monkeypatch):
    units = GraphBuilder.units
    seen = []

    def add(self, before, activity=0.0):
        if seen or len(set(before.tolist())) != 8:
            return units(self, before, activity)
        seen.append("the first activation: its unit 0 reads unit 1 as well")
        members = np.concatenate([before[:2], before[1:]])
        return self.merges(LabelSets(members, np.array([2] + [1] * 7)), activity)

    monkeypatch.setattr(GraphBuilder, "units", add)
    verdict = verify_family("mobilenet")
    assert_wrong(verdict, "nothing extra", "hardswish")
    assert verdict.check("nothing extra").wrong == 1


class GatedSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) * self.b(x).sigmoid()


def test_a_product_that_goes_round_the_activation_of_its_operand(monkeypatch):
    torch.manual_seed(0)
    assert_right(verify(GatedSum(), torch.randn(2, 3)))

    def apply(call, lowering):
        (behind,) = call["other"].call.values()
        return lowering.result(call, merge_labels(call, [call["self"], behind], lowering))

    replace_rule(monkeypatch, "aten.mul", apply)
    verdict = verify(GatedSum(), torch.randn(2, 3))
    assert_wrong(verdict, "activities", "mul")  # a product with a bent factor


# ------------------------------------------------------------------ the replay


def test_a_recording_that_computes_something_else(monkeypatch):
    trace_model = run.trace_model

    def without_bias(*args):
        recording = trace_model(*args)
        changed = {
            name: tensor + 1 if name == "2.bias" else tensor
            for name, tensor in recording.attributes.items()
        }
        return replace(recording, attributes=changed)

    monkeypatch.setattr(run, "trace_model", without_bias)
    verdict = verify_family("perceptron")
    assert_wrong(verdict, "replay", "output")
    said = verdict.check("replay").worst.what
    assert "the first call to deviate is aten.linear.default in module '2'" in said


def test_what_a_run_leaves_on_the_model_and_graph_modules():
    class Branches(nn.Module):
        taken = True

        def forward(self, x):
            self.taken, now = False, self.taken
            return x.relu() if now else x.tanh()

    assert_right(verify(Branches(), torch.randn(2, 3)))  # put back after every run
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    assert_right(verify(graph, torch.randn(2, 3)))


def test_deviations_are_measured_against_rounding():
    one = torch.tensor([1.0, 2.0, float("nan"), float("inf")])
    far, allowed = compare.deviation(one, one.clone())
    assert far == 0.0
    assert allowed == pytest.approx(2e-4)
    assert compare.deviation(one, one[:2])[0] == float("inf")
    far, allowed = compare.deviation(one, torch.tensor([1.0, 2.1, float("nan"), float("inf")]))
    assert far == pytest.approx(0.1)
    assert far > allowed
    assert compare.deviation(one, torch.tensor([1.0, 2.0, 3.0, float("inf")]))[0] > 1e9


# ------------------------------------------------------------------ the verdict


def test_verdict_as_data():
    verdict = verify_family("perceptron")
    record = json.loads(json.dumps(verdict.to_dict()))
    assert record["ok"] is True
    assert record["complete"] is True
    assert [check["name"] for check in record["checks"]] == [
        "replay",
        "nothing missing",
        "nothing extra",
        "whole model",
        "activities",
        "input features",
    ]
    assert all(check["ok"] and check["worst"] is None for check in record["checks"])
    assert "the path graph is right" in str(verdict)
    verdict.raise_if_wrong()
    with pytest.raises(VerificationError, match="no check 'edges'; it has 'replay'"):
        verdict.check("edges")
    with pytest.raises(AttributeError):
        verdict.ok = False


def test_the_same_seed_gives_the_same_counts():
    one, other = (verify_family("encoder", seed=3).to_dict()["checks"] for _ in range(2))
    assert one == other


@pytest.fixture
def operator():
    """An operator of the user's own, without a derivative."""
    namespace = "pathlen_verify"

    def make(name, function, how):
        def apply(x: torch.Tensor) -> torch.Tensor:
            return function(x)

        made = torch.library.custom_op(f"{namespace}::{name}", apply, mutates_args=())
        made.register_fake(torch.empty_like)
        pathlen.register_rule(f"{namespace}::{name}", how)
        return made

    yield make
    for name in [key for key in rules._RULES if key.startswith(namespace)]:
        del rules._RULES[name]


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 4), function

    def forward(self, x):
        return self.function(self.layer(x))


def test_a_registered_rule_that_is_wrong(operator):
    swish = operator("swish", F.silu, "elementwise")
    verdict = verify(Applies(swish), torch.randn(2, 3))
    assert verdict.ok
    assert [check.unchecked for check in verdict.checks] == [
        0,
        0,
        0,
        2,
        0,
        1,
    ]  # what needs its derivative
    assert "for lack of a derivative: 1 calls (swish" in str(verdict)
    mix = operator("mix", lambda x: x.softmax(-1) * 2, "elementwise")
    assert_wrong(verify(Applies(mix), torch.randn(2, 3)), "nothing missing", "mix")


def test_what_cannot_be_checked_is_said(operator):
    def single(x):
        if x.dtype != torch.float32:
            raise ValueError("single precision only")
        return F.layer_norm(x, (4,))

    norm = operator("norm", single, "normalization")
    verdict = verify(Applies(norm), torch.randn(2, 3))
    assert verdict.ok
    assert not verdict.complete
    assert verdict.check("nothing missing").unchecked == 1
    assert "NOT CHECKED, its statistics cannot be held fixed" in str(verdict)


CHOOSING = {
    "where": lambda h, g: torch.where(h > 0, g, 0.0),
    "sign": lambda h, g: torch.sign(h) * g,
    "heaviside": lambda h, g: g * torch.heaviside(h, torch.tensor(0.0)),
    "a mask of rows": lambda h, g: torch.where(h.mean(-1, keepdim=True) > 0, g, 0.0),
    "the largest": lambda h, g: g * F.one_hot(h.argmax(-1), 4),
    "both positive": lambda h, g: g * torch.logical_and(h > 0, g > 0),
    "written at places": lambda h, g: g.index_put(torch.where(h < 0), torch.zeros(())),
}


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("seed", range(2))
def test_what_only_chooses_is_no_fault(name, seed):
    torch.manual_seed(seed)
    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    model = Model(lambda m, x: m.c(CHOOSING[name](m.a(x), m.b(x))), **layers)
    verdict = verify(model, torch.randn(2, 4))
    assert verdict.ok, str(verdict)


def test_halves_of_one_layer_are_two_tensors():
    """A mask of one half chooses from the other: that is no function of one element."""
    layers = {"a": nn.Linear(4, 8), "c": nn.Linear(4, 3)}
    for choose in CHOOSING.values():
        model = Model(lambda m, x, choose=choose: m.c(choose(*m.a(x).chunk(2, -1))), **layers)
        verdict = verify(model, torch.randn(2, 4))
        assert verdict.ok, str(verdict)
