"""Opens hostile files in every way that pathlen opens files, and tells what they did.

    python -m tests.hostile_fuzz --every 1 --roles slope,index,factor,weight --results all.jsonl

is the whole of it, an hour or two; CI draws some (`test_hostile_programs.py`). The process has
bounds of memory and time of its own, which end it. With `--results` a run that was ended goes on
with the next program, and the one that ended it is told of.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import pathlen
from pathlen.errors import PathlenError, TraceError
from pathlen.specs.spec import resolve
from pathlen.tracing import ladder
from pathlen.tracing.stated import check_stated
from tests.hostile import ROLES, Call, Watch, audited, calls_by_hand, calls_of_schemas, written

ENTRIES: dict[str, Callable[[Any], Any]] = {
    "measure": pathlen.measure,
    "weights": lambda program: pathlen.measure(program, edges="weights"),
    "verify": lambda program: pathlen.verify(program, samples=1, spellings=1),
    "data": lambda program: pathlen.activity.from_data(program, [torch.randn(2, 4)] * 3),
}
MOST_BYTES = 12 << 30
_CONTENT = bytes(64)


def check_and_go_on(program: Any) -> None:
    """Look at what a program states, in the place of `check_stated`, which would refuse most.

    The sizes that these programs state are wrong, and what comes after is to hold by itself.
    """
    with suppress(TraceError):
        check_stated(program)


def main() -> None:
    """Print, as JSON, how the runs ended and what happened to files, by entry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="take one of so many programs")
    parser.add_argument("--first", type=int, default=0, help="and leave out so many at first")
    parser.add_argument("--entries", default=",".join(ENTRIES))
    parser.add_argument("--roles", default="slope")
    parser.add_argument("--seconds", type=int, default=24 * 3600, help="of the processor, at most")
    parser.add_argument("--results", type=Path, help="lines; what is there is not done anew")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (given.seconds, given.seconds))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ladder.check_stated = check_and_go_on  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        results = given.results or Path(folder) / "results" / "all.jsonl"
        results.parent.mkdir(parents=True, exist_ok=True)
        run(
            Path(folder),
            islice(programs(given.roles.split(","), Path(folder)), given.first, None, given.every),
            given.entries.split(","),
            results,
        )
        print(json.dumps(summary(results), indent=1))


def programs(roles: Sequence[str], folder: Path) -> Iterator[tuple[str, str, list[Call]]]:
    """Role, name and calls of each program; those written by hand come first."""
    sentinel = str(folder / "sentinel")
    for make in (calls_by_hand, calls_of_schemas):
        for role in roles:
            assert role in ROLES
            for label, calls in make(role, sentinel):
                yield role, label, calls


def run(
    folder: Path, made: Iterator[tuple[str, str, list[Call]]], entries: Sequence[str], results: Path
) -> None:
    """Open each program in each way, and write down what came of it, a line for each.

    Each program has a line when it is begun and another one when it has ended.
    """
    sentinel, file = folder / "sentinel", folder / "program.pt2"
    sentinel.write_bytes(_CONTENT)
    for entry in entries:  # what is imported late is imported before anybody watches
        ENTRIES[entry](resolve(str(written(file))).model)
    watch, events = Watch(folder), list[str]()
    there = {(one["role"], one["label"]) for one in _lines(results)}
    with results.open("a", encoding="utf-8", buffering=1) as lines, audited(events):
        for role, label, calls in made:
            if (role, label) in there:
                continue
            name = {"role": role, "label": label}
            lines.write(json.dumps(name) + "\n")
            written(file, calls, role)
            before, runs = sentinel.stat(), []
            for entry in entries:
                watch.seen()
                events.clear()
                began = time.process_time()
                end, raw = _end_of(entry, file)
                seconds = time.process_time() - began
                found = watch.seen() - {f"{file.name} opened", f"{file.name} read"}
                touched = sorted(found) + list(events)
                after = sentinel.stat()
                same = (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
                if not same or sentinel.read_bytes() != _CONTENT:
                    touched.append("the sentinel is another")
                runs.append([entry, end, raw, touched, round(seconds, 2)])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            lines.write(json.dumps({**name, "runs": runs, "MB": peak}) + "\n")
    watch.close()


def _lines(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def summary(results: Path) -> dict[str, Any]:
    """What the lines of a file of results come to.

    Returns:
        How many programs, and how many runs ended how, by entry; which of them did something to a
        file, a socket or a process; which raised something that is no error of pathlen's; which
        ended the process; the most memory that one had, and the slowest runs, in seconds of the
        processor.
    """
    lines = _lines(results)
    done = [one for one in lines if "runs" in one]
    ended = {(one["role"], one["label"]) for one in done}
    runs = [(one["role"], one["label"], *run) for one in done for run in one["runs"]]
    return {
        "programs": len(done),
        "ends": dict(Counter(f"{entry}: {end}" for _, _, entry, end, *_ in runs)),
        "touched": [run for run in runs if run[5]],
        "raw": [run for run in runs if run[4]],
        "ended the process": [
            [one["role"], one["label"]]
            for one in lines
            if "runs" not in one and (one["role"], one["label"]) not in ended
        ],
        "MB": max((one["MB"] for one in done), default=0),
        "slowest": sorted(([run[6], *run[:4]] for run in runs), reverse=True)[:5],
    }


def _end_of(entry: str, file: Path) -> tuple[str, str]:
    try:
        ENTRIES[entry](resolve(str(file)).model)
    except PathlenError as error:
        return type(error).__name__, ""
    except Exception as error:
        return "raw error", f"{type(error).__name__}: {error}"[:300]
    return "ran", ""


if __name__ == "__main__":
    main()
