"""make_linearizable: every activation call gets slopes, and the model stays the user's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import pathlen
from pathlen.errors import LinearizationError, PathlenError
from pathlen.training import CifarResNet, Transformer, make_linearizable, slopes_of
from tests.vision import import_torchvision


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Block(nn.Module):
    """One activation module called twice, functions, an in-place one, and a formula."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.second(self.act(self.first(x))))
        h = functional.gelu(self.first(h)) + functional.relu(h)
        functional.relu_(h)
        gate = torch.sigmoid(h)
        return x + h * gate


class Stack(nn.Module):
    """Blocks, one of which is called twice, and an auxiliary head that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.aux = Block(), Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.two(self.one(x)))
        return x + 0 * self.aux(x) if self.training else x


def tiny_transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 24, dropout=0.1, activation="gelu", batch_first=True)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "block": (Block, (6,)),
    "stack": (Stack, (6,)),
    "resnet": (lambda: CifarResNet(8, width=4), (3, 8, 8)),
    "encoder layer": (tiny_transformer, (5, 16)),
    "densenet": (
        lambda: import_torchvision().models.DenseNet(4, (1, 2), 8, num_classes=3),
        (3, 32, 32),
    ),
    "mobilenet": (
        lambda: import_torchvision().models.mobilenet_v3_small(weights=None, num_classes=3),
        (3, 32, 32),
    ),
}


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, Tensor]:
    """A model, a linearizable copy of it, and a batch."""
    make, shape = MODELS[request.param]
    model = make()
    x = torch.randn(4, *shape)
    return model, make_linearizable(copy.deepcopy(model), x[:1]), x


def outputs_and_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    torch.manual_seed(1)
    y = model(x.clone())
    (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
    return y.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [False, True])
def test_at_slope_0_nothing_changes(pair: Any, training: bool) -> None:
    model, linearizable, x = pair
    model.train(training)
    linearizable.train(training)
    expected, gradients = outputs_and_gradients(model, x)
    found, with_slopes = outputs_and_gradients(linearizable, x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(with_slopes[name], gradient, rtol=1e-5, atol=1e-5)
    for buffer, other in zip(model.buffers(), linearizable.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


def test_depth_goes_from_what_it_was_to_0(pair: Any) -> None:
    model, linearizable, x = pair
    before, after = pathlen.measure(model, x), pathlen.measure(linearizable, x)
    assert after.average_path_length == pytest.approx(before.average_path_length, rel=1e-12)
    assert after.path_count == before.path_count
    assert after.num_active == before.num_active
    slopes = slopes_of(linearizable)
    assert sum(own.parameter.numel() for own in slopes) == before.num_active
    active = {row.name for row in before.layers if row.active}
    assert {own.name for own in slopes} == active
    with torch.no_grad():
        for own in slopes:
            own.parameter.fill_(1)
    linear = pathlen.measure(linearizable, x)
    assert linear.normalized_average_path_length == 0
    assert linear.num_active == 0


def test_monitors_follow_the_slopes(pair: Any) -> None:
    _, linearizable, x = pair
    monitor = pathlen.DepthMonitor(linearizable, x[:1])
    with torch.no_grad():
        for own in slopes_of(linearizable):
            own.parameter[::2] = 1
    reading, report = monitor.update(), pathlen.measure(linearizable, x[:1])
    assert reading.num_active == report.num_active
    assert reading.normalized_average_path_length == pytest.approx(
        report.normalized_average_path_length, rel=1e-12
    )


def test_fully_linear_networks_are_affine() -> None:
    model = CifarResNet(8, width=4).double().eval()
    make_linearizable(model, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.fill_(1)
        x, y = torch.randn(2, 3, 3, 8, 8, dtype=torch.float64)
        middle = model(0.3 * x + 0.7 * y)
        torch.testing.assert_close(middle, 0.3 * model(x) + 0.7 * model(y))


def test_slopes_get_the_gradient_of_finite_differences() -> None:
    model = make_linearizable(Stack().double(), torch.randn(1, 6, dtype=torch.float64))
    x = torch.randn(5, 6, dtype=torch.float64)
    slopes = [own.parameter for own in slopes_of(model)]
    for parameter in slopes:
        nn.init.uniform_(parameter, 0.1, 0.9)
    gradients = torch.autograd.grad(model(x).square().sum(), slopes)
    for parameter, gradient in zip(slopes, gradients, strict=True):
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                parameter[0] += step
                values.append(float(model(x).square().sum()))
            parameter[0] += 1e-6
        assert float(gradient[0]) == pytest.approx(
            (values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7
        )


def test_keys_stay_and_old_checkpoints_load(pair: Any) -> None:
    model, linearizable, x = pair
    old, new = model.state_dict(), linearizable.state_dict()
    assert old.keys() <= new.keys()
    assert {own.parameter_name for own in slopes_of(linearizable)} == new.keys() - old.keys()
    with torch.no_grad():
        for own in slopes_of(linearizable):
            own.parameter.fill_(0.25)
    linearizable.load_state_dict(old)  # strict
    assert all((own.parameter == 0.25).all() for own in slopes_of(linearizable))
    again = make_linearizable(copy.deepcopy(model), x[:1])
    again.load_state_dict(linearizable.state_dict())
    linearizable.eval()
    again.eval()
    assert torch.equal(again(x.clone()), linearizable(x.clone()))


def test_copies_have_slopes_of_their_own(pair: Any) -> None:
    _, linearizable, x = pair
    linearizable.eval()
    other = copy.deepcopy(linearizable)
    before = linearizable(x.clone())
    assert torch.equal(other(x.clone()), before)
    with torch.no_grad():
        for own in slopes_of(other):
            own.parameter.fill_(1)
    assert torch.equal(linearizable(x.clone()), before)
    assert not torch.equal(other(x.clone()), before)


def test_modules_stay_what_they_were() -> None:
    model = make_linearizable(CifarResNet(8, width=4), torch.zeros(1, 3, 8, 8))
    assert isinstance(model, CifarResNet)
    assert isinstance(model.activation, nn.ReLU)
    assert type(model.activation).__name__ == "ReLU"


@pytest.mark.parametrize("granularity", ["channel", "layer", "position"])
def test_granularity(granularity: Any) -> None:
    model = CifarResNet(8, width=4)
    make_linearizable(model, torch.zeros(1, 3, 8, 8), granularity=granularity)
    first = slopes_of(model)[0]
    assert first.parameter.numel() == {"channel": 4, "layer": 1, "position": 256}[granularity]
    assert first.parameter.numel() * first.positions == 256
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.fill_(1)
    assert pathlen.measure(model, torch.zeros(1, 3, 8, 8)).num_active == 0
    if granularity == "position":
        with pytest.raises(LinearizationError, match="trace with an example of this size"):
            model(torch.zeros(2, 3, 16, 16))
    else:
        assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_of_modules(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])
            self.on = False

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant) if self.on else block(x)
            return x

    model = make_linearizable(Checkpointed(), torch.randn(1, 6))
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter)
    x = torch.randn(3, 6, requires_grad=True)
    wanted = [x, *model.parameters()]
    expected = torch.autograd.grad(model(x).sum(), wanted)
    model.on = True
    model.zero_grad()
    model(x).sum().backward()
    for parameter, gradient in zip(wanted, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_function_in_a_checkpointed_part_is_refused() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.on = nn.Linear(4, 4), False

        def forward(self, x: Tensor) -> Tensor:
            def part(x: Tensor) -> Tensor:
                return functional.relu(self.layer(x))

            return checkpoint(part, x, use_reentrant=False) if self.on else part(x)

    model = make_linearizable(Partly(), torch.randn(1, 4))
    model.on = True
    with pytest.raises(LinearizationError, match="checkpointed"):
        model(torch.randn(2, 4))


def test_compiled_models_compute_the_same() -> None:
    model = make_linearizable(CifarResNet(8, width=4), torch.zeros(1, 3, 8, 8)).eval()
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter)
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(x), model(x))


def test_compiled_models_have_the_same_gradients_in_one_graph() -> None:
    model = make_linearizable(CifarResNet(8, width=4), torch.zeros(1, 3, 8, 8)).eval()
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter)
    x = torch.randn(2, 3, 8, 8)
    parameters = [own.parameter for own in slopes_of(model)]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(x).sum(), parameters)
    expected = torch.autograd.grad(model(x).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_autocast() -> None:
    model = make_linearizable(CifarResNet(8, width=4), torch.zeros(1, 3, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(4, 3, 8, 8)).float().sum()
    loss.backward()
    for own in slopes_of(model):
        assert own.parameter.grad is not None
        assert own.parameter.grad.isfinite().all()


def test_the_translation_model() -> None:
    model = Transformer(
        vocabulary_size=20, padding=0, max_length=8, width=16, layers=1, heads=2, hidden=24
    ).eval()
    tokens = torch.randint(3, 20, (2, 5))
    before = pathlen.measure(model, (tokens, tokens))
    make_linearizable(model, (tokens, tokens))
    after = pathlen.measure(model, (tokens, tokens))
    assert after.normalized_average_path_length == before.normalized_average_path_length


class Wandering(nn.Module):
    """Calls its activations as it is told."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.layer, self.act, self.calls = nn.Linear(4, 4), nn.ReLU(), 2
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.act(self.layer(x)) if self.shared else functional.relu(self.layer(x))
        return x


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("calls", [1, 3])
def test_a_forward_that_departs_is_an_error(shared: bool, calls: int) -> None:
    model = make_linearizable(Wandering(shared), torch.randn(1, 4))
    model(torch.randn(2, 4))
    model.calls = calls
    with pytest.raises(LinearizationError, match="departs from the traced one"):
        model(torch.randn(2, 4))
    model.calls = 2
    model(torch.randn(2, 4))  # and it can go on


def test_a_second_call_of_a_single_activation_is_an_error() -> None:
    model = Wandering(shared=True)
    model.calls = 1
    make_linearizable(model, torch.randn(1, 4))
    model.calls = 2
    with pytest.raises(LinearizationError, match="a second time"):
        model(torch.randn(2, 4))


def test_what_cannot_be_done_is_refused() -> None:
    x = torch.randn(1, 4)
    with pytest.raises(LinearizationError, match="nothing to linearize"):
        make_linearizable(nn.Linear(4, 2), x)
    with pytest.raises(LinearizationError, match="inside an operator"):
        make_linearizable(nn.LSTM(4, 3), torch.randn(2, 1, 4))
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    make_linearizable(model, x)
    with pytest.raises(LinearizationError, match="has slopes already"):
        make_linearizable(model, x)
    with pytest.raises(LinearizationError, match="GraphModule"):
        make_linearizable(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), x)
    with pytest.raises(PathlenError, match="granularity"):
        make_linearizable(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), x, granularity="row")
    named = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    named[1].slope = 3
    with pytest.raises(LinearizationError, match="rename it"):
        make_linearizable(named, x)
    assert not slopes_of(named)


def test_activations_without_a_place_can_be_kept() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.act = nn.LSTM(4, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.rnn(x)[0])

    model = make_linearizable(Mixed(), torch.randn(2, 1, 4), unplaced="keep")
    assert [own.parameter_name for own in slopes_of(model)] == ["act.slope"]


def test_a_forward_takes_what_it_took():
    model = Transformer(vocabulary_size=11, padding=0, max_length=5, width=8, heads=2, layers=1)
    before = inspect.signature(model.forward)
    tokens = torch.ones(1, 3, dtype=torch.long)
    make_linearizable(model, (tokens, tokens))
    assert inspect.signature(model.forward) == before
    layers = make_linearizable(nn.Sequential(nn.Linear(2, 2), nn.GELU()), torch.zeros(1, 2))
    assert inspect.signature(layers[1].forward) == inspect.signature(nn.GELU().forward)
