"""Runs and studies that are killed at random moments until they end, and what they end with.

    python -m tests.kills --times 30 train

does it in a folder of its own and prints what came of it; the others are `study`, `lightning` and
`huggingface`. `tests/test_kills.py` does each a few times.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from pathlen.training.study.folder import StudyFolder
from pathlen.whole_files import UNFINISHED
from tests import callback_runs, studies
from tests.processes import CONTEXT, PATIENCE, command_line
from tests.training_runs import TINY, changed, comparable, outcome, run

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


EACH = 3
"""How often one run is killed; then it is let go on to its end."""


@dataclass
class Tally:
    """What was done.

    Attributes:
        kills: How often something was killed.
        writing: At how many of them a file or checkpoint was left half written.
        runs: At how many of them it was the process of a study's run, and not the command.
        ends: Runs or studies that ended, and were compared.
    """

    kills: int = 0
    writing: int = 0
    runs: int = 0
    ends: int = 0


@dataclass(frozen=True)
class Subject:
    """What is killed.

    Attributes:
        carry_out: Begins it in a folder, or goes on; calls its second argument when it trains.
        half_written: What is being written in the folder, or was left so.
        outcome: All that must not depend on interruptions.
        has_runs: Whether it starts processes of runs, one of which is killed now and then.
    """

    carry_out: Callable[[Path, Callable[[], None]], None]
    half_written: Callable[[Path], set[Path]]
    outcome: Callable[[Path], Any]
    has_runs: bool = False


def kill(name: str, folder: Path, times: int, seed: int) -> Tally:
    """Kill something so many times, at random moments; each end is compared.

    Half of the moments are the next ones at which something is being written. What has ended is
    followed by another one, in a folder of its own.
    """
    subject, draws, tally = SUBJECTS[name], random.Random(seed), Tally()
    seconds = 0.0
    for place in (folder / "first", folder / "whole"):  # the first of all has to load torch
        process = _begin(subject, place)
        begun = time.monotonic()
        assert _ended(process) == 0
        seconds = time.monotonic() - begun
    expected, before = subject.outcome(folder / "whole"), 0
    while True:
        place = folder / str(tally.ends)
        process = _begin(subject, place)
        code, killed, most = None, tally.kills, min(times, before + EACH)
        while code is None and tally.kills < most:
            code = _killed(subject, process, place, draws.uniform(0, 0.6 * seconds), draws, tally)
        code = _ended(process) if code is None else code
        if code != 0:
            assert tally.kills > killed, f"{place} ended with {code}, and nobody killed it"
            continue
        assert subject.outcome(place) == expected, f"{place}, after {tally}"
        tally.ends, before = tally.ends + 1, tally.kills
        if tally.kills == times:
            return tally


def _begin(subject: Subject, place: Path) -> Any:
    place.mkdir(exist_ok=True)
    begun = CONTEXT.Event()
    process = CONTEXT.Process(target=subject.carry_out, args=(place, begun.set))
    process.start()
    while not begun.wait(0.1) and process.is_alive():
        pass
    return process


def _ended(process: Any) -> int:
    """Its exit code, once it has ended."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"it takes more than {PATIENCE} s")
    return int(process.exitcode)


def _killed(
    subject: Subject, process: Any, place: Path, delay: float, draws: random.Random, tally: Tally
) -> int | None:
    """Kill once; the exit code, or None if it was a run of a study, whose command goes on."""
    before, writing, whom = subject.half_written(place), draws.random() < 0.5, draws.random()
    process.join(delay)
    while writing and process.is_alive() and not subject.half_written(place) - before:
        time.sleep(0.0005)
    victims = [process.pid]
    if subject.has_runs and whom < 1 / 3:
        while process.is_alive() and not (found := _runs(process.pid)):
            time.sleep(0.0005)
        victims = found if process.is_alive() else victims
    elif whom > 2 / 3:
        victims += [pid for _, pid in descendants(process.pid)]
    if not process.is_alive():
        return _ended(process)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code = _ended(process) if victims[0] == process.pid else None
    if code == 0:
        return code
    tally.kills += 1
    tally.writing += bool(subject.half_written(place) - before)
    tally.runs += code is None
    return code


def _runs(pid: int) -> list[int]:
    """The processes of runs, which are forked by the fork server of a study's command."""
    return [pid for generation, pid in descendants(pid) if generation == 2]


def descendants(pid: int, generation: int = 1) -> list[tuple[int, int]]:
    """The processes that a process has started, and those that they have, by generation."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [(generation, child), *descendants(child, generation + 1)]
    return found


def _train(folder: Path, begun: Callable[[], None]) -> None:
    begun()
    run(RUN, folder)


def _study(folder: Path, begun: Callable[[], None]) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    begun()
    command_line(folder, "study", "run", "study.yaml", "--retry-failed")


def _lightning(folder: Path, begun: Callable[[], None]) -> None:
    temporary = folder / "temporary"  # where Lightning writes before it renames
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = str(temporary)
    callback_runs.lightning(folder, begun)


def _unfinished(folder: Path) -> set[Path]:
    return set(folder.rglob(f".*{UNFINISHED}"))


def _unfinished_checkpoints(folder: Path) -> set[Path]:
    """The Trainer writes its state last."""
    found = folder.glob("checkpoint-*")
    return {path for path in found if not (path / "trainer_state.json").exists()}


def _end_of_callbacks(folder: Path) -> Any:
    return comparable(torch.load(folder / "end.pt"))


def _end_of_study(folder: Path) -> dict[str, Any]:
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


SUBJECTS = {
    "train": Subject(_train, _unfinished, outcome),
    "study": Subject(_study, _unfinished, _end_of_study, has_runs=True),
    "lightning": Subject(
        _lightning, lambda folder: {*folder.glob("temporary/*")}, _end_of_callbacks
    ),
    "huggingface": Subject(callback_runs.hugging_face, _unfinished_checkpoints, _end_of_callbacks),
}


def main() -> None:
    """Kill something, and print how often and what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill(given.subject, Path(folder), given.times, given.seed)
    counts = ", ".join(f"{number} {what}" for what, number in asdict(tally).items())
    print(f"{given.subject}: {counts}; all ends are the same bit for bit")


if __name__ == "__main__":
    main()
