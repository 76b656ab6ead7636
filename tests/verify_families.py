"""Small networks, one for each family of architectures, that `pathlen.verify` is tested on.

Each entry of `FAMILIES` makes a model and its arguments. Widths are a few units; projections are
grouped or narrow where dense ones would connect everything with everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it


class Residual(nn.Module):
    """A residual block with batch norm, a projection and a squeeze-and-excitation gate."""

    def __init__(self, gate=True):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, 1, 1, groups=3, bias=False), nn.BatchNorm2d(6)
        self.down = nn.Conv2d(4, 6, 1, 2)
        self.squeeze, self.excite = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.gate = gate

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.gate:
            s = y.mean((2, 3), keepdim=True)
            y = y * self.excite(self.relu(self.squeeze(s))).sigmoid()
        return self.relu(y + self.down(x))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2 + 2 * i, 2, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2 + 2 * i) for i in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inverted(nn.Module):
    """MobileNet's block: expansion, depthwise, hard swish, linear bottleneck."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU6(),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x):
        return x + self.body(x)


class Shuffle(nn.Module):
    """ShuffleNet's unit: half of the channels pass, the others are shuffled among them."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x):
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.last = nn.Conv2d(8, 2, 1, groups=2)
        self.norm = nn.GroupNorm(2, 6)

    def forward(self, x):
        a = F.leaky_relu(self.down1(x), 0.2)
        b = F.silu(self.norm(self.down2(F.max_pool2d(a, 2))))
        up = F.interpolate(self.up(b), scale_factor=1.0, mode="bilinear", align_corners=False)
        return self.last(torch.cat([up, a], 1)).tanh()


class ConvNext(nn.Module):
    """LayerNorm over channels last, GELU, a layer scale that starts near 0."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(1e-6 * torch.ones(4))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class GlobalResponse(nn.Module):
    """ConvNeXt V2's global response normalization and an RMSNorm, both written out."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.weight = nn.Parameter(torch.randn(4))
        self.conv = nn.Linear(4, 4)

    def forward(self, x):  # (batch, height, width, channels)
        norm = x.norm(p=2, dim=(1, 2), keepdim=True)
        n = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
        x = self.gamma * (x * n) + self.beta + x
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        y = self.weight * x
        mean = y.mean(-1, keepdim=True)
        y = (y - mean) / ((y - mean).pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return self.conv(F.normalize(y, dim=-1))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, attention by one fused call, an MLP, a head."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(8) for _ in range(3))
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm1(x)).reshape(len(x), 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(len(x), 5, 8))
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return self.head(self.norm3(x)[:, 0])


class Windows(nn.Module):
    """Swin's shifted windows with a bias on the scores, softmax and products written out."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv1d(4, 12, 1, groups=2)
        self.bias = nn.Parameter(torch.randn(2, 4, 4))

    def forward(self, x):  # (batch, 4, 4, channels)
        x = torch.roll(x, (1, 1), (1, 2))
        w = x.view(-1, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4)
        q, k, v = self.qkv(w.transpose(1, 2)).reshape(-1, 2, 3, 2, 4).permute(2, 0, 1, 4, 3)
        scores = (q * 0.7) @ k.transpose(-2, -1) + self.bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, 4)
        y = y.view(-1, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, 4)
        return torch.roll(y, (-1, -1), (1, 2))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.tokens = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.channels = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


class Decoder(nn.Module):
    """A Llama-like block: RMSNorm, rotary positions, grouped queries, a causal mask, SwiGLU."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm1, self.norm2 = nn.RMSNorm(8), nn.RMSNorm(8)
        self.q, self.k, self.v = (nn.Linear(8, n, bias=False) for n in (8, 4, 4))
        self.o, self.gate, self.up = (nn.Linear(8, n, bias=False) for n in (8, 12, 12))
        self.down = nn.Linear(12, 8, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        length = ids.shape[1]
        angle = torch.outer(torch.arange(length).float(), torch.tensor([1.0, 0.1]))
        cos, sin = (f(torch.cat([angle, angle], -1)) for f in (torch.cos, torch.sin))
        y = self.norm1(x)
        q = self.q(y).view(-1, length, 2, 4).transpose(1, 2)
        k, v = (p(y).view(-1, length, 1, 4).transpose(1, 2) for p in (self.k, self.v))
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return x @ self.embed.weight.T


class Gated(nn.Module):
    """A transformer feed-forward of gated linear units, softmax and GELU written out."""

    def __init__(self):
        super().__init__()
        self.wide, self.down = nn.Linear(4, 12), nn.Linear(6, 4)
        self.slope = nn.PReLU(4)

    def forward(self, x):
        y = F.glu(self.wide(x), -1)
        y = 0.5 * y * (1 + torch.tanh(0.8 * (y + 0.045 * y.pow(3))))
        x = x + self.down(y)
        e = (x - x.amax(-1, keepdim=True)).exp()
        x = e / e.sum(-1, keepdim=True)
        return self.slope(x.transpose(1, 2)) * 2 + torch.where(x > 0.2, x, 0.1 * x).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Cells(nn.Module):
    """A GRU cell in a Python loop."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        h = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
        return h


class StateSpace(nn.Module):
    """Mamba's selective scan: a step that depends on the input, and a state."""

    def __init__(self):
        super().__init__()
        self.proj, self.conv = nn.Linear(4, 8), nn.Conv1d(4, 4, 2, groups=4, padding=1)
        self.dt, self.bc = nn.Linear(4, 4), nn.Linear(4, 4)
        self.log_a = nn.Parameter(torch.rand(4, 2))

    def forward(self, x):
        u, z = self.proj(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, (b, c) = F.softplus(self.dt(u)), self.bc(u).chunk(2, -1)
        state = x.new_zeros(len(x), 4, 2)
        ys = []
        for t in range(x.shape[1]):
            decay = torch.exp(-dt[:, t, :, None] * self.log_a.exp())
            state = decay * state + (dt[:, t] * u[:, t])[..., None] * b[:, t, None]
            ys.append((state * c[:, t, None]).sum(-1))
        return torch.stack(ys, 1) * F.silu(z)


class GraphNetwork(nn.Module):
    """A graph convolution with a constant adjacency, then one that gathers and scatters."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("adjacency", torch.rand(5, 5))
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 4, 0]))
        self.register_buffer("target", torch.tensor([1, 2, 3, 4, 0, 2]))

    def forward(self, x):
        x = F.elu(self.adjacency @ self.first(x))
        messages = self.second(x)[self.source]
        return torch.zeros(5, 2).index_add(0, self.target, messages)


class Experts(nn.Module):
    """A mixture of experts: soft routing, and the choice of the best two by their scores."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        weights, best = self.router(x).softmax(-1).topk(2, -1)
        routing = torch.zeros(len(x), 3).scatter(-1, best, weights)
        out = torch.stack([expert(x).relu() for expert in self.experts], -1)
        return (out * routing[:, None]).sum(-1)


class Spectral(nn.Module):
    """FNet: a Fourier transform along positions and features."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.norm(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        return x + self.linear(x).relu()


class Rewriting(nn.Module):
    """In-place calls through views, padding, pixel shuffle, flips."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(2, 2, 1, groups=2)

    def forward(self, x):
        y = self.first(x)
        y[:, 4:6] = self.second(x[:, :2])
        y[:, :2].relu_()
        y[:, 1::3] *= 0.5
        y = F.pixel_shuffle(y.flip(1), 2)
        return F.pad(y, (1, 1, 0, 0), mode="reflect") + F.pad(y, (1, 1, 0, 0))


class Blended(nn.Module):
    """What linearization does: alpha x + (1 - alpha) relu(x), one alpha a channel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.alpha = nn.Parameter(torch.tensor([0.0, 1.0, 0.5, 1.0]).view(1, 4, 1, 1))
        self.slopes = nn.PReLU(4)
        with torch.no_grad():
            self.slopes.weight.copy_(torch.tensor([1.0, 0.2, 1.0, 0.0]))

    def forward(self, x):
        x = self.conv(x)
        return self.slopes(self.alpha * x + (1 - self.alpha) * x.relu())


class PointNet(nn.Module):
    """A layer shared by all points, a maximum over them, both joined."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 1), nn.Conv1d(8, 2, 1, groups=2)

    def forward(self, x):
        y = self.first(x).relu()
        return self.second(torch.cat([y, y.amax(2, keepdim=True).expand_as(y)], 1))


def perceptron() -> tuple[nn.Module, Any]:
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)]
    return nn.Sequential(*layers), torch.randn(2, 3)


def encoder() -> tuple[nn.Module, Any]:
    return nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), torch.randn(2, 3, 8)


def images(channels: int, size: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, size, size)


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "perceptron": perceptron,
    "residual": lambda: (nn.Sequential(Residual(), nn.Flatten(), nn.Linear(24, 3)), images(4)),
    "densenet": lambda: (DenseNet(), images(2)),
    "mobilenet": lambda: (Inverted(), images(4)),
    "shufflenet": lambda: (nn.Sequential(Shuffle(), Shuffle()), images(8)),
    "unet": lambda: (UNet(), images(2)),
    "convnext": lambda: (ConvNext(), images(4)),
    "convnext v2": lambda: (GlobalResponse(), torch.randn(2, 3, 3, 4)),
    "vision transformer": lambda: (VisionTransformer(), images(3, 8)),
    "swin": lambda: (Windows(), torch.randn(1, 4, 4, 4)),
    "mixer": lambda: (Mixer(), torch.randn(2, 5, 4)),
    "encoder": encoder,
    "decoder": lambda: (Decoder(), torch.tensor([[1, 2, 3], [3, 4, 5]])),
    "gated": lambda: (Gated(), torch.randn(2, 3, 4)),
    "lstm": lambda: (Recurrent(nn.LSTM), torch.randn(2, 3, 3)),
    "gru": lambda: (Recurrent(nn.GRU), torch.randn(2, 3, 3)),
    "cells": lambda: (Cells(), torch.randn(2, 3, 3)),
    "state space": lambda: (StateSpace(), torch.randn(2, 3, 4)),
    "graph network": lambda: (GraphNetwork(), torch.randn(5, 3)),
    "experts": lambda: (Experts(), torch.randn(6, 4)),
    "spectral": lambda: (Spectral(), torch.randn(2, 3, 4)),
    "rewriting": lambda: (Rewriting(), images(4)),
    "blended": lambda: (Blended(), images(3)),
    "pointnet": lambda: (PointNet(), torch.randn(2, 3, 5)),
}
