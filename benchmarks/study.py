"""What carrying out a study costs beside its runs, and what a second worker gains.

    python benchmarks/study.py [--tables overhead workers] [--seconds 30] [--runs 4]
        [--folder runs/study-benchmark] [--recipe digits] [--set train.epochs=15 ...]

The command `pathlen study` is timed, as a user gives it.

Table `overhead`: runs of known duration, whose model sleeps in its training steps, by one worker.
From the first run's beginning to the last one's end, as the store has it, beside the seconds that
the loops of the runs spent in steps; what is left is scheduling, processes, evaluation, checkpoints
and files. `start` is what comes before that once for a study: loading torch, making the recipes;
`end` is what comes after it.

Table `workers`: real runs of a recipe, the same by one worker and by two, in wall-clock seconds
from the first run's beginning to the last one's end. Only a machine with two idle cores shows what
two workers gain.

Folders of an earlier benchmark are removed, since finished runs would not be done again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from pathlen.training.study.store import Store  # noqa: E402

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
) -> tuple[float, float, float, float]:
    """Carry out a study: seconds before the first run, of all runs, in their steps, after them."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    command = [Path(sys.executable).with_name("pathlen"), "study", "run", path]
    begun = time.time()
    subprocess.run([*command, "--folder", folder, "--workers", str(workers)], check=True)
    ended = time.time()
    with Store(folder) as store:
        runs = store.runs()
    first, last = min(run["started"] for run in runs), max(run["ended"] for run in runs)
    steps = sum(run["summary"]["seconds"] for run in runs)
    return first - begun, last - first, steps, ended - last


def overhead(seconds: float, runs: int, folder: Path) -> None:
    """Print the overhead of runs that sleep."""
    folder.mkdir(parents=True, exist_ok=True)
    start, whole, steps, end = carried_out(sleeping(seconds, runs, folder), folder / "sleep", 1)
    heads = f"{'runs':>6}{'seconds each':>14}{'whole':>9}{'steps':>9}{'overhead':>10}"
    print(heads + f"{'start':>8}{'end':>8}")
    print(
        f"{runs:>6}{steps / runs:>14.2f}{whole:>9.2f}{steps:>9.2f}"
        f"{(whole - steps) / steps:>10.2%}{start:>8.2f}{end:>8.2f}"
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
    took = [carried_out(settings, folder / f"workers-{number}", number)[1] for number in (1, 2)]
    print(f"{'runs':>6}{'one worker':>12}{'two':>9}{'ratio':>8}")
    print(f"{runs:>6}{took[0]:>12.2f}{took[1]:>9.2f}{took[0] / took[1]:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=["overhead", "workers"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("runs/study-benchmark"))
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    folder = options.folder.absolute()
    if "overhead" in options.tables:
        overhead(options.seconds, options.runs, folder)
    if "workers" in options.tables:
        workers(options.recipe, options.set, options.runs, folder)


if __name__ == "__main__":
    main()
