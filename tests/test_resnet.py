"""The CIFAR ResNets: the published sizes, shapes and shortcuts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pathlen.training.resnet import CifarResNet, PaddedShortcut, channelwise_prelu


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("depth", "millions"),
    # Table 6 of He et al. 2016, whose networks have shortcuts without parameters.
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)],
)
def test_parameters_are_as_many_as_published(depth, millions):
    with torch.device("meta"):
        model = CifarResNet(depth, shortcut="identity")
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.01)


def test_depth_counts_the_layers_with_weights():
    model = CifarResNet(depth=20, shortcut="identity")
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20


@pytest.mark.parametrize("shortcut", ["projection", "identity", "none"])
def test_shapes(shortcut):
    model = CifarResNet(8, shortcut=shortcut, width=4, num_classes=7, in_channels=1).eval()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_the_plain_network_has_the_branches_only():
    residual, plain = CifarResNet(8, width=4), CifarResNet(8, width=4, shortcut="none")
    projections = sum(parameters(block[0].shortcut) for block in (residual.stage2, residual.stage3))
    assert parameters(residual) - parameters(plain) == projections
    assert all(block[0].shortcut is None for block in (plain.stage1, plain.stage2, plain.stage3))


def test_option_a_subsamples_and_pads_with_zeros():
    x = torch.randn(1, 2, 4, 4)
    out = PaddedShortcut(2, 4, stride=2)(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


def test_each_activation_has_slopes_of_its_own_that_start_as_relu():
    torch.manual_seed(0)
    with_slopes = CifarResNet(14, width=4, activation=channelwise_prelu).eval()
    torch.manual_seed(0)
    plain = CifarResNet(14, width=4).eval()
    slopes = [module for module in with_slopes.modules() if isinstance(module, nn.PReLU)]
    assert [module.num_parameters for module in slopes] == [4] * 5 + [8] * 4 + [16] * 4
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(with_slopes(x), plain(x))


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match=r"6n \+ 2"):
        CifarResNet(depth)


def test_other_shortcuts_are_refused():
    with pytest.raises(ValueError, match="'projection', 'identity' or 'none', not 'skip'"):
        CifarResNet(8, shortcut="skip")
