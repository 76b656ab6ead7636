"""Models by name: the depth that they are known to have, and that they fit their tasks."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import SettingsError, SpecError
from pathlen.training.mlp import MLP
from pathlen.training.models import build_model
from pathlen.training.resnet import CifarResNet
from pathlen.training.subwords import BEGIN, END, PADDING
from pathlen.training.tasks import build_task
from pathlen.training.transformer import Transformer, sinusoids
from pathlen.training.vgg import CifarVGG
from tests.vision import import_torchvision


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def normalized(model, *args):
    return pathlen.measure(model, args, exact=True).normalized_average_path_length


IMAGE = torch.zeros(1, 3, 16, 16)

# --- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_depth_of_residual_networks(n):
    """Each block of version 1 adds 1/2 in the branch and 1 after the sum; the stem 1.

    A block of version 2 adds 2 activations in a branch taken half of the time, or, where the
    shortcut starts after the first, 1 + 1/2; the activation before the pool is 1.
    """
    depth = 6 * n + 2
    assert normalized(CifarResNet(depth, width=2), IMAGE) == 1 + 1.5 * 3 * n
    second = CifarResNet(depth, width=2, version=2)
    assert normalized(second, IMAGE) == 1 + (3 * n - 2) * 1 + 2 * 1.5
    assert normalized(CifarResNet(depth, width=2, shortcut="none"), IMAGE) == 6 * n + 1
    plain = CifarResNet(depth, width=2, shortcut="none", version=2)
    assert normalized(plain, IMAGE) == 6 * n + 1


def test_parameters_of_version_2_are_as_many_as_published():
    with torch.device("meta"):
        model = CifarResNet(110, shortcut="identity", version=2)
    assert parameters(model) / 1e6 == pytest.approx(1.7, abs=0.05)  # He et al. 2016b, table 3


def test_a_block_of_version_2_is_the_identity_where_its_branch_is_0():
    block = CifarResNet(8, width=4, version=2).eval().stage1[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_other_versions_are_refused():
    with pytest.raises(ValueError, match="version must be 1 or 2, not 3"):
        CifarResNet(8, version=3)


@pytest.mark.parametrize(("depth", "activations"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_depth_of_vgg(depth, activations):
    assert normalized(CifarVGG(depth, width=2, image_size=16), IMAGE) == activations


def test_vgg_16_is_the_published_network_up_to_its_linear_layers():
    torchvision = import_torchvision()
    with torch.device("meta"):
        ours, theirs = CifarVGG(16).features, torchvision.models.vgg16_bn().features
    shapes = [tuple(module.weight.shape) for module in ours if isinstance(module, nn.Conv2d)]
    assert shapes == [tuple(m.weight.shape) for m in theirs if isinstance(m, nn.Conv2d)]
    kinds = [[type(module) for module in part] for part in (ours, theirs)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("size", [1, 8, 32])
def test_vgg_takes_small_images(size):
    model = CifarVGG(11, width=2, in_channels=1, image_size=size, num_classes=5).eval()
    assert model(torch.randn(3, 1, size, size)).shape == (3, 5)


def test_depth_of_perceptrons():
    x = torch.zeros(1, 6)
    assert normalized(MLP(6, 3, depth=4, width=5), x) == 4
    assert normalized(MLP(6, 3, depth=4, width=5, residual=True), x) == 1 + 3 / 2


@pytest.mark.parametrize(("kind", "options"), [(CifarVGG, {"depth": 12}), (MLP, {"depth": 0})])
def test_other_depths_are_refused(kind, options):
    arguments = (3, 2) if kind is MLP else ()
    with pytest.raises(ValueError, match="depth must be"):
        kind(*arguments, **options)


# --- the Transformer -------------------------------------------------------------------------

SIZES = {"vocabulary_size": 11, "padding": PADDING, "max_length": 12, "width": 8, "hidden": 12}
SOURCE = torch.tensor([[5, 3, 7, END], [4, 9, END, PADDING]])
TARGET = torch.tensor([[BEGIN, 6, 8], [BEGIN, 4, PADDING]])


def make_transformer(seed=0, **options):
    torch.manual_seed(seed)
    return Transformer(**{**SIZES, "heads": 2, **options}).eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_depth_of_transformers(norm, activation, layers):
    """By hand, from the walk through one layer of the decoder.

    An encoder layer adds 1/2, the chance of its network. In a decoder layer the network adds 1/2.
    From the attention to the source a walk goes to a value of the source (1/2), to a key of the
    source (1/4) or to a query of the target (1/4); with the skip that is 3/8 to the source and 5/8
    on in the target.
    """
    source = layers / 2
    expected = 0.0
    for _ in range(layers):
        expected = 1 / 2 + 5 / 8 * expected + 3 / 8 * source
    model = make_transformer(norm=norm, activation=activation, layers=layers)
    report = pathlen.measure(model, (SOURCE[:1], TARGET[:1]), exact=True)
    assert report.normalized_average_path_length == expected
    assert report.status == "exact"


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_that_of_torch(norm):
    model = make_transformer(norm=norm, activation="gelu", layers=1)
    encoder, decoder = model.encoder[0], model.decoder[0]
    options = {"activation": "gelu", "norm_first": norm == "pre", "batch_first": True}
    theirs = nn.TransformerDecoderLayer(8, 2, 12, 0.0, **options).eval()
    other = nn.TransformerEncoderLayer(8, 2, 12, 0.0, **options).eval()
    copies = [
        (theirs.self_attn, decoder.attention),
        (theirs.multihead_attn, decoder.source_attention),
        (other.self_attn, encoder.attention),
    ]
    with torch.no_grad():
        for attention, ours in copies:
            parts = (ours.query, ours.key, ours.value)
            attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            attention.out_proj.load_state_dict(ours.output.state_dict())
        for layer, ours in ((theirs, decoder), (other, encoder)):
            layer.linear1.load_state_dict(ours.network.first.state_dict())
            layer.linear2.load_state_dict(ours.network.second.state_dict())
        memory, x = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
        seen = SOURCE != PADDING
        causal = nn.Transformer.generate_square_subsequent_mask(3)
        expected = theirs(x, memory, tgt_mask=causal, memory_key_padding_mask=~seen)
        assert torch.allclose(decoder(x, memory, seen[:, None, None]), expected, atol=1e-5)
        expected = other(memory, src_mask=torch.zeros(4, 4, dtype=torch.bool))
        ours = encoder(memory, torch.ones_like(seen)[:, None, None])
        assert torch.allclose(ours, expected, atol=1e-5)


def test_padding_and_later_tokens_change_nothing():
    model = make_transformer(positions="learned")
    together = model(SOURCE, TARGET)
    alone = model(SOURCE[1:, :3], TARGET[1:, :2])
    assert torch.allclose(together[1:, :2], alone, atol=1e-5)
    later = TARGET.clone()
    later[:, 2] = 9
    assert torch.allclose(model(SOURCE, later)[:, :2], together[:, :2], atol=1e-5)
    assert not torch.allclose(model(SOURCE, later)[:, 2], together[:, 2], atol=1e-3)


def test_tied_matrices_are_one():
    sizes = {tied: parameters(make_transformer(tied=tied)) for tied in ("none", "output", "all")}
    matrix = 11 * 8
    assert sizes["none"] - sizes["output"] == sizes["output"] - sizes["all"] == matrix
    model = make_transformer(tied="all")
    assert model.source_embedding.weight is model.target_embedding.weight is model.output.weight
    again = make_transformer(seed=1, tied="all")
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(SOURCE, TARGET), again(SOURCE, TARGET))


def test_positions_tell_the_order():
    """Angles of the published form: sin(p / 10000^(2 i / width)), then the cosine."""
    table = sinusoids(50, 6)
    for place, feature in ((0, 0), (7, 2), (49, 4)):
        angle = torch.tensor(place / 10_000 ** (feature / 6))
        assert table[place, feature].item() == pytest.approx(angle.sin().item(), abs=1e-5)
        assert table[place, feature + 1].item() == pytest.approx(angle.cos().item(), abs=1e-5)
    swapped = SOURCE[:1, [1, 0, 2, 3]]
    for positions in ("sinusoidal", "learned"):
        model = make_transformer(positions=positions)
        assert not torch.allclose(model(SOURCE[:1], TARGET[:1]), model(swapped, TARGET[:1]))


def test_sizes_that_do_not_go_are_refused():
    with pytest.raises(ValueError, match="width must be even and a multiple of heads 3, not 8"):
        make_transformer(heads=3)
    with pytest.raises(ValueError, match="layers must be at least 1"):
        make_transformer(layers=0)
    with pytest.raises(ValueError, match="13 tokens are more than max_length 12"):
        make_transformer()(torch.full((1, 13), 3), TARGET[:1])


# --- by name ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return build_task({"name": "digits", "classes": 5})


@pytest.fixture(scope="module")
def words():
    sizes = {"last": 999, "train_size": 40, "test_size": 5, "vocabulary_size": 300}
    return build_task({"name": "number_words", **sizes})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet8", 1 + 1.5 * 3),
        ("resnet8v1", 1 + 1.5 * 3),
        ("resnet14", 1 + 1.5 * 6),
        ("resnet8v2", 5),
        ("plain8", 7),
        ("vgg11", 8),
        ("mlp", 3),
    ],
)
def test_models_of_images(digits, name, expected):
    model = build_model({"name": name, "width": 2}, digits)
    assert model.training
    assert normalized(model, *digits.example) == expected
    batch = torch.utils.data.default_collate([digits.train[k] for k in range(3)])
    assert digits.loss(model(*digits.inputs(batch)), batch, 0.0).isfinite()


def test_settings_reach_the_model(digits, words):
    model = build_model({"name": "resnet8", "width": 2, "shortcut": "none"}, digits)
    assert normalized(model, *digits.example) == 7
    model = build_model({"name": "mlp", "depth": 5, "width": 4, "residual": True}, digits)
    assert normalized(model, *digits.example) == 3
    model = build_model({"name": "transformer", "width": 8, "layers": 1, "norm": "post"}, words)
    assert normalized(model, *words.example) == 1 / 2 + 3 / 8 * 1 / 2
    batch = words.collate([words.train[k] for k in range(3)])
    assert words.loss(model(*words.inputs(batch)), batch, 0.0).isfinite()


def test_models_of_vectors():
    task = build_task({"name": "teacher", "train_size": 8, "test_size": 8})
    assert normalized(build_model({"name": "mlp", "width": 4}, task), *task.example) == 3
    with pytest.raises(SettingsError, match="task 'teacher' has no in_channels"):
        build_model({"name": "resnet8"}, task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnt20"}, "no model 'resnt20'; did you mean 'resnet20'"),
        ({"name": "plain8v2"}, "no model 'plain8v2'; did you mean 'plain20'"),
        ({}, "no model None; there are mlp, plain20, .*timm:NAME"),
        ({"name": "resnet18"}, r"model 'resnet18': depth must be 6n \+ 2"),
        ({"name": "vgg12"}, "model 'vgg12': depth must be one of 11, 13, 16, 19"),
        ({"name": "resnet8", "widht": 3}, "'widht'; did you mean 'width'"),
        ({"name": "resnet8", "shortcut": "skip"}, "shortcut must be 'projection' or 'identity'"),
        ({"name": "mlp", "residual": 1}, "residual must be true or false, not 1"),
        ({"name": "transformer"}, "task 'digits' has no vocabulary_size, padding, max_length"),
    ],
)
def test_wrong_models_are_refused(digits, settings, message):
    with pytest.raises(SettingsError, match=message):
        build_model(settings, digits)


def test_models_of_images_do_not_take_texts(words):
    with pytest.raises(SettingsError, match="task 'number_words' has no num_classes, in_channels"):
        build_model({"name": "resnet8"}, words)


# --- by SPEC ---------------------------------------------------------------------------------


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    path = tmp_path / "nets.py"
    path.write_text(
        "from torch import nn\n"
        "def small(num_classes, in_channels=3, *, bias=True):\n"
        "    conv = nn.Conv2d(in_channels, 2, 3, bias=bias)\n"
        "    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(72, num_classes))\n"
        "def ten():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def tuples():\n"
        "    class Two(nn.Linear):\n"
        "        def forward(self, x):\n"
        "            return x, x\n"
        "    return Two(1, 1)\n"
        "module = ten()\n"
    )
    return path


def test_a_callable_is_given_what_it_asks_for(digits, user_file):
    model = build_model({"name": f"{user_file}:small", "bias": False}, digits)
    assert model.training
    assert model[0].in_channels == 1
    assert model[0].bias is None
    assert model[-1].out_features == 5


def test_models_that_do_not_fit_are_refused(digits, user_file):
    with pytest.raises(SettingsError, match=r"gives \[1, 10\] for one item.*\[batch, \.\.\., 5\]"):
        build_model({"name": f"{user_file}:ten"}, digits)
    with pytest.raises(SettingsError, match="gives tuple for one item"):
        build_model({"name": f"{user_file}:tuples"}, digits)
    with pytest.raises(SpecError, match="is a module already and takes no bias"):
        build_model({"name": f"{user_file}:module", "bias": False}, digits)
    with pytest.raises(SpecError, match=r"with num_classes, in_channels, kernel raised TypeError"):
        build_model({"name": f"{user_file}:small", "kernel": 5}, digits)
    with pytest.raises(SpecError, match="saved program, which cannot be trained"):
        build_model({"name": "C:model.pt2"}, digits)


def test_models_of_torchvision(digits, tmp_path):
    import_torchvision()
    with pytest.raises(SettingsError, match=r"cannot take the inputs of task 'digits' \(\[1, 1, 8"):
        build_model({"name": "torchvision:resnet18"}, digits)
    with pytest.raises(SpecError, match=r"building torchvision's 'resnet18' with num_classes, hat"):
        build_model({"name": "torchvision:resnet18", "hat": 3}, digits)
    from dataclasses import replace

    task = replace(digits, example=(torch.zeros(1, 3, 32, 32),))
    model = build_model({"name": "torchvision:resnet18"}, task)
    assert model.training
    assert model.fc.out_features == 5


def test_models_of_timm(digits):
    import_torchvision()
    model = build_model({"name": "timm:resnet18"}, digits)
    assert model.training
    assert model.conv1.in_channels == 1
    assert model.fc.out_features == 5
