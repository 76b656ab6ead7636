"""On a GPU everything is what it is on a CPU: graphs, depth, the prior, baselines, whole runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pathlen
from pathlen.activity import from_data
from pathlen.monitor.differentiable import DifferentiableAverage
from pathlen.training import (
    CifarResNet,
    Plan,
    SparsityPrior,
    Target,
    load_run,
    make_linearizable,
    make_recipe,
    parameter_groups,
    slopes_of,
)
from pathlen.training.blend import blend
from pathlen.training.resnet import channelwise_prelu
from tests.constructs import Model
from tests.path_graphs import residual_blocks
from tests.processes import exit_code
from tests.slopes import Blend, follow
from tests.studies import begin, finished
from tests.studies import settings as study_settings
from tests.test_baseline_runs import RECIPES as BASELINES
from tests.test_resume import RECIPES as PRIORS
from tests.training_runs import TINY, changed, killed_after_step, outcome, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
IMAGE = torch.zeros(1, 3, 8, 8)
GPU = {"accelerator": "cuda", "deterministic": True}


def pair(activation: Any = channelwise_prelu) -> tuple[nn.Module, nn.Module]:
    """A network of random slopes, here and on the GPU."""
    torch.manual_seed(0)
    here = CifarResNet(8, width=4, activation=activation)
    with torch.no_grad():
        for module in here.modules():
            if isinstance(module, nn.PReLU | Blend):
                module.weight.uniform_(-0.5, 1.5).round_()
    return here, copy.deepcopy(here).cuda()


def test_a_graph_and_its_measures() -> None:
    here, there = pair()
    expected, found = pathlen.measure(here, IMAGE), pathlen.measure(there, IMAGE.cuda())
    assert found.average_path_length == expected.average_path_length
    assert found.width_profile == expected.width_profile
    assert next(there.parameters()).is_cuda


@pytest.mark.parametrize("activation", [channelwise_prelu, Blend])
def test_a_monitor(activation: Any) -> None:
    follow(pair(activation)[1], IMAGE.cuda())


def test_a_monitor_of_a_model_that_moves() -> None:
    here, there = pair()
    monitor = pathlen.DepthMonitor(here, IMAGE)
    expected = monitor.update()
    assert monitor.update() == expected
    here.cuda()
    for moved in (monitor, pathlen.DepthMonitor(there, IMAGE.cuda())):
        found = moved.update()
        assert found.active_units == expected.active_units
        assert math.isclose(found.average_path_length, expected.average_path_length, rel_tol=1e-12)


def test_a_differentiable_average() -> None:
    graph = residual_blocks(4, 2, 8)
    lengths = []
    for device in ("cpu", "cuda"):
        activity = torch.tensor(graph.activity, device=device, requires_grad=True)
        length = DifferentiableAverage(graph).to(device)(activity)
        length.backward()
        assert activity.grad is not None
        lengths.append([length.item(), *activity.grad.tolist()])
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-12)


def test_activities_on_data() -> None:
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    data = torch.randn(1000, 4, dtype=torch.float64).split(250)
    expected, found = from_data(here, data), from_data(copy.deepcopy(here).cuda(), data)
    np.testing.assert_allclose(found.nonlinearity, expected.nonlinearity, rtol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("function", [torch.relu, torch.nn.functional.gelu])
def test_gradients_of_slopes(function: Any, in_place: bool) -> None:
    torch.manual_seed(0)
    x, slope = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.rand(3, 1, 1).double()
    form: Any = "relu" if function is torch.relu else "pure"
    found = []
    for device in ("cpu", "cuda"):
        own = [part.to(device).requires_grad_() for part in (x, slope)]
        y = blend(own[0] * 1, own[1], function, form, in_place=in_place)
        gradients = torch.autograd.grad(y.square().sum(), own)
        found.append([part.cpu() for part in (y, *gradients)])
    torch.testing.assert_close(found[1], found[0])


def test_indices_that_a_model_moves_to_the_device() -> None:
    def chosen(model: nn.Module, x: Tensor) -> Tensor:
        y = model.first(x)
        y = y if y.sum() > 0 or y.sum() <= 0 else -y  # reads values: traced with real tensors
        return model.last(y[:, torch.tensor([0.0, 3.0]).to(x.device, torch.int64)].relu())

    model = Model(chosen, first=nn.Linear(2, 4), last=nn.Linear(2, 1))
    expected = pathlen.measure(model, torch.ones(1, 2))
    found = pathlen.measure(model.cuda(), torch.ones(1, 2, device="cuda"))
    assert found.path_count == expected.path_count == 4
    assert found.status == expected.status == "example"


@pytest.mark.filterwarnings("ignore")  # what the compiler says of the device
def test_a_compiled_model_with_slopes() -> None:
    torch.manual_seed(0)
    model = make_linearizable(CifarResNet(8, width=4), IMAGE).cuda().eval()
    x, slopes = torch.randn(2, 3, 8, 8, device="cuda"), [own.parameter for own in slopes_of(model)]
    found, expected = (
        (y, *torch.autograd.grad(y.square().sum(), slopes))
        for y in (torch.compile(model)(x), model(x))
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_default_device() -> None:
    torch.manual_seed(0)
    here = nn.GRU(3, 4)
    expected = pathlen.measure(here, torch.zeros(5, 1, 3))
    with torch.device("cuda"):
        model = nn.GRU(3, 4)
        found = pathlen.measure(model, torch.zeros(5, 1, 3))
        assert pathlen.DepthMonitor(model, torch.zeros(5, 1, 3)).update().num_active > 0
    assert found.average_path_length == expected.average_path_length


def trained(device: str, **options: Any) -> list[Tensor]:
    """Slopes, and penalties, of some steps on the penalty alone."""
    torch.manual_seed(0)
    model = make_linearizable(CifarResNet(8, width=4), IMAGE)
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.uniform_(-0.5, 0.9)
    monitor = pathlen.DepthMonitor(model, IMAGE)
    model.to(device)
    prior = SparsityPrior(model, omega=0.2, monitor=monitor, **options)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.05)
    seen = []
    for _ in range(40):
        optimizer.zero_grad()
        penalty = prior.penalty()
        (penalty + 0 * sum(p.sum() for p in model.parameters())).backward()
        optimizer.step()
        prior.step(0.05)
        slopes = [own.parameter.detach().reshape(-1) for own in slopes_of(model)]
        seen.append(torch.cat([penalty.detach().reshape(1), *slopes]).cpu())
    assert 0 < prior.num_active < prior.num_units
    return seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "proximal", "weights": "napl"},
        {"target": Target("units", 40)},
        {"plan": Plan(Target("napl", 1.5), 40)},
        {"plan": Plan(Target("units", 30), 40, begin=0.2, end=0.9)},
    ],
    ids=["gradient", "proximal", "target", "plan", "plan of units"],
)
def test_the_prior(options: dict[str, Any]) -> None:
    for here, there in zip(trained("cpu", **options), trained("cuda", **options), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


RUNS = {
    **{f"prior: {name}": settings for name, settings in PRIORS.items()},
    "prior: plan": changed(
        TINY,
        linearize__prior={"omega": 0.2, "target_napl": "50 %", "pace": {}},
        linearize__distillation={},
        checkpoint_steps=4,
    ),
    "prior: bfloat16": changed(TINY, machine__precision="bf16-mixed", checkpoint_steps=4),
    "prior: float16, scaled": changed(TINY, machine__precision="16-mixed", checkpoint_steps=4),
    **{f"baseline: {name}": settings for name, settings in BASELINES.items()},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_as_others(name: str, tmp_path: Any) -> None:
    settings = changed(RUNS[name])
    settings["machine"] |= GPU
    run(settings, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    # a run on a GPU is looked at seldom, but at the last step of an epoch
    assert exit_code(killed_after_step, settings, tmp_path / "killed", "linearize", 5) == -9
    run(settings, tmp_path / "killed")
    assert outcome(tmp_path / "killed") == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says of the device
def test_a_compiled_run(tmp_path: Any) -> None:
    plain = changed(TINY, model={"name": "resnet8", "width": 4})
    plain["machine"] |= GPU
    expected = run(plain, tmp_path / "plain").history
    found = run(changed(plain, machine__compile=True), tmp_path / "compiled").history
    for one, other in zip(found, expected, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.02)
        assert one["active_units"] == pytest.approx(other["active_units"], abs=2)


def test_a_run_of_the_gpu_is_loaded_and_measured_here(tmp_path: Any) -> None:
    settings = changed(TINY)
    settings["machine"] |= GPU
    result = run(settings, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    report = pathlen.measure(loaded.model.cpu(), loaded.task.example)
    assert report.normalized_average_path_length == pytest.approx(result.history[-1]["napl"])
    assert result.summary["seconds"] > 0


def test_auto_is_the_gpu() -> None:
    from pathlen.training.run import make_fabric

    recipe = make_recipe(changed(TINY, machine__accelerator="auto"))
    assert make_fabric(recipe).device.type == "cuda"


def test_a_study_of_runs_that_share_the_gpu(tmp_path: Any) -> None:
    study = study_settings(name="shared")
    study["recipe"] = changed(study["recipe"], machine__accelerator="cuda")
    code, out, errors = finished(begin(tmp_path, study))
    assert code == 0, out + errors
