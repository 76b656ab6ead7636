"""Every activation of torch, timm and transformers is one unit a channel, every normalization none.

The law: between a dense layer 2 -> 3 and one 3 -> 1 there are 2 * 3 * 1 paths, and each passes one
channel of the function. An activation, in whatever way it is written, gives all of them length 1
and 3 active units; what is affine gives length 0.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import X2, Model, answer, pointwise
from tests.vision import import_torchvision

import_torchvision()  # timm and transformers import it
ACTIVE, LINEAR = (6, 1, 1), (6, 0, 0)


def assert_one_unit_a_channel(function, expected=ACTIVE):
    report = pathlen.measure(pointwise(function), X2, exact=True)
    averages = (report.average_path_length, report.normalized_average_path_length)
    assert (report.path_count, *averages) == expected
    assert report.num_active == (3 if expected == ACTIVE else 0)
    assert report.status == "exact"


# --- torch.nn: four ways to write each ------------------------------------------------------------

EXP, ROOT = torch.exp, math.sqrt(2.0)
BY_HAND = {
    nn.ReLU: [lambda x: x.clamp(min=0), lambda x: (x + x.abs()) / 2, lambda x: x * (x > 0)],
    nn.ReLU6: [lambda x: x.clamp(0, 6), lambda x: x.clamp(min=0).clamp(max=6)],
    nn.LeakyReLU: [lambda x: torch.maximum(x, 0.01 * x), lambda x: torch.where(x < 0, x / 100, x)],
    nn.PReLU: [lambda x: torch.relu(x) - 0.25 * torch.relu(-x)],
    nn.RReLU: [lambda x: torch.where(x >= 0, x, x * (1 / 8 + 1 / 3) / 2)],
    nn.ELU: [lambda x: torch.where(x > 0, x, EXP(x) - 1)],
    nn.CELU: [lambda x: torch.relu(x) + (EXP(x) - 1).clamp(max=0)],
    nn.SELU: [lambda x: 1.05 * torch.where(x > 0, x, 1.67 * torch.expm1(x))],
    nn.GELU: [
        lambda x: 0.5 * x * (1 + torch.erf(x / ROOT)),
        lambda x: 0.5 * x * (1 + torch.tanh(0.7979 * (x + 0.044715 * x**3))),
        lambda x: x * torch.distributions.Normal(0.0, 1.0, validate_args=False).cdf(x),
    ],
    nn.SiLU: [lambda x: x * torch.sigmoid(x), lambda x: x / (1 + EXP(-x))],
    nn.Mish: [lambda x: x * torch.tanh(torch.log(1 + EXP(x)))],
    nn.Sigmoid: [
        lambda x: 1 / (1 + EXP(-x)),
        lambda x: EXP(x) / (1 + EXP(x)),
        lambda x: (e := EXP(x)) / (1 + e),
        lambda x: (1 + (-x).exp()).pow(-1),
        lambda x: (torch.tanh(x / 2) + 1) / 2,
    ],
    nn.LogSigmoid: [lambda x: -torch.log(1 + EXP(-x)), lambda x: torch.log(torch.sigmoid(x))],
    nn.Tanh: [
        lambda x: (EXP(x) - EXP(-x)) / (EXP(x) + EXP(-x)),
        lambda x: 2 * torch.sigmoid(2 * x) - 1,
    ],
    nn.Tanhshrink: [lambda x: x - torch.tanh(x)],
    nn.Softplus: [lambda x: torch.log(1 + EXP(x)), lambda x: torch.log1p(x.exp())],
    nn.Softsign: [lambda x: x / (1 + x.abs())],
    nn.Softshrink: [lambda x: x.sign() * torch.relu(x.abs() - 0.5)],
    nn.Hardshrink: [lambda x: x * (x.abs() > 0.5), lambda x: x.masked_fill(x.abs() <= 0.5, 0)],
    nn.Hardtanh: [lambda x: torch.min(torch.max(x, torch.tensor(-1.0)), torch.tensor(1.0))],
    nn.Hardsigmoid: [lambda x: F.relu6(x + 3) / 6, lambda x: (x / 6 + 0.5).clamp(0, 1)],
    nn.Hardswish: [lambda x: x * F.relu6(x + 3) / 6],
    nn.Threshold: [lambda x: torch.where(x > 0.1, x, 20.0)],
}
ARGUMENTS = {nn.Threshold: (0.1, 20.0)}
FUNCTIONS = {
    nn.LeakyReLU: F.leaky_relu,
    nn.PReLU: lambda x: F.prelu(x, torch.tensor([0.25])),
    nn.Sigmoid: torch.sigmoid,
    nn.Tanh: torch.tanh,
    nn.Threshold: lambda x: F.threshold(x, 0.1, 20.0),
}


def as_autograd_function(function):
    """The function behind an autograd Function, as libraries with kernels of their own have it."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError

    return Own.apply


def plain_function(kind):
    return FUNCTIONS.get(kind) or getattr(F, kind.__name__.lower())


@pytest.mark.parametrize("kind", BY_HAND, ids=lambda kind: kind.__name__)
def test_an_activation_of_torch_is_one_unit_however_it_is_written(kind):
    forms = [kind(*ARGUMENTS.get(kind, ())), plain_function(kind), *BY_HAND[kind]]
    for form in [*forms, as_autograd_function(forms[1]), as_autograd_function(forms[2])]:
        assert_one_unit_a_channel(form)


def test_the_formulas_are_those_of_the_modules():
    x = torch.linspace(-4, 4, 101)
    for kind, formulas in BY_HAND.items():
        module = kind(*ARGUMENTS.get(kind, ())).eval()
        for formula in formulas:
            torch.testing.assert_close(formula(x), module(x).detach(), atol=0.02, rtol=0.02)


def test_every_activation_of_torch_is_here():
    from torch.nn.modules import activation

    no_scalar_functions = {"GLU", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin"}
    no_scalar_functions.add("LogSoftmax")
    names = {kind.__name__ for kind in BY_HAND}
    assert set(activation.__all__) - no_scalar_functions <= names


# --- chains: what belongs to an activation, and what is one of its own ---------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x) ** 2,
        lambda x: (r := torch.relu(x)) * r,
        lambda x: F.softplus(x).sqrt(),
        lambda x: F.gelu(x).clamp(-10, 10),
        lambda x: 2 * torch.log(3 * EXP(x).clamp(max=5.0) + 1),
        lambda x: x.relu_().square_(),
    ],
    ids=["square", "product with itself", "root", "clamp", "long", "in place"],
)
def test_arithmetic_on_an_activation_belongs_to_it(function):
    assert_one_unit_a_channel(function)


def test_a_chain_of_arithmetic_that_is_affine_in_all_is_linear():
    assert_one_unit_a_channel(lambda x: torch.log(EXP(x)), LINEAR)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tanh(torch.relu(x)),
        lambda x: F.silu(torch.relu(x)),
        lambda x: (r := torch.relu(x)) * torch.sigmoid(r),
        nn.Sequential(nn.Softplus(), nn.Tanh()),
    ],
)
def test_an_activation_after_another_is_a_site_of_its_own(function):
    assert answer(pointwise(function), X2) == (6, 2, 2)


def test_arithmetic_on_what_something_else_reads_is_an_activation_of_its_own():
    # h = exp(a): 6 paths of length 1 over h alone, and 6 of length 2 over log(1 + h); h is read by
    # a layer too, so that the logarithm is no part of it
    def forward(m, x):
        h = EXP(m.a(x))
        return m.b(h), m.c(torch.log(1 + h))

    model = Model(forward, a=nn.Linear(2, 3), b=nn.Linear(3, 1), c=nn.Linear(3, 1))
    assert answer(model, X2) == (12, pytest.approx(1.5), pytest.approx(1.5))


# --- transformers and timm ------------------------------------------------------------------------


def test_every_activation_of_transformers():
    from transformers.activations import ACT2CLS, ACT2FN

    for name in ACT2CLS:
        try:
            assert_one_unit_a_channel(ACT2FN[name], LINEAR if name == "linear" else ACTIVE)
        except AssertionError as error:
            raise AssertionError(name) from error


def timm_activations():
    create = importlib.import_module("timm.layers.create_act")
    found = {}
    for registry in ("_ACT_FN_DEFAULT", "_ACT_FN_ME", "_ACT_LAYER_DEFAULT", "_ACT_LAYER_ME"):
        for name, entry in getattr(create, registry).items():
            found[f"{registry}.{name}"] = entry
    for name in ("activations", "activations_me"):  # also what no registry has
        module = importlib.import_module(f"timm.layers.{name}")
        for key, entry in vars(module).items():
            own = getattr(entry, "__module__", "") == module.__name__
            if own and not key.endswith(("_fwd", "_bwd")):
                found[f"{name}.{key}"] = entry
    return found


def test_every_activation_of_timm():
    found = timm_activations()
    assert len(found) > 60
    for name, entry in found.items():
        if isinstance(entry, type):
            entry = entry.apply if issubclass(entry, torch.autograd.Function) else entry()
        identity = name.lower().endswith("identity")
        try:
            assert_one_unit_a_channel(entry, LINEAR if identity else ACTIVE)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_a_function_that_was_scripted_is_refused_or_one_unit():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):

        @torch.jit.script
        def scripted(x):
            return x * torch.sigmoid(x)

    # its calls reach the dispatcher like those of Python
    assert_one_unit_a_channel(scripted)


# --- normalizations -------------------------------------------------------------------------------

WIDTH = 32
IMAGES, TOKENS = torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 2)
NORMAL, NORMAL_AND_ACTIVE = (2 * WIDTH, 0, 0), (2 * WIDTH, 1, 1)


def on_images(function, width=WIDTH):
    layers = {"a": nn.Conv2d(2, width, 1), "b": nn.Conv2d(width, 1, 1)}
    return Model(lambda m, x: m.b(m.f(m.a(x))), f=function, **layers)


def on_tokens(function, width=WIDTH):
    layers = {"a": nn.Linear(2, width), "b": nn.Linear(width, 1)}
    return Model(lambda m, x: m.b(m.f(m.a(x))), f=function, **layers)


def assert_normalization(function, expected=NORMAL, *, images=True):
    model = on_images(function) if images else on_tokens(function)
    assert answer(model, IMAGES if images else TOKENS) == expected


TORCH_NORMALIZATIONS = {
    "batch": nn.BatchNorm2d(WIDTH),
    "batch, no running statistics": nn.BatchNorm2d(WIDTH, track_running_stats=False),
    "batch, not affine": nn.BatchNorm2d(WIDTH, affine=False),
    "synchronized batch": nn.SyncBatchNorm(WIDTH),
    "instance": nn.InstanceNorm2d(WIDTH),
    "instance, affine": nn.InstanceNorm2d(WIDTH, affine=True),
    "instance, running statistics": nn.InstanceNorm2d(WIDTH, track_running_stats=True),
    "group": nn.GroupNorm(4, WIDTH),
    "one group": nn.GroupNorm(1, WIDTH),
    "a group a channel": nn.GroupNorm(WIDTH, WIDTH),
    "local response": nn.LocalResponseNorm(5),
    "layer, whole image": nn.LayerNorm([WIDTH, 4, 4]),
    "layer, not affine": nn.LayerNorm([WIDTH, 4, 4], elementwise_affine=False),
    "root mean square, whole image": nn.RMSNorm([WIDTH, 4, 4]),
    "F.normalize": F.normalize,
    "F.normalize, over positions": lambda x: F.normalize(x, p=1, dim=(2, 3)),
}


@pytest.mark.parametrize("name", TORCH_NORMALIZATIONS)
def test_a_normalization_of_torch_adds_no_unit(name):
    assert_normalization(TORCH_NORMALIZATIONS[name])


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("kind", ["BatchNorm", "InstanceNorm"])
def test_normalizations_of_all_dimensions(kind, dimensions):
    norm = getattr(nn, f"{kind}{dimensions}d")(4)
    convolutions = [getattr(nn, f"Conv{dimensions}d")(n, m, 1) for n, m in ((2, 4), (4, 1))]
    model = nn.Sequential(convolutions[0], norm, convolutions[1])
    assert answer(model, torch.zeros(2, 2, *[3] * dimensions)) == (8, 0, 0)


@pytest.mark.parametrize("kind", ["LazyBatchNorm1d", "LazyInstanceNorm2d"])
def test_lazy_normalizations_once_they_know_their_size(kind):
    shape = (2, 4) if kind.endswith("1d") else (2, 4, 3, 3)
    norm = getattr(nn, kind)()
    norm(torch.randn(shape))
    assert answer(nn.Sequential(norm), torch.zeros(shape)) == (4, 0, 0)


@pytest.mark.parametrize("norm", [nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)], ids=["layer", "rms"])
def test_normalizations_of_tokens(norm):
    assert_normalization(norm, images=False)


def takes_tokens(name):
    return name in ("layernorm", "layernormfp32", "rmsnorm", "rmsnormfp32", "simplenorm") or (
        name in ("simplenormfp32",)
    )


def test_every_normalization_of_timm_adds_no_unit():
    create = importlib.import_module("timm.layers.create_norm")
    for name, kind in create._NORM_MAP.items():
        if name == "batchnorm1d":
            model = nn.Sequential(nn.Linear(2, 4), kind(4), nn.Linear(4, 1))
            assert answer(model, X2) == (8, 0, 0)
            continue
        try:
            assert_normalization(kind(WIDTH), images=not takes_tokens(name))
        except AssertionError as error:
            raise AssertionError(name) from error


def test_normalizations_of_timm_with_an_activation_inside_have_one_unit_a_channel():
    # EvoNorm, FilterResponseNorm and the pairs norm + act; with apply_act=False they have none.
    # InplaceABN needs an extension in C++.
    create = importlib.import_module("timm.layers.create_norm_act")
    for name, kind in create._NORM_ACT_MAP.items():
        if name in ("inplaceabn", "iabn"):
            continue
        images = not takes_tokens(name)
        try:
            assert_normalization(kind(WIDTH), NORMAL_AND_ACTIVE, images=images)
            assert_normalization(kind(WIDTH, apply_act=False), images=images)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_a_frozen_batch_norm_of_torchvision_adds_no_unit():
    from torchvision.ops import FrozenBatchNorm2d

    assert_normalization(FrozenBatchNorm2d(WIDTH))


# module, class and arguments after the width; chosen so that every way of writing one is there
TRANSFORMERS_NORMALIZATIONS = [
    ("llama", "LlamaRMSNorm"),
    ("t5", "T5LayerNorm"),
    ("gemma", "GemmaRMSNorm"),
    ("gemma3n", "Gemma3nRMSNorm"),
    ("gemma4", "Gemma4RMSNorm"),
    ("olmo", "OlmoLayerNorm"),
    ("olmo2", "Olmo2RMSNorm"),
    ("cohere", "CohereLayerNorm"),
    ("deberta", "DebertaLayerNorm"),
    ("nemotron", "NemotronLayerNorm1P"),
    ("mamba", "MambaRMSNorm"),
    ("idefics", "IdeficsRMSNorm"),
    ("llama4", "Llama4TextL2Norm"),
    ("moshi", "MoshiRMSNorm"),
    ("nanochat", "NanoChatRMSNorm"),
    ("helium", "HeliumRMSNorm"),
    ("pix2struct", "Pix2StructLayerNorm"),
    ("recurrent_gemma", "RecurrentGemmaRMSNorm"),
    ("videoprism", "VideoPrismLayerNorm"),
]


def transformers_normalization(model, name):
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    kind = getattr(module, name, None)
    if kind is None:
        pytest.skip(f"this release of transformers has no {name}")
    try:
        return kind(WIDTH)
    except TypeError:
        return kind()


@pytest.mark.parametrize(("model", "name"), TRANSFORMERS_NORMALIZATIONS)
def test_a_normalization_of_transformers_adds_no_unit(model, name):
    assert_normalization(transformers_normalization(model, name), images=False)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("detr", "DetrFrozenBatchNorm2d"),
        ("convnext", "ConvNextLayerNorm"),
        ("convnextv2", "ConvNextV2GRN"),
        ("poolformer", "PoolFormerGroupNorm"),
    ],
)
def test_a_normalization_of_images_of_transformers(model, name):
    norm = transformers_normalization(model, name)
    if name.startswith("ConvNext"):  # channels last

        def channels_last(x, norm=norm):
            return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

        assert_normalization(channels_last)
    else:
        assert_normalization(norm)


def test_a_gated_normalization_of_mamba_is_a_product_with_one_activation():
    # norm(x * silu(gate)): a unit reads x with 2 ways and the gate's silu with 2: 4 * WIDTH paths,
    # half of them of length 1
    module = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    norm = module.MambaRMSNormGated(WIDTH, group_size=WIDTH)
    model = Model(
        lambda m, x: m.b(m.norm(m.a(x), m.g(x))),
        norm=norm,
        a=nn.Linear(2, WIDTH),
        g=nn.Linear(2, WIDTH),
        b=nn.Linear(WIDTH, 1),
    )
    half = pytest.approx(0.5)
    assert answer(model, TOKENS) == (4 * WIDTH, half, half)
