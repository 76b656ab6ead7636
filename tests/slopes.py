"""Models whose activations have slopes, and a monitor's readings against measurements."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model


class Blend(nn.Module):
    """alpha x + (1 - alpha) phi(x), with an alpha for each channel of an image."""

    def __init__(
        self, channels: int, phi: Callable[[torch.Tensor], torch.Tensor] = torch.relu
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.phi = phi

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x + (1 - self.weight) * self.phi(x)


def with_slopes(model: nn.Module, activation: Callable[[int], nn.Module]) -> nn.Module:
    """A torchvision ResNet of bottlenecks with an activation of its own at every call site.

    torchvision's blocks call one ReLU three times, at different widths.
    """
    from torchvision.models.resnet import Bottleneck

    def forward(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        out = block.relu1(block.bn1(block.conv1(x)))
        out = block.relu2(block.bn2(block.conv2(out)))
        out = block.bn3(block.conv3(out))
        return block.relu3(out + (x if block.downsample is None else block.downsample(x)))

    model.relu = activation(model.bn1.num_features)
    for block in model.modules():
        if isinstance(block, Bottleneck):
            for number in (1, 2, 3):
                width = getattr(block, f"bn{number}").num_features
                block.add_module(f"relu{number}", activation(width))
            del block.relu
            block.forward = forward.__get__(block)
    return model


def require_fresh(monitor: pathlen.DepthMonitor, model: nn.Module, args, **options) -> None:
    """A reading has the numbers of `pathlen.measure`, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    reading = monitor.update()
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict(keep_vars=True)
    assert all(
        torch.equal(
            after[key],
            value,
        )
        for key, value in before.items()
    )
    report = pathlen.measure(model, args, **options)
    for name in ("average_path_length", "normalized_average_path_length"):
        ours, wanted = getattr(reading, name), getattr(report, name)
        assert math.isclose(ours, wanted, rel_tol=1e-12, abs_tol=1e-12), name
    assert reading.num_active == report.num_active
    listed = {row.name: row.active for row in report.activation_layers}
    assert {name: reading.active_units[name] for name in listed} == listed
    assert sum(reading.active_units.values()) == report.num_active


def scatter(model: nn.Module, seed: int) -> None:
    """Other values for everything that may be a slope: many linear, some near the tolerance."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.9901, 0.9899, 1.0099, 1.0105, -0.5, 3.0])
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "slope" in name or "relu" in name or "activation" in name:
                chosen = torch.randint(len(values), tensor.shape, generator=generator)
                tensor.copy_(values[chosen])


def follow(model: nn.Module, args, times: int = 6, **options) -> pathlen.DepthMonitor:
    """Scatter the slopes again and again, in train and eval mode, and compare."""
    monitor = pathlen.DepthMonitor(model, args, **options)
    for seed in range(times):
        model.train(seed % 2 == 0)
        scatter(model, seed)
        require_fresh(monitor, model, args, **options)
    return monitor


def sites(monitor: pathlen.DepthMonitor) -> tuple[int, int]:
    """How many call sites are read directly, and how many evaluated."""
    words = repr(monitor).split()
    return int(words[1]), int(words[words.index("evaluated,") - 1])


IMAGE = torch.randn(2, 3, 8, 8)


def net(forward, **members) -> Model:
    """A convolution to four channels, an activation `forward(model, x)`, and another one."""

    def whole(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model.second(forward(model, model.first(x)))

    return Model(whole, first=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 2, 1), **members)


def slope(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def channels(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1, 1, 1)


DIRECT = {
    "functional prelu": (lambda m, x: F.prelu(x, m.slope), slope(4)),
    "prelu, one slope": (lambda m, x: F.prelu(x, m.slope), slope(1)),
    "prelu, other shape": (lambda m, x: F.prelu(x, m.slope.view(-1)), slope(2, 2)),
    "blend": (lambda m, x: channels(m.slope) * x + (1 - channels(m.slope)) * x.relu(), slope(4)),
    "blend with silu": (lambda m, x: m.slope * x + (1 - m.slope) * F.silu(x), slope(4, 1, 1)),
    "blend with tanh": (lambda m, x: m.slope * x + (1 - m.slope) * x.tanh(), slope(4, 1, 1)),
    "blend, one slope": (lambda m, x: m.slope * x + (1 - m.slope) * F.relu(x), slope()),
    "difference": (lambda m, x: x.relu() + m.slope * (x - x.relu()), slope(4, 1, 1)),
    "lerp": (lambda m, x: torch.lerp(x.relu(), x, channels(m.slope)), slope(4)),
    "where": (lambda m, x: torch.where(x > 0, x, m.slope * x), slope(4, 1, 1)),
    "masks": (lambda m, x: x * (x > 0) + m.slope * x * (x <= 0), slope(4, 1, 1)),
    "minimum": (lambda m, x: x.clamp(min=0) + m.slope * x.clamp(max=0), slope(4, 1, 1)),
    "other precision": (
        lambda m, x: (m.slope * x + (1 - m.slope) * x.relu()).float(),
        slope(4, 1, 1, dtype=torch.float64),
    ),
    "addcmul": (
        lambda m, x: torch.addcmul(x.relu(), m.slope.expand_as(x), x - x.relu()),
        slope(4, 1, 1),
    ),
    "turned round": (
        lambda m, x: channels(m.slope).flip(0) * x + (1 - channels(m.slope.flip(0))) * x.relu(),
        slope(4),
    ),
    "prelu of half of them": (lambda m, x: F.prelu(x, m.slope[::2]), slope(8)),
    "prelu turned round": (lambda m, x: F.prelu(x, m.slope.flip(0)), slope(4)),
    "prelu by an index": (
        lambda m, x: F.prelu(x, torch.cat([m.slope, m.slope.new_zeros(1)])[[2, 0, 3, 1]]),
        slope(4),
    ),
    "blend by an index": (
        lambda m, x: torch.lerp(F.silu(x), x, channels(m.slope[torch.tensor([2, 0, 0, 1])])),
        slope(4),
    ),
}
EVALUATED = {
    "clamped": (
        lambda m, x: m.slope.clamp(0, 1) * x + (1 - m.slope.clamp(0, 1)) * x.relu(),
        slope(4, 1, 1),
    ),
    "through a sigmoid": (
        lambda m, x: torch.lerp(x.relu(), x, 5 * torch.sigmoid(m.slope)),
        slope(4, 1, 1),
    ),
    "prelu of a function": (lambda m, x: F.prelu(x, m.slope**2), slope(4)),
    "two slopes mixed": (
        lambda m, x: m.slope * x + (1 - m.slope.flip(0)) * x.relu(),
        slope(4, 1, 1),
    ),
    "sum of two": (
        lambda m, x: (
            (m.slope + m.slope.flip(0)) / 2 * x + (1 - (m.slope + m.slope.flip(0)) / 2) * x.relu()
        ),
        slope(4, 1, 1),
    ),
    "small ones dropped": (
        lambda m, x: (
            m.slope * (m.slope.abs() > 0.6) * x + (1 - m.slope * (m.slope.abs() > 0.6)) * x.relu()
        ),
        slope(4, 1, 1),
    ),
    "squared": (lambda m, x: torch.lerp(x.relu(), x, m.slope * m.slope), slope(4, 1, 1)),
    "leaky part scaled": (lambda m, x: F.relu(x) + m.slope * torch.sin(x), slope(4, 1, 1)),
    "low precision": (
        lambda m, x: m.slope.float() * x + (1 - m.slope.float()) * x.relu(),
        slope(4, 1, 1, dtype=torch.bfloat16),
    ),
    "written in place": (
        lambda m, x: torch.lerp(x.relu(), x, m.slope.clone().mul_(2).div_(2)),
        slope(4, 1, 1),
    ),
}
