"""`pathlen train`: what it prints, its exit codes, signals."""

from __future__ import annotations

import os
import signal

import pytest
from click.testing import CliRunner, Result

from pathlen.cli.main import main
from pathlen.training.recipe_file import dump_recipe, load_recipe, make_recipe
from tests.processes import CONTEXT, PATIENCE, command_line
from tests.studies import wait_for
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


def started(folder, settings):
    """A process of the command line that trains into `run`."""
    (folder / "long.yaml").write_text(dump_recipe(make_recipe(settings)))
    arguments = (folder, "train", "long.yaml", "--out", "run")
    process = CONTEXT.Process(target=command_line, args=arguments)
    process.start()
    return process


def printed(folder, name="out"):
    """What a process has printed so far."""
    path = folder / name
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(LONG, folder)
    return outcome(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run(number, tmp_path, whole):
    process = started(tmp_path, LONG)
    wait_for(lambda: "\nepoch   2" in printed(tmp_path), "a second epoch")
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 130
    last = "stopped; the same command goes on from the checkpoint in run"
    assert printed(tmp_path).rstrip().endswith(last)
    assert not printed(tmp_path, "err")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert len(run(LONG, tmp_path / "run").history) == 62
    assert outcome(tmp_path / "run") == whole


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


def test_a_second_signal_stops_at_once(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    process = started(tmp_path, changed(TINY, model={"name": "stuck.py:Stuck"}))
    wait_for(lambda: printed(tmp_path).endswith("stuck\n"), "the first step")
    os.kill(process.pid, signal.SIGINT)
    process.join(1)
    assert process.exitcode is None  # it waits for the end of the step
    os.kill(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    assert process.exitcode == 130
