"""`pathlen train`: what it prints, its exit codes, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from pathlen.cli import main
from pathlen.training.recipe_file import dump_recipe, load_recipe, make_recipe
from tests.training_runs import TINY, changed, outcome, run

SHORT = changed(TINY, train__epochs=1, linearize__epochs=1)
LONG = changed(TINY, train__epochs=60, linearize__epochs=1, checkpoint_steps=7)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(settings, *arguments: str) -> Result:
        (tmp_path / "mine.yaml").write_text(dump_recipe(make_recipe(settings)))
        arguments = ("train", "mine.yaml", *arguments)
        return CliRunner().invoke(main, list(arguments), catch_exceptions=False)

    return call


def test_it_trains_into_a_folder_named_after_the_recipe(command, tmp_path):
    result = command(SHORT, "seed=3", "linearize.prior.omega=1e-3")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("epoch   1  train      loss ")
    folder = tmp_path / "runs" / "mine"
    assert result.stdout.endswith("weights, metrics and the recipe are in runs/mine\n")
    stored = load_recipe(folder / "recipe.yaml")
    assert (stored.seed, stored.linearize.prior.omega) == (3, 0.001)
    again = command(SHORT, "seed=3", "linearize.prior.omega=1e-3")
    assert again.exit_code == 0
    assert "this run ended before, after 3 epochs" in again.stdout
    other = command(SHORT, "seed=4", "linearize.prior.omega=1e-3")
    assert other.exit_code == 2
    assert "runs/mine holds a run of another recipe (there, and here):\n  seed: 3 and 4" in (
        other.stderr
    )
    assert command(SHORT, "seed=4", "--out", "runs/other").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.epoch=1"], "did you mean 'epochs'"),
        (["model.name=resnet21"], "model 'resnet21'"),
        (["task={name: cifar10, folder: nowhere}"], "data_batch_1"),
        (["train.learning_rate=1e30"], "the loss is not finite at step"),
        (["machine.accelerator=tpus"], "machine: "),
        (["machine.strategy=nonsense"], "machine: "),
    ],
)
def test_errors_are_one_message_and_exit_code_2(arguments, message, command):
    result = command(SHORT, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


def test_an_unknown_recipe(command):
    result = CliRunner().invoke(main, ["train", "digts"])
    assert result.exit_code == 2
    assert "there is no recipe 'digts'; did you mean 'digits'?" in result.stderr


def start(folder) -> subprocess.Popen:
    (folder / "long.yaml").write_text(dump_recipe(make_recipe(LONG)))
    return subprocess.Popen(
        [sys.executable, "-m", "pathlen", "train", "long.yaml", "--out", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run(number, tmp_path):
    with start(tmp_path) as process:
        for line in process.stdout:
            if line.startswith("epoch   2"):
                process.send_signal(number)
                break
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert out.rstrip().endswith("stopped; the same command goes on from the checkpoint in run")
    assert not errors
    assert not (tmp_path / "run" / "summary.json").exists()
    result = run(LONG, tmp_path / "run")
    assert len(result.history) == 62
    run(LONG, tmp_path / "whole")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


STUCK = """
import time
from torch import nn
class Stuck(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.line = nn.Linear(64, num_classes)
    def forward(self, x):
        if self.training:
            print("stuck", flush=True)
            time.sleep(600)
        return self.line(x.flatten(1).relu())
"""


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    settings = changed(TINY, model={"name": "stuck.py:Stuck"})
    (tmp_path / "long.yaml").write_text(dump_recipe(make_recipe(settings)))
    call = [sys.executable, "-m", "pathlen", "train", "long.yaml", "--out", "run"]
    with subprocess.Popen(
        call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)  # it waits for the end of the step
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    assert process.returncode == 130
