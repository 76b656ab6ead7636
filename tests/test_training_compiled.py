"""Models with slopes, and training steps, through `torch.compile`: one graph, the same numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional

from pathlen.errors import LinearizationError, SettingsError
from pathlen.training import CifarResNet, Transformer, make_linearizable, slopes_of
from pathlen.training.compiled import compiled, compiling
from pathlen.training.watch import Watcher
from tests.training_runs import TINY, TRANSLATION, changed, outcome, run


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Program(nn.Module):
    """Layers, and a forward written with them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.program = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.program(self, x)


def functions(model: Any, x: Tensor) -> Tensor:
    return functional.gelu(model.last(torch.tanh(model.first(x).relu_())))


def formula(model: Any, x: Tensor) -> Tensor:
    h = model.first(x)
    return model.last(h * torch.sigmoid(1.702 * h))


def shared(model: Any, x: Tensor) -> Tensor:
    return model.act(model.last(model.act(model.first(x))))


def flattened(model: Any, x: Tensor) -> Tensor:  # four elements share a slope
    return functional.relu(model.first(x[:, None]).flatten(1))


def linears(**more: nn.Module) -> dict[str, nn.Module]:
    return {"first": nn.Linear(4, 4), "last": nn.Linear(4, 4), **more}


TOKENS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "modules": (lambda: CifarResNet(8, width=4), (torch.ones(2, 3, 8, 8),)),
    "functions": (lambda: Program(functions, **linears()), (torch.ones(2, 4),)),
    "formula": (lambda: Program(formula, **linears()), (torch.ones(2, 4),)),
    "shared": (lambda: Program(shared, **linears(act=nn.ReLU())), (torch.ones(2, 4),)),
    "flattened": (lambda: Program(flattened, first=nn.Conv1d(1, 3, 1)), (torch.ones(2, 4),)),
    "translation": (
        lambda: Transformer(
            vocabulary_size=20, padding=0, max_length=8, width=8, layers=1, heads=2, hidden=8
        ),
        (TOKENS, TOKENS),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_one_graph_with_the_same_numbers(name: str) -> None:
    make, example = MODELS[name]
    model = make_linearizable(make(), example).eval()
    slopes = [own.parameter for own in slopes_of(model)]
    for parameter in slopes:
        nn.init.uniform_(parameter, 0.1, 0.9)
    given = tuple(torch.randn_like(one) if one.is_floating_point() else one for one in example)
    counter = CompileCounter()
    one_graph = torch.compile(model, backend=counter, fullgraph=True)
    found = [one_graph(*given) for _ in range(3)][-1]
    expected = model(*given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), slopes),
        torch.autograd.grad(expected.square().sum(), slopes),
        rtol=1e-4,
        atol=1e-5,
    )
    assert counter.frame_count == 1  # the third call found what the first had compiled


def test_what_departs_from_the_traced_order_is_an_error_when_it_is_compiled() -> None:
    model = make_linearizable(Program(functions, **linears()), torch.ones(1, 4))
    model.program = formula
    with pytest.raises((LinearizationError, torch._dynamo.exc.TorchDynamoException)):
        torch.compile(model, backend="eager", fullgraph=True)(torch.ones(2, 4))


def test_what_cannot_be_compiled_is_told_with_the_setting() -> None:
    def branches(model: Any, x: Tensor) -> Tensor:
        return model.first(x) if x.sum() > 0 else x

    model = Program(branches, first=nn.Linear(2, 2))
    example = (torch.ones(1, 2),)
    broken = compiled(model, example, torch.device("cpu"), backend="eager")
    said = r"machine\.compile: .* one graph of Program: .*branch"
    with pytest.raises(SettingsError, match=said), compiling(model):
        broken(*example)


class Broken(Watcher):
    """Breaks off in the middle of an epoch of the linearize phase."""

    def step(self, batch: int, numbers: Any) -> None:
        if "active_units" in numbers and numbers["active_units"] < 16 and batch == 3:
            raise RuntimeError("broken off")


PACED = {"omega": 5.0, "target_units": "50 %", "pace": {}}
RUNS = {
    "images": changed(TINY, linearize__prior=PACED, checkpoint_steps=2, machine__compile=True),
    "texts": changed(TRANSLATION, machine__compile=True),
}


@pytest.mark.parametrize("task", ["images", pytest.param("texts", marks=pytest.mark.slow)])
def test_runs_compute_the_same(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = partial(compiled, backend="aot_eager")
    monkeypatch.setattr("pathlen.training.run.compiled", by)
    found = run(RUNS[task], tmp_path / "compiled").history
    expected = run(changed(RUNS[task], machine__compile=False), tmp_path / "plain").history
    for one, other in zip(found, expected, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-4)
        assert one["active_units"] == other["active_units"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of itself
def test_a_compiled_run_that_goes_on_ends_the_same_bit_for_bit(tmp_path: Path) -> None:
    run(RUNS["images"], tmp_path / "whole")
    with pytest.raises(RuntimeError, match="broken off"):
        run(RUNS["images"], tmp_path / "broken", Broken())
    run(RUNS["images"], tmp_path / "broken")
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_a_run_does_not_go_on_compiled_otherwise(tmp_path: Path) -> None:
    run(TINY, tmp_path)
    with pytest.raises(SettingsError, match=r"machine\.compile"):
        run(changed(TINY, machine__compile=True), tmp_path)
