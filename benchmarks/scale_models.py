"""Models that grow in one way each, for `benchmarks/scale.py`.

A family is a function of its size; the sizes that are measured stand in `FAMILIES`. Each gives a
model and the positional and named arguments of its forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 4
Made = tuple[nn.Module, Any, dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        make: gives one of a size.
        sizes: what is measured.
        what: its size, in words.
        by: what the time is fitted to: "size", or "edges" where the graph grows faster than that.
    """

    make: Callable[[int], Made]
    sizes: tuple[int, ...]
    what: str
    by: str = "size"


class Net(nn.Module):
    """A function of linear layers and an input."""

    def __init__(self, function: Callable[..., Tensor], layers: int = 0) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """The function, given the first layer's output and the other layers."""
        return self.function(self.first(x), self.layers, x)


def net(function: Callable[..., Tensor]) -> Callable[[int], Made]:
    """A family of a function of (first output, layers, input) with as many layers as its size."""
    return lambda size: (Net(function, size), torch.randn(2, WIDTH), {})


def sized(function: Callable[[Tensor, int], Tensor]) -> Callable[[int], Made]:
    """A family of a function of (first output, size) without further layers."""
    return lambda size: (Net(lambda h, _, x: function(h, size)), torch.randn(2, WIDTH), {})


def perceptron(size: int) -> Made:
    """Layers of 16 units: APL = NAPL = depth."""
    layers = [part for _ in range(size) for part in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(1, 16), {}


class Block(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return x + self.two(torch.relu(self.one(x)))


def resnet(size: int) -> Made:
    """Residual blocks of convolutions: NAPL = depth / 2."""
    return nn.Sequential(*[Block() for _ in range(size)]), torch.randn(1, 8, 8, 8), {}


def post_activation(h: Tensor, layers: nn.ModuleList, _: Tensor) -> Tensor:
    """h = relu(h + L h)."""
    for layer in layers:
        h = torch.relu(h + layer(h))
    return h


def pre_activation(h: Tensor, layers: nn.ModuleList, _: Tensor) -> Tensor:
    """h = h + L relu(h)."""
    for layer in layers:
        h = h + layer(torch.relu(h))
    return h


def dense(h: Tensor, layers: nn.ModuleList, _: Tensor) -> Tensor:
    """Each layer reads the sum of all before."""
    all_before = [h]
    for layer in layers:
        all_before.append(torch.relu(layer(torch.stack(all_before).sum(0))))
    return all_before[-1]


def hyper_connections(h: Tensor, layers: nn.ModuleList, _: Tensor) -> Tensor:
    """Two streams that each layer mixes."""
    a = b = h
    for layer in layers:
        new = torch.relu(layer(0.5 * a + 0.5 * b))
        a, b = 0.3 * a + 0.7 * b + new, 0.6 * a - 0.4 * b + 0.5 * new
    return a + b


def branches(h: Tensor, layers: nn.ModuleList, _: Tensor) -> Tensor:
    """o = o + relu(L h), branch after branch."""
    o = h
    for layer in layers:
        o = o + torch.relu(layer(h))
    return o


def sum_of_list(_: Tensor, layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Python's sum of a list of layers."""
    return torch.relu(sum((layer(x) for layer in layers), x.new_zeros(())))


def moving_average(h: Tensor, layers: nn.ModuleList, x: Tensor) -> Tensor:
    """h = 0.9 h + L x, read at the end."""
    for layer in layers:
        h = 0.9 * h + layer(x)
    return torch.relu(h)


def sines(h: Tensor, size: int) -> Tensor:
    """sin(h) + sin(2 h) + ..."""
    return sum((torch.sin((i + 1) * h) for i in range(size)), h.new_zeros(()))


def polynomial(h: Tensor, size: int) -> Tensor:
    """A polynomial of h by Horner's rule."""
    y = h * 0
    for i in range(size):
        y = y * h + float(i + 1)
    return y


def scalings(h: Tensor, size: int) -> Tensor:
    """1.01 ** n * h, n times, plus relu(h)."""
    y = h
    for _ in range(size):
        y = y * 1.01
    return y + torch.relu(h)


def scan(h: Tensor, size: int) -> Tensor:
    """A gated recurrence, unrolled in Python."""
    state = torch.zeros_like(h)
    for _ in range(size):
        state = torch.sigmoid(h) * state + h * torch.tanh(h)
    return state


def lstm(size: int) -> Made:
    """`nn.LSTM`, over as many steps."""
    return nn.LSTM(WIDTH, WIDTH), torch.randn(size, 1, WIDTH), {}


class Steps(nn.Module):
    """`nn.LSTMCell` in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The last state."""
        state = None
        for step in x:
            state = self.cell(step, state)
        assert state is not None
        h: Tensor = state[0]
        return h


def lstm_cell(size: int) -> Made:
    """A loop over as many steps."""
    return Steps(), torch.randn(size, 1, WIDTH), {}


class Experts(nn.Module):
    """All experts, weighted by a softmax."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, size)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(size))

    def forward(self, x: Tensor) -> Tensor:
        """Their weighted sum."""
        weights = self.gate(x).softmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            out = out + weights[:, number, None] * torch.relu(expert(x))
        return out


def experts(size: int) -> Made:
    """As many experts."""
    return Experts(size), torch.randn(2, WIDTH), {}


def sequence(size: int) -> Made:
    """A Transformer layer on as many tokens, without values."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        return layer, torch.randn(1, size, 64), {}


def image(size: int) -> Made:
    """Four residual blocks on an image of size x size, without values."""
    with torch.device("meta"):
        return nn.Sequential(*[Block() for _ in range(4)]), torch.randn(1, 8, size, size), {}


def llama(size: int, **settings: int) -> Made:
    """The shapes of a Llama on the meta device, eight tokens, as it comes: NAPL = depth / 4."""
    from tests.vision import import_torchvision

    import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256, num_hidden_layers=size, num_key_value_heads=8, **settings
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config), torch.zeros(1, 8, dtype=torch.long), {}


def llama_70b(size: int) -> Made:
    """Llama 3 70B."""
    return llama(size, hidden_size=8192, intermediate_size=28672, num_attention_heads=64)


def llama_405b(size: int) -> Made:
    """Llama 3 405B."""
    return llama(size, hidden_size=16384, intermediate_size=53248, num_attention_heads=128)


FAMILIES: dict[str, Family] = {
    "perceptron": Family(perceptron, (1250, 2500, 5000, 10000), "layers of 16 units"),
    "resnet": Family(resnet, (250, 500, 1000, 2000), "blocks of two convolutions"),
    "pre-activation": Family(net(pre_activation), (250, 500, 1000, 2000), "residual blocks"),
    "post-activation": Family(net(post_activation), (250, 500, 1000, 2000), "residual blocks"),
    "dense": Family(net(dense), (50, 100, 200, 400), "layers that read all before", "edges"),
    "hyper-connections": Family(net(hyper_connections), (125, 250, 500, 1000), "layers"),
    "branches": Family(net(branches), (250, 500, 1000, 2000), "branches of a sum"),
    "sum of a list": Family(net(sum_of_list), (250, 500, 1000, 2000), "summands"),
    "moving average": Family(net(moving_average), (250, 500, 1000, 2000), "steps"),
    "sines": Family(sized(sines), (100, 200, 400, 800), "functions of one layer, added up"),
    "polynomial": Family(sized(polynomial), (100, 200, 400, 800), "degree, by Horner's rule"),
    "scalings": Family(sized(scalings), (250, 500, 1000, 2000), "factors"),
    "scan": Family(sized(scan), (500, 1000, 2000, 4000), "steps of a gated recurrence"),
    "LSTM": Family(lstm, (500, 1000, 2000, 4000), "steps"),
    "LSTM cell": Family(lstm_cell, (500, 1000, 2000, 4000), "steps, in a loop"),
    "experts": Family(experts, (32, 64, 128, 256), "experts, all weighted"),
    "sequence": Family(sequence, (4096, 8192, 16384, 32768), "tokens of a Transformer layer"),
    "image": Family(image, (128, 256, 512, 1024), "pixels a side, four residual blocks"),
    "Llama 70B": Family(llama_70b, (80,), "layers, meta device"),
    "Llama 405B": Family(llama_405b, (126,), "layers, meta device"),
}
