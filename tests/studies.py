"""Tiny studies, processes that carry them out, and what a study must have left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pathlen.training.records import rows_text, summary_text
from pathlen.training.run_folder import ATTEMPT
from pathlen.training.study.folder import StudyFolder, new_attempt
from pathlen.training.study.keys import run_key
from pathlen.training.study.plan import PlannedRun
from tests.training_runs import TINY, changed

PATIENCE = 300  # seconds; a test that needs them has failed
SHORT = changed(TINY, train__epochs=1, linearize__epochs=1, finetune__epochs=0)
del SHORT["machine"]["threads"]
LONG = changed(SHORT, train__epochs=40)
HELD = """
import os, time
from pathlen.training import MLP

class Held(MLP):
    def forward(self, x):
        if self.training and not os.path.exists({mark!r}):
            time.sleep(0.1)
        return super().forward(x)
"""


def held(folder: Path) -> tuple[dict[str, Any], Path]:
    """`LONG`, as a recipe whose steps take long until a file is there, and that file.

    A run that is to be stopped must not come to its end before it is: how long a process takes to
    begin tells nothing about how long another one trains.
    """
    mark = folder / "mark"
    (folder / "held.py").write_text(HELD.format(mark=str(mark)))
    model = {"name": f"{folder / 'held.py'}:Held", "in_features": 64, "width": 8, "depth": 2}
    return changed(LONG, model=model), mark


def settings(**changes: Any) -> dict[str, Any]:
    """A study of two strengths and two seeds."""
    base = {
        "name": "small",
        "recipe": SHORT,
        "grid": {"omega": [0.1, 5.0]},
        "seeds": [0, 1],
        "workers": 2,
    }
    return base | changes


def begin(folder: Path, study: Mapping[str, Any], *arguments: str) -> subprocess.Popen[str]:
    """Begin a study in a process of its own, in `folder`; its own folder is studies/NAME."""
    (folder / "study.yaml").write_text(yaml.safe_dump(dict(study), sort_keys=False))
    return subprocess.Popen(
        [sys.executable, "-m", "pathlen", "study", "run", "study.yaml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Of processes: they find the package that is tested, and use one core."""
    here = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process: its exit code and what it printed."""
    out, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, out, errors


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is so, and give it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(what)


def under_way(home: Path) -> list[str]:
    """Keys of runs that have a checkpoint and are not finished."""
    return [
        path.parent.name
        for path in home.glob("runs/*/metrics.jsonl")
        if not (path.parent / "summary.json").exists()
    ]


def logs(home: Path) -> dict[str, str]:
    """What each run printed."""
    return {path.stem: path.read_text() for path in home.glob("logs/*.log")}


def put(
    home: StudyFolder,
    run: PlannedRun,
    rows: Sequence[Mapping[str, Any]],
    **more: Any,
) -> None:
    """Write a run's rows and how it ended, as `train` and the process of a run do."""
    folder = home.of_run(run.key)
    folder.mkdir(parents=True)
    phases = {row["phase"]: row for row in rows}
    summary = {"metric": "accuracy", "phases": phases, "seconds": rows[-1]["seconds"]} | more
    (folder / "metrics.jsonl").write_text(rows_text(rows))
    key = run_key(home.recipe(run))
    (folder / "summary.json").write_text(summary_text(summary, key, rows))
    begun = new_attempt(None, "a machine")
    home.note(run.key, begun.model_copy(update={"ended": begun.begun + 12.0}))


def fail(home: StudyFolder, run: PlannedRun, error: str) -> None:
    """Write that a run failed."""
    home.of_run(run.key).mkdir(parents=True)
    home.note(run.key, new_attempt(None).model_copy(update={"error": error}))


def attempts(home: Path) -> dict[str, dict[str, Any]]:
    """What the runs' attempt.json hold, by their keys."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in home.glob(f"runs/*/{ATTEMPT}")
    }


def check_each_done_once(home: Path, number: int) -> None:
    """All runs are done, and none of their epochs was computed twice."""
    folders = [path.parent for path in home.glob("runs/*/summary.json")]
    assert len(folders) == len([*home.glob("runs/*")]) == number
    for folder in folders:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        printed = logs(home)[folder.name]
        for row in map(json.loads, lines):
            assert printed.count(f"\nepoch {row['epoch']:>3} ") + printed.startswith(
                f"epoch {row['epoch']:>3} "
            ) == (1), printed


@contextmanager
def cluster(folder: Path, port: int) -> Iterator[list[subprocess.Popen[str]]]:
    """A scheduler of Dask and two workers, as processes on this machine."""
    address = f"tcp://127.0.0.1:{port}"
    plain = ("--no-dashboard",)
    commands = [
        ("scheduler", "--host", "127.0.0.1", "--port", str(port), *plain),
        *[("worker", address, "--nthreads", "1", "--no-nanny", *plain)] * 2,
    ]
    processes = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"dask-{number}.log").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "dask", *command],
                        cwd=folder,
                        stdout=log,
                        stderr=log,
                        env=environment(),
                        text=True,
                    )
                )
        for number in (1, 2):
            path = folder / f"dask-{number}.log"
            wait_for(lambda path=path: "Registered to" in path.read_text(), "workers of Dask")
        yield processes
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(PATIENCE)
