"""What users see of a run: lines, bars, tables, TensorBoard."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from pathlen.training.progress import Bars, Lines, watcher_for
from tests.processes import exit_code
from tests.training_runs import TINY, Recorder, changed, killed_after_step, run

BOTH = changed(TINY, tensorboard=True)


def console(terminal: bool) -> Console:
    return Console(force_terminal=terminal, file=io.StringIO(), width=120, color_system=None)


def test_a_terminal_gets_bars_and_a_log_lines():
    assert isinstance(watcher_for(console(True)), Bars)
    assert isinstance(watcher_for(console(False)), Lines)


def test_lines(tmp_path):
    out = console(False)
    result = run(TINY, tmp_path, Lines(out))
    lines = out.file.getvalue().splitlines()
    for line, row in zip(lines, result.history, strict=False):
        assert line.split()[:3] == ["epoch", str(row["epoch"]), row["phase"]]
        assert f"loss {row['train_loss']:.4f}" in line
        assert f"test {row['test_accuracy']:.2%}" in line
        assert f"active units {row['active_units']}  NAPL {row['napl']:.3f}" in line
    table = "\n".join(lines[5:])
    for phase in ("train", "linearize", "finetune"):
        assert re.search(
            rf"│ {phase} +│ +{result.summary['phases'][phase]['test_accuracy']:.2%}", table
        )
    assert lines[-1] == f"weights, metrics and the recipe are in {tmp_path}"
    again = console(False)
    run(TINY, tmp_path, Lines(again))
    assert again.file.getvalue().startswith("this run ended before, after 5 epochs\n")


def test_bars(tmp_path):
    out = console(True)
    result = run(TINY, tmp_path, Bars(out))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())
    for phase, steps in {"train": 10, "linearize": 10, "finetune": 5}.items():
        assert re.search(rf"{phase} +━+ {steps}/{steps} +loss \d\.\d{{4}}", text), phase
    last = result.history[-1]
    assert f"units {last['active_units']}  NAPL {last['napl']:.3f}" in text
    assert f"test {last['test_accuracy']:.2%}" in text
    assert "after phase" in text
    assert text.count("weights, metrics and the recipe are in") == 1


def test_the_terminal_is_given_back_after_an_error(tmp_path):
    out = console(True)
    with pytest.raises(RuntimeError, match="mine"):
        run(TINY, tmp_path, _Fails(out))
    assert out.file.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again


class _Fails(Bars):
    def epoch(self, row):
        raise RuntimeError("mine")


def test_a_watcher_is_told_all(tmp_path):
    recorder = Recorder()
    result = run(TINY, tmp_path, recorder)
    assert recorder.begun == [("train", 0, 5), ("linearize", 0, 5), ("finetune", 0, 5)]
    assert [batch for batch, _ in recorder.steps] == [1, 2, 3, 4, 5] * 5
    assert recorder.rows == result.history
    assert recorder.closed == 1
    _, numbers = recorder.steps[-1]
    last = result.history[-1]
    assert numbers == {
        key: last[key] for key in ("train_loss", "train_accuracy", "active_units", "apl", "napl")
    }


def test_a_watcher_is_told_where_a_run_goes_on(tmp_path):
    settings = changed(TINY, checkpoint_steps=3)
    assert exit_code(killed_after_step, settings, tmp_path, "linearize", 4) == -9
    recorder = Recorder()
    run(settings, tmp_path, recorder)
    assert recorder.said[0] == "going on in phase linearize: 2 epochs and 2 steps are done"
    assert recorder.begun == [("linearize", 0, 5), ("finetune", 0, 5)]
    assert [batch for batch, _ in recorder.steps][:3] == [3, 4, 5]


def test_tensorboard(tmp_path):
    """After a kill between TensorBoard and the checkpoint, each epoch is there once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard reads files by the second in which they began, which is another one for a program
    # that has to begin anew; within one it goes by the numbers of processes, in no order of time.
    assert exit_code(killed_after_step, BOTH, tmp_path, "linearize", 3) == -9
    time.sleep(1)
    assert exit_code(_killed_before_the_checkpoint, BOTH, tmp_path) == -9
    time.sleep(1)
    result = run(BOTH, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = result.history
    numbers = {key for row in rows for key, value in row.items() if not isinstance(value, str)}
    assert set(events.Tags()["scalars"]) == numbers
    for key in numbers - {"seconds"}:
        shown = [(event.step, event.value) for event in events.Scalars(key)]
        assert shown == [
            (row["epoch"], pytest.approx(row[key], rel=1e-6)) for row in rows if key in row
        ]


def _killed_before_the_checkpoint(settings, folder):
    from pathlen.training import loop
    from tests.training_runs import kill

    real = loop.save

    def save(running, home):
        if running.position.epoch == 4:
            kill()
        real(running, home)

    loop.save = save
    run(settings, folder)


def test_no_tensorboard_unless_asked_for(tmp_path):
    run(changed(TINY, linearize__epochs=0, finetune__epochs=0, train__epochs=1), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
