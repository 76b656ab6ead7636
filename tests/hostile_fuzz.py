"""Opens hostile files in every way that pathlen opens files, and tells what they did.

    python -m tests.hostile_fuzz --every 1 --roles slope,index,factor,weight

is the whole of it, an hour or two; CI draws some (`test_hostile_programs.py`). The process has
bounds of memory and time of its own, which end it.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import pathlen
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
    with suppress(pathlen.TraceError):
        check_stated(program)


def main() -> None:
    """Print, as JSON, how the runs ended and what happened to files, by entry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="take one of so many programs")
    parser.add_argument("--first", type=int, default=0, help="and leave out so many at first")
    parser.add_argument("--entries", default=",".join(ENTRIES))
    parser.add_argument("--roles", default="slope")
    parser.add_argument("--seconds", type=int, default=24 * 3600, help="of the processor, at most")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (given.seconds, given.seconds))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ladder.check_stated = check_and_go_on  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            Path(folder),
            islice(programs(given.roles.split(","), Path(folder)), given.first, None, given.every),
            given.entries.split(","),
        )
    print(json.dumps(found, indent=1))


def programs(roles: Sequence[str], folder: Path) -> Iterator[tuple[str, str, list[Call]]]:
    """Role, name and calls of each program; those written by hand come first."""
    sentinel = str(folder / "sentinel")
    for make in (calls_by_hand, calls_of_schemas):
        for role in roles:
            assert role in ROLES
            for label, calls in make(role, sentinel):
                yield role, label, calls


def run(
    folder: Path, made: Iterator[tuple[str, str, list[Call]]], entries: Sequence[str]
) -> dict[str, Any]:
    """Open each program in each way.

    Returns:
        How many runs ended how, by entry; which of them did something to a file, a socket or a
        process; which raised something that is no error of pathlen's; and how many programs.
    """
    sentinel, file = folder / "sentinel", folder / "program.pt2"
    sentinel.write_bytes(_CONTENT)
    for entry in entries:  # what is imported late is imported before anybody watches
        ENTRIES[entry](resolve(str(written(file))).model)
    watch, events = Watch(folder), list[str]()
    ends: Counter[str] = Counter()
    touched, raw, count = [], [], 0
    with audited(events):
        for role, label, calls in made:
            count += 1
            written(file, calls, role)
            before = sentinel.stat()
            for entry in entries:
                watch.seen()
                events.clear()
                end = _end_of(entry, file, raw, f"{label} as a {role}")
                ends[f"{entry}: {end}"] += 1
                found = watch.seen() - {f"{file.name} opened", f"{file.name} read"}
                after = sentinel.stat()
                same = (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
                if found or events or not same or sentinel.read_bytes() != _CONTENT:
                    touched.append([entry, role, label, sorted(found), list(events)])
    watch.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "programs": count,
        "ends": dict(ends),
        "touched": touched,
        "raw": raw,
        "MB": peak >> 10,
    }


def _end_of(entry: str, file: Path, raw: list[str], what: str) -> str:
    try:
        ENTRIES[entry](resolve(str(file)).model)
    except pathlen.PathlenError as error:
        return type(error).__name__
    except Exception as error:
        raw.append(f"{entry}, {what}: {type(error).__name__}: {error}"[:300])
        return "raw error"
    return "ran"


if __name__ == "__main__":
    main()
