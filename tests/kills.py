"""Runs and studies that are killed at random moments until they end, and what they end with.

`python -m tests.kills train 30` and `python -m tests.kills study 30` do it as often as one likes,
in a folder of their own, and print what came of it; `tests/test_kills.py` does the first a few
times, and `tests/test_study_run.py` kills studies.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathlen.training.study.folder import StudyFolder
from tests import studies
from tests.processes import CONTEXT, PATIENCE
from tests.training_runs import TINY, changed, outcome, run

# 40 steps, of which each second one leaves a checkpoint; a target, a teacher, a growing prior
RUN = changed(
    TINY,
    optimizer={"name": "adamw", "learning_rate": 0.01, "slope_learning_rate": 0.2},
    train__epochs=3,
    linearize__epochs=4,
    linearize__prior__schedule={"name": "grow", "factor": 2.0, "patience": 2},
    linearize__prior__target_units="50 %",
    linearize__distillation={"weight": 0.5, "temperature": 2.0},
    checkpoint_steps=2,
)
STUDY = studies.settings(
    recipe=changed(studies.SHORT, train__epochs=3, linearize__epochs=3, checkpoint_steps=2),
    share_training=True,
    workers=1,
)


@dataclass
class Tally:
    """What was done.

    Attributes:
        kills: Processes that were killed.
        ends: Runs or studies that ended, and were compared.
    """

    kills: int = 0
    ends: int = 0


def kill_runs(folder: Path, kills: int, seed: int) -> Tally:
    """Kill the process of a run so many times, at random moments; each end is compared.

    A run that ends before it is killed is followed by another one, in a folder of its own.
    """
    draws, tally = random.Random(seed), Tally()
    for name in ("first", "whole"):  # the first process of all has to load torch
        begun = time.monotonic()
        assert _process(folder / name, None) == 0
        seconds = time.monotonic() - begun
    expected = outcome(folder / "whole")
    while True:
        place = folder / str(tally.ends)
        last = tally.kills == kills
        code = _process(place, None if last else draws.uniform(0, 0.8 * seconds))
        if code == -signal.SIGKILL:
            tally.kills += 1
            continue
        assert code == 0, code
        assert outcome(place) == expected, f"{place}, after {tally}"
        tally.ends += 1
        if last:
            return tally


def _process(folder: Path, seconds: float | None) -> int:
    process = CONTEXT.Process(target=run, args=(RUN, folder))
    process.start()
    process.join(PATIENCE if seconds is None else seconds)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill_studies(folder: Path, kills: int, seed: int) -> Tally:
    """The same for a study: its own process is killed, and in half of the cases all below it."""
    draws, tally = random.Random(seed), Tally()
    whole = folder / "whole"
    whole.mkdir()
    begun = time.monotonic()
    assert studies.finished(studies.begin(whole, STUDY))[0] == 0
    seconds = time.monotonic() - begun
    expected = study_outcome(whole)
    while True:
        place = folder / str(tally.ends)
        place.mkdir(exist_ok=True)
        process = studies.begin(place, STUDY, "--retry-failed")
        last = tally.kills == kills
        try:
            _, errors = process.communicate(
                timeout=PATIENCE if last else draws.uniform(0.2, 0.9) * seconds
            )
        except subprocess.TimeoutExpired:
            assert not last, "it takes too long"
            below = descendants(process.pid) if draws.random() < 0.5 else []
            for pid in [process.pid, *below]:
                os.kill(pid, signal.SIGKILL)
            process.communicate()
            tally.kills += 1
            continue
        assert process.returncode == 0, errors
        assert study_outcome(place) == expected, f"{place}, after {tally}"
        tally.ends += 1
        if last:
            return tally


def study_outcome(folder: Path) -> dict[str, Any]:
    """What all runs of a study left, seconds left out."""
    home = StudyFolder(folder / "studies" / "small")
    plan, found = home.plan(), {}
    assert plan is not None
    for one in plan.runs:
        place = home.of_run(one.key)
        if not (place / "dense.safetensors").exists():  # of a dense run
            (place / "dense.safetensors").symlink_to("model.safetensors")
        found[one.key] = outcome(place) | {"state": home.look(one).state}
    return found


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        children = [int(child) for child in path.read_text().split()]
    except FileNotFoundError:
        return []
    return [one for child in children for one in (child, *descendants(child))]


if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    drawn = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with tempfile.TemporaryDirectory() as temporary:
        kill = {"train": kill_runs, "study": kill_studies}[kind]
        print(kind, kill(Path(temporary), number, drawn))
