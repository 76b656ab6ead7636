"""Small versions of networks that people write by hand, spelled as their repositories do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it
from torch.nn.utils.rnn import pack_padded_sequence

# --- Kolmogorov-Arnold networks, Fourier neural operators -----------------------------------------


class KANLinear(nn.Module):
    """SiLU and B-splines of each input, weighted for each output."""

    def __init__(self, inside: int, out: int, grid_size: int = 5, order: int = 3):
        super().__init__()
        knots = torch.arange(-order, grid_size + order + 1) * (2 / grid_size) - 1
        self.register_buffer("grid", knots.expand(inside, -1).contiguous())
        self.order, self.out = order, out
        self.base_weight = nn.Parameter(torch.randn(out, inside))
        self.spline_weight = nn.Parameter(torch.randn(out, inside, grid_size + order))
        self.spline_scaler = nn.Parameter(torch.randn(out, inside))

    def b_splines(self, x: Tensor) -> Tensor:
        grid: Tensor = self.grid
        x = x.unsqueeze(-1)
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)])
            bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
        return bases.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        splines = self.b_splines(x).view(x.size(0), -1)
        return F.linear(F.silu(x), self.base_weight) + F.linear(splines, weight.view(self.out, -1))


class SpectralConv2d(nn.Module):
    """The lowest frequencies are mixed by complex weights of their own, the others are 0."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.modes = modes
        shape = (width, width, modes, modes)
        self.weights1 = nn.Parameter(torch.randn(*shape, dtype=torch.cfloat))
        self.weights2 = nn.Parameter(torch.randn(*shape, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        modes, mix = self.modes, "bixy,ioxy->boxy"
        found = torch.fft.rfft2(x)
        out = torch.zeros(
            *found.shape[:2], x.size(-2), x.size(-1) // 2 + 1, dtype=torch.cfloat, device=x.device
        )
        low, high = found[:, :, :modes, :modes], found[:, :, -modes:, :modes]
        out[:, :, :modes, :modes] = torch.einsum(mix, low, self.weights1)
        out[:, :, -modes:, :modes] = torch.einsum(mix, high, self.weights2)
        return torch.fft.irfft2(out, s=(x.size(-2), x.size(-1)))


class FourierOperator(nn.Module):
    """Lifts, mixes in blocks of which the last has no activation, and projects."""

    def __init__(self, channels: int, width: int, blocks: int, spectral: type[nn.Module]):
        super().__init__()
        self.lift = nn.Linear(channels, width)
        self.spectral = nn.ModuleList(spectral(width, 2) for _ in range(blocks))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.fc1, self.fc2 = nn.Linear(width, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x).permute(0, 3, 1, 2)
        for number, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True)):
            x = spectral(x) + local(x)
            if number < len(self.local) - 1:
                x = F.gelu(x)
        return self.fc2(F.gelu(self.fc1(x.permute(0, 2, 3, 1))))


# --- StyleGAN2: weights that a style modulates ----------------------------------------------------


class ModulatedConv2d(nn.Module):
    """A convolution of its own for each sample, all in one call with groups."""

    def __init__(self, inside: int, out: int, style: int, *, upsample=False, demodulate=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out, inside, 3, 3))
        self.modulation = nn.Linear(style, inside)
        self.upsample, self.demodulate = upsample, demodulate
        self.register_buffer("blur", torch.ones(1, 1, 2, 2) / 4)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, inside, height, width = x.shape
        out = self.weight.shape[1]
        weight = 0.1 * self.weight * self.modulation(style).view(batch, 1, inside, 1, 1)
        if self.demodulate:
            demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
            weight = weight * demod.view(batch, out, 1, 1, 1)
        weight = weight.view(batch * out, inside, 3, 3)
        x = x.reshape(1, batch * inside, height, width)
        if not self.upsample:
            x = F.conv2d(x, weight, padding=1, groups=batch)
            return x.view(batch, out, *x.shape[2:])
        weight = weight.view(batch, out, inside, 3, 3).transpose(1, 2)
        weight = weight.reshape(batch * inside, out, 3, 3)
        x = F.conv_transpose2d(x, weight, padding=0, stride=2, groups=batch)
        x = x.view(batch, out, *x.shape[2:])
        return F.conv2d(x, self.blur.expand(out, 1, 2, 2), groups=out)


class Generator(nn.Module):
    """A style by dense layers, then a picture: a constant, convolutions with noise, one to RGB."""

    def __init__(self, style: int, mapping: int, width: int):
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(style, style) for _ in range(mapping))
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.conv1 = ModulatedConv2d(width, width, style)
        self.conv2 = ModulatedConv2d(width, width, style, upsample=True)
        self.to_rgb = ModulatedConv2d(width, 3, style, demodulate=False)
        self.noise = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.pow(2).mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            w = F.leaky_relu(layer(w), 0.2) * math.sqrt(2)
        x = self.constant.repeat(z.shape[0], 1, 1, 1)
        for conv in (self.conv1, self.conv2):
            x = conv(x, w)
            x = x + self.noise * x.new_empty(x.shape[0], 1, *x.shape[2:]).normal_()
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        return self.to_rgb(x, w)


# --- sequences: a decoder that fills a buffer, packed sentences -----------------------------------


class Translator(nn.Module):
    """Encoder and decoder of (length, batch) tokens; each word is written into a buffer."""

    def __init__(self, kind: str, words: int = 9, **options):
        super().__init__()
        self.words = words
        self.source, self.target = nn.Embedding(words, 3), nn.Embedding(words, 3)
        self.encoder = getattr(nn, kind)(3, 4, **options)
        self.decoder = getattr(nn, kind)(3, 4, **options)
        self.out = nn.Linear(4, words)

    def forward(
        self, source: Tensor, target: Tensor, *, force: bool = False, buffer: bool = True
    ) -> Tensor:
        length, batch = target.shape
        _, state = self.encoder(self.source(source))
        outputs = torch.zeros(length, batch, self.words)
        written, token = [outputs[0]], target[0]
        for t in range(1, length):
            hidden, state = self.decoder(self.target(token)[None], state)
            word = self.out(hidden.squeeze(0))
            if buffer:
                outputs[t] = word
            written.append(word)
            token = target[t] if force else word.argmax(1)
        return outputs if buffer else torch.stack(written)


class SentenceClassifier(nn.Module):
    """The last states of a bidirectional LSTM on sentences of different lengths."""

    def __init__(self, *, packed: bool):
        super().__init__()
        self.packed, self.words = packed, nn.Embedding(9, 3)
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.out = nn.Linear(8, 2)

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        words = self.words(text)
        if self.packed:
            words = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(words)
        return self.out(torch.cat([state[-2], state[-1]], dim=1))


# --- solvers of differential equations ------------------------------------------------------------

Table = tuple[list[list[float]], list[float]]  # weights of the slopes before each stage, and times
RK4: Table = ([[1 / 2], [0, 1 / 2], [0, 0, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]], [1 / 2, 1 / 2, 1, 1])
DOPRI5: Table = (
    [
        [1 / 5],
        [3 / 40, 9 / 40],
        [44 / 45, -56 / 15, 32 / 9],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ],
    [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
)
DOPRI5_ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]


class Field(nn.Module):
    """The right side of an equation: one hidden layer, moved by the time."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, t: float, y: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(y) + t))


def combined(weights: list[float], slopes: list[Tensor]) -> Tensor:
    """The sum of the slopes that count."""
    terms = [weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]
    return sum(terms[1:], terms[0])


class RungeKutta4(nn.Module):
    """The classical method with steps of one length; its slopes are added, or weighted as one."""

    def __init__(self, steps: int, *, stacked: bool):
        super().__init__()
        self.field, self.steps, self.stacked = Field(), steps, stacked
        self.register_buffer("weights", torch.tensor([1.0, 2.0, 2.0, 1.0]) / 6)

    def forward(self, y: Tensor) -> Tensor:
        dt = 1 / self.steps
        for number in range(self.steps):
            t = number * dt
            k1 = self.field(t, y)
            k2 = self.field(t + dt / 2, y + dt * k1 / 2)
            k3 = self.field(t + dt / 2, y + dt * k2 / 2)
            k4 = self.field(t + dt, y + dt * k3)
            if self.stacked:
                y = y + (torch.stack([k1, k2, k3, k4], -1) * (self.weights * dt)).sum(-1)
            else:
                y = y + (k1 + 2 * k2 + 2 * k3 + k4) * dt / 6
        return y


class DormandPrince(nn.Module):
    """Steps as long as the error of each allows; its last slope is the first of the next."""

    def __init__(self, first: float = 0.5):
        super().__init__()
        self.field, self.first, self.accepted = Field(), first, 0

    def forward(self, y: Tensor) -> Tensor:
        t, dt, slope = 0.0, self.first, self.field(0.0, y)
        self.accepted = 0
        while t < 1:
            dt = min(dt, 1 - t)
            slopes, new = [slope], y
            for weights, time in zip(*DOPRI5, strict=True):
                new = y + dt * combined(weights, slopes)
                slopes.append(self.field(t + time * dt, new))
            error = dt * combined(DOPRI5_ERROR, slopes)
            allowed = 1e-4 + 1e-3 * torch.maximum(y.abs(), new.abs())
            ratio = (error / allowed).pow(2).mean().sqrt().item()
            if ratio <= 1:
                t, y, slope = t + dt, new, slopes[-1]
                self.accepted += 1
            dt *= min(10.0, max(0.2, 0.9 * (ratio + 1e-10) ** -0.2))
        return y
