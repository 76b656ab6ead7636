"""What carrying out a study costs beside its runs, and what a second worker gains.

    python benchmarks/study.py [--tables overhead workers] [--seconds 30] [--runs 10]
        [--folder runs/study-benchmark] [--recipe digits] [--set train.epochs=15 ...]

The command `pathlen study` is timed, as a user gives it.

Table `overhead`: runs of known duration, whose model sleeps in its training steps, by one worker.
From the first run's beginning to the last one's end, as their folders have it, beside the seconds
that the loops of the runs spent in steps; what is left is scheduling, processes, evaluation,
checkpoints and files. `each` is the part of it that comes with every run (the median of all but the
first, from the end of the one before), `once` what the first run costs beside that. `start` is what
comes before all runs: loading torch, making the recipes, starting the fork server; `end` is what
comes after.

Table `workers`: real runs of a recipe, the same by one worker and by two, in wall-clock seconds
from the first run's beginning to the last one's end. Only a machine with two idle cores shows what
two workers gain.

Folders of an earlier benchmark are removed, since finished runs would not be done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from pathlen.training.records import SUMMARY  # noqa: E402
from pathlen.training.study.folder import read_attempt  # noqa: E402

SLEEPER = """
import time
from torch import nn

class Sleeper(nn.Module):
    def __init__(self, num_classes, seconds):
        super().__init__()
        self.line = nn.Linear(64, num_classes)
        self.seconds = seconds

    def forward(self, x):
        if self.training:
            time.sleep(self.seconds)
        return self.line(x.flatten(1).relu())
"""
STEPS = 5 * 4  # of an epoch, times epochs


def sleeping(seconds: float, runs: int, folder: Path) -> dict[str, Any]:
    """A study of runs that sleep."""
    (folder / "sleeper.py").write_text(SLEEPER)
    model = {"name": f"{folder / 'sleeper.py'}:Sleeper", "seconds": seconds / STEPS}
    recipe = {
        "task": {"name": "digits", "classes": 2},
        "model": model,
        "batch_size": 48,
        "optimizer": {"name": "sgd", "learning_rate": 0.01},
        "train": {"epochs": 4},
        "machine": {"accelerator": "cpu"},
    }
    return {"name": "sleep", "recipe": recipe, "seeds": list(range(runs))}


def carried_out(
    settings: dict[str, Any], folder: Path, workers: int
) -> tuple[float, list[dict[str, Any]], float]:
    """Carry out a study: seconds before all runs, the runs in order of their end, seconds after."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    command = [Path(sys.executable).with_name("pathlen"), "study", "run", path]
    begun = time.time()
    subprocess.run([*command, "--folder", folder, "--workers", str(workers)], check=True)
    ended = time.time()
    runs = []
    for path in (folder / "runs").iterdir():
        attempt = read_attempt(path)
        seconds = json.loads((path / SUMMARY).read_text())["seconds"]
        runs.append({"started": attempt.begun, "ended": attempt.ended, "seconds": seconds})
    runs.sort(key=lambda run: run["ended"])
    return min(run["started"] for run in runs) - begun, runs, ended - runs[-1]["ended"]


def whole(runs: list[dict[str, Any]]) -> float:
    """Seconds from the first run's beginning to the last one's end."""
    return float(runs[-1]["ended"] - min(run["started"] for run in runs))


def overhead(seconds: float, runs: int, folder: Path) -> None:
    """Print the overhead of runs that sleep."""
    folder.mkdir(parents=True, exist_ok=True)
    start, done, end = carried_out(sleeping(seconds, runs, folder), folder / "sleep", 1)
    steps = [run["seconds"] for run in done]
    taken = [later["ended"] - run["ended"] for run, later in pairwise(done)]
    each = median(took - own for took, own in zip(taken, steps[1:], strict=True))
    once = whole(done[:1]) - steps[0] - each
    heads = f"{'runs':>6}{'seconds each':>14}{'whole':>9}{'steps':>9}{'overhead':>10}"
    print(heads + f"{'each':>8}{'each %':>8}{'once':>8}{'start':>8}{'end':>8}")
    print(
        f"{runs:>6}{mean(steps):>14.2f}{whole(done):>9.2f}{sum(steps):>9.2f}"
        f"{whole(done) / sum(steps) - 1:>10.2%}{each:>8.2f}{each / mean(steps):>8.2%}"
        f"{once:>8.2f}{start:>8.2f}{end:>8.2f}"
    )


def workers(recipe: str, changes: list[str], runs: int, folder: Path) -> None:
    """Print what a second worker gains."""
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(change.split("=", 1) for change in changes)
    settings = {
        "name": "workers",
        "recipe": recipe,
        "set": {key: float(value) if "." in value else int(value) for key, value in given.items()},
        "seeds": list(range(runs)),
    }
    took = [
        whole(carried_out(settings, folder / f"workers-{number}", number)[1]) for number in (1, 2)
    ]
    print(f"{'runs':>6}{'one worker':>12}{'two':>9}{'ratio':>8}")
    print(f"{runs:>6}{took[0]:>12.2f}{took[1]:>9.2f}{took[0] / took[1]:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=["overhead", "workers"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs/study-benchmark"))
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    if options.runs < 2:
        parser.error("--runs must be at least 2: what each run costs is taken from those after one")
    folder = options.folder.absolute()
    if "overhead" in options.tables:
        overhead(options.seconds, options.runs, folder)
    if "workers" in options.tables:
        workers(options.recipe, options.set, options.runs, folder)


if __name__ == "__main__":
    main()
