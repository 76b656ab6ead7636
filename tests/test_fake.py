"""Fake tensors that do without torch.compile: every answer beside that of torch's own mode."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import pathlen
from pathlen.tracing import eager
from pathlen.tracing.fake import LazyFakeMode
from pathlen.training import CifarResNet, CifarVGG
from tests.test_imports import modules_loaded_by

X = torch.randn(2, 3, 8, 8)


class Calls(nn.Module):
    """A model that is one function of itself and its inputs."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def described(value: Any, storages: dict[int, int]) -> Any:
    """What can be told of a tensor; strides of axes of length 1 mean nothing."""
    if not isinstance(value, torch.Tensor):
        return value
    lengths = zip(value.stride(), value.shape, strict=True)
    return (
        type(value),
        tuple(value.shape),
        tuple(stride for stride, length in lengths if length > 1),
        value.storage_offset(),
        value.dtype,
        value.device,
        storages.setdefault(value.untyped_storage()._cdata, len(storages)),
    )


def recorded(mode: Any, model: Any, args: tuple[Any, ...], monkeypatch: Any) -> Any:
    """All that a recording on fake tensors of a mode says, or the error."""
    monkeypatch.setattr(eager, "LazyFakeMode", mode)
    try:
        recording = eager.record(model, args, {}, None, fake=True)
    except Exception as error:  # whatever it is, both have to raise it
        return type(error)
    storages: dict[int, int] = {}
    return [
        (
            node.op,
            node.target,
            str((node.args, node.kwargs)),
            [described(leaf, storages) for leaf in pytree.tree_leaves(node.meta.get("val"))],
            str(node.meta.get("nn_module_stack")),
        )
        for node in recording.graph.nodes
    ]


def check(model: Any, args: tuple[Any, ...], monkeypatch: Any) -> list[bool]:
    """Compare both modes; whether torch's machinery was needed, for each lazy mode."""
    made: list[LazyFakeMode] = []

    def lazy() -> LazyFakeMode:
        made.append(LazyFakeMode())
        return made[-1]

    def torchs() -> FakeTensorMode:
        return FakeTensorMode(allow_non_fake_inputs=True)

    found = recorded(lazy, model, args, monkeypatch)
    assert found == recorded(torchs, model, args, monkeypatch)
    return [mode._is_loaded for mode in made]


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (CifarResNet(20), (torch.randn(2, 3, 32, 32),)),
        (CifarResNet(20).bfloat16(), (torch.randn(1, 3, 32, 32).bfloat16(),)),
        (CifarVGG(11), (torch.randn(2, 3, 32, 32),)),
        (nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.randn(2, 12),)),
        (nn.TransformerEncoderLayer(16, 4, 32), (torch.randn(5, 2, 16),)),
        (
            nn.Sequential(
                nn.Conv1d(4, 6, 3, padding=1, stride=2, groups=2),
                nn.BatchNorm1d(6),
                nn.GELU(),
                nn.Dropout(),
                nn.Conv1d(6, 4, 3, dilation=2),
            ),
            (torch.randn(2, 4, 19),),
        ),
        (
            nn.Sequential(nn.Conv3d(3, 4, (3, 1, 2), 2, (1, 0, 1)), nn.BatchNorm3d(4), nn.ELU()),
            (torch.randn(2, 3, 7, 7, 7),),
        ),
        (
            nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.ReLU6(inplace=True),
                nn.MaxPool2d(3, 2, 1),
                nn.AvgPool2d(2, 1),
                nn.AdaptiveAvgPool2d((1, 2)),
                nn.Flatten(),
                nn.Softmax(1),
            ),
            (X,),
        ),
    ],
)
def test_common_networks_are_recorded_as_by_torch_and_without_its_machinery(
    model, args, monkeypatch
):
    assert check(model, args, monkeypatch) == [False]


def test_heads_that_are_copied_together(monkeypatch):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    for batch in (1, 3):
        check(layer, (torch.randn(batch, 5, 16),), monkeypatch)


FUNCTIONS = {
    "channels": lambda self, x: self.weight.view(1, 3, 1, 1) * x + self.weight.view(3, 1, 1),
    "gate": lambda self, x: x * functional.adaptive_avg_pool2d(x, 1).sigmoid(),
    "numbers": lambda self, x: (2 * x - 1) / 3.5 + (1 - x),
    "boolean": lambda self, x: x + True,
    "complex": lambda self, x: (x + 1j).abs(),
    "transposed": lambda self, x: x + x.transpose(2, 3),
    "transposed first": lambda self, x: x.transpose(2, 3) + x,
    "transposed and scaled": lambda self, x: x.transpose(1, 2) * 2,
    "in place": lambda self, x: x.add_(x[:, :1]).relu_().mul_(2),
    "in place on a part": lambda self, x: (x[:, 1:].relu_(), x + 1)[1],
    "in place on a buffer": lambda self, x: (self.seen.add_(1), x + self.seen[0])[1],
    "too large in place": lambda self, x: x.add_(torch.ones(2, 2, 3, 8, 8)),
    "data": lambda self, x: x.data.relu_() + x.detach(),
    "another shape in place": lambda self, x: (x.unsqueeze_(0), x.squeeze(0))[1],
    "device": lambda self, x: x if x.is_cuda or x.device.type != "cpu" else x * 2,
    "literal device": lambda self, x: x + torch.ones(3, 1, 1, device="cuda"),
    "parts": lambda self, x: torch.cat([*x.chunk(3, 1), x[..., ::2].repeat(1, 1, 1, 2)], 1),
    "unlike parts": lambda self, x: torch.cat([x, x[:, :, :2]], 1),
    "mixed dtypes": lambda self, x: x.half() + x.double(),
    "constant": lambda self, x: x * torch.tensor(2.0) + torch.tensor([1, 2, 3]).view(3, 1, 1),
    "value": lambda self, x: x * x.sum().item(),
    "matrices": lambda self, x: x @ x.transpose(-1, -2) + x @ x[0, 0],
    "reshaped": lambda self, x: x.permute(0, 2, 3, 1).reshape(2, -1) + x.reshape(2, -1),
    "norm": lambda self, x: functional.layer_norm(x, (8, 8)) + functional.layer_norm(x, (8,)),
    "wrong norm": lambda self, x: functional.layer_norm(x, (3, 8)),
    "wrong axis": lambda self, x: x.softmax(4),
    "no windows": lambda self, x: functional.conv2d(x, torch.ones(2, 3, 9, 9)),
    "wrong channels": lambda self, x: functional.conv2d(x, torch.ones(2, 2, 3, 3)),
    "no batch": lambda self, x: functional.conv2d(x[0], torch.ones(2, 3, 3, 3)),
    "same padding": lambda self, x: functional.conv2d(x, torch.ones(2, 3, 3, 3), padding="same"),
    "rounded up": lambda self, x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "too much padding": lambda self, x: functional.max_pool2d(x, 2, 2, 2),
    "training": lambda self, x: functional.dropout(
        functional.batch_norm(x, None, None, training=True)
    ),
    "gradients": lambda self, x: torch.enable_grad()(lambda: x * 2)(),
    "powers": lambda self, x: (x[:, :, ::2].pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * 2,
    "mean of integers": lambda self, x: x + x.long().float().mean((1, -1), True),
    "mean in another dtype": lambda self, x: x.mean(1, dtype=torch.double).sum((0, 1)),
    "means": lambda self, x: (x.mean((0, -1)), x.mean(-2, True), x.mean(()), x.mean(None)),
    "twice the same axis": lambda self, x: x.mean((1, -3)),
    "no such axis": lambda self, x: x.mean(5),
    "integers": lambda self, x: x * (torch.arange(8, device=x.device) + 1).clamp(2, 5),
    "masks": lambda self, x: torch.where(x.transpose(2, 3) > 0, x, x.new_zeros(()).double()),
    "masks of another shape": lambda self, x: torch.where(x[:1] > 0, x, x[..., :1]),
    "promoted": lambda self, x: x.bfloat16() * x.double()[0] + x.half() * torch.tensor(2.0),
    "parts of unlike dtypes": lambda self, x: torch.cat([x.half(), x.transpose(2, 3)], -1),
    "same dtype": lambda self, x: x.to(x.dtype).float() + x.to(x.dtype, copy=True),
    "cast": lambda self, x: x.transpose(1, 3).double().to(torch.int).float(),
    "clones": lambda self, x: (
        x.permute(1, 0, 3, 2).clone() + x[:1].expand(3, -1, -1, -1).clone()[0]
    ),
    "clone to channels": lambda self, x: x.clone(memory_format=torch.channels_last).sqrt(),
    "expanded": lambda self, x: x[:, :1].expand(-1, 5, 8, 8).neg().reciprocal().sin().cos(),
    "wrongly expanded": lambda self, x: x.expand(-1, 7, 8, 8),
    "unbound": lambda self, x: torch.stack(x.unbind(1)[1:], 1).exp(),
    "transposed weight": lambda self, x: x[0, 0] @ x[0, 1].t(),
    "looked up": lambda self, x: functional.embedding((x > 0).long(), x[0, 0] + 0),
    "looked up in a parameter": lambda self, x: self.weight[:, None].expand(3, 2)[(x > 0).long()],
    "conjugate": lambda self, x: torch.fft.fft(x).conj().sqrt().real,
    "empty": lambda self, x: x[:0] * 2 + functional.relu(x[:0]),
    "added to an empty one": lambda self, x: torch.cat([torch.tensor([], device=x.device), x], -1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_uncommon_calls_are_left_to_torch(name, monkeypatch):
    check(Calls(FUNCTIONS[name]), (X,), monkeypatch)
    check(Calls(FUNCTIONS[name]).to("meta"), (X.to("meta"),), monkeypatch)


@pytest.mark.parametrize(
    "args",
    [
        (X.to(memory_format=torch.channels_last),),
        (X.double(),),
        (X[:, :, 1:],),
        (X.clone().requires_grad_(),),
        (nn.Parameter(X),),
        (X.to("meta"),),
        (X.int(),),
        (X[:0],),
    ],
)
def test_inputs_of_any_kind(args, monkeypatch):
    check(Calls(lambda self, x: functional.relu(x + 1) * 2), args, monkeypatch)


@pytest.mark.parametrize("views", [lambda x: (x, x.view(2, -1)), lambda x: (x, x[1])])
def test_inputs_that_share_a_storage(views, monkeypatch):
    check(Calls(lambda self, a, b: (a.relu_(), b + 1)[1]), views(X.clone()), monkeypatch)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_empty_index_is_known_without_values(device):
    def forward(self, x):
        nothing = torch.tensor([], dtype=torch.long, device=x.device)
        return functional.relu(torch.cat([x.index_select(1, nothing), x * 2], 1))

    report = pathlen.measure(Calls(forward).to(device), torch.randn(2, 3, device=device))
    assert (report.graph.num_nodes, report.average_path_length) == (9, 1)
    assert report.status == "exact"


SHAPES = [(2, 3, 4, 5), (1, 3, 1, 1), (3, 1, 1), (5,), (1,), (2, 1, 4, 5), (2, 3, 1, 5), (4, 1)]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(SHAPES, SHAPES)))
def test_broadcasting(one, other, monkeypatch):
    check(Calls(lambda self, a, b: a * b), (torch.randn(one), torch.randn(other)), monkeypatch)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[1:])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 3, 4, 6), (2, 1, 4, 6), (2, 3, 1, 6)])
def test_axes_in_any_order(order, shape, monkeypatch):
    stored = torch.randn([shape[axis] for axis in order])
    back = [order.index(axis) for axis in range(4)]

    def forward(self: Any, x: Any, y: Any) -> Any:
        x = x.permute(back)
        attended = functional.scaled_dot_product_attention(x, y, y)
        sums = y + x, x + y, y + x[:, :1], y.add_(x)
        linear = functional.linear(x, torch.ones(5, shape[3]))
        return attended, sums, linear, x.contiguous(), x.relu(), x.reshape(shape[0], -1)

    check(Calls(forward), (stored, torch.randn(shape)), monkeypatch)


@pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "_should_skip_dynamo"),
    reason="torch before 2.11 loads it for any dispatch mode",
)
def test_the_first_measurement_of_a_process_leaves_the_machinery_of_compilation_alone():
    loaded = modules_loaded_by(
        "import torch, pathlen\n"
        "from pathlen.training import CifarResNet\n"
        "report = pathlen.measure(CifarResNet(20), torch.randn(1, 3, 32, 32))\n"
        "assert report.tracer == 'eager recorder (fake tensors)'\n"
    )
    assert loaded.isdisjoint({"torch._dynamo", "torch._inductor", "sympy"})


def test_the_machinery_is_loaded_where_an_operation_needs_it():
    loaded = modules_loaded_by(
        "import torch, pathlen\n"
        "model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.CELU())\n"
        "report = pathlen.measure(model, torch.randn(1, 3))\n"
        "assert report.tracer == 'eager recorder (fake tensors)'\n"
        "assert report.average_path_length == 2\n"
    )
    assert "torch._dynamo" in loaded
