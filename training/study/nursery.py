"""A process that has torch and everything else loaded, and forks one process for each run.

A run needs a process of its own: random numbers, threads and deterministic algorithms are those of
a process, and one that dies of lack of memory takes no other run with it. Loading torch takes
seconds and forking takes milliseconds. `multiprocessing` has the same in its fork server, which
workers of Dask may not use: they are daemons, which it allows no children.

Jobs come as lines of JSON on standard input, outcomes go as lines of JSON to standard output. An
empty line, or the end of the input (whoever gave the job is dead), stops the run of the moment.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import time
from typing import Any

from pathlen.training.study.jobs import GRACE, Job, Outcome

INPUT, OUTPUT = 0, 1


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(OUTPUT), "wb")
    os.dup2(2, OUTPUT)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gives the jobs
    load()
    lines = _Lines()
    with contextlib.suppress(BrokenPipeError):  # nobody is there any more
        while (line := lines.next()) is not None:
            if line.strip():
                job = Job.of(json.loads(line))
                load_for(job)
                outcome = _in_a_child(job, lines)
                answers.write(json.dumps(outcome).encode() + b"\n")
                answers.flush()


def load() -> None:
    """Import what runs need, and let the kernels be read from their cache."""
    import pathlen
    import pathlen.training.study.child  # torch and the training loop come with it

    pathlen.measure(pathlen.PathGraph.from_edges([(0, 1)], activity=[0, 0]))


LIBRARIES = {
    "digits": ("sklearn.datasets",),
    "number_words": ("num2words", "tokenizers", "sacrebleu"),
    "text_pairs": ("tokenizers", "sacrebleu"),
}
"""What tasks import when they are made, which for some takes longer than a short run."""


def load_for(job: Job) -> None:
    """Import what the job's task needs, once for all of its runs."""
    for name in LIBRARIES.get(str(job.recipe["task"].get("name")), ()):
        with contextlib.suppress(ImportError):  # the run tells it, with what to install
            importlib.import_module(name)


class _Lines:
    """Lines from standard input, without a buffer that would hide from `select` what is there."""

    def __init__(self) -> None:
        self._rest = b""

    def next(self) -> bytes | None:
        """The next line, None at the end."""
        while b"\n" not in self._rest:
            part = os.read(INPUT, 1 << 16)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _in_a_child(job: Job, lines: _Lines) -> dict[str, Any]:
    """Fork, and wait for the outcome; whatever comes by the input meanwhile means to stop."""
    inlet, outlet = os.pipe()
    watched, kept = os.pipe()
    child = os.fork()
    if child == 0:
        from pathlen.training.study.child import live

        for descriptor in (inlet, kept, INPUT):
            os.close(descriptor)
        os.open(os.devnull, os.O_RDONLY)  # takes the place of the input
        live(job, outlet, watched)
    for descriptor in (outlet, watched):
        os.close(descriptor)
    answer = _answer(child, inlet, lines)
    _, status = os.waitpid(child, 0)
    for descriptor in (inlet, kept):
        os.close(descriptor)
    try:
        outcome: dict[str, Any] = json.loads(answer)
    except ValueError:
        outcome = _ended(status).plain()
    return outcome


def _ended(status: int) -> Outcome:
    """What is to be said of a process that gave no answer."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; a machine out of memory does that" if -code == signal.SIGKILL else ""
        return Outcome("failed", f"the process of the run was ended by {name}{memory}")
    return Outcome("failed", f"the process of the run ended with code {code}; see its log")


def _answer(child: int, inlet: int, lines: _Lines) -> bytes:
    """Read what a child says to its end, or stop it."""
    parts: list[bytes] = []
    until: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(inlet, selectors.EVENT_READ)
        selector.register(INPUT, selectors.EVENT_READ)
        while True:
            wait = None if until is None else max(0.0, until - time.monotonic())
            ready = {key.fd for key, _ in selector.select(wait)}
            if INPUT in ready:
                selector.unregister(INPUT)
                lines.next()
                os.kill(child, signal.SIGTERM)
                until = time.monotonic() + GRACE
            if inlet in ready:
                part = os.read(inlet, 1 << 16)
                if not part:
                    return b"".join(parts)
                parts.append(part)
            elif until is not None and time.monotonic() >= until:
                os.kill(child, signal.SIGKILL)
                until = None


if __name__ == "__main__":
    main()
