"""Several processes train what one does: statistics of batches, metrics, kills and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn

from pathlen.training.batch_norm import share_statistics
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import dump_recipe, make_recipe
from tests.processes import together
from tests.training_runs import TINY, TRANSLATION, changed, run

IMAGES = changed(
    TINY,
    model={"name": "resnet8", "width": 4},
    task__shift=1,
    linearize__prior={"omega": 6.0, "method": "proximal", "target_napl": "50 %"},
    linearize__distillation={},
    clip_norm=1.0,
    machine__precision="64-true",
)
TEXTS = changed(
    TRANSLATION,
    model__dropout=0.0,
    optimizer__slope_learning_rate=0.2,
    label_smoothing=0.1,
    machine__precision="64-true",
)
NUMBERS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "apl", "napl", "bleu")


# --- statistics of batches ---------------------------------------------------------------------

SHAPES = {1: (6, 3), 2: (6, 3, 5, 4), 3: (6, 3, 2, 3, 2)}
KINDS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def norms(axes: int) -> nn.Module:
    """One with running means of torch's kind, one with means over all batches, one without."""
    torch.manual_seed(axes)
    kind = KINDS[axes]
    model = nn.Sequential(
        kind(3, momentum=0.3),
        nn.Tanh(),
        kind(3, momentum=None, eps=0.1),
        nn.Tanh(),
        kind(3, affine=False, track_running_stats=False),
    ).double()
    for module in model:
        if getattr(module, "weight", None) is not None:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


def norm_steps(axes: int, rank: int, processes: int, shared: bool) -> dict[str, torch.Tensor]:
    """Outputs, gradients and buffers after two batches, of which each process has a share."""
    model = norms(axes)
    if shared:
        share_statistics(model)
    found: dict[str, torch.Tensor] = {}
    for step in range(2):
        torch.manual_seed(step)
        whole = 2 + 3 * torch.randn(SHAPES[axes], dtype=torch.float64)
        weight = torch.randn(SHAPES[axes], dtype=torch.float64)
        own = whole[rank::processes].requires_grad_()
        output = model(own)
        (output * weight[rank::processes]).sum().backward()
        found[f"output {step}"], found[f"gradient {step}"] = output.detach(), own.grad
    for name, parameter in model.named_parameters():
        found[f"of {name}"] = parameter.grad
    found |= model.state_dict()
    model.eval()
    found["eval"] = model[0](whole[rank::processes]).detach()
    return found


def norms_in_a_process(axes: int) -> dict[str, list]:
    distributed.init_process_group("gloo")
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    found = norm_steps(axes, rank, processes, shared=True)
    distributed.destroy_process_group()
    return {name: tensor.tolist() for name, tensor in found.items()}


@pytest.mark.parametrize("axes", SHAPES)
def test_batch_norm_over_processes(axes):
    whole = norm_steps(axes, 0, 1, shared=False)
    parts = together(norms_in_a_process, 2, axes)
    for name, expected in whole.items():
        found = [torch.tensor(part[name], dtype=expected.dtype) for part in parts]
        if name.startswith("of "):  # gradients of parameters are added up by DDP
            torch.testing.assert_close(sum(found), expected, rtol=1e-12, atol=1e-12)
        elif name.split()[0] in ("output", "gradient", "eval"):
            for rank, part in enumerate(found):
                torch.testing.assert_close(part, expected[rank::2], rtol=1e-11, atol=1e-11)
        else:  # buffers are the same everywhere
            for part in found:
                torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


def half_precision() -> tuple[list, str]:
    distributed.init_process_group("gloo")
    model = nn.BatchNorm2d(1)
    share_statistics(model)
    torch.manual_seed(0)
    images = torch.randn(2, 1, 300, 300) + 40  # the sum is above the largest float16
    output = model(images[distributed.get_rank()][None].half())
    distributed.destroy_process_group()
    return [output.float().mean().item(), model.running_mean.item()], str(output.dtype)


def test_sums_of_16_bits_do_not_overflow():
    parts = together(half_precision, 2)
    assert {kind for _, kind in parts} == {"torch.float16"}
    assert sum(numbers[0] for numbers, _ in parts) == pytest.approx(0, abs=1e-2)
    for numbers, _ in parts:
        assert numbers[1] == pytest.approx(0.1 * 40, rel=1e-3)


def test_derived_classes_are_left_alone():
    class Own(nn.BatchNorm2d):
        pass

    model = nn.Sequential(Own(2), nn.BatchNorm2d(2), nn.GroupNorm(1, 2))
    keys = list(model.state_dict())
    share_statistics(model)
    assert [isinstance(module, nn.BatchNorm2d) for module in model] == [True, True, False]
    assert type(model[0]) is Own
    assert type(model[1]) is not nn.BatchNorm2d
    assert list(model.state_dict()) == keys


# --- runs ----------------------------------------------------------------------------------------


def run_in_a_process(settings: dict, folder: str) -> list[dict]:
    result = run(changed(settings, machine__devices=2), folder)
    distributed.destroy_process_group()
    return [{**row, "seconds": 0} for row in result.history]


def require_close(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in {"epoch", "phase", "step", "active_units", "learning_rate"} & one.keys():
            assert one[name] == other[name], name
        for name in set(NUMBERS) & other.keys():
            assert one[name] == pytest.approx(other[name], abs=1e-5), name


@pytest.mark.parametrize("settings", [IMAGES, TEXTS], ids=["images", "texts"])
def test_two_processes_are_as_one(settings, tmp_path):
    alone = run(settings, tmp_path / "one").history
    histories = together(run_in_a_process, 2, settings, tmp_path / "two")
    assert histories[0] == histories[1]
    require_close(histories[0], alone)
    assert alone[-1]["active_units"] < alone[0]["active_units"]
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }


def command(recipe: Recipe, tmp_path, *overrides: str) -> list[str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    start = [sys.executable, "-m", "pathlen", "train", str(path), *overrides]
    return [*start, "--out", str(tmp_path / "run")]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_of_the_command_line_killed_and_gone_on(tmp_path):
    """The first process is killed when there is a checkpoint; the second ends by itself."""
    alone = run(IMAGES, tmp_path / "one").history
    call = command(make_recipe(IMAGES), tmp_path, "machine.devices=2", "checkpoint_steps=2")
    rows = tmp_path / "run" / "metrics.jsonl"
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch   1"):
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=300)  # the pipe is closed when the other has ended, too
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "summary.json").exists()
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("going on in phase") == 1  # said once, not by both
    require_close([json.loads(line) for line in rows.read_text().splitlines()], alone)


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes(tmp_path):
    endless = changed(TINY, train__epochs=100_000)
    call = command(make_recipe(endless), tmp_path, "machine.devices=2")
    with subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch   2"):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                break
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "stopped; the same command goes on" in out
    assert "Traceback" not in errors
