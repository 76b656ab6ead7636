"""Calls of models with slopes from several threads, within one another, and by replicas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pathlen.training import make_linearizable, slopes_of
from pathlen.training.blend import blend

THREADS, CALLS = 4, 60


class Modules(nn.Module):
    """Activations that are modules, one of them with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu, self.gelu, self.prelu = nn.ReLU(), nn.GELU(), nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gelu(self.prelu(self.first(self.relu(x)))))


class Functions(Modules):
    """Activations that are functions, one of them a formula, one in place."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(functional.relu(x)).sigmoid()
        h = h * torch.sigmoid(1.702 * h)
        return torch.tanh(self.last(h).relu_())


class Shared(Modules):
    """One activation that is called several times, in a block that is, too."""

    def block(self, x: Tensor) -> Tensor:
        return self.relu(self.first(self.relu(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.block(x)))


KINDS = (Modules, Functions, Shared)


def with_slopes(model: nn.Module) -> nn.Module:
    made = make_linearizable(model, torch.ones(2, 4))
    for own in slopes_of(made):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    return made


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    wanted = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(model(x).square().sum(), wanted, allow_unused=True)
    return [one for one in found if one is not None]


def together(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What a function gives for each number, all called at once."""
    barrier = Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait(30)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


@pytest.mark.parametrize("kind", KINDS)
def test_calls_from_several_threads(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = with_slopes(kind())
    inputs = torch.randn(THREADS, 3, 4)
    expected = [[model(x).detach(), *gradients(model, x)] for x in inputs]

    def work(number: int) -> None:
        for _ in range(CALLS):
            found = [model(inputs[number]), *gradients(model, inputs[number])]
            for one, other in zip(found, expected[number], strict=True):
                assert torch.equal(one, other)

    together(work)


@pytest.mark.parametrize("size", [4, 4096])
def test_a_model_computes_the_same_while_another_thread_traces(size: int) -> None:
    """By the same operators: with others its gradients were those of another rounding."""
    x = torch.randn(2, size, requires_grad=True)
    slope = torch.full((size,), 0.25, requires_grad=True)
    expected = blend(x, slope, torch.relu, "relu").grad_fn.name()
    within, done = Event(), Event()

    def trace() -> None:
        with FakeTensorMode():
            within.set()
            done.wait(30)

    thread = Thread(target=trace)
    thread.start()
    within.wait(30)
    found = blend(x, slope, torch.relu, "relu").grad_fn.name()
    done.set()
    thread.join()
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_may_call_the_model_within_a_call(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = with_slopes(kind())
    x, other = torch.randn(2, 3, 4)
    expected, inner = model(x), model(other)
    seen: list[Tensor] = []

    def look(*_: Any) -> None:
        if len(seen) < 3:
            seen.append(torch.zeros(()))  # the calls in here come here again
            seen.append(model(other))

    with model.first.register_forward_hook(look):
        found = model(x)
    assert torch.equal(found, expected)
    assert torch.equal(seen[-1], inner)


class Recursive(nn.Module):
    """A model that calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor, left: int = 2) -> Tensor:
        x = torch.tanh(self.relu(self.layer(x)))
        return self(x, left - 1) if left else x


def test_a_model_that_calls_itself_has_slopes_for_each_call() -> None:
    torch.manual_seed(0)
    plain = Recursive()
    model = make_linearizable(copy.deepcopy(plain), torch.ones(1, 4))
    x = torch.randn(5, 4)
    assert torch.allclose(model(x), plain(x), atol=1e-6)
    assert len(slopes_of(model)) == 6
    for own in slopes_of(model):
        nn.init.ones_(own.parameter)
    expected = plain.layer(plain.layer(plain.layer(x)))
    assert torch.allclose(model(x), expected, atol=1e-5)


class Forces(nn.Module):
    """A model that looks at the derivative of its checkpointed part, which then runs again."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.on = part, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return self.part(x)
        own = x.detach().requires_grad_()
        y: Any = checkpoint(self.part, own, use_reentrant=False)
        (self.force,) = torch.autograd.grad(y.sum(), own)
        return y


@pytest.mark.parametrize("kind", [Modules, Functions])
def test_what_is_computed_again_in_the_midst_of_a_call_is_no_second_call(
    kind: type[nn.Module],
) -> None:
    torch.manual_seed(0)
    model = with_slopes(Forces(kind()))
    x = torch.randn(3, 4, requires_grad=True)
    expected = model(x)
    (force,) = torch.autograd.grad(expected.sum(), x)
    model.on = True
    assert torch.allclose(model(x), expected)
    assert torch.allclose(model.force, force)


def replica(model: nn.Module) -> nn.Module:
    """A copy as `nn.parallel.replicate` makes it: parameters are tensors computed from them."""
    made = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, own in made.items():
        own._former_parameters = {}
        for name, child in module._modules.items():
            setattr(own, name, made[child] if child is not None else None)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                tensor = parameter * 1
                setattr(own, name, tensor)
                own._former_parameters[name] = tensor
    return made[model]


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_in_threads_compute_what_the_model_does(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = with_slopes(kind())
    x = torch.randn(THREADS * 2, 4)
    expected = gradients(model, x)
    replicas = [replica(model) for _ in range(THREADS)]
    parts = together(lambda n: replicas[n](x[2 * n : 2 * n + 2]))
    wanted = [p for p in model.parameters() if p.requires_grad]
    loss = torch.cat(parts).square().sum()
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    torch.testing.assert_close([one for one in found if one is not None], expected)


def test_a_copy_made_within_a_call_has_no_call_under_way() -> None:
    model = with_slopes(Functions())
    copies: list[nn.Module] = []
    with model.first.register_forward_hook(lambda *_: copies.append(copy.deepcopy(model))):
        expected = model(torch.ones(1, 4))
    copies[0].first._forward_hooks.clear()
    assert torch.equal(copies[0](torch.ones(1, 4)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_is_compiled_once_for_all_threads(kind: type[nn.Module]) -> None:
    from torch._dynamo.testing import CompileCounter

    torch.manual_seed(0)
    torch.compiler.reset()
    model = with_slopes(kind())
    inputs = torch.randn(THREADS, 3, 4)
    expected = [model(x).detach() for x in inputs]
    counter = CompileCounter()
    one_graph = torch.compile(model, backend=counter, fullgraph=True)
    one_graph(inputs[0])

    def work(number: int) -> None:
        for _ in range(5):
            torch.testing.assert_close(one_graph(inputs[number]), expected[number])
            assert torch.equal(model(inputs[number]).detach(), expected[number])

    together(work)
    assert counter.frame_count == 1
    torch.compiler.reset()
